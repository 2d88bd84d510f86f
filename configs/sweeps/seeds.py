"""Five networks alike but for their seeds, trained as one program; together they predict better than one, with a spread.

  python -m experiments.sweep --config=configs/sweeps/seeds.py:band_gap --workdir=runs/gap --config.data.source=...
  python -m experiments.predict --workdir=runs/gap/trials/0000 --workdir=runs/gap/trials/0001 [...] --input=...
After the colon: a property file of configs/ and, after another one, its preset, as in seeds.py:band_gap:best;
formation_energy if there is none. All have the same split.
"""

from ml_collections import ConfigDict

import configs
from cgcnn_jax import sweep

SEEDS = range(5)


def get_config(name: str | None = None) -> ConfigDict:
    return configs.named(name or "formation_energy")


def get_trials(name: str | None = None) -> list[sweep.Overrides]:
    return sweep.grid({"train.seed": list(SEEDS)})
