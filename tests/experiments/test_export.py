"""A trained network to give away: what a stranger can do with it, and what it does not say of its owner."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cgcnn_jax import Predictor
from cgcnn_jax.applicability import Applicability
from tests.experiments.runs import TINY, Run, directory_flags


@pytest.fixture(scope="module")
def exported(run: Run, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "volume"
    run("export", f"--workdir={trained}", f"--output={folder}")
    return folder


def test_it_predicts_to_the_bit_what_the_run_predicts(
    run: Run, trained: Path, exported: Path, cif_folder: Path
) -> None:
    inputs = f"--input={cif_folder}"
    before, after = (
        list(csv.DictReader(run("predict", f"--workdir={folder}", inputs).stdout.splitlines()))
        for folder in (trained, exported)
    )
    told = [row.pop("outside") for row in after]
    assert len(before) > 50 and after == [{key: row[key] for key in row if key != "outside"} for row in before]
    # None of the training crystals is unlike them.
    known, seen = Applicability.load(exported), Predictor.restore(exported).about["split"]["train"]
    assert list(known.ids) == seen and known.vectors.dtype == np.float16 and not known.labels.size
    assert {reason for reason, row in zip(told, after, strict=True) if row["id"] in seen} == {""}
    assert Predictor.restore(exported).digest() == Predictor.restore(trained).digest()


def test_it_is_judged_by_the_run_s_own_split(
    run: Run, trained: Path, exported: Path, cif_folder: Path, tmp_path: Path
) -> None:
    received = shutil.copytree(exported, tmp_path / "received")
    run("evaluate", f"--workdir={received}", f"--config.data.path={cif_folder}")
    again = json.loads((received / "evaluation_test" / "summary.json").read_text())["metrics"]["test"]
    assert again == pytest.approx(json.loads((trained / "summary.json").read_text())["metrics"]["test"], rel=1e-5)


def test_the_card_has_the_errors_of_the_run(trained: Path, exported: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    text = (exported / "card.md").read_text()
    assert text.startswith("# volume (Å³/atom)\n")
    assert re.search(rf"\| test \| {summary['metrics']['test']['mae']:.4g} \[", text)
    assert "| train / val / test | 36 / 12 / 12 |" in text


def test_it_knows_what_it_was_trained_on_without_the_data(
    run: Run, exported: Path, cif_folder: Path, tmp_path: Path
) -> None:
    trained_on = Applicability.load(exported).ids[0]
    flags = [f"--workdir={exported}", f"--input={cif_folder / trained_on}.cif", f"--output={tmp_path / 'seen'}"]
    assert "know" not in run("interpret", *flags).stderr
    row = next(csv.DictReader((tmp_path / "seen" / "neighbours.csv").open()))
    assert row["neighbour_1"] == trained_on and not row["reason"]
    assert not [name for name in row if name.startswith("volume")]  # labels stay at home
    assert float(row["distance_1"]) < 0.02 * float(row["threshold"])  # by rounding


def test_interpretations_say_that_training_crystals_were_left_out(
    run: Run, exported: Path, cif_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "few")
    known = Applicability.load(folder).thinned()
    known.save(folder)
    done = run("interpret", f"--workdir={folder}", f"--input={cif_folder / 'x3.cif'}")
    assert f"neighbours.csv and the maps know {len(known.ids)} of {len(known.spacing)} training crystals" in done.stderr


def test_predictions_say_what_is_unlike_the_training_crystals(
    run: Run, exported: Path, cif_folder: Path, tmp_path: Path
) -> None:
    seen = Predictor.restore(exported).about["split"]["train"][0]
    shutil.copy(cif_folder / f"{seen}.cif", tmp_path / "a.cif")
    Structure(Lattice.cubic(4.2), ["Xe", "Kr"], [[0, 0, 0], [0.5] * 3]).to(str(tmp_path / "b.cif"))
    (tmp_path / "c.cif").write_text("data_c\n_cell_length_a 3\n")
    (tmp_path / "d.res").write_text("")
    done = run("predict", f"--workdir={exported}", f"--input={tmp_path}")
    assert f"{tmp_path}: 1 files in it are not read (.res 1)" in done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert list(rows[0]) == ["id", "formula", "prediction", "unit", "outside", "reason"]
    assert [bool(row["prediction"]) for row in rows] == [True, True, False]
    assert rows[0]["outside"] == rows[2]["outside"] == ""
    assert "Xe is in no training crystal" in rows[1]["outside"]
    assert "1 lie outside of what the network was trained on" in done.stderr
    # Of other weights, or damaged: told, and the predictions are there.
    other = shutil.copytree(exported, tmp_path / "other")
    (other / "applicability.npz").write_bytes(b"PK")
    done = run("predict", f"--workdir={other}", f"--input={tmp_path / 'a.cif'}")
    assert "no column outside: " in done.stderr and "damaged" in done.stderr
    (other / "applicability.npz").unlink()
    done = run("predict", f"--workdir={other}", f"--input={tmp_path / 'a.cif'}")
    assert "no column outside: " in done.stderr and "experiments.interpret --workdir=" in done.stderr
    (row,) = csv.DictReader(done.stdout.splitlines())
    assert "outside" not in row and float(row["prediction"]) == pytest.approx(float(rows[0]["prediction"]), rel=1e-5)


def test_it_says_nothing_of_where_it_was_made(trained: Path, exported: Path, cif_folder: Path) -> None:
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert {"card.md", "config.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert not [place for place in (trained, exported.parent, cif_folder) if str(place).encode() in content], path
    # The optimiser's state is most of a checkpoint.
    size, whole = (sum(path.stat().st_size for path in folder.rglob("*")) for folder in (exported, trained))
    assert size < whole / 2


def test_others_start_from_it_but_no_training_goes_on_there(run: Run, exported: Path, cif_folder: Path) -> None:
    flags = (*directory_flags(cif_folder), *TINY)
    refused = run("train", *flags, f"--workdir={exported}", status=1)
    assert "without its training, so that none can go on there" in refused.stderr
    assert f"--config.init_from={exported}" in refused.stderr
    tuned = exported.parent / "tuned"
    run("train", *flags, f"--workdir={tuned}", f"--config.init_from={exported}", "--config.train.epochs=1")
    assert (tuned / "summary.json").exists()


def test_neither_a_model_is_overwritten_nor_an_unfinished_run_given_away(
    run: Run, trained: Path, exported: Path, cif_folder: Path, tmp_path: Path
) -> None:
    done = run("export", f"--workdir={trained}", f"--output={exported}", status=1)
    assert "is there already; name a new folder" in done.stderr
    absent = run("export", f"--workdir={tmp_path}", f"--output={tmp_path / 'x'}", status=1)
    assert "a trained network is the folder of a training run" in absent.stderr
    # An exported network has no errors of its own to put on another card.
    done = run("export", f"--workdir={exported}", f"--output={tmp_path / 'y'}", status=1)
    assert "is no run that was trained to its end" in done.stderr
    assert not (tmp_path / "y").exists()
