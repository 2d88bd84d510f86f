"""A sweep of seconds, for tests and as a process to be killed: python -m tests.sweep.problem FOLDER [hang]."""

import json
import sys
import time
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import sweep
from cgcnn_jax.data import dataset
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.sweep.runner import SweepWatcher
from configs import formation_energy

SPACE: sweep.Space = {"optimizer.learning_rate": sweep.Uniform(1e-3, 1e-2, log=True), "model.features": [3, 4]}
N_TRIAL = 4


def config() -> ConfigDict:
    """Four epochs of a small network, saved after each."""
    config = formation_energy.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.data.target, config.data.unit, config.data.cache = "Z", "", ""
        config.train.epochs, config.train.batch_size, config.train.save_seconds = 4, 6, 0.0
        config.model.features, config.model.num_convs, config.model.conv = 4, 1, "sum"
    return config


def load(config: ConfigDict, atom_table: np.ndarray) -> Dataset:
    """30 CsCl-type crystals, labelled with the sum of their atomic numbers."""
    entries = [
        Crystal.from_arrays(f"{a}-{b}", (3 + 0.02 * (a + b)) * np.eye(3), [a, b], [[0, 0, 0], [0.5] * 3], {"Z": a + b})
        for a, b in permutations(range(1, 7), 2)
    ]
    return dataset.load(entries, configs.build_featurizer(config, atom_table), ["Z"])


class Hanging(SweepWatcher):
    """Never comes back from the second epoch, and says so by a file."""

    def __init__(self, sign: Path) -> None:
        self._sign = sign

    def epoch(self, record: Mapping[str, Any]) -> None:
        if record["epoch"] == 1:
            self._sign.write_text("hangs")
            time.sleep(3600)


if __name__ == "__main__":
    from cgcnn_jax.sweep.search import run_search

    folder = Path(sys.argv[1])
    watcher = Hanging(folder / "hangs") if "hang" in sys.argv else SweepWatcher()
    print(json.dumps(run_search(config(), SPACE, folder, N_TRIAL, data=load, watcher=watcher)))
