"""Applicability: what a model was trained on, and whether another crystal lies within it."""

import hashlib
import io
import shlex
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cgcnn_jax.data import elements, store
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.files import write_bytes
from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.predict import Predictor
from cgcnn_jax.workdir import Workdir

if TYPE_CHECKING:
    from sklearn.neighbors import NearestNeighbors

FILE = "applicability.npz"
QUANTILE = 0.95
MARGIN = 0.2
"""Å by which a distance must lie outside of those in training to count as not seen."""
EMPTIER = 1.0
"""Å by which an empty layer must be thicker than those in training: layered crystals differ by tenths, slabs by more."""
_REACH = 0.75  # times the threshold
_SAME = 0.01  # times the threshold
_MOST_KEPT = 1 << 20  # numbers of the vectors that go with an exported network before they are thinned: 2 MB as f16
_BULK = 0.99  # share of training crystals that are taken for bulk: large sets hold a slab or a broken structure


class Judgement(NamedTuple):
    """Some crystals against the training crystals.

    Attributes:
      distances: To the nearest training crystals, ascending, f64[n_graph, k]; see Applicability.nearest.
      neighbors: Which those are, as places in Applicability.ids, i64[n_graph, k].
      reasons: Why each crystal lies outside of what was trained on, [n_graph]; empty if it lies within.
    """

    distances: np.ndarray
    neighbors: np.ndarray
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Applicability:
    """The training crystals as the model sees them, and the elements, bonds and empty layers they hold.

    A crystal lies outside if

    - an element of it, or two of its elements as neighbours, are in no training crystal,
    - two elements are closer by 0.2 Å than anywhere in training,
    - the nearest neighbour of an atom is farther by 0.2 Å than wherever these two elements are nearest in training,
    - it has a layer without atoms thicker by 1 Å than 99 % of the training crystals (a slab or molecule;
      `vacuum.thickness`), or
    - its pooled vector is farther from every training crystal's than a quantile of these crystals' own distances to their
      nearest other: by that rule a share 1 - quantile of the training crystals would lie outside themselves.

    What the shares mean for errors: docs/interpret.md.

    Attributes:
      ids: Training crystals, all or those that `thinned` kept.
      formulas: Their reduced formulas.
      labels: Their targets in units, f64[n, n_target], NaN where unknown; [n, 0] if they were left out.
      vectors: Their pooled vectors, f32[n, d], or f16 in an exported network.
      spacing: Distance of every training crystal, of those left out too, to its nearest other one, f64[n_train].
      quantile: Of `spacing`, above which a crystal is far.
      species: Atomic numbers, ascending, i32[n_element].
      pairs: Neighbouring elements, the lower atomic number first, ascending, i32[n_pair, 2].
      shortest: Their shortest distance in training, Å, f32[n_pair].
      longest: Their longest where one is the other's nearest neighbour, Å, f32[n_pair]; infinite if nowhere.
      vacuum: Thickest empty layer of 99 % of the training crystals, Å.
      weights: Digest of the Predictor that made the vectors.
    """

    ids: tuple[str, ...]
    formulas: tuple[str, ...]
    labels: np.ndarray
    vectors: np.ndarray
    spacing: np.ndarray
    quantile: float
    species: np.ndarray
    pairs: np.ndarray
    shortest: np.ndarray
    longest: np.ndarray
    vacuum: float
    weights: str

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile must be above 0 and at most 1, got {self.quantile}")

    @classmethod
    def fit(
        cls, predictor: Predictor, crystals: Dataset, train: np.ndarray | None = None, *, quantile: float = QUANTILE
    ) -> "Applicability":
        """From the training crystals, which have the places `train` in the data; all of them if not given.

        Raises:
          ValueError: If there are fewer than two, or the quantile is not between 0 and 1.
        """
        train = np.arange(len(crystals.ids)) if train is None else train
        if len(train) < 2:
            raise ValueError(f"the distances between training crystals need two of them, got {len(train)}")
        graphs = crystals.store.take(train)
        vectors = predictor.embed_graphs(graphs)[1]
        spacing = _nearest(_search(vectors), vectors)[0][:, 0]
        code, place = np.unique(_pairs(graphs), return_inverse=True)
        shortest, longest = np.full(len(code), np.inf, np.float32), np.full(len(code), -np.inf, np.float32)
        np.minimum.at(shortest, place, graphs.distances)
        is_first = _is_first(graphs)
        np.maximum.at(longest, place[is_first], graphs.distances[is_first])
        return cls(
            tuple(crystals.ids[place] for place in train),
            tuple(store.formulas(graphs)),
            crystals.targets[train],
            vectors,
            spacing,
            quantile,
            np.unique(graphs.species),
            np.stack(np.divmod(code, _BASE), axis=1),
            shortest,
            np.where(np.isneginf(longest), np.float32(np.inf), longest),
            float(np.quantile(crystals.store.vacuum[train], _BULK)),
            predictor.digest(),
        )

    @classmethod
    def of_run(cls, predictor: Predictor, crystals: Dataset, *, quantile: float = QUANTILE) -> "Applicability":
        """From the data of the run that trained the predictor; its training crystals are found by id.

        Raises:
          ValueError: If the run does not say which they were, or the data no longer hold them.
        """
        train = crystals.places(training_ids(predictor), "training crystals")
        return cls.fit(predictor, crystals, train, quantile=quantile)

    def for_others(self) -> "Applicability":
        """Without labels, which may not be for others; `thinned` if the vectors are many.

        The vectors are f16 if that changes no distance by more than 0.4 % of the threshold.
        """
        known = self.thinned() if self.vectors.size > _MOST_KEPT else self
        with np.errstate(over="ignore"):
            short = known.vectors.astype(np.float16)
        change = np.linalg.norm(known.vectors - short.astype(np.float32), axis=1).max()
        vectors = short if change < 0.4 * _SAME * self.threshold else known.vectors
        return replace(known, labels=np.zeros((len(known.ids), 0)), vectors=vectors)

    def thinned(self) -> "Applicability":
        """With the vectors of some training crystals, within three quarters of the threshold of which all others lie.

        One after the other is kept unless it is so near to one that was, so that dense regions lose crystals and sparse
        ones keep theirs. No training crystal becomes far, and other crystals seem farther by at most that reach.
        Threshold, elements, bonds and empty layers stay those of all.
        """
        kept: list[int] = []
        left, vectors = np.arange(len(self.ids)), self.vectors
        while len(left):
            kept.append(int(left[0]))
            is_left = np.linalg.norm(vectors - vectors[0], axis=1) > _REACH * self.threshold
            left, vectors = left[is_left], vectors[is_left]
        return replace(
            self,
            ids=tuple(self.ids[place] for place in kept),
            formulas=tuple(self.formulas[place] for place in kept),
            labels=self.labels[kept],
            vectors=self.vectors[kept],
        )

    @property
    def is_thinned(self) -> bool:
        """Whether vectors of training crystals were left out."""
        return len(self.ids) < len(self.spacing)

    def at(self, quantile: float) -> "Applicability":
        """With another quantile.

        Raises:
          ValueError: If the crystals were thinned for a greater threshold, so that some themselves would be far.
        """
        other = replace(self, quantile=quantile)
        if self.is_thinned and other.threshold < self.threshold:
            raise ValueError(
                f"of the training crystals {len(self.ids)} of {len(self.spacing)} are kept, for the quantile {self.quantile:g}; "
                f"a smaller one, {quantile:g}, needs all of them, which the run's own folder has"
            )
        return other

    def digest(self) -> str:
        """Changes with all that judgements depend on."""
        content = hashlib.sha256(repr((self.ids, self.formulas, self.quantile, self.vacuum, self.weights)).encode())
        for array in (self.labels, self.vectors, self.spacing, self.species, self.pairs, self.shortest, self.longest):
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()

    @cached_property
    def threshold(self) -> float:
        """Distance above which a crystal is far from all training crystals."""
        return float(np.quantile(self.spacing, self.quantile))

    def nearest(self, vectors: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The k training crystals nearest to each pooled vector [n, d], fewer if there are not so many.

        Returns:
          Euclidean distances of the vectors, ascending, f64[n, k], and places in `ids`, i64[n, k]. A vector that is not
          finite is infinitely far from all.
        """
        k = min(k, len(self.ids))
        distances, places = np.full((len(vectors), k), np.inf), np.zeros((len(vectors), k), np.int64)
        is_finite = np.isfinite(vectors).all(axis=1)
        if is_finite.any():
            distances[is_finite], places[is_finite] = _nearest(self._searched, self.vectors, vectors[is_finite], k)
        return distances, places

    def alike(self, formulas: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Which crystals look like one that trained, whatever their ids: bool[n].

        That has the reduced formula, and a vector nearer than a hundredth of the threshold; f16 moves vectors by less
        than half of that (`for_others`), and those of the networks given away by a tenth of it. Of a `thinned` set
        those that were kept alone are known.

        Args:
          formulas: Of the crystals.
          vectors: Their pooled vectors, [n, d].
        """
        distances, places = self.nearest(vectors)
        is_same = np.array(
            [self.formulas[place] == own for place, own in zip(places[:, 0], formulas, strict=True)], bool
        )
        return is_same & (distances[:, 0] < _SAME * self.threshold)

    def judge(self, graphs: CrystalGraphs, vacuum: np.ndarray, vectors: np.ndarray, k: int = 1) -> Judgement:
        """The k nearest training crystals, and the reasons for which a crystal lies outside.

        Args:
          graphs: Made by the predictor's featurizer.
          vacuum: Thickest empty layer of each, Å.
          vectors: Their pooled vectors, the second of `Predictor.embed_graphs(graphs)`.
          k: Nearest training crystals.
        """
        distances, neighbors = self.nearest(vectors, k)
        n_graph = len(graphs.n_node)
        reasons: list[list[str]] = [[] for _ in range(n_graph)]

        node_owner = np.repeat(np.arange(n_graph), graphs.n_node)
        for crystal, number in _unique(node_owner, graphs.species, ~np.isin(graphs.species, self.species)):
            reasons[crystal].append(f"{elements.symbol(number)} is in no training crystal")

        edge_owner = np.repeat(np.arange(n_graph), graphs.n_edge)
        pairs = _pairs(graphs)
        known = self.pairs[:, 0] * _BASE + self.pairs[:, 1]
        place = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
        is_known = known[place] == pairs
        for crystal, pair in _unique(edge_owner, pairs, ~is_known):
            first, second = divmod(pair, _BASE)
            if np.isin([first, second], self.species).all():
                reasons[crystal].append(f"{_names(first, second)} are neighbours in no training crystal")

        def tell(is_odd: np.ndarray, worst: np.ufunc, how: str, limits: np.ndarray) -> None:
            odd = np.flatnonzero(is_known & is_odd)
            keys, first, group = np.unique(
                edge_owner[odd] * _BASE**2 + pairs[odd], return_index=True, return_inverse=True
            )
            lengths = graphs.distances[odd[first]]
            worst.at(lengths, group, graphs.distances[odd])
            for key, edge, length in zip(keys.tolist(), odd[first].tolist(), lengths.tolist(), strict=True):
                crystal, pair = divmod(key, _BASE**2)
                reasons[crystal].append(
                    f"{_names(*divmod(pair, _BASE))} are {length:.2f} Å apart{how} {limits[place[edge]]:.2f} Å in training"
                )

        tell(graphs.distances < self.shortest[place] - MARGIN, np.minimum, ", at least", self.shortest)
        is_far = _is_first(graphs) & (graphs.distances > self.longest[place] + MARGIN)
        tell(is_far, np.maximum, " as nearest neighbours, at most", self.longest)

        for some, thickness in zip(reasons, vacuum, strict=True):
            if thickness > self.vacuum + EMPTIER:
                some.append(
                    f"an empty layer of {thickness:.1f} Å, when {_BULK:.0%} of the training crystals have none above "
                    f"{self.vacuum:.1f} Å"
                )

        for some, distance in zip(reasons, distances[:, 0], strict=True):
            if distance > self.threshold:
                kept = " kept" * self.is_thinned
                some.append(
                    f"far from every training crystal{kept}: {distance:.3g}, when {100 * self.quantile:g}% of these have one within "
                    f"{self.threshold:.3g}"
                )
        return Judgement(distances, neighbors, tuple("; ".join(some) for some in reasons))

    def is_of(self, predictor: Predictor) -> bool:
        """Whether the vectors were made by the predictor."""
        return self.weights == predictor.digest()

    def save(self, workdir: str | Path) -> None:
        """Writes applicability.npz into the folder of the run."""
        write_bytes(Workdir(workdir).path / FILE, self.content())

    def content(self) -> bytes:
        """Of applicability.npz."""
        content = io.BytesIO()
        arrays = {name: np.asarray(value) for name, value in vars(self).items() if name in self.__dataclass_fields__}
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        return content.getvalue()

    @classmethod
    def load(cls, workdir: str | Path) -> "Applicability":
        """Reads what `save` wrote; no training data are needed.

        Raises:
          FileNotFoundError: If there is none, saying how to make it.
          ValueError: If it is damaged.
        """
        path = Workdir(workdir).path / FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: not there yet; `python -m experiments.interpret --workdir={shlex.quote(str(workdir))}` makes it from the "
                "training data"
            )
        try:
            with np.load(path) as found:
                arrays = dict(found)
            arrays.setdefault("labels", np.zeros((len(arrays["ids"]), 0)))  # earlier versions kept none
            return cls(
                **arrays
                | {name: tuple(arrays[name].tolist()) for name in ("ids", "formulas")}
                | {"quantile": float(arrays["quantile"]), "vacuum": float(arrays["vacuum"])}
                | {"weights": str(arrays["weights"])}
            )
        except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: damaged, or of an earlier version ({type(error).__name__}: {error}); `python -m experiments.interpret "
                f"--workdir={shlex.quote(str(workdir))}` makes it anew from the training data"
            ) from error

    @cached_property
    def _searched(self) -> "NearestNeighbors":
        return _search(self.vectors)


