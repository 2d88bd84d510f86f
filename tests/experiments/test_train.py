import csv
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax import Predictor
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data import elements
from cgcnn_jax.train.metrics import regression_metrics
from tests.experiments.runs import TINY, Run, directory_flags
from tests.experiments.starts import begin


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_that_the_readme_names(trained: Path) -> None:
    # The folder is shared with the tests of evaluate, which adds folders of its own.
    names = {path.name for path in trained.iterdir() if not path.name.startswith("evaluation_")}
    assert names == {
        "config.json",
        ".lock",
        "split.json",
        "duplicates.csv",
        "metrics.jsonl",
        "checkpoints",
        "predictions.csv",
        "summary.json",
        "learning_curve.png",
        "parity.png",
        "report.html",
        "applicability.npz",
    }
    assert len((trained / "metrics.jsonl").read_text().splitlines()) == 3


def test_the_folder_knows_what_the_network_was_trained_on(trained: Path) -> None:
    known = Applicability.load(trained)
    assert known.is_of(Predictor.restore(trained))
    assert list(known.ids) == json.loads((trained / "split.json").read_text())["train"]


def test_the_summary_agrees_with_the_predictions_it_stands_beside(trained: Path) -> None:
    rows = read_csv(trained / "predictions.csv")
    split = json.loads((trained / "split.json").read_text())
    assert [row["id"] for row in rows] == split["test"]
    assert {row["nearest"] for row in rows} <= set(split["train"])
    target, prediction = (np.array([float(row[key]) for row in rows]) for key in ("target", "prediction"))
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["metrics"]["test"]["mae"] == pytest.approx(regression_metrics(target, prediction)["mae"], rel=1e-6)
    low, high = summary["intervals_95"]["test"]["mae"]
    assert low <= summary["metrics"]["test"]["mae"] <= high
    phases = {"data", "compiling", "training", "validating", "saving", "evaluation", "rest"}
    assert sum(summary["seconds"][phase] for phase in phases) == pytest.approx(summary["seconds"]["total"])


def test_targets_are_those_of_the_table(trained: Path, cif_folder: Path) -> None:
    table = dict(line.split(",") for line in (cif_folder / "id_prop.csv").read_text().splitlines())
    for row in read_csv(trained / "predictions.csv"):
        assert float(row["target"]) == pytest.approx(float(table[row["id"]]), rel=1e-6)


