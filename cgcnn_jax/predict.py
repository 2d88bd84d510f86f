"""Predictor: a trained model and everything it needs to turn structures into numbers."""

import functools
import hashlib
import json
import operator
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data import batching, elements, sources
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.portion import Portion, build
from cgcnn_jax.files import write_bytes
from cgcnn_jax.graph import CrystalGraphs, Offsets, PadBudget, members, offsets, select
from cgcnn_jax.nn.model import CGCNN, Variables, init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.state import Weights
from cgcnn_jax.train.step import embed_batch, inspect_batch, predict_batch
from cgcnn_jax.workdir import Workdir, versions

if TYPE_CHECKING:
    from pymatgen.core import Structure

_PORTION = 2048  # crystals whose graphs are in memory at a time
_BATCH_SIZE = 128  # of crystals, on the CPU: they stay in its caches
_GPU_BATCH_SIZE = 4096
_AHEAD = 2  # batches on their way


class Inspection(NamedTuple):
    """What the network computes on its way to the predictions of some graphs; numpy, in the order of the graphs.

    Attributes:
      values: Predictions, as `Predictor.predict_graphs` gives them, f64[n_graph, n_target or num_classes].
      crystals: Pooled vectors, f32[n_graph, d]; with pool="site" the mean of the atoms'.
      atoms: Vectors of the nodes after the last convolution and layer per atom, f32[n_node, d].
      sites: What each node contributes, f64[n_node, n_target], in units: the mean over a crystal's nodes, weighted by
        node_weight, is its prediction. In classification logits, whose mean's softmax is the prediction. None unless
        model.pool is "site".
      gates: The sigmoid of Eq. 5 of each edge in each convolution, averaged over the features, f32[n_edge, num_convs];
        None for model.conv="sum", which has no gate.
      messages: Each edge's term of the sum of Eq. 5, gate times core, averaged likewise, f32[n_edge, num_convs], for
        one bond (an edge of a quotient sends it edge_weight times); None likewise.
    """

    values: np.ndarray
    crystals: np.ndarray
    atoms: np.ndarray
    sites: np.ndarray | None
    gates: np.ndarray | None
    messages: np.ndarray | None


class Misfit(ValueError):
    """Weights that a network is to start from are not of its shape."""


