"""FinishedRun: what the folder of a finished run tells, as frames. The data set is not needed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cgcnn_jax import config as configs
from cgcnn_jax.workdir import Workdir

_NUMBERS = ("target", "prediction", "probability_", "n_atom", "distance")


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that was trained to its end and judged.

    Attributes:
      path: Its folder.
      name: What tables and legends call it.
      config: config.json, with the fields that it may be too old to have.
      summary: summary.json.
      records: A row per epoch, the columns of metrics.jsonl.
      rejected: id and reason of the crystals left out.
      predictions: predictions.csv; numbers are NaN where unknown.
      judged: The split that the predictions are of.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    records: pd.DataFrame
    rejected: pd.DataFrame
    predictions: pd.DataFrame
    judged: str

    @property
    def is_classifier(self) -> bool:
        return self.config["model"]["task"] == "classification"

    @property
    def units(self) -> dict[str, str]:
        """Property -> unit, as `report.figures.axis_label` takes them; classes have none."""
        found = dict(self.summary["properties"])
        return dict.fromkeys(found, "") if self.is_classifier else found

    def of_property(self, metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """The part of a summary's metrics or intervals that belongs to a property."""
        return metrics.get(name, {}) if len(self.units) > 1 else metrics

    def labelled(self, name: str) -> pd.DataFrame:
        """The judged crystals whose label of a property is known.

        Returns:
          id, what else predictions.csv says of the crystals (formula, n_atom, ...), target and prediction. Of numbers
          also error = prediction - target and miss = |error|; of classes probability_k, certainty = the probability
          of the true class, and miss = 1 where prediction and target differ, 0 elsewhere.

        Raises:
          KeyError: If the run has no such property, listing those it has.
        """
        if name not in self.units:
            raise KeyError(f"{self.path} predicts no {name!r}; it has {', '.join(self.units)}")
        mine = ("target", "prediction") if len(self.units) == 1 else (f"target:{name}", f"prediction:{name}")
        others = [column for column in self.predictions if column.startswith(("target:", "prediction:"))]
        frame = self.predictions.rename(columns=dict(zip(mine, ("target", "prediction"), strict=True)))
        frame = frame.drop(columns=[column for column in others if column not in mine])
        frame = frame[frame["target"].notna()].reset_index(drop=True)
        if not self.is_classifier:
            error = frame["prediction"] - frame["target"]
            return frame.assign(error=error, miss=error.abs())
        probabilities = frame[[column for column in frame if column.startswith("probability_")]].to_numpy()
        labels = frame["target"].to_numpy(int)
        return frame.assign(
            certainty=probabilities[np.arange(len(frame)), labels],
            miss=(frame["prediction"] != frame["target"]).astype(float),
        )


def read(path: str | Path, name: str = "") -> FinishedRun:
    """The run of a work directory.

    Args:
      path: The folder of a training run.
      name: What the report calls it; the folder's name if not given.

    Raises:
      FileNotFoundError: If it holds no finished run.
      ValueError: If its predictions.csv has no row, or lacks the columns of its summary.
    """
    workdir = Workdir(path)
    files = ("summary.json", "config.json", "predictions.csv")
    missing = [file for file in files if not (workdir.path / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path}: no {missing[0]}; a report needs the folder of a finished run, which experiments.train writes"
        )
    summary = workdir.summary()
    config = configs.upgraded(workdir.read_json("config.json"))
    predictions = _predictions(workdir, len(summary["properties"]), list(summary["properties"]))
    rejected = workdir.path / "rejected.csv"
    return FinishedRun(
        path=workdir.path,
        name=name or workdir.path.resolve().name,
        config=config,
        summary=summary,
        records=pd.DataFrame(workdir.records()),
        rejected=_texts(rejected) if rejected.is_file() else pd.DataFrame(columns=["id", "reason"]),
        predictions=predictions,
        judged=next(iter(summary["intervals_95"]), "test"),
    )


def read_all(paths: Sequence[str | Path]) -> list[FinishedRun]:
    """Runs under names that tell them apart: those of their folders, or the paths where folders share a name.

    Raises:
      FileNotFoundError: If one holds no finished run.
      ValueError: If there is no path, or one stands twice.
    """
    places = [Path(path).expanduser().resolve() for path in paths]
    if not places:
        raise ValueError("a report needs the folder of at least one run")
    twice = [str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ValueError(f"{twice[0]} stands twice; name each run once")
    names = [place.name for place in places]
    return [read(path, name if names.count(name) == 1 else str(path)) for path, name in zip(paths, names, strict=True)]


def differing_fields(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """Fields of the configuration that are not the same in all runs: a row per field, a column per run."""
    flat = pd.DataFrame(
        {run.name: {key: json.dumps(value) for key, value in flattened(run.config).items()} for run in runs}
    )
    flat = flat[[run.name for run in runs]].fillna("")
    return flat[flat.nunique(axis=1) > 1].sort_index()


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names, as the command line has them."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _predictions(workdir: Workdir, n_property: int, names: Sequence[str]) -> pd.DataFrame:
    table = _texts(workdir.path / "predictions.csv")
    needed = (
        ["id", "target", "prediction"]
        if n_property == 1
        else ["id", *(f"{kind}:{name}" for name in names for kind in ("target", "prediction"))]
    )
    missing = [column for column in needed if column not in table]
    if missing or not len(table):
        what = f"has no column {missing[0]!r}" if missing else "has no row"
        raise ValueError(f"{workdir.path}/predictions.csv {what}; evaluate the run anew, or train again")
    # All else stays text: 007 is an id, and NaN the formula of sodium nitride.
    numbers = [column for column in table if column.startswith(_NUMBERS)]
    try:
        return table.assign(**{column: pd.to_numeric(table[column]) for column in numbers})
    except ValueError as error:
        raise ValueError(f"{workdir.path}/predictions.csv holds what is no number: {error}") from error


def _texts(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)