def test_the_same_command_again_leaves_a_finished_run_alone(run: Run, trained: Path, cif_folder: Path) -> None:
    names = ("predictions.csv", "metrics.jsonl", "summary.json")
    before = [(trained / name).read_bytes() for name in names]
    done = run("train", *directory_flags(cif_folder), f"--workdir={trained}", *TINY, "--config.data.workers=2")
    assert "this run is finished" in done.stdout
    assert [(trained / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("change", ["a crystal less", "another label"])
def test_changed_data_under_a_run_are_refused(
    run: Run, trained: Path, cif_folder: Path, tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "cifs"
    shutil.copytree(cif_folder, folder)
    rows = (folder / "id_prop.csv").read_text().splitlines()
    if change == "a crystal less":
        (folder / "x7.cif").unlink()
        rows = [row for row in rows if not row.startswith("x7,")]
    else:
        rows[3] = "x3,12.5"
    (folder / "id_prop.csv").write_text("\n".join(rows) + "\n")
    before = (trained / "split.json").read_bytes()
    done = run("train", *directory_flags(folder), f"--workdir={trained}", *TINY, status=1)
    assert "the data changed since this run began" in done.stderr
    assert (
        "0 crystals are new and 1 are gone" if change == "a crystal less" else "labels, structures or their order"
    ) in done.stderr
    assert (trained / "split.json").read_bytes() == before


def test_a_start_that_failed_may_be_corrected_in_the_same_folder(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    flags = (*directory_flags(cif_folder), f"--workdir={tmp_path / 'run'}", *TINY)
    run("train", *flags, "--config.split.kind=source", status=1)
    run("train", *flags)


def test_two_processes_do_not_train_in_one_folder(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    from cgcnn_jax.workdir import Workdir

    with Workdir(tmp_path / "run").lock():
        flags = (*directory_flags(cif_folder), f"--workdir={tmp_path / 'run'}", *TINY)
        done = run("train", *flags, status=1)
    assert "another process is training in" in done.stderr


@pytest.mark.slow
def test_fine_tuning_starts_from_the_old_predictions(run: Run, trained: Path, cif_folder: Path, tmp_path: Path) -> None:
    # A learning rate of 1e-12 moves nothing, so the new run predicts what the old one does, though its scaler differs.
    flags = (*directory_flags(cif_folder), *TINY, "--config.split.seed=5", "--config.optimizer.learning_rate=1e-12")
    run("train", *flags, f"--workdir={tmp_path / 'run'}", f"--config.init_from={trained}")
    old, new = Predictor.restore(trained), Predictor.restore(tmp_path / "run")
    assert old.scaler.mean != new.scaler.mean
    files = [cif_folder / f"x{n}.cif" for n in range(10)]
    # One step of batch statistics lies between them: momentum 0.9 of the old ones is kept.
    np.testing.assert_allclose(new.predict(files)["prediction"], old.predict(files)["prediction"], rtol=0.2)


def test_another_configuration_in_the_folder_is_refused_with_the_fields(
    run: Run, trained: Path, cif_folder: Path
) -> None:
    done = run(
        "train",
        *directory_flags(cif_folder),
        f"--workdir={trained}",
        *TINY,
        "--config.optimizer.l2=1e-3",
        status=1,
    )
    assert "optimizer.l2: 0.0 -> 0.001" in done.stderr
    assert "Traceback" not in done.stderr


# In the default suite tests/train/test_resume.py kills the same loop, and tests/test_run.py compares the files of a
# stopped run with those of an undisturbed one.
@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_bits_of_an_undisturbed_one(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    flags = (*directory_flags(cif_folder), *TINY, "--config.train.epochs=60", "--config.train.save_seconds=0")
    flags = (*flags, "--config.model.dropout=0.2")
    run("train", *flags, f"--workdir={tmp_path / 'whole'}")
    killed = tmp_path / "killed"
    process = begin("train", *flags, f"--workdir={killed}", errors=subprocess.DEVNULL)
    records = killed / "metrics.jsonl"
    for _ in range(1200):
        if process.poll() is not None or (records.exists() and len(records.read_text().splitlines()) >= 7):
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    taken = len(records.read_text().splitlines())
    assert 0 < taken < 60
    done = run("train", *flags, f"--workdir={killed}")
    assert "going on after" in done.stdout
    # Digits as written: 8 of each prediction, and every one of the recorded losses.
    assert (killed / "predictions.csv").read_text() == (tmp_path / "whole" / "predictions.csv").read_text()
    losses = [
        [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (killed, tmp_path / "whole")
    ]
    assert losses[0] == losses[1]


def test_sigterm_saves_and_leaves(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    flags = (*directory_flags(cif_folder), *TINY, "--config.train.epochs=100000", f"--workdir={tmp_path / 'run'}")
    process = begin("train", *flags)
    records = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (records.exists() and records.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=60)
    # EX_TEMPFAIL: a job script tells by it a run that is to be started again from one that is finished.
    assert process.returncode == 75, err
    assert "the same command goes on" in out
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_bad_crystals_stop_the_run_or_are_skipped_and_listed(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    shutil.copytree(cif_folder, folder)
    whole = (folder / "x0.cif").read_text()
    (folder / "x0.cif").write_text(whole[: len(whole) // 3])
    (folder / "x1.cif").unlink()
    done = run("train", *directory_flags(folder), f"--workdir={tmp_path / 'run'}", *TINY, status=1)
    assert "x1: stands in id_prop.csv but there is no x1.cif" in done.stderr
    assert "--config.data.on_error=skip" in done.stderr
    done = run(
        "train", *directory_flags(folder), f"--workdir={tmp_path / 'skip'}", *TINY, "--config.data.on_error=skip"
    )
    assert "58 crystals (2 left out)" in done.stdout
    assert {row["id"] for row in read_csv(tmp_path / "skip" / "rejected.csv")} == {"x0", "x1"}


def test_classes_and_several_targets_train(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    shutil.copytree(cif_folder, folder)
    rows = [line.split(",") for line in (folder / "id_prop.csv").read_text().splitlines()]
    large = np.median([float(volume) for _, volume in rows])
    labelled = [
        f"{id},{int(float(volume) > large)},{volume},{'' if n % 3 else volume}" for n, (id, volume) in enumerate(rows)
    ]
    (folder / "id_prop.csv").write_text("id,is_large,volume,twice\n" + "\n".join(labelled) + "\n")
    classes = tmp_path / "classes"
    run(
        "train",
        "--config=configs/metal_classification.py",
        "--config.data.source=directory",
        f"--config.data.path={folder}",
        "--config.data.target=is_large",
        f"--workdir={classes}",
        *TINY,
    )
    assert {"roc.png", "confusion.png"} <= {path.name for path in classes.iterdir()}
    for row in read_csv(classes / "predictions.csv"):
        assert float(row["probability_0"]) + float(row["probability_1"]) == pytest.approx(1, abs=1e-6)
    several = tmp_path / "several"
    flags = (*directory_flags(folder), "--config.data.target=volume,twice", "--config.data.unit=Å³,Å³")
    run("train", *flags, f"--workdir={several}", *TINY)
    assert set(json.loads((several / "summary.json").read_text())["metrics"]["test"]) == {"volume", "twice"}


def test_the_atom_init_of_a_folder_is_honoured_and_kept_in_the_checkpoint(
    run: Run, cif_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cifs"
    shutil.copytree(cif_folder, folder)
    table = elements.with_property(
        elements.atom_features("released"), elements.Property("is_oxygen", choices=(1,)), {"O": 1}
    )
    elements.write_atom_init(folder / "atom_init.json", table)
    done = run("train", *directory_flags(folder), f"--workdir={tmp_path / 'run'}", *TINY)
    assert f"atom features of {folder}/atom_init.json" in done.stdout
    few = ("--config.atoms.properties=2", f"--workdir={tmp_path / 'few'}", *TINY)
    assert "has columns of its own" in run("train", *directory_flags(folder), *few, status=1).stderr
    shutil.rmtree(folder)
    restored = Predictor.restore(tmp_path / "run")
    np.testing.assert_array_equal(restored.weights.constants["atom_table"], table)
    assert np.isfinite(restored.predict([cif_folder / "x1.cif"])["prediction"]).all()


def test_another_property_does_not_inherit_the_unit_of_the_file(run: Run, cif_folder: Path, tmp_path: Path) -> None:
    flags = [flag for flag in directory_flags(cif_folder) if "data.unit" not in flag]
    done = run("train", *flags, f"--workdir={tmp_path / 'run'}", *TINY)
    assert "test volume: MAE" in done.stdout
    assert "eV" not in done.stdout
