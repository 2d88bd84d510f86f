"""What a worker does with structures. It gets them and the places of the models, and imports jax only to predict."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cgcnn_jax.data import portion
from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.portion import Portion
from cgcnn_jax.data.sources import CrystalLine
from cgcnn_jax.screen.limit import TimeLimit
from cgcnn_jax.screen.shard import Item

if TYPE_CHECKING:
    import pandas as pd

    from cgcnn_jax.ensemble import Ensemble
    from cgcnn_jax.judging import JudgingPredictor
    from cgcnn_jax.predict import Predictor


@dataclass(frozen=True)
class Model:
    """A trained model, by its place.

    Attributes:
      name: Leads its columns where there are several models.
      workdirs: Folder of its training run, or those of an ensemble's, which every worker must see.
      digest: Of the predictor; tells whether the folder still holds the same model.
      judges: Whether it says what lies outside of its training crystals.
    """

    name: str
    workdirs: tuple[str, ...]
    digest: str
    judges: bool = False


@dataclass(frozen=True)
class Build:
    """Reads structures and builds their graphs, once for each of the different featurizers.

    Attributes:
      featurizers: How.
      time_limit: Seconds for reading a structure, and again for its graph.
      in_worker: Whether this runs in a process that is replaced when it ends.
    """

    featurizers: tuple[Featurizer, ...]
    time_limit: float
    in_worker: bool

    def __call__(self, items: Sequence[Item]) -> list[Portion]:
        with TimeLimit(self.time_limit, may_exit=self.in_worker) as limit:
            opened = [item.parse() if isinstance(item, CrystalLine) else item for item in items]
            entries = [one if isinstance(one, Rejected) else limit.entry(one) for one in opened]
            return [portion.build(entries, limit.featurize(featurizer)) for featurizer in self.featurizers]


@dataclass(frozen=True)
class BuildAndPredict:
    """All of the work, in a worker: structures in, their rows out."""

    build: Build
    models: tuple[Model, ...]

    def __call__(self, items: Sequence[Item]) -> "pd.DataFrame":
        portions = self.build(items)
        if self.build.in_worker:
            _take_one_thread()
        return predict(self.models, _restored(self.models), self.build.featurizers, portions)


def predict(
    models: Sequence[Model],
    predictors: "Sequence[Predictor | Ensemble | JudgingPredictor]",
    featurizers: Sequence[Featurizer],
    portions: Sequence[Portion],
) -> "pd.DataFrame":
    """The rows of structures.

    Args:
      models: What the predictors are called.
      predictors: The trained models.
      featurizers: The different featurizers among theirs.
      portions: Graphs, for each featurizer.

    Returns:
      As Predictor.predict_entries; with several models NAME:COLUMN for each of their columns, and a reason that names
      the models that have none if not all do.
    """
    tables = [one.predict_portion(portions[featurizers.index(one.featurizer)]) for one in predictors]
    if len(tables) == 1:
        return tables[0]
    joined = tables[0][["id"]].copy()
    formulas = [table["formula"] for table in tables]
    joined["formula"] = functools.reduce(lambda first, second: first.where(first.notna(), second), formulas)
    for model, table in zip(models, tables, strict=True):
        for column in table.columns.difference(["id", "formula", "reason"], sort=False):
            joined[f"{model.name}:{column}"] = table[column]
    reasons = np.array([table["reason"] for table in tables], dtype=object).T
    joined["reason"] = [_joined_reason([model.name for model in models], row) for row in reasons]
    return joined


def _joined_reason(names: Sequence[str], reasons: Sequence[str]) -> str:
    if len(set(reasons)) == 1:
        return reasons[0]
    return "; ".join(f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True) if reason)


def restore(workdirs: Sequence[str | Path], *, judges: bool) -> "Predictor | Ensemble | JudgingPredictor":
    """The model of a folder, or the ensemble of several; see `ensemble.restore` and `JudgingPredictor.restore`."""
    from cgcnn_jax import ensemble
    from cgcnn_jax.judging import JudgingPredictor

    return JudgingPredictor.restore(*workdirs) if judges else ensemble.restore(*workdirs)


@functools.cache
def _restored(models: tuple[Model, ...]) -> "list[Predictor | Ensemble | JudgingPredictor]":
    """The models, once for each worker.

    Raises:
      ValueError: If a folder holds another model than the screening began with.
    """
    predictors = [restore(model.workdirs, judges=model.judges) for model in models]
    for model, predictor in zip(models, predictors, strict=True):
        if predictor.digest() != model.digest:
            raise ValueError(
                f"{', '.join(model.workdirs)}: the model changed while it was used for screening; screen again in another folder"
            )
    return predictors


def _take_one_thread() -> None:
    """Workers share a machine, one for each core. Read by XLA when it first computes; too late later, and harmless."""
    os.environ.setdefault("NPROC", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
