"""Folders that may be read and not written. Root, who may write anywhere, gives that right up for the test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.runs import ROOT
from tests.screen.models import save_model

SCRIPT = """
import sys
from pathlib import Path
from cgcnn_jax import Predictor
from cgcnn_jax.data import store
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.run import run
from cgcnn_jax.screen.screening import screen
from tests.sweep.problem import config, load

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
def test_from_a_read_only_folder_models_predict_and_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    lesser = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if lesser and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and there is no setpriv to give that up")
    save_model(tmp_path / "model")
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = subprocess.run(
            [*lesser, sys.executable, "-c", SCRIPT, tmp_path],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.stdout.splitlines() == [
        "1",
        f"Permission denied {tmp_path / 'run'}",
        f"Permission denied {tmp_path / 'screened'}",
        f"Permission denied {tmp_path / 'cache'}",
    ], done.stderr[-2000:]
