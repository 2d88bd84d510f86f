"""Ensemble: several trained networks that predict as one, and say how far they agree."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cgcnn_jax.data.portion import Portion
from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.predict import Predictor, TablePredictor, portion_table
from cgcnn_jax.scaling import TargetScaler


class Ensemble(TablePredictor):
    """The mean of networks that were trained alike but for their seeds (deep ensemble, Lakshminarayanan et al. 2017).

    Their spread says how much a prediction depends on the accidents of training. It is large where the training crystals
    say little, but no error bar: what all networks get wrong alike, it does not show.

    Networks that learned several properties predict here those that all of them learned.

    `predict` and `predict_entries` have the mean in place of the prediction, and the spreads besides, in columns after the
    others: `std`, or with several properties or classes `std of COLUMN`.

    >>> Ensemble.restore(["runs/seed_0", "runs/seed_1"]).predict([structure])  # doctest: +SKIP

    Attributes:
      predictors: At least two, of the same graphs, with at least one property in common.
      scaler: Of the properties that all predict, in the order of the first.
      featurizer: Structure to graph, with angles if one of them takes those: the others pass over them.
    """

    def __init__(self, predictors: Sequence[Predictor], names: Sequence[str] | None = None) -> None:
        """
        Args:
          predictors: The networks.
          names: What errors call them; their numbers if not given.

        Raises:
          ValueError: If there are less than two, if two are one, or if they learned other graphs, or no property in common.
        """
        if len(predictors) < 2:
            raise ValueError(f"an ensemble needs at least two networks; got {len(predictors)}")
        self.predictors = tuple(predictors)
        has_angles = any(one.featurizer.angles for one in predictors)
        self.featurizer = dataclasses.replace(predictors[0].featurizer, angles=has_angles)
        names = names or [f"network {number}" for number in range(1, len(predictors) + 1)]
        seen: dict[str, str] = {}
        shared = predictors[0].scaler
        for name, other in zip(names, predictors, strict=True):
            shared = _shared(shared, other.scaler, name)
            if self.featurizer != dataclasses.replace(other.featurizer, angles=has_angles):
                raise ValueError(
                    f"the networks of an ensemble must see the same graphs and elements (config.graph, config.atoms); {name} "
                    f"was trained on others than {names[0]}: leave one of them out"
                )
            # Counted twice, a network would pull the mean to itself and agree with itself.
            if (digest := other.digest()) in seen:
                raise ValueError(f"{seen[digest]} and {name} are the same network; leave one of them out")
            seen[digest] = name
        self.scaler = shared
        self._outputs = [one.scaler.places(shared.names) for one in predictors]

    @classmethod
    def restore(cls, workdirs: Iterable[str | Path]) -> "Ensemble":
        """From the work directories of training runs; see `Predictor.restore`."""
        workdirs = list(workdirs)
        return cls([Predictor.restore(workdir) for workdir in workdirs], [str(workdir) for workdir in workdirs])

    def predict_graphs(self, graphs: CrystalGraphs) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread sqrt(sum_m (p_m - mean)^2 / (M - 1)) of the M networks' values, as `Predictor.predict_graphs`."""
        values = np.stack(
            [one.predict_graphs(graphs)[:, own] for one, own in zip(self.predictors, self._outputs, strict=True)]
        )
        return values.mean(axis=0), values.std(axis=0, ddof=1)

    def predict_portion(self, portion: Portion) -> pd.DataFrame:
        """A row per structure of a portion, as `predict_entries`."""
        both = np.stack(self.predict_graphs(portion.store.graphs), axis=1)
        return portion_table(
            portion, self.columns(), both, self.scaler, lambda one: [*self.scaler.cells(one[0]), *one[1].tolist()]
        )

    def digest(self) -> str:
        """Changes when one of the networks does; see `Predictor.digest`."""
        return hashlib.sha256(" ".join(network.digest() for network in self.predictors).encode()).hexdigest()

    def columns(self) -> list[str]:
        """Names of the columns that hold mean and spread, in `predict_entries`."""
        names = self.scaler.columns
        if self.scaler.task == "classification":
            return names + [f"std of {name}" for name in names[1:]]
        return [*names, "std"] if len(self.scaler.names) == 1 else names + [f"std of {name}" for name in names]


def restore(*workdirs: str | Path) -> Predictor | Ensemble:
    """The network of a folder, or the ensemble of several; see `Predictor.restore`."""
    return Predictor.restore(workdirs[0]) if len(workdirs) == 1 else Ensemble.restore(workdirs)


def networks_of(predictor: Predictor | Ensemble) -> tuple[Predictor, ...]:
    return predictor.predictors if isinstance(predictor, Ensemble) else (predictor,)


def _shared(first: TargetScaler, other: TargetScaler, name: str) -> TargetScaler:
    """What the network `name` predicts of what those before it do. Raises ValueError if that is nothing."""
    if first.task == other.task == "regression":
        theirs = set(zip(other.names, other.units, strict=True))
        if both := tuple(name for name, unit in zip(first.names, first.units, strict=True) if (name, unit) in theirs):
            return first.only(both)
    elif (first.task, first.names, first.num_classes) == (other.task, other.names, other.num_classes):
        return first
    raise ValueError(
        f"the networks of an ensemble must have a property in common; {name} predicts {other.described}, those before it "
        f"{first.described}: leave some out, or let experiments.screen give each a column"
    )
