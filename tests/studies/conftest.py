from pathlib import Path

import pandas as pd
import pytest

from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.data.sources import read_jsonl
from cgcnn_jax.studies.perovskites.crystals import tabulate


@pytest.fixture(scope="session")
def perovskite_folder(shared_data: Path) -> Path:
    """The 18,928 cells; skips where they are absent."""
    folder = shared_data / "matbench_perovskites"
    if not folder.is_dir():
        pytest.skip(f"no perovskites at {folder}")
    return folder


@pytest.fixture(scope="session")
def perovskites(perovskite_folder: Path) -> tuple[pd.DataFrame, list[Rejected]]:
    """Their table, and what is none."""
    table, _, rejected = tabulate(read_jsonl(perovskite_folder))
    return table, rejected
