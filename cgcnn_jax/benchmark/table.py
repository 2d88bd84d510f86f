"""The records of a folder beside the published errors, as Markdown.

Published errors are read from a folder with any of these tables:
  matbench_v0.1_docs.csv        task, algorithm, mean, std: the Matbench leaderboard as printed
  matbench_v0.1_computed.csv    task, submission, mean, std_over_folds, mean_rmse, n_subset, mean_on_subset: from the
                                published predictions, also over the crystals whose structures are at hand
  published_mp2018_jarvis.csv   dataset, property, model, mae, source: as printed in papers
  jarvis_leaderboard.csv        benchmark, submission, mae: the JARVIS leaderboard
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cgcnn_jax.benchmark.contributions import errors
from cgcnn_jax.benchmark.tasks import SUITES
from cgcnn_jax.data.tasks import Task
from cgcnn_jax.workdir import Workdir

_DATASETS = {"mp_2018_6_1": "MP-2018.6.1", "jarvis_dft3d": "JARVIS dft_3d 2021"}
# Names in tables of errors that papers print; the leaderboard's are those of the tasks.
_PROPERTIES = {
    "megnet_e_form": "formation_energy",
    "megnet_gappbe": "band_gap",
    "dft_3d_formation_energy_peratom": "formation_energy",
    "dft_3d_optb88vdw_total_energy": "total_energy",
    "dft_3d_optb88vdw_bandgap": "band_gap_optb88vdw",
    "dft_3d_mbj_bandgap": "band_gap_mbj",
    "dft_3d_ehull": "e_above_hull",
}

_ALIKE = 1e-3  # share of the crystals by which two subsets may differ and still be compared


@dataclass(frozen=True)
class Row:
    """One model on one task.

    Attributes:
      model: Its name.
      mean: Of the task's metric over the folds.
      std: Over the folds; None where there is one or it is not known.
      rmse: Mean over the folds.
      max_error: Largest over the folds.
      on_subset: The metric over n_subset crystals alone, those whose structures are at hand, where that is known.
      n_subset: Their number.
      source: Where the figures come from.
      is_ours: Whether they are from a record.
    """

    model: str
    mean: float | None
    std: float | None = None
    rmse: float | None = None
    max_error: float | None = None
    on_subset: float | None = None
    n_subset: int | None = None
    source: str = ""
    is_ours: bool = False


def markdown(folder: Path, leaderboards: Path | None, contributions: Path | None = None) -> str:
    """A table for every FOLDER/TASK/record.json, ours in bold.

    Args:
      folder: Of the benchmark.
      leaderboards: Folder of the published tables; None, or a table that is not there, shows ours alone.
      contributions: Folder of the predictions of the JARVIS-Leaderboard, for the errors on the crystals at hand.

    Raises:
      FileNotFoundError: If no task of the folder is finished, or contributions has no predictions for one.
      ValueError: If a record or a file of contributions is damaged.
    """
    records = [Workdir(file.parent).read_json(file.name) for file in sorted(folder.glob("*/record.json"))]
    if not records:
        raise FileNotFoundError(f"{folder}: no TASK/record.json; a task has one when all of its folds are finished")
    sections = ["# Benchmarks", "Ours in bold; the protocol is in docs/benchmarks.md."]
    for record in records:
        task = SUITES[record["suite"]][record["task"]]
        others = list(published(task, leaderboards)) if leaderboards else []
        if contributions and task.suite != "matbench":
            others = _on_judged(others, task, folder / task.name / "fold_0" / "predictions.csv", contributions)
        sections += _section(task, record, others)
    return "\n\n".join(sections) + "\n"


def published(task: Task, folder: Path) -> Iterator[Row]:
    """The published errors on a task, from the tables that the folder has."""
    if task.suite == "matbench":
        yield from _matbench(task.name.removeprefix("matbench_"), folder)
        return
    for row in _rows(folder / "published_mp2018_jarvis.csv"):
        if row["dataset"] == _DATASETS[task.suite] and row["property"] == _PROPERTIES.get(task.name):
            yield Row(row["model"], row["mae"], source=row["source"])
    for row in _rows(folder / "jarvis_leaderboard.csv"):
        if row["benchmark"] == task.name:
            yield Row(row["submission"], row["mae"], source="JARVIS leaderboard")


def _on_judged(rows: Sequence[Row], task: Task, predictions: Path, contributions: Path) -> list[Row]:
    """The rows, and what their predictions reach on the crystals that a run judged."""
    judged = pd.read_csv(predictions, dtype={"id": str})
    found = errors(task, judged, contributions)
    known = [replace(row, on_subset=found.pop(row.model, None), n_subset=len(judged)) for row in rows]
    source = "its published predictions"
    return [
        *known,
        *(Row(name, None, on_subset=error, n_subset=len(judged), source=source) for name, error in found.items()),
    ]


def _matbench(name: str, folder: Path) -> Iterator[Row]:
    computed = [row for row in _rows(folder / "matbench_v0.1_computed.csv") if row["task"] == name]
    for row in _rows(folder / "matbench_v0.1_docs.csv"):
        if row["task"] != name:
            continue
        # The two tables name the submissions differently; equal figures tell them.
        same: dict[str, Any] = next((one for one in computed if _is_same(row, one)), {})
        computed = [one for one in computed if one is not same]
        yield Row(
            row["algorithm"],
            row["mean"],
            row["std"],
            same.get("mean_rmse"),
            on_subset=same.get("mean_on_subset"),
            n_subset=same.get("n_subset"),
            source="Matbench leaderboard",
        )
    for row in computed:
        yield Row(
            row["submission"],
            row["mean"],
            row["std_over_folds"],
            row["mean_rmse"],
            on_subset=row["mean_on_subset"],
            n_subset=row["n_subset"],
            source="its published predictions",
        )


def _is_same(printed: Mapping[str, Any], computed: Mapping[str, Any]) -> bool:
    """Equal to the four decimals and the six digits that the tables have."""
    pairs = ((printed["mean"], computed["mean"]), (printed["std"], computed["std_over_folds"]))
    return all(None not in pair and math.isclose(*pair, abs_tol=6e-5, rel_tol=2e-6) for pair in pairs)


def _section(task: Task, record: Mapping[str, Any], others: Sequence[Row]) -> list[str]:
    unit = f", {task.unit}" if task.unit else ""
    rows = sorted([*_ours(record), *others], key=lambda row: _rank(task, row))
    is_classes = task.kind == "classification"
    # What others reach on a part of the crystals says something beside ours on that part alone.
    n_judged = sum(fold["crystals"]["test"] for fold in record["folds"])
    # A few that had to be left out change nothing that could be told from the spread.
    near = [
        row.n_subset
        for row in rows
        if row.n_subset and row.on_subset is not None and abs(row.n_subset - n_judged) <= _ALIKE * n_judged
    ]
    # Those of whom only predictions are known have no figure but that.
    is_wanted = record["crystals"]["missing"] or any(row.mean is None and row.on_subset is not None for row in rows)
    n_subset = min(near, key=lambda n: abs(n - n_judged), default=None) if is_wanted else None
    of = "" if n_subset == n_judged else f", ours on {n_judged}"
    columns = {
        "model": [f"**{row.model}**" if row.is_ours else row.model for row in rows],
        f"{'mean ' * (task.num_folds > 1)}{'ROC-AUC' if is_classes else 'MAE'}": [_number(row.mean) for row in rows],
        "std": [_number(row.std) for row in rows],
        f"{'mean ' * (task.num_folds > 1)}RMSE": [_number(row.rmse) for row in rows],
        "max error": [_number(row.max_error) for row in rows],
        f"on {n_subset} crystals{of}": [
            _number(row.mean if row.is_ours else row.on_subset if row.n_subset == n_subset else None)
            if n_subset
            else ""
            for row in rows
        ],
        "source": [row.source for row in rows],
    }
    together = " of all networks" if record.get("networks", 1) > 1 else ""
    # A column without a figure says nothing.
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    table = [list(columns), ["---"] * len(columns), *map(list, zip(*columns.values(), strict=True))]
    return [
        f"## {task.name} ({task.target}{unit})",
        _crystals(task, record),
        "\n".join(f"| {' | '.join(cells)} |" for cells in table),
        f"{record['parameters']:,} parameters{together}, {record['seconds_to_train'] / 60:.1f} min of training, "
        f"{_rate(record['train_crystals_per_second'])} crystals/s in training and "
        f"{_rate(record['inference_crystals_per_second'])} in prediction, on {_of_folds(record, 'hardware', _machine)}, "
        f"{record['date'][:10]}, commit {_of_folds(record, 'commit', str)}.\n`{record['command']}`",
    ]


def _crystals(task: Task, record: Mapping[str, Any]) -> str:
    """How many crystals there were, and what is missing."""
    crystals = record["crystals"]
    folds = [fold["crystals"] for fold in record["folds"]]
    sizes = "/".join(str(fold["test"]) for fold in folds)
    text = f"{crystals['present']} of {crystals['official']} crystals; judged on {sizes}"
    if crystals["missing"]:
        text += (
            f". **{crystals['missing']} are missing** ({crystals['left_out']} could not be used, the others are not in "
            "the data), so the comparison is not one to one: published errors are those on all"
        )
        official = [fold["test_official"] for fold in folds]
        if None not in official:
            text += f" {'/'.join(map(str, official))}"
    return text + "."


def _of_folds(record: Mapping[str, Any], key: str, name: Callable[[Any], str]) -> str:
    """What all networks of all folds have in common, or each of the differing ones."""
    runs = [record | fold | network for fold in record["folds"] for network in fold.get("ensemble", [{}])]
    return " and ".join(dict.fromkeys(name(run[key]) for run in runs))


def _machine(hardware: Mapping[str, Any]) -> str:
    kinds = ", ".join(sorted(set(hardware["devices"])))
    return f"{kinds} ({hardware['processor']}, {hardware['cores']} cores)"


def _ours(record: Mapping[str, Any]) -> Iterator[Row]:
    def row(model: str, metric: str, scores: Mapping[str, Any] = record["scores"]) -> Row:
        return Row(
            model,
            scores[metric]["mean"],
            scores[metric]["std"],
            scores["rmse"]["mean"] if "rmse" in scores else None,
            scores["max_error"]["max"] if "max_error" in scores else None,
            source="this folder",
            is_ours=True,
        )

    networks = record.get("networks", 1)
    ours = "cgcnn_jax" if networks == 1 else f"cgcnn_jax, mean of {networks} networks"
    yield row(ours, record["metric"])
    if "rocauc_of_labels" in record["scores"]:
        yield row(f"{ours}, of predicted labels", "rocauc_of_labels")
    if "scores_of_one" in record:
        yield row("cgcnn_jax, one of them", record["metric"], record["scores_of_one"])


def _rank(task: Task, row: Row) -> float:
    if row.mean is None:
        return float("inf")
    return -row.mean if task.kind == "classification" else row.mean


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table, empty cells None; none where there is no table."""
    if not path.is_file():
        return []
    table = pd.read_csv(path)
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _rate(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"
