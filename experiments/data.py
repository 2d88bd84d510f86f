"""Loading the crystals of a configuration, with a progress bar."""

import sys
from collections.abc import Iterable

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cgcnn_jax import run
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.dataset import Dataset
from experiments import cli


def load(config: ConfigDict, atom_table: np.ndarray, entries: Iterable[Entry | Rejected] | None = None) -> Dataset:
    """The configured crystals, or those of `entries`. Raises DataError for what cannot be used."""
    executor = cli.executor(config.data.workers)
    try:
        with tqdm(desc="building graphs", unit="crystal", leave=False, file=sys.stderr) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done)

            return run.load_dataset(config, atom_table, entries, executor=executor, on_progress=advance)
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)
