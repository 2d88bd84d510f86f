import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from cgcnn_jax.sweep.folder import SweepFolder
from tests.experiments.runs import Run
from tests.experiments.starts import begin

SWEEP = """
from cgcnn_jax import sweep
from configs import formation_energy


def get_config(preset=None):
    return formation_energy.get_config(preset)


def get_trials(preset=None):
    return sweep.grid({"model.num_convs": [1, 2], "optimizer.learning_rate": [1e-3, 1e-2]})
"""


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sweep") / "small.py"
    file.write_text(SWEEP)
    return file


def test_what_is_missing_is_said_in_a_line(run: Run, sweep_file: Path, tmp_path: Path) -> None:
    workdir = f"--workdir={tmp_path / 'sweep'}"
    done = run("sweep", "--config=configs/formation_energy.py", workdir, status=1)
    assert "configs/formation_energy.py has no get_trials(preset)" in done.stderr
    done = run("sweep", f"--config={sweep_file}", workdir, "--search=optuna", status=1)
    assert "has no get_space(preset)" in done.stderr


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on_repeating_nothing(
    run: Run, sweep_file: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "sweep"
    command = ["sweep", f"--config={sweep_file}", f"--workdir={workdir}"]
    command += ["--config.train.epochs=30", "--config.model.features=4", "--config.data.workers=1"]
    folder = SweepFolder(workdir)
    started = begin(*command, errors=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(folder.trial(0).records()) < 3:
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    out, _ = started.communicate(timeout=300)
    assert started.returncode == 75 and "the same command goes on" in out
    n_before = len(folder.trial(0).records())
    assert 3 <= n_before < 30
    again = run(*command)
    assert f"going on after {n_before} of 30 epochs" in again.stdout
    table = pd.read_csv(workdir / "results.csv")
    assert table["status"].tolist() == ["finished"] * 4
    for number in range(4):
        assert [record["epoch"] for record in folder.trial(number).records()] == list(range(30))
