import contextlib
import itertools
import json
import shlex
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax.files import lock_if_free
from tests.experiments.runs import SMALL, Run
from tests.experiments.starts import begin

MATBENCH = ("--suite=matbench", "--config=configs/formation_energy.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 crystals under the marks of a Matbench task, the label being the volume per atom, and a published error.

    All are of the CsCl type, so that batches of all folds have one shape and their programs are compiled once.
    """
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for n, (one, other) in enumerate(itertools.islice(itertools.combinations(range(3, 53), 2), 60)):
        length = 3.5 + 0.01 * (one + other)
        record = {
            "id": f"x{n}",
            "lattice": (length * np.eye(3)).tolist(),
            "species": [one, other],
            "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
            "properties": {"last_phdos_peak_cm-1": length**3 / 2},
            "meta": {"matbench": {"phonons": [f"mb-phonons-{n + 1:04d}", n % 5]}},
        }
        lines.append(json.dumps(record))
    (folder / "matbench_phonons").mkdir()
    (folder / "matbench_phonons" / "x.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "leaderboards").mkdir()
    (folder / "leaderboards" / "matbench_v0.1_docs.csv").write_text(
        "task,algorithm,mean,std,source\nphonons,CGCNN v2019,57.7635,12.3109,x\n"
    )
    return folder


def test_five_folds_a_record_and_a_table(run: Run, data: Path, tmp_path: Path) -> None:
    flags = (
        *MATBENCH,
        "--tasks=all",
        "--config.split.val_ratio=0",
        f"--data={data}",
        f"--workdir={tmp_path}",
        *SMALL,
        "--config.train.epochs=2",
        "--config.model.num_convs=1",
    )
    done = run("benchmark", *flags)
    # All tasks are those that have data, and the others are named.
    assert "matbench_dielectric is left out: " in done.stdout
    assert done.stdout.count("no crystal validates: the weights after the last epoch are kept") == 5
    assert [path.parent.name for path in tmp_path.glob("*/record.json")] == ["matbench_phonons"]
    record = json.loads((tmp_path / "matbench_phonons" / "record.json").read_text())
    assert [fold["epochs"] for fold in record["folds"]] == [2] * 5
    assert record["crystals"] == {"official": 1265, "present": 60, "missing": 1205, "left_out": 0}
    assert record["command"].startswith("python -m experiments.benchmark --suite=matbench --config=")
    assert f"matbench_phonons: MAE {record['scores']['mae']['mean']:.4g} ± " in done.stdout
    table = (tmp_path / "table.md").read_text()
    assert "| **cgcnn_jax** |" in table and "| CGCNN v2019 | 57.76 | 12.31 |" in table
    assert "60 of 1265 crystals" in table
    # A fold is a work directory as any, which evaluate reads: the errors are those of the record.
    run("evaluate", f"--workdir={tmp_path / 'matbench_phonons' / 'fold_2'}")
    judged = json.loads((tmp_path / "matbench_phonons" / "fold_2" / "evaluation_test" / "summary.json").read_text())
    assert judged["metrics"]["test"]["mae"] == pytest.approx(record["folds"][2]["scores"]["mae"], rel=1e-5)
    # The same command again does nothing but write the table, and so does --table without the crystals.
    for again in (flags, ("--table", f"--workdir={tmp_path}", f"--leaderboards={data / 'leaderboards'}")):
        (tmp_path / "table.md").unlink()
        assert "fold 1 of 5" not in run("benchmark", *again).stdout
        assert (tmp_path / "table.md").read_text() == table


# In the default suite test_train.py sends the signal to the same runs, and tests/benchmark stops a benchmark on its way.
@pytest.mark.slow
def test_a_signal_ends_in_the_status_that_says_go_on(data: Path, tmp_path: Path) -> None:
    flags = (
        *MATBENCH,
        "--tasks=matbench_phonons",
        f"--data={data}",
        f"--workdir={tmp_path}",
        *SMALL,
        "--config.train.epochs=100000",
    )
    process = begin("benchmark", *flags, "--config.data.cache=")
    records = tmp_path / "matbench_phonons" / "fold_0" / "metrics.jsonl"
    for _ in range(1200):
        if records.exists() and records.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "the same command goes on" in out


def test_folds_that_other_processes_have_end_in_the_status_that_says_go_on(
    run: Run, data: Path, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as held:
        (tmp_path / "matbench_phonons").mkdir()
        for fold in range(5):
            held.enter_context(lock_if_free(tmp_path / "matbench_phonons" / f"fold_{fold}.lock"))
        flags = (*MATBENCH, "--tasks=matbench_phonons", f"--data={data}", f"--workdir={tmp_path}", *SMALL)
        done = run("benchmark", *flags, status=75)
    assert "matbench_phonons: other processes have the folds that are left" in done.stdout
    assert f"the same command goes on:\n  python -m experiments.benchmark {shlex.join(flags)}\n" in done.stdout


def test_what_one_task_does_not_admit_is_told_before_another_is_trained(run: Run, tmp_path: Path) -> None:
    for name in ("matbench_phonons", "matbench_mp"):
        (tmp_path / "data" / name).mkdir(parents=True)
    tasks = "--tasks=matbench_phonons,matbench_mp_is_metal"
    flags = (f"--data={tmp_path / 'data'}", f"--workdir={tmp_path / 'runs'}")
    # The one has such a loss; the other changes the configurations of both tasks.
    for config in ("--config=configs/base.py:best", "--config.train.loss=mae"):
        done = run("benchmark", "--suite=matbench", tasks, *flags, config, status=1)
        assert "matbench_mp_is_metal: config.train.loss must be one of auto, cross_entropy" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks=matbench_phonons",), "--suite says what to run"),
        (("--suite=matbench", "--tasks=matbench_phonons"), "python -m experiments.fetch matbench_phonons"),
        (("--suite=matbench", "--tasks=phonon", "--data=."), "matbench has no task 'phonon'"),
        (("--suite=matbench", "--tasks=matbench_phonons", "--data=."), "matbench_phonons has its crystals there"),
        (("--suite=matbench", "--data=.", "--config=configs/phonons.py"), "no such file; from the project's folder"),
        (("--suite=mp_2018_6_1", "--contributions=."), "--contributions goes with --table"),
        (("--table",), "a task has one when all of its folds are finished"),
        (("--suite=matbench", "--data=.", "--config.data.fold=3"), "--config.data.fold is the protocol's"),
        (("--table", "--tasks=matbench_phonons"), "--tasks goes with tasks that are run; --table shows all"),
        (("--table", "--leaderboards=/nowhere"), "--leaderboards=/nowhere: no such folder"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("benchmark", *arguments, f"--workdir={tmp_path}", status=1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
