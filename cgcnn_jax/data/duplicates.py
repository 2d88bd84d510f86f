"""Twins: crystals that stand in a set more than once, in whatever cell, order or orientation.

A fingerprint is made of a crystal's graph, so it compares what a network is shown. For every element: how far the
nearest, second, ... twelfth neighbour of its atoms is, as mean and spread over the atoms, and which elements these
neighbours are. All of these are averages over atoms, so that a supercell and its primitive cell have the same ones, and
they follow the positions of atoms continuously, as far as the graph does: no rounding decides whether two crystals are
alike, only how far apart their fingerprints are. The graph decides where it keeps a part of a broken shell of several
elements, or fewer than twelve neighbours.

Mean distances to the k-th neighbour are the average minimum distances of Widdowson et al., MATCH Commun. Math. Comput.
Chem. 87, 529 (2022), here for each element. Mirror images are twins, as they are to the network and to every scalar
property. Polytypes that differ beyond the twelfth neighbour are twins too, where their bonds have equal lengths: the
network cannot tell them apart either, whatever their labels say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from cgcnn_jax.data.splits import NAMES, Split
from cgcnn_jax.graph import CrystalGraphs, offsets

TOLERANCE = 0.01
"""Å. Two relaxations of one crystal differ by some thousandths; 0.01 Å is a strain of 0.3 %."""

_K = 12
# Neighbours about as far as the twelfth share its places: which of them a graph cut off must not matter. They count to
# its shell wholly up to the first of these distances (Å) from the twelfth's, and not at all beyond the second.
_SHELL = (0.05, 0.15)
_ROUNDS = 3
_WIDTH = 8
# Å for a change of surroundings by one: in cells of 16 atoms on a lattice two decorations differ by 0.01 Å and more.
_SURROUNDINGS = 0.5
_CHUNK = 2000  # crystals at a time, for the memory


class Twins(NamedTuple):
    """Crystals of val and test that a split has elsewhere too.

    Attributes:
      crystal: Indices of crystals of val or test, i64[n].
      twin: For each, the most alike crystal of train, or else, of a crystal of test, of val.
      split: Names of the splits of both, n pairs.
      apart: Å between the fingerprints, f64[n].
    """

    crystal: np.ndarray
    twin: np.ndarray
    split: tuple[tuple[str, str], ...]
    apart: np.ndarray

    def n_of(self, name: str, other: str = "train") -> int:
        """Crystals of a split with a twin in the other one."""
        return self.split.count((name, other))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Of all crystals of a set.

    Attributes:
      values: Å, for each element of each crystal: mean distances to the twelve neighbours, their spreads, and the
        surroundings, f32[n_element in all, 48].
      n_element: Elements of each crystal, i64[n_graph].
      formula: Equal numbers where reduced formulas are equal, i64[n_graph].
    """

    values: np.ndarray
    n_element: np.ndarray
    formula: np.ndarray

    def apart(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How far crystals are from others of their formula, by the largest difference in their fingerprints, Å."""
        n, first = self.n_element[one], _starts(self.n_element)
        number = np.arange(n.sum()) - np.repeat(_starts(n), n)
        left, right = (self.values[np.repeat(first[side], n) + number] for side in (one, other))
        largest = np.abs(left - right).max(axis=1)
        return np.maximum.reduceat(largest, _starts(n)) if len(n) else largest


def fingerprints(graphs: CrystalGraphs) -> Fingerprints:
    """The fingerprints of unpadded graphs, quotient or full alike."""
    ends = offsets(graphs)
    node_end, edge_end = ends.node + graphs.n_node, ends.edge + graphs.n_edge
    parts = []
    for low in range(0, len(graphs.n_node), _CHUNK):
        high = min(low + _CHUNK, len(graphs.n_node))
        nodes, edges = slice(ends.node[low], node_end[high - 1]), slice(ends.edge[low], edge_end[high - 1])
        parts.append(
            _of_some(
                np.repeat(np.arange(high - low), graphs.n_node[low:high]),
                np.asarray(graphs.species[nodes]),
                np.asarray(graphs.node_weight[nodes], np.float64),
                np.asarray(graphs.distances[edges], np.float64),
                np.asarray(graphs.edge_weight[edges], np.float64),
                graphs.senders[edges] - ends.node[low],
                graphs.receivers[edges] - ends.node[low],
            )
        )
    values, n_element, species, n_atom = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Fingerprints(values, n_element, _formulas(n_element, species, n_atom.round().astype(np.int64)))


def find(marks: Fingerprints, split: Split, tolerance: float = TOLERANCE) -> Twins:
    """Crystals of val with a twin in train, and crystals of test with one in train or else in val.

    Args:
      marks: Fingerprints of all crystals.
      split: Indices of train, val and test.
      tolerance: Largest difference of fingerprints that is no difference, Å.
    """
    part = np.full(len(marks.n_element), -1)
    for number, name in enumerate(NAMES):
        part[split[name]] = number
    twin, apart = np.full(len(part), -1), np.full(len(part), np.inf)
    for asks, has in ((1, 0), (2, 0), (2, 1)):
        is_asked, is_there = (part == asks) & (twin < 0), part == has
        for pair in _candidates(marks, tolerance, is_asked | is_there):
            for one, other in (pair, pair[::-1]):
                wanted = is_asked[one] & is_there[other]
                one, other = one[wanted], other[wanted]
                difference = marks.apart(one, other)
                is_nearest = (difference <= tolerance) & (difference < apart[one])
                twin[one[is_nearest]], apart[one[is_nearest]] = other[is_nearest], difference[is_nearest]
    found = np.flatnonzero(twin >= 0)
    found = found[np.argsort(-part[found], kind="stable")]
    names = tuple((NAMES[part[one]], NAMES[part[other]]) for one, other in zip(found, twin[found], strict=True))
    return Twins(found, twin[found], names, apart[found])


def families(marks: Fingerprints, tolerance: float = TOLERANCE) -> np.ndarray:
    """A number for each crystal that it shares with its twins, and with theirs, i64[n_graph]: the first one's index."""
    n = len(marks.n_element)
    family = np.arange(n)
    for one, other in _candidates(marks, tolerance, np.ones(n, bool)):
        apart = family[one] != family[other]
        one, other = one[apart], other[apart]
        is_twin = marks.apart(one, other) <= tolerance
        if is_twin.any():
            one, other = family[one[is_twin]], family[other[is_twin]]
            links = coo_array((np.ones(len(one), bool), (one, other)), shape=(n, n))
            family = connected_components(links, directed=False)[1][family]
    _, first, number = np.unique(family, return_index=True, return_inverse=True)
    return first[number]


def _candidates(
    marks: Fingerprints, tolerance: float, is_wanted: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of wanted crystals that may be twins: of one formula, and mean distances within the tolerance.

    In order of formula and mean distance these are neighbours: first all pairs of next ones, then of next but one, ...
    """
    # No mean differs more than the largest of the differences of which it is the mean.
    mean = np.add.reduceat(marks.values[:, :_K].mean(axis=1), _starts(marks.n_element)) / marks.n_element
    order = np.lexsort((mean, marks.formula))
    order = order[is_wanted[order]]
    formula, mean = marks.formula[order], mean[order]
    place = np.arange(len(order))
    for step in range(1, len(order)):
        place = place[place + step < len(order)]
        is_near = (formula[place] == formula[place + step]) & (mean[place + step] - mean[place] <= tolerance)
        # What is too far from the next one is too far from those that follow.
        place = place[is_near]
        if not len(place):
            return
        yield order[place], order[place + step]


def _formulas(n_element: np.ndarray, species: np.ndarray, n_atom: np.ndarray) -> np.ndarray:
    """Numbers of the reduced formulas, of the elements of each crystal in order of atomic number and their atoms."""
    first = _starts(n_element)
    reduced = n_atom // np.repeat(np.gcd.reduceat(n_atom, first), n_element)
    formula = np.zeros(len(n_element), np.int64)
    for n in np.unique(n_element):
        mine = np.flatnonzero(n_element == n)
        elements = first[mine][:, None] + np.arange(n)
        rows = np.concatenate([species[elements], reduced[elements]], axis=1)
        formula[mine] = formula.max() + 1 + np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    return formula


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - counts


def _of_some(
    crystal: np.ndarray,
    species: np.ndarray,
    node_weight: np.ndarray,
    distances: np.ndarray,
    edge_weight: np.ndarray,
    senders: np.ndarray,
    receivers: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Of crystals numbered from 0: values and n_element of Fingerprints, and species and count of each element.

    Every node receives an edge.
    """
    order = np.lexsort((distances, receivers))
    distances, edge_weight, senders, receivers = (
        array[order] for array in (distances, edge_weight, senders, receivers)
    )
    last = np.cumsum(np.bincount(receivers, minlength=len(species))) - 1
    filled = np.cumsum(edge_weight)
    places = np.diff(filled[last], prepend=0.0)
    # The k-th neighbour is the bond that fills the middle of the k-th place: bonds may count for several or for parts.
    middle = (filled[last] - places)[:, None] + np.arange(_K) + 0.5
    # Where fewer are bonded, the farthest of them stands for those that lack.
    radial = distances[np.minimum(np.searchsorted(filled, middle), last[:, None])]

    element, element_of = np.unique(crystal * 128 + species, return_inverse=True)
    n_atom = np.bincount(element_of, node_weight)

    def mean(rows: np.ndarray) -> np.ndarray:
        weighted = (node_weight / n_atom[element_of])[:, None] * rows
        return np.stack([np.bincount(element_of, column) for column in weighted.T], axis=1)

    distance = mean(radial)
    columns = [distance, np.sqrt(mean((radial - distance[element_of]) ** 2))]

    # A network of random weights: what matters is that it mixes species and order of the neighbours.
    beyond, slope = distances - radial[receivers, -1], _SHELL[1] - _SHELL[0]
    in_last = np.clip((_SHELL[1] + beyond) / slope, 0, 1)
    in_shell = in_last * np.clip((_SHELL[1] - beyond) / slope, 0, 1)
    near, shell = (np.bincount(receivers, edge_weight * part, len(species)) for part in (1 - in_last, in_shell))
    total = np.minimum(places, _K)
    share = edge_weight * (1 - in_last + in_shell * ((total - near) / shell)[receivers]) / total[receivers]
    closeness = 1 - distances / radial[receivers, -1]
    near, all_of_them = (
        csr_array((values, senders, np.append(0, last + 1)), shape=(len(species), len(species)))
        for values in (share * closeness, share)
    )
    random = np.random.default_rng(0)
    own, others, nearer = random.normal(0, _WIDTH**-0.5, (3, _WIDTH, _WIDTH))
    atoms = random.normal(size=(128, _WIDTH))[species]
    for _ in range(_ROUNDS):
        atoms = np.tanh(atoms @ own + all_of_them @ atoms @ others + near @ atoms @ nearer)
        columns.append(_SURROUNDINGS * mean(atoms))
    return np.concatenate(columns, axis=1).astype(np.float32), np.bincount(element // 128), element % 128, n_atom
