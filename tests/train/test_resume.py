"""Stopping and resuming gives bit for bit the parameters of an undisturbed run, on the CPU."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgcnn_jax.train import loop
from cgcnn_jax.train.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("quicker_compiling")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

VARIANTS = {
    "adam with dropout, averaging and one_cycle": {
        "model": {"dropout": 0.3},
        "settings": {"average_decay": 0.9},
        "optimizer": {"schedule": "one_cycle", "l2": 1e-3},
    },
    "sgd with milestones and clipping": {
        "model": {"conv": "gated", "pool": "softmax"},
        "optimizer": {"name": "sgd", "schedule": "milestones", "milestones": (1,), "clip_norm": 0.5},
    },
}


@pytest.fixture(scope="module", params=VARIANTS)
def undisturbed(request, make_problem):
    problem = make_problem(**VARIANTS[request.param])
    records = []
    return problem, problem.run(on_epoch=records.append), records


class StopAt:
    """should_stop that says yes at its n-th question."""

    def __init__(self, n: int) -> None:
        self.n, self.asked = n, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.n


@pytest.mark.parametrize("stops", [(2,), (1, 4)], ids=str)
def test_a_stopped_and_resumed_run_ends_as_an_undisturbed_one(undisturbed, assert_same, tmp_path, stops):
    # Three epochs of five steps. The first stretch of a run is one step and the next one is too: question 1 comes after
    # one step and question 2 after two, in the middle of an epoch.
    problem, expected, records = undisturbed
    steps, resumed_records = [], []
    for stop in stops:
        stopped = problem.run(tmp_path, should_stop=StopAt(stop), on_epoch=resumed_records.append)
        assert not stopped.is_finished
        steps.append(int(stopped.state.step))
    assert steps[0] == {(2,): 2, (1, 4): 1}[stops]
    assert 0 < steps[-1] < 15
    finished = problem.run(tmp_path, on_epoch=resumed_records.append)
    assert finished.is_finished
    assert_same(jax.device_get(finished.state), jax.device_get(expected.state))
    np.testing.assert_array_equal(finished.values, expected.values)

    def without_time(rows):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert without_time(resumed_records) == without_time(records)


def test_the_same_arguments_give_the_same_parameters(undisturbed, assert_same):
    problem, expected, _ = undisturbed
    assert_same(jax.device_get(problem.run().state), jax.device_get(expected.state))


def test_another_seed_gives_others(make_problem):
    one, other = (make_problem(settings={"epochs": 1, "seed": seed}).run().state.weights.params for seed in (0, 1))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_a_resumed_run_remembers_its_best_error(make_problem, tmp_path):
    # After the first two epochs all labels are replaced by far ones: nothing beats the best of before.
    problem = make_problem()
    first = problem.changed(settings={"epochs": 2}).run(tmp_path)
    records = []
    resumed = problem.changed(targets=problem.targets + 1000).run(tmp_path, on_epoch=records.append)
    assert [record["epoch"] for record in records] == [2]
    assert records[0]["val_error"] > float(first.state.best_error)
    assert not records[0]["is_best"]
    assert float(resumed.state.best_error) == float(first.state.best_error)
    assert int(resumed.state.best_epoch) == int(first.state.best_epoch)
    jax.tree.map(np.testing.assert_array_equal, resumed.state.best, first.state.best)


def test_a_finished_run_is_not_trained_again(make_problem, assert_same, tmp_path):
    finished = make_problem().run(tmp_path)
    records = []
    again = make_problem().run(tmp_path, on_epoch=records.append)
    assert records == [] and again.is_finished
    assert_same(jax.device_get(again.state), jax.device_get(finished.state))


@pytest.mark.slow
def test_a_clock_that_jumps_by_hours_changes_no_number(make_problem, assert_same, tmp_path, monkeypatch):
    problem = make_problem(settings={"save_seconds": 60.0})
    expected = problem.run()
    chance, real = random.Random(0), time.time

    def jumping() -> float:
        return real() + 3600 * chance.uniform(-30, 30)

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=jumping, perf_counter=jumping))
    assert not problem.run(tmp_path, should_stop=StopAt(3)).is_finished
    finished = problem.run(tmp_path)
    assert_same(jax.device_get(finished.state), jax.device_get(expected.state))


def test_a_checkpoint_holds_what_is_said_about_it(make_problem, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.about()) == (0, None)
    state = make_problem(settings={"epochs": 1}).run(tmp_path).state
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 5
        assert checkpoints.about() == {"name": "problem", "numbers": [1, 2.5]}
        assert int(checkpoints.restore(state).step) == 5


def test_an_empty_folder_restores_nothing(make_problem, tmp_path):
    state = make_problem(settings={"epochs": 1}).run().state
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state) is None


def test_two_checkpoints_are_kept(make_problem, tmp_path):
    make_problem(settings={"save_seconds": 0.0}).run(tmp_path)
    assert len([folder for folder in tmp_path.iterdir() if folder.name.isdigit()]) == 2


def test_a_killed_run_goes_on_to_the_same_end(make_problem, assert_same, tmp_path):
    spec = importlib.util.spec_from_file_location("killed_run", HERE / "conftest.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules["killed_run"] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    problem = make_problem(**script.KILLED)
    expected = problem.run()
    process = subprocess.Popen(
        [sys.executable, HERE / "conftest.py", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 60
        # A save in progress has a longer name than its step.
        while not any(folder.name.isdigit() for folder in tmp_path.iterdir()):
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            assert time.monotonic() < until, "no checkpoint within a minute"
            time.sleep(0.02)
        delay = random.uniform(0, 1.0)  # any moment: between saves and in the middle of one
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    with Checkpoints(tmp_path) as checkpoints:
        step = checkpoints.latest_step()
    assert 0 < step < 200, f"killed {delay:.3f} s after the first save, at step {step}"
    resumed = problem.changed(settings={"save_seconds": 1e9}).run(tmp_path)
    assert_same(jax.device_get(resumed.state), jax.device_get(expected.state))
