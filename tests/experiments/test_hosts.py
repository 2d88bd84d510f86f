"""Several processes that train as one: the same run, whoever is lost, and going on with fewer of them."""

import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

from experiments import hosts
from tests.compiling import quick
from tests.experiments.runs import ROOT, TINY, Run, directory_flags

Start = Callable[..., list[subprocess.Popen[str]]]


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start("--workdir=...", ...) -> two processes that train as one."""
    processes: list[subprocess.Popen[str]] = []

    def two(*arguments: str, slurm: bool = False) -> list[subprocess.Popen[str]]:
        port = free_port()
        for number in (0, 1):
            environment = os.environ | quick() | {"CGCNN_JAX_CACHE": str(tmp_path / "cache")}
            if slurm:
                # As srun sets them for two tasks of one node; jax makes the port of the job's number.
                environment |= {"SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
                environment |= {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_STEP_NUM_NODES": "1"}
                flags = ["--distributed=auto"]
            else:
                flags = [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={number}"]
            command = [sys.executable, "-m", "experiments.train", *arguments, *flags]
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
            )
        return processes[-2:]

    yield two
    for process in processes:
        process.kill()
        process.communicate()


@contextmanager
def within(seconds: float) -> Iterator[Callable[[], bool]]:
    """Yields what is true until the time is over, and fails then."""
    end = time.monotonic() + seconds

    def goes_on() -> bool:
        assert time.monotonic() < end, f"nothing happened within {seconds} s"
        time.sleep(0.05)
        return True

    yield goes_on


def records(workdir: Path) -> list[dict]:
    file = workdir / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def losses(workdir: Path) -> list[float]:
    return [record["train_loss"] for record in records(workdir)]


def has_checkpoint(workdir: Path) -> bool:
    return any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))


def kill_in_training(processes: list[subprocess.Popen[str]], number: int, workdir: Path) -> str:
    """Kills one of two processes after some epochs; what the other one then said on stderr."""
    with within(600) as goes_on:
        while not (has_checkpoint(workdir) and len(records(workdir)) >= 8) and goes_on():
            assert all(process.poll() is None for process in processes), processes[number].communicate()
    processes[number].send_signal(signal.SIGKILL)
    began = time.monotonic()
    said = processes[1 - number].communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert processes[1 - number].returncode == 1, said
    return said[1]


def test_a_lost_process_ends_the_other_and_one_process_goes_on(
    start: Start, run: Run, cif_folder: Path, tmp_path: Path
) -> None:
    # The schedule of TINY does not look at the number of epochs, so that a short run is the beginning of a long one.
    flags = (*directory_flags(cif_folder), *TINY)
    two = (*flags, f"--workdir={tmp_path / 'two'}", "--config.train.epochs=60")
    stderr = kill_in_training(start(*two, "--config.train.save_seconds=0"), 1, tmp_path / "two")
    assert f"error: process 1 (on {socket.gethostname()}) was lost" in stderr
    assert "The same command goes on from the last checkpoint" in stderr
    assert "Traceback" not in stderr
    assert len(records(tmp_path / "two")) < 60
    done = run("train", *two)
    assert "going on after" in done.stdout
    assert len(records(tmp_path / "two")) == 60
    # Two processes took the steps of one, and lost none at the kill.
    run("train", *flags, f"--workdir={tmp_path / 'one'}", "--config.train.epochs=12")
    np.testing.assert_allclose(losses(tmp_path / "two")[:12], losses(tmp_path / "one"), rtol=1e-3)


@pytest.mark.slow
def test_the_first_process_lost_ends_the_other_and_two_go_on(
    start: Start, run: Run, cif_folder: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "two"
    flags = (*directory_flags(cif_folder), *TINY, "--config.train.epochs=200", f"--workdir={workdir}")
    flags = (*flags, "--config.train.save_seconds=0")
    stderr = kill_in_training(start(*flags), 0, workdir)
    assert f"error: process 0 (on {socket.gethostname()}) was lost" in stderr
    # Fields that change no result may change: the rest is streamed and spread by pmap.
    for process in start(*flags, "--config.train.feed=stream", "--config.train.parallel=pmap", slurm=True):
        said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert len(records(workdir)) == 200
    assert (workdir / "predictions.csv").exists()
    for process in start(*flags):
        stdout, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert ("this run is finished" in stdout) is (process.args[-1] == "--process_id=0")


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_stops_both(start: Start, cif_folder: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "two"
    flags = (*directory_flags(cif_folder), *TINY, "--config.train.epochs=100000", f"--workdir={workdir}")
    processes = start(*flags)
    with within(600) as goes_on:
        while not records(workdir) and goes_on():
            pass
    processes[1].terminate()
    for process in processes:
        said = process.communicate(timeout=60)
        assert process.returncode == 75, said
    assert has_checkpoint(workdir)


@pytest.mark.slow
def test_strangers_at_the_port_neither_end_the_first_process_nor_join_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(hosts, "_from_first", said.put)
    monkeypatch.setattr(hosts, "_SAY_SECONDS", 0.2)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(hosts.Watch, 0, 2)
        _, port, token = said.get(timeout=10).split()
        one, two, three, member = (socket.create_connection(("localhost", int(port))) for _ in range(4))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()  # with a reset
        three.sendall(b"GET / HTTP/1.1\r\n\r\n")
        member.sendall(f"{token} 1 elsewhere\n".encode())
        assert first.result(timeout=10)._names == {1: "elsewhere"}
        assert two.recv(1) == three.recv(1) == b""  # hung up on
        first.result().tell(b"finished")
        assert member.recv(100) == b"finished\n"


def test_processes_that_do_not_call_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_from_first", lambda text: text)
    monkeypatch.setattr(hosts, "_JOIN_SECONDS", 0.2)
    with pytest.raises(TimeoutError, match=r"process 1, 2 did not call .*:\d+ within 0\.2 s"):
        hosts.Watch(0, 3)


def test_an_error_of_one_process_is_told_by_both(start: Start, cif_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    processes = start(*directory_flags(cif_folder), *TINY, f"--workdir={tmp_path / 'file'}")
    (_, of_first), (_, of_second) = (process.communicate(timeout=300) for process in processes)
    assert "is a file; name a folder" in of_first
    assert "error: process 0" in of_second and "ended with an error" in of_second
    assert [process.returncode for process in processes] == [1, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=node1:1234"], "--coordinator, --num_processes and --process_id go together"),
        (["--coordinator=node1", "--num_processes=2", "--process_id=0"], "--coordinator must be HOST:PORT"),
        (
            ["--coordinator=node1:1234", "--num_processes=2", "--process_id=2"],
            "--process_id must be at least 0 and below",
        ),
        (["--distributed=auto"], "--distributed=auto needs SLURM's variables, and there is no SLURM_JOB_ID"),
        (["--distributed=auto", "--process_id=0"], "--process_id was given too"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(
    flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in hosts._SLURM:
        monkeypatch.delenv(name, raising=False)
    with flagsaver.flagsaver():
        absl_flags.FLAGS(["train", *flags])
        with pytest.raises(ValueError, match=message):
            hosts._address()
