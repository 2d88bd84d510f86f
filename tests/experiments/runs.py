"""How entry points are started in tests: small settings, and a folder in the published layout."""

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

# Small enough for seconds, large enough to learn something. A schedule that does not look at the number of epochs makes
# one program of runs that differ in it, so that it is compiled once for all tests.
SMALL = (
    "--config.optimizer.schedule=constant",
    "--config.train.epochs=3",
    "--config.train.batch_size=16",
    "--config.model.features=8",
    "--config.model.num_convs=2",
    "--config.data.workers=1",
)
TINY = (*SMALL, "--noreport")  # of experiments.train


def directory_flags(folder: Path) -> tuple[str, ...]:
    return (
        "--config=configs/formation_energy.py",
        "--config.data.source=directory",
        f"--config.data.path={folder}",
        "--config.data.target=volume",
        "--config.data.unit=Å³/atom",
    )
