"""Screening as a user starts it, and what may befall its processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax import config as configs
from cgcnn_jax.data import store
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.data.sources.jsonl import line_of
from cgcnn_jax.predict import Predictor
from configs import base
from tests.experiments.runs import ROOT, Run
from tests.experiments.starts import begin
from tests.screen.models import save_model

psutil = pytest.importorskip("psutil")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "energy")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All embedded crystals as JSON lines, and one line that is none."""
    file = tmp_path_factory.mktemp("lines") / "demo.jsonl"
    file.write_text("".join(line_of(crystal) for crystal in read_demo()) + '{"id": "odd"}\n')
    return file


def parts(output: Path) -> dict[Path, int]:
    """When each finished part was written."""
    return {part: part.stat().st_mtime_ns for part in (output / "parts").glob("[0-9]*")}


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 200
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    alive = [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "spawn_main" in " ".join(child.cmdline())]


def check(output: Path, model: Path, lines: Path) -> None:
    """Every structure has one row, with what Predictor says of it."""
    table = pd.concat([pd.read_parquet(part) for part in sorted((output / "parts").iterdir())], ignore_index=True)
    wanted = Predictor.restore(model).predict_entries(read_demo())
    assert table["id"].tolist() == [*wanted["id"], "odd"]
    # float32, in batches of another shape; some values are near zero.
    np.testing.assert_allclose(table["prediction"][:-1], wanted["prediction"], rtol=1e-5, atol=1e-6)
    assert "no lattice" in table["reason"].iloc[-1]
    best = pd.read_csv(output / "top.csv")
    assert best["id"].tolist() == table.sort_values("prediction", kind="stable")["id"].head(5).tolist()


def test_stopped_killed_and_robbed_of_a_worker_it_accounts_for_every_structure(
    model: Path, lines: Path, tmp_path: Path
) -> None:
    command = (f"--workdir={model}", f"--input={lines}", f"--output={tmp_path}", "--shard_size=40", "--top=5")
    command += ("--workers=2", "--predict=parent")

    # A scheduler's SIGTERM: what is in flight is finished, and the status says that the command goes on.
    first = begin("screen", *command)
    wait_until(lambda: len(parts(tmp_path)) >= 3, first)
    first.send_signal(signal.SIGTERM)
    message = first.communicate(timeout=100)[1]
    assert first.returncode == 75, message
    assert "the same command goes on" in message
    after_stop = parts(tmp_path)
    assert len((tmp_path / "shards.jsonl").read_text().splitlines()) == len(after_stop) < 70

    # kill -9: at most what was in flight is lost, and the workers end by themselves.
    second = begin("screen", *command)
    wait_until(lambda: len(parts(tmp_path)) >= len(after_stop) + 3, second)
    orphans = workers_of(second)
    second.kill()
    second.communicate()
    psutil.wait_procs(orphans, timeout=20)
    assert not any(worker.is_running() for worker in orphans)
    n_line = len((tmp_path / "shards.jsonl").read_text().splitlines())
    after_kill = parts(tmp_path)
    assert len(after_kill) - n_line in (0, 1)

    # A killed worker: the rest is done by others.
    third = begin("screen", *command)
    wait_until(lambda: len(parts(tmp_path)) >= len(after_kill) + 3, third)
    workers_of(third)[0].kill()
    message = third.communicate(timeout=200)[1]
    assert third.returncode == 0, message
    assert f"{len(list(read_demo()))} predictions in {tmp_path}, 1 structures without one" in message
    final = parts(tmp_path)
    assert after_stop.items() <= final.items()
    assert len(set(after_kill.items()) - set(final.items())) <= 1
    check(tmp_path, model, lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input=absent.jsonl",), "--input=absent.jsonl: no such file or folder"),
        (("--input={lines}", "--by=gap", "--top=1"), "no column 'gap' to rank by (--by); choose one of prediction"),
        # Without the package, or without other ranks.
        (("--input={lines}", "--scheduler=mpi"), "--scheduler=mpi"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], message: str, run: Run, model: Path, lines: Path, tmp_path: Path
) -> None:
    given = [argument.format(lines=lines) for argument in arguments]
    done = run("screen", f"--workdir={model}", f"--output={tmp_path}", *given, status=1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scheduler_that_does_not_answer_is_told_in_one_line(model: Path, lines: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    # The command, with a second of patience instead of 15.
    program = """
import runpy, sys
from experiments import cli
cli._SECONDS_FOR_SCHEDULER = 1
runpy.run_module("experiments.screen", run_name="__main__", alter_sys=True)
"""
    flags = (f"--workdir={model}", f"--output={tmp_path}", f"--input={lines}", "--scheduler=tcp://127.0.0.1:1")
    done = subprocess.run([sys.executable, "-c", program, *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--scheduler=tcp://127.0.0.1:1: no Dask scheduler answers there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_dask_cluster_may_lose_a_worker_and_its_scheduler(
    model: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    from benchmarks.screening import cluster
    from experiments import cli

    monkeypatch.setattr(cli, "_SECONDS_FOR_SCHEDULER", 10)
    output = tmp_path / "out"
    command = (f"--workdir={model}", f"--input={lines}", f"--output={output}", "--shard_size=20", "--top=5")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with cluster(tmp_path / "one") as (address, nannies):
        first = begin(*command, f"--scheduler={address}")
        wait_until(lambda: len(parts(output)) >= 3, first)
        # A worker and its nanny, for good.
        for process in [*nannies[0].children(recursive=True), nannies[0]]:
            process.kill()
        n_part = len(parts(output))
        wait_until(lambda: len(parts(output)) >= n_part + 10, first)
    # The cluster is gone.
    message = first.communicate(timeout=200)[1]
    assert first.returncode == 1, message
    assert "no Dask scheduler answers there" in message
    assert "Traceback" not in message.splitlines()[-1]
    before = parts(output)
    with cluster(tmp_path / "two") as (address, _):
        second = begin(*command, f"--scheduler={address}")
        message = second.communicate(timeout=300)[1]
        assert second.returncode == 0, message
        # Graphs for training are built there as well.
        featurizer = configs.build_featurizer(base.get_config(), configs.build_atom_table(base.get_config()))
        executor = cli.executor(0, address)
        assert executor is not None
        built = store.build(read_demo(), featurizer, executor=executor)
        executor.shutdown(cancel_futures=True)
    assert before.items() <= parts(output).items()
    check(output, model, lines)
    here = store.build(read_demo(), featurizer)
    assert built.ids == here.ids
    for mine, wanted in zip(built.graphs, here.graphs, strict=True):
        np.testing.assert_array_equal(mine, wanted)