def training_ids(predictor: Predictor) -> list[str]:
    """The crystals that a run was trained on. Raises ValueError if it does not say, as imported models do not."""
    ids = predictor.about.get("split", {}).get("train", [])
    if not ids:
        raise ValueError(
            "this model does not say which crystals it was trained on, as imported ones do not; what it has seen cannot "
            "be told"
        )
    return ids


# Crystals that a search finds beyond those asked for: it estimates distances, and may take near ones for each other.
_SPARE = 4
_ALIKE = 1e-3  # Å, distances that are equal but for rounding
_BASE = 1000  # above every atomic number: two of them are written as one


def _pairs(graphs: CrystalGraphs) -> np.ndarray:
    """The two elements of every edge as one number, the same in both directions, i64[n_edge]."""
    one, other = (graphs.species[end].astype(np.int64) for end in (graphs.receivers, graphs.senders))
    return np.minimum(one, other) * _BASE + np.maximum(one, other)


def _is_first(graphs: CrystalGraphs) -> np.ndarray:
    """Whether an edge leads to a nearest neighbour of its receiver, bool[n_edge]."""
    nearest = np.full(len(graphs.species), np.inf, np.float32)
    np.minimum.at(nearest, graphs.receivers, graphs.distances)
    return graphs.distances <= nearest[graphs.receivers] + _ALIKE


def _unique(owner: np.ndarray, what: np.ndarray, mask: np.ndarray) -> list[tuple[int, int]]:
    """Each (crystal, number) once, of the elements in the mask."""
    return [(int(a), int(b)) for a, b in np.unique(np.stack([owner[mask], what[mask]], axis=1), axis=0)]


def _names(first: int, second: int) -> str:
    return f"{elements.symbol(first)} and {elements.symbol(second)}"


def _search(vectors: np.ndarray) -> "NearestNeighbors":
    # Imported late: sklearn takes half a second.
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors().fit(np.asarray(vectors, np.float64))


def _nearest(
    searched: "NearestNeighbors", others: np.ndarray, vectors: np.ndarray | None = None, k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of vectors to the k nearest of the others, ascending, and their places; without vectors, of each other.

    The search's own distances are roots of |a|^2 + |b|^2 - 2ab, and 2e-6 between equal vectors of norm 100.
    """
    known = len(others) - (vectors is None)
    places = searched.kneighbors(vectors, min(k + _SPARE, known), return_distance=False)
    vectors = np.asarray(others if vectors is None else vectors, np.float64)
    distances = np.stack([np.linalg.norm(vectors - others[column], axis=1) for column in places.T], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(places, order, axis=1)
