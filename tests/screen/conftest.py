from pathlib import Path

import pytest

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_demo
from tests.screen.models import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "energy")


@pytest.fixture(scope="session")
def crystals() -> list[Crystal]:
    """40 of the embedded crystals."""
    return [crystal for crystal, _ in zip(read_demo(), range(40), strict=False)]
