import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import configs
from cgcnn_jax.run import Watcher
from experiments import cli
from experiments.watch import Silent, Terminal
from tests.experiments.runs import ROOT, Run
from tests.predictors import ENERGY
from tests.test_docs import flags_of

SCRIPT = """
import os, signal, sys
from experiments import cli
from experiments.watch import Terminal
# As in a foreground job: what a shell starts in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.run(lambda: os.kill(os.getpid(), signal.{signal}), goes_on={goes_on})
"""


@pytest.mark.parametrize(
    ("goes_on", "signal", "status"),
    [
        (True, "SIGINT", 75),
        (True, "SIGTERM", 75),
        (True, "SIGUSR1", 75),
        (False, "SIGINT", 130),  # 128 + 2, as a shell says it
        (False, "SIGTERM", 143),  # 128 + 15
    ],
)
def test_a_signal_before_training_ends_in_the_status_that_says_whether_to_go_on(
    goes_on: bool, signal: str, status: int
) -> None:
    script = SCRIPT.format(signal=signal, goes_on=goes_on)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert ("the same command goes on" in done.stderr) == goes_on
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if "cli.run(" in path.read_text())
)
def test_help_lists_every_flag(run: Run, name: str) -> None:
    listed = re.findall(r"^  --(?:\[no\])?(\w+):", run(name, "--help").stdout, re.MULTILINE)
    assert set(listed) == flags_of(name) - {"help"}


def test_arguments_change_a_configuration_that_none_of_them_names() -> None:
    config = configs.named("metal_classification")
    cli.override(config, ["--workdir=x", "--config.data.on_error=skip", "--config.split.ratios=(0.5,0.2,0.3)"])
    assert (config.data.on_error, config.split.ratios) == ("skip", (0.5, 0.2, 0.3))
    assert config.model.dropout == 0.5  # the file's own
    # A run's own network stays when its data are read elsewhere.
    cli.override(config, ["--config.data.log10=true", "--config.train.epochs=9"], "--config.data.")
    assert (config.data.log10, config.train.epochs) == (True, 200)
    for wrong, message in (
        ("--config.data.nope=1", "unknown field --config.data.nope; configs/base.py has every field"),
        ("--config.train.epochs=x", "flag --config.train.epochs=x: invalid literal for int()"),
        ("--config.data.log10=maybe", "flag --config.data.log10=maybe: .*Non-boolean argument"),
    ):
        with pytest.raises(ValueError, match=message.replace("()", r"\(\)")):
            cli.override(config, [wrong])


def greedy() -> None:
    np.zeros(2**62, np.int8)


def greedy_of_threads() -> None:
    raise RuntimeError("can't start new thread")  # what Python raises; so many threads would hurt the other tests


