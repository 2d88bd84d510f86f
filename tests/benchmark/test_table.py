import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cgcnn_jax.benchmark.table import markdown, published
from cgcnn_jax.benchmark.tasks import SUITES


def record(suite: str, task: str, scores: dict[str, tuple[float, float | None]], present: int) -> dict[str, Any]:
    of = SUITES[suite][task]
    return {
        "suite": suite,
        "task": task,
        "metric": of.metric,
        "scores": {name: {"mean": mean, "std": std, "max": 2 * mean} for name, (mean, std) in scores.items()},
        "crystals": {"official": of.size, "present": present, "missing": of.size - present, "left_out": 1},
        "folds": [
            {"crystals": {"test": len(range(fold, present, of.num_folds)), "test_official": of.test_size(fold)}}
            for fold in range(of.num_folds)
        ],
        "parameters": 96641,
        "seconds_to_train": 90.0,
        "train_crystals_per_second": 4000.0,
        "inference_crystals_per_second": None,
        "hardware": {"devices": ["cpu", "cpu"], "processor": "AMD EPYC", "cores": 2},
        "date": "2026-11-20T12:00:00+00:00",
        "commit": "abc",
        "command": "python -m experiments.benchmark --suite=matbench",
    }


def write(folder: Path, *records: dict[str, Any]) -> None:
    for one in records:
        (folder / one["task"]).mkdir(parents=True)
        (folder / one["task"] / "record.json").write_text(json.dumps(one))


@pytest.fixture
def leaderboards(tmp_path: Path) -> Path:
    """Tables as published, three models each."""
    folder = tmp_path / "leaderboards"
    folder.mkdir()
    (folder / "matbench_v0.1_docs.csv").write_text(
        "task,algorithm,mean,std,source\n"
        "dielectric,MODNet (v0.1.12),0.2711,0.0714,x\n"
        "dielectric,CGCNN v2019,0.5988,0.0833,x\n"
        "mp_is_metal,CGCNN v2019,0.9520,0.0074,x\n"
        "mp_is_metal,Dummy,0.5012,0.0043,x\n"
        "phonons,Dummy,323.9822,17.7269,x\n"
    )
    (folder / "matbench_v0.1_computed.csv").write_text(
        "task,metric,submission,n_all,mean,std_over_folds,mean_rmse,n_subset,mean_on_subset,source\n"
        "dielectric,mae,cgcnnv2019,4764,0.598794,0.0832877,1.89762,4434,0.610331,x\n"
        "phonons,mae,dummy,1265,323.982,17.7269,492.153,1265,323.982,x\n"
    )
    (folder / "published_mp2018_jarvis.csv").write_text(
        "dataset,property,model,mae,unit,source\n"
        "MP-2018.6.1,band_gap,CGCNN,0.292,eV,a paper\n"
        "MP-2018.6.1,formation_energy,CGCNN,0.031,eV/atom,a paper\n"
        "MP-2018.6.1 (as first published),band_gap,CGCNN,0.388,eV,a paper\n"
    )
    (folder / "jarvis_leaderboard.csv").write_text(
        "benchmark,submission,mae,dataset_size,date\nmegnet_gappbe,alignn_model,0.218,69239,01-14-2023\n"
    )
    return folder


