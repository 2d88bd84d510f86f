"""Folders that may be read and not written, seen by another user, for root may write anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.runs import ROOT
from tests.screen.models import save_model

SCRIPT = """
import os, sys
from pathlib import Path
from cgcnn_jax import Predictor
from cgcnn_jax.data import store
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.run import run
from cgcnn_jax.screen.screening import screen
from tests.sweep.problem import config, load

os.setgid(65534)
os.setuid(65534)
folder = Path(sys.argv[1])
crystal = next(iter(read_demo()))
print(len(Predictor.restore(folder / "model").predict_entries([crystal]).query("reason == ''")))
for write in (
    lambda: run(config(), folder / "run", data=load),
    lambda: screen([crystal], [folder / "model"], folder / "screened"),
    lambda: store.build([crystal], Featurizer(), cache=folder / "cache"),
):
    try:
        write()
    except OSError as error:
        print(error.strerror, error.filename)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_from_a_read_only_folder_models_predict_and_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.owner() == "root" and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    save_model(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "1",
        f"Permission denied {tmp_path / 'run'}",
        f"Permission denied {tmp_path / 'screened'}",
        f"Permission denied {tmp_path / 'cache'}",
    ], done.stderr[-2000:]