class TablePredictor:
    """What predicts structures, a portion at a time, and says in a table what came out.

    Attributes:
      featurizer: Structure to graph.
    """

    featurizer: Featurizer

    def columns(self) -> list[str]:
        """Names of the columns between formula and reason, in `predict_entries`."""
        raise TypeError(f"{type(self).__name__} has no columns")

    def predict_portion(self, portion: Portion) -> pd.DataFrame:
        """A row per structure of a portion, as `predict_entries`."""
        raise TypeError(f"{type(self).__name__} has no predict_portion")

    def predict(self, structures: "Iterable[Structure | str | Path] | Structure | str | Path") -> pd.DataFrame:
        """Predicts for pymatgen structures, or paths that `read_input` takes (files, folders, patterns); several or one.

        Returns:
          A row per structure, in input order; see `predict_entries`.
        """
        return self.predict_entries(sources.entries_of(structures))

    def predict_entries(
        self,
        entries: Iterable[Entry | Rejected],
        *,
        executor: Executor | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> pd.DataFrame:
        """Predicts for what a source yields.

        Args:
          entries: Crystals or files.
          executor: Builds the graphs; None does so in this process.
          on_progress: Called with the number of crystals done since the last call.

        Returns:
          A row per entry, in input order: id, formula, then `prediction` and `unit` (one property), a column per
          property, or `class` and `probability_k`; `reason` says why a crystal has no prediction, and is empty else.
        """
        frames = []
        for portion in portions(entries):
            frames.append(self.predict_portion(build(portion, self.featurizer, executor)))
            if on_progress:
                on_progress(len(portion))
        if not frames:
            return pd.DataFrame(columns=["id", "formula", *self.columns(), "reason"])
        return pd.concat(frames, ignore_index=True)


class Predictor(TablePredictor):
    """Predicts properties of crystals with a trained model.

    >>> Predictor.restore("runs/demo").predict([structure])  # doctest: +SKIP

    Attributes:
      model: The network.
      weights: Its best weights.
      scaler: Property names, units and scaling.
      featurizer: Structure to graph.
      about: What the checkpoint says of itself: configuration, split, versions.
    """

    def __init__(
        self, model: CGCNN, weights: Weights, scaler: TargetScaler, featurizer: Featurizer, about: dict[str, Any]
    ) -> None:
        self.model = model
        self.weights = weights
        self.scaler = scaler
        self.featurizer = featurizer
        self.about = about
        self._budget: PadBudget | None = None

    @classmethod
    def restore(cls, workdir: str | Path) -> "Predictor":
        """From the work directory of a training run.

        Raises:
          FileNotFoundError: If there is no run with a checkpoint of one epoch or more.
          ValueError: If the checkpoint is damaged, or older than the summary of its run.
        """
        place = Workdir(workdir)
        folder = place.checkpoints
        if not folder.is_dir():
            what = "no checkpoints" if place.path.is_dir() else "no such folder"
            raise FileNotFoundError(
                f"{workdir}: {what}; a trained network is the folder of a training run (--workdir, config.init_from)"
            )
        with Checkpoints(folder) as checkpoints:
            about = checkpoints.about()
            if about is None:
                raise FileNotFoundError(f"{workdir}: the run was stopped before its first checkpoint; train on")
            if not checkpoints.has_best:
                raise FileNotFoundError(
                    f"{workdir}: the run was stopped in its first epoch, and its weights are those it began with; train on"
                )
            if place.is_finished and checkpoints.latest_step() < place.last_step():
                raise ValueError(
                    f"{workdir}: the last checkpoint of this finished run is gone, and the one of step "
                    f"{checkpoints.latest_step()} predicts otherwise; the command that trained it makes it again"
                )
            try:
                config = configs.from_dict(about["config"])
                scaler = TargetScaler.from_dict(about["scaler"])
                rows, columns = (operator.index(size) for size in about["table_shape"])
                model = configs.build_model(config, (rows, columns), scaler.n_output)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ValueError(
                    f"{workdir}: the checkpoint does not say what it is a model of ({type(error).__name__}: {error}); "
                    "it is damaged, or of a later version"
                ) from error
            weights = checkpoints.restore_weights(Weights(**_shapes(model)))
        assert weights is not None
        table = np.asarray(weights.constants["atom_table"])
        return cls(model, weights, scaler, configs.build_featurizer(config, table), about)

    def save(self, folder: str | Path, files: Mapping[str, bytes] | None = None) -> None:
        """Writes a folder that `restore` reads, for others: weights, configuration, ids of the split; no training goes on there.

        Paths of this machine are left out of the configuration. An element table of one's own becomes a file beside it,
        which `atoms.table` must name where training starts from these weights.

        Args:
          folder: To be made, whole or not at all.
          files: Name -> content of what else is to be in it.

        Raises:
          ValueError: If the folder is there, or the predictor has no configuration, being no run's.
        """
        place = Path(folder).expanduser()
        if place.exists() and not (place.is_dir() and not any(place.iterdir())):
            raise ValueError(f"{place} is there already; name a new folder")
        if "config" not in self.about:
            raise ValueError(
                "this predictor was put together without a configuration, which the folder must hold; save one that was "
                "restored"
            )
        about = self.about | {"config": configs.portable(configs.upgraded(self.about["config"]))}
        table = np.asarray(self.weights.constants["atom_table"])
        partial = Workdir(place.with_name(f".{place.name}.partial"))
        shutil.rmtree(partial.path, ignore_errors=True)
        partial.claim(about["config"])
        if not _is_named(about["config"], table):
            name = about["config"]["atoms"]["table"]
            elements.write_atom_init(partial.path / ("atom_init.json" if name == "auto" else name), table)
        for name, content in (files or {}).items():
            write_bytes(partial.path / name, content)
        with Checkpoints(partial.checkpoints) as checkpoints:
            checkpoints.save_weights(self.weights, about)
        os.replace(partial.path, place)

    def predict_graphs(self, graphs: CrystalGraphs) -> np.ndarray:
        """Values in units [n_graph, n_target], or class probabilities [n_graph, num_classes], in order."""
        values = np.zeros((len(graphs.n_node), self.scaler.n_output))
        for index, outputs in self._by_batch(predict_batch, graphs, offsets(graphs)):
            values[index] = self.scaler.unscale(np.asarray(outputs)[: len(index)])
        return values

    def embed_graphs(self, graphs: CrystalGraphs) -> tuple[np.ndarray, np.ndarray]:
        """Predictions as of `predict_graphs`, and the pooled vectors of `inspect_graphs` [n_graph, d]."""
        n_graph = len(graphs.n_node)
        values = np.zeros((n_graph, self.scaler.n_output))
        vectors = np.zeros((n_graph, self.model.features), np.float32)
        for index, (outputs, pooled) in self._by_batch(embed_batch, graphs, offsets(graphs)):
            values[index] = self.scaler.unscale(np.asarray(outputs)[: len(index)])
            vectors[index] = np.asarray(pooled)[: len(index)]
        return values, vectors

    def inspect_graphs(self, graphs: CrystalGraphs) -> Inspection:
        """Predictions of graphs, and the vectors, contributions and gates behind them."""
        starts, n_output, d = offsets(graphs), self.scaler.n_output, self.model.features
        n_graph, n_node, n_edge = len(graphs.n_node), len(graphs.species), len(graphs.distances)
        values = np.zeros((n_graph, n_output))
        crystals, atoms = np.zeros((n_graph, d), np.float32), np.zeros((n_node, d), np.float32)
        sites = np.zeros((n_node, n_output)) if self.model.pool == "site" else None
        gates, messages = (
            np.zeros((n_edge, self.model.num_convs), np.float32) if self.model.conv != "sum" else None for _ in range(2)
        )
        for index, (outputs, sown) in self._by_batch(inspect_batch, graphs, starts):
            values[index] = self.scaler.unscale(np.asarray(outputs)[: len(index)])
            node, edge = members(graphs, index, starts)
            for name, whole, place in (
                ("crystals", crystals, index),
                ("atoms", atoms, node),
                ("sites", sites, node),
                ("gates", gates, edge),
                ("messages", messages, edge),
            ):
                if name in sown and whole is not None:
                    whole[place] = np.asarray(sown[name])[: len(place)]
        if sites is not None and self.scaler.task == "regression":
            sites = self.scaler.unscale(sites)
        return Inspection(values, crystals, atoms, sites, gates, messages)

    def _by_batch(
        self, function: Callable[..., Any], graphs: CrystalGraphs, starts: Offsets
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Crystals of each batch, which are the first of the batch's graphs, and what the function gives for it."""
        n_graph = len(graphs.n_node)
        if not n_graph:
            return
        budget = self._budget_for(graphs)
        compiled = compiled_for(self.model, function)
        running: deque[tuple[np.ndarray, Any]] = deque()
        for plan in batching.packed_plan(graphs, np.arange(n_graph), budget):
            running.append((plan[plan >= 0], compiled(self.weights, select(graphs, plan, budget, starts))))
            # The host pads the next batches while the device works on these.
            if len(running) > _AHEAD:
                yield running.popleft()
        yield from running

    def variables_for(self, model: CGCNN, atom_table: np.ndarray, scaler: TargetScaler) -> Variables:
        """The weights as initial variables of a network to be trained on.

        The output layer takes up the difference of the scalers, so that training starts from these predictions: those of the
        properties of the same names, if these have them all, or else by their order.

        Raises:
          Misfit: If the network has parameters of other names or shapes, naming the first, another task, or another element
            table. One that ends at an earlier element, as the released atom_init.json, is no other.
        """
        if self.scaler.task != scaler.task:
            raise Misfit(
                f"the weights of config.init_from predict {self.scaler.described}, and the labels are {scaler.described}: the "
                "network of a regression starts none of classes, nor the other way round (config.model.task)"
            )
        mine, old = self.weights.variables(), self.scaler.as_in(scaler)
        if old.names != self.scaler.names:
            kept = np.array(self.scaler.places(old.names))
            output = {name: leaf[..., kept] for name, leaf in mine["params"]["output"].items()}
            mine = mine | {"params": mine["params"] | {"output": output}}
        known = np.asarray(mine["constants"]["atom_table"])
        both = min(len(known), len(atom_table))
        # What the weights have learned is of the columns.
        if is_same := np.array_equal(known[:both], atom_table[:both]):
            mine = mine | {"constants": {"atom_table": jnp.asarray(atom_table)}}
        wanted = _shapes(model)
        have, want = (
            {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
            for tree in (mine, wanted)
        )
        for name in sorted(have.keys() | want.keys()):
            if have.get(name) != want.get(name):
                raise Misfit(
                    f"the weights of config.init_from do not fit this network: {name} is {have.get(name)} there and "
                    f"{want.get(name)} here; set config.model, config.atoms, config.bonds and config.graph.angles as in its config.json, "
                    "and learn as many properties, or some of its own (config.data.target)"
                )
        if not is_same:
            raise Misfit(
                "the weights of config.init_from were trained with another element table (config.atoms); where that was one of "
                "their owner's, its file lies in an exported network's folder"
            )
        if scaler.task == "classification":
            return mine
        old_std, new_std = np.array(old.std), np.array(scaler.std)
        output = jax.device_get(mine["params"]["output"])
        shift = (np.array(old.mean) - np.array(scaler.mean)) / new_std
        scaled = {
            "kernel": jnp.asarray(output["kernel"] * (old_std / new_std), jnp.float32),
            "bias": jnp.asarray(output["bias"] * (old_std / new_std) + shift, jnp.float32),
        }
        return mine | {"params": mine["params"] | {"output": scaled}}

    def embed(
        self, structures: "Iterable[Structure | str | Path] | Structure | str | Path", *, atoms: bool = False
    ) -> pd.DataFrame:
        """The vectors by which the network knows crystals, or their atoms.

        Args:
          structures: See `predict`.
          atoms: A row for every atom instead of every crystal.

        Returns:
          A row per structure, in input order: id, formula, v_0, v_1, ... (the pooled vector), `reason` as in
          `predict_entries`. Of atoms: id, formula, atom (its number in the structure), element, its vector, `reason`;
          a structure without a graph has one row.
        """
        columns = ["id", "formula", *(["atom", "element"] if atoms else [])]
        names = [f"v_{k}" for k in range(self.model.features)]
        frames = []
        for entries in portions(sources.entries_of(structures)):
            portion = build(entries, self.featurizer)
            graphs = portion.store.graphs
            formulas = portion.store.formulas()
            vectors = self.inspect_graphs(graphs).atoms if atoms else self.embed_graphs(graphs)[1]
            rows: list[list[Any]] = []
            for place, (id, row) in enumerate(zip(portion.ids, portion.rows(), strict=True)):
                if row is None:
                    rows.append([id, *[None] * (len(columns) - 1 + len(names)), portion.reasons[place]])
                elif not atoms:
                    rows.append([id, formulas[row], *vectors[row], ""])
                else:
                    for atom, node in enumerate(portion.store.nodes_of_atoms(row)):
                        element = elements.symbol(int(graphs.species[node]))
                        rows.append([id, formulas[row], atom, element, *vectors[node], ""])
            frames.append(pd.DataFrame(rows, columns=[*columns, *names, "reason"]))
        if not frames:
            return pd.DataFrame(columns=[*columns, *names, "reason"])
        return pd.concat(frames, ignore_index=True)

    def predict_portion(self, portion: Portion) -> pd.DataFrame:
        """A row per structure of a portion, as `predict_entries`."""
        values = self.predict_graphs(portion.store.graphs)
        return portion_table(portion, self.columns(), values, self.scaler)

    def columns(self) -> list[str]:
        """Names of the columns that hold the predictions, in `predict_entries`."""
        return self.scaler.columns

    def digest(self) -> str:
        """Changes when a weight, a scale or a setting of the graphs or the network does."""
        config = self.about.get("config", {})  # there is none where a predictor was put together by hand
        if config:
            config = configs.portable(configs.upgraded(config))  # as it is in a folder for others
        settings = {key: config.get(key) for key in ("atoms", "bonds", "graph", "model")}
        if config and not config["graph"]["angles"]:
            # What came later must not change what a network without it is called: its applicability.npz knows it by that.
            settings["graph"] = {name: value for name, value in config["graph"].items() if name != "angles"}
        content = hashlib.sha256(json.dumps([settings, self.scaler.to_dict()], sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.weights.variables()):
            content.update(jax.tree_util.keystr(path).encode())
            content.update(np.ascontiguousarray(leaf).data)
        return content.hexdigest()

    def _budget_for(self, graphs: CrystalGraphs) -> PadBudget:
        """The shape in use, grown when a crystal does not fit, so that few shapes are compiled."""
        need = batching.packing_budget(graphs, _BATCH_SIZE if jax.default_backend() == "cpu" else _GPU_BATCH_SIZE)
        if self._budget is None or any(have < want for have, want in zip(self._budget, need, strict=True)):
            held = self._budget or PadBudget(1, 1, 1)
            self._budget = PadBudget(*(max(have, _roomy(want)) for have, want in zip(held, need, strict=True)))
        return self._budget


def portion_table(
    portion: Portion,
    columns: Sequence[str],
    values: np.ndarray,
    scaler: TargetScaler,
    cells: Callable[[np.ndarray], Sequence[Any]] | None = None,
) -> pd.DataFrame:
    """A row per structure of a portion: id, formula, the columns, and why there is nothing in them.

    Args:
      portion: Its graphs.
      columns: Names of the columns between formula and reason.
      values: Of each graph, [n_graph, ...].
      scaler: Of the network.
      cells: Those of one graph -> its columns; the scaler's if not given.
    """
    formulas, rows, cells = portion.store.formulas(), [], cells or scaler.cells
    for place, (id, row) in enumerate(zip(portion.ids, portion.rows(), strict=True)):
        if row is None:
            rows.append([id, None, *[None] * len(columns), portion.reasons[place]])
        elif np.isfinite(values[row]).all():
            rows.append([id, formulas[row], *cells(values[row]), ""])
        else:
            rows.append([id, formulas[row], *[None] * len(columns), not_finite(id)])
    table = pd.DataFrame(rows, columns=["id", "formula", *columns, "reason"])
    if scaler.task == "classification":
        # Or the class of every crystal beside one without a prediction would be a float: 1.0 instead of 1.
        table["class"] = table["class"].astype("Int64")
    return table


def describe(
    config: ConfigDict,
    scaler: TargetScaler,
    table_shape: Sequence[int],
    split: Mapping[str, Sequence[str]],
    data_digest: str = "",
) -> dict[str, Any]:
    """The JSON saved with every checkpoint: all that `Predictor.restore` needs beside the arrays.

    Args:
      config: Of the run.
      scaler: Fitted on its training split.
      table_shape: Of the element table.
      split: Ids of train, val and test.
      data_digest: Tells whether the data are still those that training began with.
    """
    return {
        "config": configs.to_dict(config),
        "scaler": scaler.to_dict(),
        "table_shape": list(table_shape),
        "split": dict(split),
        "data_digest": data_digest,
        "versions": versions(),
    }


def not_finite(id: str) -> str:
    """The reason of a crystal of which the network says nothing."""
    return f"{id}: the network's output is not a finite number"


def portions(entries: Iterable[Entry | Rejected]) -> Iterator[list[Entry | Rejected]]:
    """Entries in lists of so many as may be in memory with their graphs."""
    portion: list[Entry | Rejected] = []
    for entry in entries:
        portion.append(entry)
        if len(portion) == _PORTION:
            yield portion
            portion = []
    if portion:
        yield portion


@functools.lru_cache(maxsize=256)  # more than any ensemble has: each portion of crystals goes through all of them
def compiled_for(model: CGCNN, function: Callable[..., Any]) -> Any:
    """function(model, weights, graphs), compiled. Networks of one architecture, as ensembles are, share it."""
    return jax.jit(functools.partial(function, model))


def _is_named(config: Mapping[str, Any], table: np.ndarray) -> bool:
    """Whether the element table is one of the library's, so that its name in the configuration is enough."""
    name = "released" if config["atoms"]["table"] == "auto" else config["atoms"]["table"]
    if name not in elements.TABLES:
        return False
    return np.array_equal(table, elements.atom_features(name, properties=config["atoms"]["properties"]))


@functools.lru_cache(maxsize=32)
def _shapes(model: CGCNN) -> Variables:
    """The model's variables as shapes, without computing them."""
    return jax.eval_shape(lambda: init_variables(model, 0, np.zeros(model.table_shape, np.float32)))


def _roomy(n: int) -> int:
    """n rounded up to four binary digits: at most an eighth more, and few different shapes."""
    step = 1 << max(n.bit_length() - 4, 0)
    return -(-n // step) * step