def greedy_of_the_device() -> None:
    jax.jit(lambda: jnp.zeros((2**20, 2**22)) + 1)()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What is told of an entry point that fails."""

    def told(work: Callable[[], None]) -> str:
        monkeypatch.setattr(sys, "argv", ["train"])
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
        try:
            with pytest.raises(SystemExit) as left:
                cli.run(work, goes_on=True)
        finally:
            for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), before, strict=True):
                signal.signal(number, handler)
        assert left.value.code == 1
        return capsys.readouterr().err

    return told


def test_a_missing_package_is_told_in_a_line(failing: Callable[..., str]) -> None:
    def work() -> None:
        raise ImportError("a search needs optuna; install it with: ...")

    assert failing(work) == "error: a search needs optuna; install it with: ...\n"


@pytest.mark.parametrize(
    ("work", "cause"),
    [
        (greedy, "Unable to allocate 4.00 EiB"),
        (greedy_of_threads, "can't start new thread)"),
        (greedy_of_the_device, "RESOURCE_EXHAUSTED: Out of memory allocating 17592186044416 bytes."),
    ],
    ids=["host", "threads", "device"],
)
def test_no_memory_is_told_in_a_line(work: Callable[[], None], cause: str, failing: Callable[..., str]) -> None:
    told = failing(work)
    assert told.startswith(f"error: not enough memory ({cause}")
    kept = "what was finished is kept, and the same command goes on"
    assert told.endswith(f"); {kept}; fewer workers and smaller batches need less\n")
    assert told.count("\n") == 1


def test_a_dask_scheduler_gives_an_executor_that_does_equal_tasks_twice() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as cluster:
        executor, count = cli.hire(0, cluster.scheduler_address)
        assert callable(count)
        assert count() == 2
        # Not pow: what counts is that it is called, not that its value is known.
        first, second = (executor.submit(time.monotonic_ns) for _ in range(2))
        assert first.result() != second.result()
        executor.shutdown(cancel_futures=True)


def test_one_process_needs_no_workers_but_a_crew_has_one() -> None:
    assert cli.executor(1) is None
    executor, count = cli.hire(1)
    assert count == 1
    executor.shutdown()


def test_a_bar_is_drawn_on_a_terminal_and_leaves_a_log_file_clean(capfd: pytest.CaptureFixture[str]) -> None:
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with open(terminal, "w") as screen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        assert list(cli.bar([1, 2, 3], desc="counting", mininterval=0)) == [1, 2, 3]
        screen.flush()
        # A read may bring a part of what was written.
        shown = ""
        while "100%" not in shown and select.select([controller], [], [], 5)[0]:
            shown += os.read(controller, 10_000).decode()
    os.close(controller)
    assert "\rcounting: 100%" in shown
    assert list(cli.bar([1, 2, 3], desc="counting", mininterval=0)) == [1, 2, 3]
    assert capfd.readouterr().err == ""


def test_a_log_file_has_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Terminal()
    with watcher.training(3, 5, ENERGY):
        for epoch in (3, 4):
            watcher.step(epoch, 1, 2)
            watcher.epoch({"epoch": epoch, "val_mae": 0.25 / epoch})
    assert capsys.readouterr() == (
        "epoch 4 of 5: val_mae 0.08333 eV/atom\nepoch 5 of 5: val_mae 0.0625 eV/atom\n",
        "",
    )


@pytest.mark.parametrize("watcher", [Terminal, Silent])
def test_a_signal_stops_what_is_trained_next_too(watcher: type[Watcher], capsys: pytest.CaptureFixture[str]) -> None:
    one = watcher()
    with one.training(0, 5, ENERGY):
        assert not one.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert one.should_stop()
    with one.training(0, 5, ENERGY):
        assert one.should_stop()
    assert "SIGTERM: saving, then leaving" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("screen", ("--workdir=x", "--input=.", "--output=o", "--highest"), "--highest goes with --top"),
        ("screen", ("--workdir=x", "--input=.", "--output=o", "--ensemble"), "--ensemble needs several --workdir"),
        (
            "sweep",
            ("--config=configs/sweeps/table_s1.py", "--workdir=x", "--trials=9"),
            "--trials goes with --search=optuna",
        ),
        (
            "sweep",
            ("--config=configs/sweeps/table_s1.py", "--workdir=x", "--search=optuna", "--population=4"),
            "--population goes with trials that the file names",
        ),
        ("figures", ("--figure=roc", "--workdir=x", "--band=1,2"), "--band goes with --figure=convergence"),
        ("figures", ("--figure=graphs", "--output=x", "--unit=eV"), "--unit goes with --figure=trials"),
        ("fetch", ("matbench_phonons", "--chemsys=Li-O"), "--chemsys goes with materials_project"),
        ("fetch", ("--list", "--chemsys=Li-O"), "--chemsys goes with materials_project"),
        ("fetch", ("--list", "matbench_phonons"), "--list shows all sets; got 'matbench_phonons' as well"),
        ("fetch", ("matbench_phonons", "--folder=/dev/null"), "--folder, or CGCNN_JAX_DATA, must name a folder"),
        ("fetch", ("materials_project", "--folder=x"), "--folder goes with sets"),
        ("import_reference", ("a", "b", "--workdir=x"), "names one file; got a, b"),
        ("import_reference", ("a", "--checkpoint=b", "--workdir=x"), "names one file; got b, a"),
        ("report", ("--workdir=x", "--output=nowhere/r.html"), "--output=nowhere/r.html: there is no folder"),
        ("report", ("--workdir=x", "--output=docs"), "--output=docs is a folder; name an HTML file in it"),
    ],
)
def test_what_would_be_ignored_is_refused(run: Run, name: str, arguments: tuple[str, ...], message: str) -> None:
    assert message in run(name, *arguments, status=1).stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc, in which not even root makes files")
def test_an_output_that_cannot_be_written_is_told_before_the_work() -> None:
    with pytest.raises(OSError, match=r"/proc/predictions\.csv"):
        cli.output_file("/proc/predictions.csv", "a CSV")


@pytest.mark.parametrize(
    ("arguments", "unit"),
    [
        ([], "eV"),
        (["--config.data.target=density"], ""),
        (["--config.data.target", "density"], ""),
        (["--config.data.target=K", "--config.data.unit=GPa"], "GPa"),
    ],
)
def test_a_unit_of_the_file_is_that_of_its_own_property(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], unit: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    # As config_flags has set what the command line says.
    given = ConfigDict({"data": {"unit": "GPa" if unit == "GPa" else "eV"}})
    assert cli.with_own_unit(given).data.unit == unit
