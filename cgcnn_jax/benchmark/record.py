"""Records: errors in the terms of the leaderboards, and what they took."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.splits import NAMES, Split
from cgcnn_jax.data.tasks import Task
from cgcnn_jax.predict import Predictor
from cgcnn_jax.train import metrics
from cgcnn_jax.workdir import Workdir

# What a network was trained with; and how and when.
_WITH = ("hardware", "versions", "commit")
_OF_A_RUN = (*_WITH, "command", "date")
# Matbench leaves smaller labels out of its percentage error.
_SMALL = 1e-5


def regression_scores(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """mae, rmse, max_error and r2 of one fold, and mape = mean |p - y| / |y| over the labels with |y| > 1e-5.

    Args:
      target: Labels y, [n].
      prediction: Predictions p in the same unit, [n].

    Source: the scores of Matbench v0.1, and R².
    """
    found = metrics.regression_metrics(target, prediction)
    error = np.abs(prediction - target)
    counts = np.abs(target) > _SMALL
    return {
        "mae": found["mae"],
        "rmse": found["rmse"],
        "mape": float(np.mean(error[counts] / np.abs(target[counts]))) if counts.any() else float("nan"),
        "max_error": float(error.max()),
        "r2": found["r2"],
    }


def classification_scores(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """accuracy, balanced_accuracy, f1 and rocauc of one fold, of class 1.

    rocauc is the area under the curve of the probabilities. rocauc_of_labels is that of the predicted classes, 0 or 1,
    as several entries of the published table have it; it is (recall of class 1 + recall of class 0) / 2.

    Args:
      label: Classes 0 and 1, [n].
      probability: Of class 1, [n]; more than 0.5 is class 1.
    """
    found = metrics.classification_metrics(label, np.column_stack([1 - probability, probability]))
    hard = np.where(np.isnan(probability), np.nan, probability > 0.5)
    of_labels = metrics.classification_metrics(label, np.column_stack([1 - hard, hard]))
    return {
        "accuracy": found["accuracy"],
        "balanced_accuracy": found["balanced_accuracy"],
        "f1": found["f1"],
        "rocauc": found["roc_auc"],
        "rocauc_of_labels": of_labels["roc_auc"],
    }


def fold_record(
    task: Task,
    fold: int,
    place: Workdir,
    crystals: Dataset,
    split: Split,
    command: str,
    *,
    measures: bool = True,
) -> dict[str, Any]:
    """What a finished fold reached, from the files of its work directory, and how fast it predicts.

    That is measured, or else taken from what its training found, as of networks that trained together.
    """
    summary = place.summary()
    n_test, rate = len(split["test"]), summary["inference_crystals_per_second"]
    return {
        "fold": fold,
        "scores": scores_of(task, [place]),
        "crystals": {name: len(split[name]) for name in NAMES} | {"test_official": task.test_size(fold)},
        "present": len(crystals),
        "left_out": len(crystals.rejected),
        "weights_chosen_by": "val" if len(split["val"]) else "nothing: those after the last epoch",
        "metrics_of_val": summary["metrics"]["val"],
        "epochs": len(place.records()),
        "best_epoch": summary["best_epoch"],
        "parameters": summary["parameters"],
        "seconds_to_train": summary["seconds_of_all_epochs"],
        "train_crystals_per_second": summary["train_crystals_per_second"],
        "inference": (
            _inference(place, crystals, split["test"])
            if measures
            else {"crystals": n_test, "seconds": n_test / rate, "crystals_per_second": rate}
        ),
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: summary[key] for key in _WITH},
    }


def scores_of(task: Task, places: Sequence[Workdir]) -> dict[str, float]:
    """Scores of the mean of what the networks of some work directories predict for the crystals that judge.

    Raises:
      ValueError: If they judged different crystals.
    """
    tables = [pd.read_csv(place.path / "predictions.csv", dtype={"id": str}) for place in places]
    for place, table in zip(places, tables, strict=True):
        if not table[["id", "target"]].equals(tables[0][["id", "target"]]):
            raise ValueError(
                f"{place.path}/predictions.csv and {places[0].path.name}/predictions.csv are of different crystals or "
                "labels; remove the folder that is not of these data"
            )
    is_classes = task.kind == "classification"
    column = "probability_1" if is_classes else "prediction"
    mean = np.mean([table[column].to_numpy(float) for table in tables], axis=0)
    return (classification_scores if is_classes else regression_scores)(tables[0]["target"].to_numpy(float), mean)


def ensemble_record(task: Task, records: Sequence[Mapping[str, Any]], places: Sequence[Workdir]) -> dict[str, Any]:
    """A fold's record of the mean of several networks, from their predictions; `ensemble` has what differs among them."""
    last, per_second = records[-1], [record["inference"]["crystals_per_second"] for record in records]
    own = ("scores", "metrics_of_val", "epochs", "best_epoch", "seconds_to_train", *_OF_A_RUN)
    return {
        **{key: value for key, value in last.items() if key not in {"metrics_of_val", "epochs", "best_epoch"}},
        "scores": scores_of(task, places),
        "parameters": sum(record["parameters"] for record in records),
        "seconds_to_train": sum(record["seconds_to_train"] for record in records),
        "train_crystals_per_second": _mean([record["train_crystals_per_second"] for record in records]),
        "inference": {
            "crystals": last["inference"]["crystals"],
            "seconds": sum(record["inference"]["seconds"] for record in records),
            "crystals_per_second": 1 / sum(1 / rate for rate in per_second),
        },
        "ensemble": [
            {"seed": record["config"]["train"]["seed"]} | {key: record[key] for key in own} for record in records
        ],
    }


