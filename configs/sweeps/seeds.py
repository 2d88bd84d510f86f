"""Five networks alike but for their seeds, trained as one program; together they predict better than one, with a spread.

  python -m experiments.sweep --config=configs/sweeps/seeds.py:band_gap --workdir=runs/gap --config.data.source=...
  python -m experiments.predict --workdir=runs/gap/trials/0000 --workdir=runs/gap/trials/0001 [...] --input=...
After the colon: a property file of configs/, formation_energy if none is named. All have the same split.
"""

import importlib

from ml_collections import ConfigDict

from cgcnn_jax import sweep

SEEDS = range(5)


def get_config(name: str | None = None) -> ConfigDict:
    return importlib.import_module(f"configs.{name or 'formation_energy'}").get_config()


def get_trials(name: str | None = None) -> list[sweep.Overrides]:
    return sweep.grid({"train.seed": list(SEEDS)})
