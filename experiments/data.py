"""Loading the crystals of a configuration, with a progress bar."""

import sys

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cgcnn_jax import run
from cgcnn_jax.data.dataset import Dataset
from experiments import cli


def load(config: ConfigDict, atom_table: np.ndarray) -> Dataset:
    """The configured crystals. Raises DataError for what cannot be used."""
    executor = cli.executor(config.data.workers)
    try:
        with tqdm(desc="building graphs", unit="crystal", leave=False, file=sys.stderr) as bar:

            def advance(done: int, total: int) -> None:
                bar.total = total
                bar.update(done)

            return run.load_dataset(config, atom_table, executor=executor, on_progress=advance)
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)