def task_record(task: Task, folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a task from those of its folds.

    Every score has mean, max, min and std over the folds; std is sqrt(mean of (score - mean)^2), as on the Matbench
    leaderboard, and absent where there is one fold. Hardware, versions and commit are those of the last fold; where folds
    differ in one of them, each has its own as well. Where the mean of several networks is judged, `networks` is their
    number and `scores_of_one` has what a single one reaches: its own mean, max, min and std, averaged over the networks.
    """
    last = folds[-1]
    networks = len(last.get("ensemble", [last]))
    # What is the same in every fold stands once.
    config = dict(last["config"], data={key: value for key, value in last["config"]["data"].items() if key != "fold"})
    once = (*_WITH, "present", "left_out", "parameters", "data_digest")
    shared = {key for key in once if all(fold[key] == last[key] for fold in folds)} | {"config"}
    return {
        "suite": task.suite,
        "task": task.name,
        "target": task.target,
        "unit": task.unit,
        "metric": task.metric,
        "networks": networks,
        "scores": {name: over_folds([fold["scores"][name] for fold in folds]) for name in last["scores"]},
        **({"scores_of_one": _scores_of_one(folds)} if networks > 1 else {}),
        "crystals": {
            "official": task.size,
            "present": last["present"],
            "missing": task.size - last["present"],
            "left_out": last["left_out"],
        },
        "parameters": last["parameters"],
        "seconds_to_train": sum(fold["seconds_to_train"] for fold in folds),
        "train_crystals_per_second": _mean([fold["train_crystals_per_second"] for fold in folds]),
        "inference_crystals_per_second": _mean([fold["inference"]["crystals_per_second"] for fold in folds]),
        "folds": [{key: value for key, value in fold.items() if key not in shared} for fold in folds],
        **{key: last[key] for key in (*_OF_A_RUN, "data_digest")},
        "config": config,
    }


def over_folds(values: Sequence[float | None]) -> dict[str, float | None]:
    """mean, max, min and std of a score; None where one fold has no number, std also where there is one fold."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return dict.fromkeys(("mean", "max", "min", "std"))
    return {
        "mean": float(np.mean(numbers)),
        "max": max(numbers),
        "min": min(numbers),
        "std": float(np.std(numbers)) if len(numbers) > 1 else None,
    }


def _scores_of_one(folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    networks = list(zip(*(fold["ensemble"] for fold in folds), strict=True))

    def averaged(name: str) -> dict[str, float | None]:
        of_networks = [over_folds([one["scores"][name] for one in network]) for network in networks]
        return {
            key: None if any(one[key] is None for one in of_networks) else _mean([one[key] for one in of_networks])
            for key in of_networks[0]
        }

    return {name: averaged(name) for name in folds[-1]["scores"]}


def _inference(place: Workdir, crystals: Dataset, test: np.ndarray) -> dict[str, float]:
    """Time to predict the test crystals from their graphs, compiled."""
    predictor, graphs = Predictor.restore(place.path), crystals.store.take(test)
    predictor.predict_graphs(graphs)
    began = time.perf_counter()
    predictor.predict_graphs(graphs)
    seconds = time.perf_counter() - began
    return {"crystals": len(test), "seconds": seconds, "crystals_per_second": len(test) / seconds}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
