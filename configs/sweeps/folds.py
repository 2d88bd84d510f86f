"""Cross-validation in five folds: every crystal is tested once, by a network that has not seen it. For small sets.

  python -m experiments.sweep --config=configs/sweeps/folds.py:band_gap --workdir=runs/folds \
    --config.data.source=directory --config.data.path=my_crystals --config.data.target=band_gap --config.data.unit=eV
After the colon as in seeds.py. results.csv has the error of each fold in test_mae.
"""

from ml_collections import ConfigDict

import configs
from cgcnn_jax import sweep

NUM_FOLDS = 5


def get_config(name: str | None = None) -> ConfigDict:
    config = configs.named(name or "formation_energy")
    config.split.kind, config.split.num_folds = "k_fold", NUM_FOLDS
    return config


def get_trials(name: str | None = None) -> list[sweep.Overrides]:
    return sweep.grid({"data.fold": list(range(NUM_FOLDS))})
