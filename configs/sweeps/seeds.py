"""Five networks alike but for their seeds, trained as one program; together they predict better than one, with a spread.

  python -m experiments.sweep --config=configs/sweeps/seeds.py:band_gap --workdir=runs/gap --config.data.source=...
  python -m experiments.predict --workdir=runs/gap/trials/0000 --workdir=runs/gap/trials/0001 [...] --input=...
After the colon: a property file of configs/ and, after another one, its preset, as in seeds.py:band_gap:best;
formation_energy if there is none. All have the same split.
"""

import importlib
from pathlib import Path

from ml_collections import ConfigDict

from cgcnn_jax import sweep

SEEDS = range(5)


def get_config(name: str | None = None) -> ConfigDict:
    file, _, preset = (name or "formation_energy").partition(":")
    known = sorted(path.stem for path in Path(__file__).parents[1].glob("[!_]*.py"))
    if file not in known:
        raise ValueError(f"unknown property {file!r} after the colon; choose one of {', '.join(known)}")
    return importlib.import_module(f"configs.{file}").get_config(preset or None)


def get_trials(name: str | None = None) -> list[sweep.Overrides]:
    return sweep.grid({"train.seed": list(SEEDS)})
