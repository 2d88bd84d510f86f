"""The quotient of a crystal graph: one node for all atoms that no message-passing network can tell apart.

Two atoms of one species whose neighbours come in the same classes at the same distances compute the same features in
every layer. Colour refinement finds these classes: start from species, split every class by the multiset of
(distance, class of the neighbour), until nothing splits. One node stands for a class (node_weight atoms), one edge for
all bonds of a receiver with equal distance and equal neighbour class (edge_weight bonds). Weighted sums over the
quotient equal sums over the full graph. Where bonds have angles as well, equal ones agree in those too.
"""

from typing import NamedTuple

import numpy as np

from cgcnn_jax.data.neighbors import Edges

_ALIKE = 0.01  # angular features (of -1 to 1) within this width count as equal
_MOST_WORK = 2_000_000  # rounds times atoms, some seconds


class Quotient(NamedTuple):
    """A reduced graph.

    Attributes:
      species: i32[n_node].
      node_weight: Atoms per node, i64[n_node].
      edges: Between nodes, sorted by receiver; distances are the mean of those merged.
      edge_weight: Bonds per edge, f64[n_edge].
      atom_node: The node that stands for each atom, i64[n_atom].
      angles: Angular features per edge, the mean of those merged, f64[n_edge, n_angle].
    """

    species: np.ndarray
    node_weight: np.ndarray
    edges: Edges
    edge_weight: np.ndarray
    atom_node: np.ndarray
    angles: np.ndarray


def full(species: np.ndarray, edges: Edges, angles: np.ndarray | None = None) -> Quotient:
    """The graph as it is, every weight 1; see `reduce`."""
    n_atom = len(species)
    return Quotient(
        species, np.ones(n_atom, np.int64), edges, _weights(edges), np.arange(n_atom), _angles(edges, angles)
    )


def reduce(species: np.ndarray, edges: Edges, angles: np.ndarray | None = None, *, tolerance: float) -> Quotient:
    """The quotient graph.

    Args:
      species: Atomic numbers, [n_atom].
      edges: The full graph, sorted by receiver; every atom receives at least one edge.
      angles: Angular features of the edges, [n_edge, n_angle]; None for none.
      tolerance: Distances within this width (Å) count as equal; 0 merges only equal bits. What it costs in accuracy is
        measured in docs/graphs.md.

    Returns:
      The reduced graph. Nodes are ordered by the first atom of their class.
    """
    n_atom = len(species)
    shell = _shells(edges.distances, tolerance)
    features = _angles(edges, angles)
    for column in features.T:
        alike = _shells(column, _ALIKE)
        shell = np.unique(shell * (alike.max() + 1) + alike, return_inverse=True)[1]
    if edges.weights is not None:
        # Bonds that count differently are no equals.
        weights, kind = np.unique(edges.weights.round(9), return_inverse=True)
        shell = shell * len(weights) + kind
    starts = np.searchsorted(edges.receivers, np.arange(n_atom))
    color = np.unique(species, return_inverse=True)[1]
    n_color = int(color.max()) + 1
    n_round = 0
    while True:
        # News travels one bond a round, along a chain of n atoms for n/2 rounds; the full graph predicts the same.
        n_round += 1
        if n_round * n_atom > _MOST_WORK:
            return full(species, edges, features)
        key = shell * n_color + color[edges.senders]
        # Sorting the keys of each receiver makes the row of a multiset; equal rows are equal environments.
        rows = key[np.lexsort((key, edges.receivers))]
        classes: dict[tuple[int, bytes], int] = {}
        refined = np.array(
            [
                classes.setdefault((int(c), row.tobytes()), len(classes))
                for c, row in zip(color, np.split(rows, starts[1:]), strict=True)
            ]
        )
        if len(classes) == n_color:
            break
        color, n_color = refined, len(classes)

    node_weight = np.bincount(refined)
    first = np.unique(refined, return_index=True)[1]
    n_shell = shell.max() + 1
    merged = (refined[edges.receivers] * n_shell + shell) * n_color + refined[edges.senders]
    key, index, count = np.unique(merged, return_inverse=True, return_counts=True)
    receivers, senders = key // (n_shell * n_color), key % n_color
    merged_angles = np.zeros((len(key), features.shape[1]))
    np.add.at(merged_angles, index, features)
    return Quotient(
        species=species[first],
        node_weight=node_weight,
        edges=Edges(receivers, senders, np.bincount(index, weights=edges.distances) / count),
        edge_weight=np.bincount(index, weights=_weights(edges)) / node_weight[receivers],
        atom_node=refined,
        angles=merged_angles / count[:, None],
    )


def _weights(edges: Edges) -> np.ndarray:
    return np.ones(len(edges.distances)) if edges.weights is None else edges.weights


def _angles(edges: Edges, angles: np.ndarray | None) -> np.ndarray:
    return np.zeros((len(edges.distances), 0)) if angles is None else angles


def _shells(distances: np.ndarray, tolerance: float) -> np.ndarray:
    """Numbers the distances so that those of one number lie within the tolerance of their smallest.

    Depends on the set of distances alone, so that supercells and reordered cells get the same shells.
    """
    values, index = np.unique(distances, return_inverse=True)
    is_first = np.diff(values, prepend=-np.inf) > tolerance
    starts = np.flatnonzero(is_first)
    stops = np.append(starts[1:], len(values))
    # Between wide gaps the values may still form a chain longer than the tolerance; such chains are cut greedily.
    is_chain = values[stops - 1] > values[starts] + tolerance
    for low, stop in zip(starts[is_chain].tolist(), stops[is_chain].tolist(), strict=True):
        while low < stop:
            is_first[low] = True
            low += int(np.searchsorted(values[low:stop], values[low] + tolerance, side="right"))
    return (np.cumsum(is_first) - 1)[index]
