"""JudgingPredictor: predictions, and why they may mean little."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cgcnn_jax.applicability import FILE, Applicability, training_ids
from cgcnn_jax.data import store
from cgcnn_jax.data.portion import Portion
from cgcnn_jax.ensemble import Ensemble, networks_of, restore
from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.predict import Predictor, TablePredictor, portion_table

_OTHER = f"{FILE} is of other weights than those that predict; make it anew"


class JudgingPredictor(TablePredictor):
    """A network, or an ensemble, that says of each crystal whether it lies outside of what it was trained on.

    `predict` and `predict_entries` have it in the column `outside`, after the predictions: why, or nothing if it lies
    within.

    Attributes:
      predictor: The network, or several.
      known: What one of them was trained on.
      featurizer: Structure to graph.
    """

    def __init__(self, predictor: Predictor | Ensemble, known: Applicability) -> None:
        """Raises ValueError if `known` is of none of the networks."""
        self.predictor, self.known, self.featurizer = predictor, known, predictor.featurizer
        seeing = [network for network in networks_of(predictor) if known.is_of(network)]
        if not seeing:
            raise ValueError(_OTHER)
        self._seeing = seeing[0]

    @classmethod
    def restore(cls, *workdirs: str | Path) -> "JudgingPredictor":
        """From the folder of a run, or of an exported network, or those of an ensemble; see `restore` and `first_known`."""
        predictor = restore(*workdirs)
        return cls(predictor, first_known(predictor, workdirs))

    def columns(self) -> list[str]:
        """Names of the columns between formula and reason, in `predict_entries`."""
        return [*self.predictor.columns(), "outside"]

    def digest(self) -> str:
        """Changes with the predictions and with what they are judged by."""
        return hashlib.sha256(f"{self.predictor.digest()} {self.known.digest()}".encode()).hexdigest()

    def predict_portion(self, portion: Portion) -> pd.DataFrame:
        """A row per structure of a portion, as `predict_entries`."""
        graphs = portion.store.graphs
        values, vectors = self._seeing.embed_graphs(graphs)
        reasons = self.known.judge(graphs, portion.store.vacuum, vectors).reasons
        if self.predictor is self._seeing:
            table = portion_table(portion, self.predictor.columns(), values, self._seeing.scaler)
        else:
            table = self.predictor.predict_portion(portion)
        outside = ["" if row is None else reasons[row] for row in portion.rows()]
        table.insert(len(table.columns) - 1, "outside", outside)
        return table


class Looks(NamedTuple):
    """Which crystals look like one that trained a network, whatever their ids.

    Attributes:
      alike: bool[n_graph].
      of: What they were compared with: "all" training crystals, "some" (an exported network may not keep all, and of several
        networks not all may say), or "none" (no folder has them).
    """

    alike: np.ndarray
    of: Literal["all", "some", "none"]


def looks(predictor: Predictor | Ensemble, workdirs: Sequence[str | Path], graphs: CrystalGraphs) -> Looks:
    """Compares crystals with those that trained the network, or any of several; see `Applicability.alike`.

    Args:
      predictor: Restored from `workdirs`.
      workdirs: The folder of each network.
      graphs: Of the crystals, made by the predictor's featurizer.
    """
    networks, formulas = networks_of(predictor), store.formulas(graphs)
    alike, kept = np.zeros(len(formulas), bool), []
    for network, workdir in zip(networks, workdirs, strict=True):
        # What cannot be read hinders no one from training or judging.
        with contextlib.suppress(OSError, ValueError):
            known = first_known(network, [workdir])
            alike |= known.alike(formulas, network.embed_graphs(graphs)[1])
            kept.append(not known.is_thinned)
    return Looks(alike, "none" if not kept else "all" if len(kept) == len(networks) and all(kept) else "some")


def first_known(predictor: Predictor | Ensemble, workdirs: Sequence[str | Path]) -> Applicability:
    """What the first network was trained on whose folder says so.

    Args:
      predictor: Restored from `workdirs`.
      workdirs: The folder of each network.

    Raises:
      FileNotFoundError: If none does, for what the first has.
      ValueError: Likewise, if the first is damaged, of other weights or of an imported model.
    """
    problems: list[FileNotFoundError | ValueError] = []
    for network, workdir in zip(networks_of(predictor), workdirs, strict=True):
        try:
            training_ids(network)  # imported models do not say
            known = Applicability.load(workdir)
        except FileNotFoundError as error:
            problems.append(error)
        except ValueError as error:
            problems.append(ValueError(f"{workdir}: {error}"))
        else:
            if known.is_of(network):
                return known
            problems.append(ValueError(f"{workdir}: {_OTHER}"))
    raise problems[0]