def rows(text: str) -> list[list[str]]:
    """Cells of the table's lines below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_ours_stands_in_its_place_and_says_what_is_missing(tmp_path: Path, leaderboards: Path) -> None:
    scores: dict[str, tuple[float, float | None]] = {"mae": (0.32, 0.05), "rmse": (1.9, 0.3), "max_error": (30.0, 9.0)}
    write(tmp_path / "b", record("matbench", "matbench_dielectric", scores, 4434))
    text = markdown(tmp_path / "b", leaderboards)
    assert rows(text) == [
        ["MODNet (v0.1.12)", "0.2711", "0.0714", "", "", "", "Matbench leaderboard"],
        ["**cgcnn_jax**", "0.32", "0.05", "1.9", "60", "0.32", "this folder"],
        # One line from both tables: the printed name, and what the published predictions add.
        ["CGCNN v2019", "0.5988", "0.0833", "1.898", "", "0.6103", "Matbench leaderboard"],
    ]
    assert "| max error | on 4434 crystals | source |" in text
    assert "4434 of 4764 crystals" in text
    # Two that were left out change nothing, and are told.
    write(tmp_path / "d", record("matbench", "matbench_dielectric", scores, 4432))
    text_of_fewer = markdown(tmp_path / "d", leaderboards)
    assert "| max error | on 4434 crystals, ours on 4432 | source |" in text_of_fewer and rows(text_of_fewer) == rows(
        text
    )
    # What the published predictions reach on those crystals is nothing to compare with on others.
    write(tmp_path / "c", record("matbench", "matbench_dielectric", scores, 4400))
    assert "on 4434 crystals" not in markdown(tmp_path / "c", leaderboards)
    assert "**330 are missing**" in text and "on all 953/953/953/953/952" in text
    assert "1.5 min of training, 4,000 crystals/s in training and ? in prediction, on cpu (AMD EPYC, 2 cores)" in text


def test_classes_rank_from_above_and_labels_stand_beside_probabilities(tmp_path: Path, leaderboards: Path) -> None:
    scores: dict[str, tuple[float, float | None]] = {"rocauc": (0.96, 0.01), "rocauc_of_labels": (0.91, 0.02)}
    write(tmp_path / "b", record("matbench", "matbench_mp_is_metal", scores, 106113))
    text = markdown(tmp_path / "b", leaderboards)
    names = [row[0] for row in rows(text)]
    assert names == ["**cgcnn_jax**", "CGCNN v2019", "**cgcnn_jax, of predicted labels**", "Dummy"]
    assert "missing" not in text


def test_a_published_split_has_one_figure_and_no_spread(tmp_path: Path, leaderboards: Path) -> None:
    scores: dict[str, tuple[float, float | None]] = {"mae": (0.25, None), "rmse": (0.5, None), "max_error": (4.0, None)}
    write(tmp_path / "b", record("mp_2018_6_1", "megnet_gappbe", scores, 64212))
    text = markdown(tmp_path / "b", leaderboards)
    assert "| model | MAE | RMSE | max error | source |" in text
    assert [row[:2] for row in rows(text)] == [["alignn_model", "0.218"], ["**cgcnn_jax**", "0.25"], ["CGCNN", "0.292"]]


def test_an_ensemble_stands_beside_one_of_its_networks(tmp_path: Path, leaderboards: Path) -> None:
    scores: dict[str, tuple[float, float | None]] = {"mae": (0.25, None), "rmse": (0.5, None), "max_error": (4.0, None)}
    of_one = {name: {"mean": 1.2 * mean, "std": None, "max": 2 * mean} for name, (mean, _) in scores.items()}
    one = record("mp_2018_6_1", "megnet_gappbe", scores, 64212)
    write(tmp_path / "b", one | {"networks": 4, "scores_of_one": of_one})
    names = [row[:3] for row in rows(markdown(tmp_path / "b", leaderboards))]
    assert names == [
        ["alignn_model", "0.218", ""],
        ["**cgcnn_jax, mean of 4 networks**", "0.25", "0.5"],
        ["CGCNN", "0.292", ""],
        ["**cgcnn_jax, one of them**", "0.3", "0.6"],
    ]


@pytest.fixture
def contributions(tmp_path: Path) -> Path:
    """Predictions of four models of the JARVIS-Leaderboard for three crystals, one of which is missing here."""
    name = "AI-SinglePropertyPrediction-gappbe-megnet-test-mae.csv"
    tables = {
        "alignn_model": "id,target,prediction\nmp-1,1.0,1.1\nmp-2,0.0,9.0\nmp-3,2.0,1.7\n",
        "unknown_to_the_table": "id,prediction\nmp-3,2.0\nmp-2,0.0\nmp-1,0.5\n",
        "of_other_crystals": "id,prediction\nmp-1,1.0\nmp-2,0.0\n",
        "without_a_number": "id,prediction\nmp-1,1.0\nmp-3,\n",
    }
    for submission, text in tables.items():
        folder = tmp_path / "contributions" / submission
        folder.mkdir(parents=True)
        (folder / f"{name}.zip").write_bytes(_zipped(text))
    return tmp_path / "contributions"


def _zipped(text: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", text)
    return content.getvalue()


def test_published_predictions_say_what_models_reach_on_the_crystals_judged_here(
    tmp_path: Path, leaderboards: Path, contributions: Path
) -> None:
    scores: dict[str, tuple[float, float | None]] = {"mae": (0.25, None), "rmse": (0.5, None), "max_error": (4.0, None)}
    one = record("mp_2018_6_1", "megnet_gappbe", scores, 64212)
    write(tmp_path / "b", one | {"folds": [{"crystals": {"test": 2, "test_official": 3}}]})
    fold = tmp_path / "b" / "megnet_gappbe" / "fold_0"
    fold.mkdir()
    (fold / "predictions.csv").write_text("id,target,prediction\nmp-1,1.0,1.5\nmp-3,2.0,2.0\n")
    text = markdown(tmp_path / "b", leaderboards, contributions)
    # |1.1 - 1.0| and |1.7 - 2.0|; |0.5 - 1.0| and 0. The other two have not predicted both.
    expected = [["alignn_model", "0.2"], ["**cgcnn_jax**", "0.25"], ["CGCNN", ""], ["unknown_to_the_table", "0.25"]]
    assert "on 2 crystals" in text
    assert [[row[0], row[4]] for row in rows(text)] == expected
    # Where none is missing, too: the last has no other figure.
    whole = one["crystals"] | {"present": 69239, "missing": 0}
    write(tmp_path / "c", one | {"crystals": whole, "folds": [{"crystals": {"test": 2, "test_official": 2}}]})
    shutil.copytree(fold, tmp_path / "c" / "megnet_gappbe" / "fold_0")
    text = markdown(tmp_path / "c", leaderboards, contributions)
    assert "missing" not in text and [[row[0], row[4]] for row in rows(text)] == expected
    file = contributions / "of_other_crystals" / "AI-SinglePropertyPrediction-gappbe-megnet-test-mae.csv.zip"
    whole = _zipped("id,prediction\n" + "".join(f"mp-{n},{n / 7}\n" for n in range(2000)))
    # Cut short, of bytes that are no deflate stream, and with other columns.
    for damaged in (b"PK", whole[:200] + b"\xff" * 200 + whole[400:], _zipped("id,value\nmp-1,1.0\n")):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"of_other_crystals/.*csv.zip: no table with columns id and prediction"):
            markdown(tmp_path / "b", leaderboards, contributions)
    with pytest.raises(FileNotFoundError, match=r"--contributions wants the folder jarvis_leaderboard/contributions"):
        markdown(tmp_path / "b", leaderboards, tmp_path)


def test_without_published_tables_ours_stands_alone(tmp_path: Path) -> None:
    scores: dict[str, tuple[float, float | None]] = {"mae": (50.0, 9.0), "rmse": (99.0, 9.0), "max_error": (500.0, 9.0)}
    write(tmp_path / "b", record("matbench", "matbench_phonons", scores, 1265))
    for folder in (None, tmp_path / "absent"):
        assert [row[0] for row in rows(markdown(tmp_path / "b", folder))] == ["**cgcnn_jax**"]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "matbench_phonons").mkdir()
    (tmp_path / "matbench_phonons" / "record.json").write_text("{")
    with pytest.raises(ValueError, match=r"matbench_phonons/record\.json: damaged, not JSON"):
        markdown(tmp_path, None)


def test_a_folder_without_records_says_when_it_has_some(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a task has one when all of its folds are finished"):
        markdown(tmp_path, None)


def test_every_printed_submission_with_published_predictions_is_found_once(shared_data: Path) -> None:
    for task in SUITES["matbench"].values():
        found = list(published(task, shared_data / "leaderboards"))
        alone = [row.model for row in found if row.source == "its published predictions"]
        # The README of the tables: both agree, but for submissions printed from thresholded predictions.
        assert alone == (["coNGN"] if task.name == "matbench_mp_is_metal" else [])
        (cgcnn,) = (row for row in found if row.model == "CGCNN v2019")
        # Of the task of exfoliation energies no structures are at hand to restrict them to.
        assert (cgcnn.on_subset is None) == (task.name == "matbench_jdft2d")
