from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax.report import finished
from tests.report.finished_runs import classes, edit_json, regression, write_run


def test_errors_are_predictions_minus_labels_and_unknown_labels_are_left_out(tmp_path: Path) -> None:
    targets, values = np.array([[1.0], [np.nan], [-2.0]]), np.array([[1.5], [0.0], [-2.25]])
    frame = finished.read(write_run(tmp_path / "run", targets, values)).labelled("formation_energy_eV_per_atom")
    assert frame["id"].tolist() == ["crystal-0", "crystal-2"]
    np.testing.assert_allclose(frame["error"], [0.5, -0.25])
    np.testing.assert_allclose(frame["miss"], [0.5, 0.25])


def test_ids_and_formulas_stay_the_text_they_are(tmp_path: Path) -> None:
    # pandas would read a number, a missing value and, of sodium nitride, another missing value.
    ids, formulas = ["007", "NA", "nan", ""], ["NaN", "None", "InF", "C"]
    run = finished.read(
        write_run(tmp_path / "run", *regression(4), ids=ids, columns={"formula": formulas, "n_atom": [1, 2, 3, 4]})
    )
    assert run.predictions["id"].tolist() == ids
    assert run.predictions["formula"].tolist() == formulas
    assert run.predictions["n_atom"].tolist() == [1, 2, 3, 4]


def test_each_property_has_its_own_labels(tmp_path: Path) -> None:
    targets = np.array([[1.0, np.nan], [2.0, 20.0], [np.nan, 30.0]])
    run = finished.read(
        write_run(tmp_path / "run", targets, targets + [0.5, -1.0], names=("a", "target:b"), units=("eV", ""))
    )
    assert run.units == {"a": "eV", "target:b": ""}
    assert run.labelled("a")["id"].tolist() == ["crystal-0", "crystal-1"]
    np.testing.assert_allclose(run.labelled("a")["error"], 0.5)
    np.testing.assert_allclose(run.labelled("target:b")["target"], [20, 30])
    np.testing.assert_allclose(run.labelled("target:b")["error"], -1)
    with pytest.raises(KeyError, match=r"predicts no 'c'; it has a, target:b"):
        run.labelled("c")


def test_of_classes_certainty_is_the_probability_of_the_true_one(tmp_path: Path) -> None:
    labels, probabilities = np.array([[0.0], [1.0], [2.0]]), np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0, 0, 1.0]])
    run = finished.read(write_run(tmp_path / "run", labels, probabilities, names=("kind",), task="classification"))
    frame = run.labelled("kind")
    np.testing.assert_allclose(frame["certainty"], [0.7, 0.3, 1.0])
    assert frame["miss"].tolist() == [0, 1, 0]
    assert run.units == {"kind": ""}


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for place in ("a/demo", "b/demo", "b/other"):
        write_run(tmp_path / place, *regression())
    runs = finished.read_all([tmp_path / "a/demo", tmp_path / "b/demo", tmp_path / "b/other"])
    assert [run.name for run in runs] == [str(tmp_path / "a/demo"), str(tmp_path / "b/demo"), "other"]


def test_differing_fields_are_those_and_no_others(tmp_path: Path) -> None:
    write_run(tmp_path / "one", *regression())
    write_run(tmp_path / "two", *regression(), changes={"train.seed": 5, "model.conv": "sum"})
    table = finished.differing_fields(finished.read_all([tmp_path / "one", tmp_path / "two"]))
    assert table.to_dict("index") == {
        "model.conv": {"one": '"gated_norm"', "two": '"sum"'},
        "train.seed": {"one": "0", "two": "5"},
    }


def test_a_configuration_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *regression())
    old = finished.read(folder).config["train"]
    edit_json(folder / "config.json", train={key: value for key, value in old.items() if key != "loss"})
    assert finished.read(folder).config["train"]["loss"] == "auto"


@pytest.mark.parametrize("missing", ["summary.json", "config.json", "predictions.csv"])
def test_an_unfinished_run_is_refused(tmp_path: Path, missing: str) -> None:
    folder = write_run(tmp_path / "run", *regression())
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"run: no {missing}; a report needs the folder of a finished run"):
        finished.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,target\na,1\n", "predictions.csv has no column 'prediction'"),
        ("id,target,prediction\n", "predictions.csv has no row"),
        ("id,target,prediction\na,1,x\n", "predictions.csv holds what is no number: Unable to parse string 'x'"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = write_run(tmp_path / "run", *regression())
    (folder / "predictions.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        finished.read(folder)


def test_no_run_and_a_run_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the folder of at least one run"):
        finished.read_all([])
    folder = write_run(tmp_path / "run", *classes(), names=("kind",), task="classification")
    with pytest.raises(ValueError, match="stands twice; name each run once"):
        finished.read_all([folder, tmp_path / "." / "run"])
