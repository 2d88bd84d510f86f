"""Crystal graphs as arrays: the hinge between data (numpy, host) and nn (jax, device).

Dimensions, used in every docstring of the package:
  n_node    nodes of all crystals together; a node is one atom, or one class of equivalent atoms (quotient graph)
  n_edge    edges of all crystals together; an edge is one neighbour of its receiver, or several equal ones
  n_graph   crystals
  n_angle   angular features of an edge, 0 in graphs without
  n_target  predicted properties, or classes

The functions here work on numpy and on jax arrays alike, inside `jax.jit` too, so there is one padding in the project.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy.ndarray on the host, jax.Array on the device


class CrystalGraphs(NamedTuple):
    """One or many crystals as one disconnected graph (a pytree; field names follow jraph).

    Only what belongs to the crystal is stored; element tables and distance expansions are part of the model.

    Attributes:
      species: Atomic numbers, i32[n_node]; 0 is padding.
      node_weight: How many atoms of the cell a node stands for, f32[n_node]; 1 in a full graph, 0 in padding.
      distances: Bond lengths in Å, f32[n_edge].
      edge_weight: How many equal bonds of one receiver an edge stands for, f32[n_edge]; 0 in padding.
      senders: Node index of the neighbour j, i32[n_edge].
      receivers: Node index of the atom i, i32[n_edge], ascending.
      n_node: Nodes of each crystal, i32[n_graph].
      n_edge: Edges of each crystal, i32[n_graph].
      graph_mask: False for padding graphs, bool[n_graph].
      angles: Where the bonds point at both ends of each edge (`data.angles`), f32[n_edge, n_angle].
    """

    species: Array
    node_weight: Array
    distances: Array
    edge_weight: Array
    senders: Array
    receivers: Array
    n_node: Array
    n_edge: Array
    graph_mask: Array
    angles: Array


class Batch(NamedTuple):
    """Graphs of one fixed shape with the labels that travel beside them.

    Attributes:
      graphs: The padded crystals.
      targets: Scaled targets f32[n_graph, n_target], or class labels as floats; 0 where unknown.
      target_mask: False where a crystal has no such label or is padding, bool[n_graph, n_target].
    """

    graphs: CrystalGraphs
    targets: Array
    target_mask: Array


class PadBudget(NamedTuple):
    """The fixed shape of a batch. One node and one graph of each are reserved for padding."""

    n_node: int
    n_edge: int
    n_graph: int


def node_graph(graphs: CrystalGraphs) -> Array:
    """Index of the crystal each node belongs to, i32[n_node]."""
    return _owner(graphs.n_node, graphs.species.shape[0])


def concatenate(parts: list[CrystalGraphs]) -> CrystalGraphs:
    """Joins graphs into one, in order; node indices are shifted, nothing is padded."""
    if not parts:
        raise ValueError("concatenate needs at least one graph, got none")
    shifts = np.cumsum([0] + [len(part.species) for part in parts[:-1]], dtype=np.int32)
    shifted = [
        part._replace(senders=part.senders + shift, receivers=part.receivers + shift)
        for part, shift in zip(parts, shifts, strict=True)
    ]
    return CrystalGraphs(*(np.concatenate(arrays) for arrays in zip(*shifted, strict=True)))


class Offsets(NamedTuple):
    """Where each crystal of a set begins, [n_graph] each."""

    node: Array
    edge: Array


def offsets(graphs: CrystalGraphs) -> Offsets:
    """Sums over the whole set: to be made once where many batches are selected from a large one."""
    return Offsets(_starts(graphs.n_node), _starts(graphs.n_edge))


def select(graphs: CrystalGraphs, index: Array, budget: PadBudget, starts: Offsets | None = None) -> CrystalGraphs:
    """Takes the crystals `index` out of a set and pads them to the budget.

    Padding nodes and edges belong to the last graph, which is never a crystal: padding edges are loops on the last
    node at a distance of 1 Å with weight 0, so that every padded value is finite and no message reaches an atom.

    Args:
      graphs: The set, unpadded; numpy or jax arrays.
      index: Which crystals, i32[budget.n_graph - 1] or shorter; -1 leaves a place empty.
      budget: The shape to pad to. Too small a budget raises on the host; inside jit it cannot, so plans are checked
        when they are made (`data.batching`).
      starts: `offsets(graphs)`, if at hand.

    Returns:
      Graphs of exactly the budget's shape. Place p of `index` is graph p.

    Raises:
      ValueError: If the crystals exceed the budget (host arrays only), naming the deficit.
    """
    xp = graphs.species.__array_namespace__()
    n_places = index.shape[0]
    mask = index >= 0
    crystal = xp.where(mask, index, 0)
    n_node = xp.where(mask, graphs.n_node[crystal], 0)
    n_edge = xp.where(mask, graphs.n_edge[crystal], 0)
    if xp is np:
        check_fits(int(n_node.sum()), int(n_edge.sum()), n_places, budget)

    starts = offsets(graphs) if starts is None else starts
    node, is_node, _ = _gather_index(starts.node[crystal], n_node, budget.n_node)
    edge, is_edge, edge_place = _gather_index(starts.edge[crystal], n_edge, budget.n_edge)
    # Senders move with their crystal: from the start of its nodes in the set to their start in the batch.
    shift = _starts(n_node) - starts.node[crystal]
    edge_shift = shift[edge_place].astype(graphs.senders.dtype)
    last = budget.n_node - 1

    def fill(values: Array, is_real: Array, padding: float) -> Array:
        return xp.where(is_real, values, xp.asarray(padding, dtype=values.dtype))

    n_empty = budget.n_graph - n_places - 1
    return CrystalGraphs(
        species=fill(graphs.species[node], is_node, 0),
        node_weight=fill(graphs.node_weight[node], is_node, 0),
        distances=fill(graphs.distances[edge], is_edge, 1),
        edge_weight=fill(graphs.edge_weight[edge], is_edge, 0),
        senders=fill(graphs.senders[edge] + edge_shift, is_edge, last),
        receivers=fill(graphs.receivers[edge] + edge_shift, is_edge, last),
        n_node=_with_padding(n_node, n_empty, budget.n_node),
        n_edge=_with_padding(n_edge, n_empty, budget.n_edge),
        graph_mask=xp.concatenate([mask, xp.zeros(n_empty + 1, dtype=bool)]),
        angles=fill(graphs.angles[edge], is_edge[:, None], 0),
    )


def members(graphs: CrystalGraphs, index: np.ndarray, starts: Offsets) -> Offsets:
    """Nodes and edges of the crystals `index` (-1 for none) in the set, in the order in which `select` places them."""
    crystal = index[index >= 0]
    n_node, n_edge = graphs.n_node[crystal], graphs.n_edge[crystal]
    return Offsets(
        _gather_index(starts.node[crystal], n_node, n_node.sum())[0],
        _gather_index(starts.edge[crystal], n_edge, n_edge.sum())[0],
    )


def pad(graphs: CrystalGraphs, budget: PadBudget) -> CrystalGraphs:
    """Pads all crystals of `graphs` to the budget, in order; see `select`."""
    return select(graphs, np.arange(len(graphs.n_node), dtype=np.int32), budget)


def unpad(graphs: CrystalGraphs) -> CrystalGraphs:
    """Undoes `pad`: the crystals without padding, as numpy arrays."""
    host = CrystalGraphs(*(np.asarray(array) for array in graphs))
    is_node = np.repeat(host.graph_mask, host.n_node)
    is_edge = np.repeat(host.graph_mask, host.n_edge)
    shift = np.cumsum(is_node, dtype=np.int32) - 1
    return CrystalGraphs(
        species=host.species[is_node],
        node_weight=host.node_weight[is_node],
        distances=host.distances[is_edge],
        edge_weight=host.edge_weight[is_edge],
        senders=shift[host.senders[is_edge]],
        receivers=shift[host.receivers[is_edge]],
        n_node=host.n_node[host.graph_mask],
        n_edge=host.n_edge[host.graph_mask],
        graph_mask=host.graph_mask[host.graph_mask],
        angles=host.angles[is_edge],
    )


def validate(graphs: CrystalGraphs) -> None:
    """Checks what jax would not: a gather clamps and a segment sum drops indices out of range without a word.

    Raises:
      ValueError: If counts do not add up, an index points outside its crystal, receivers are not ascending, or a
        value is not finite.
    """
    n_node, n_edge = np.asarray(graphs.n_node), np.asarray(graphs.n_edge)
    for name, counts, length in (
        ("n_node", n_node, len(graphs.species)),
        ("n_edge", n_edge, len(graphs.distances)),
    ):
        if counts.sum() != length:
            raise ValueError(f"{name} adds up to {counts.sum()} but the graph holds {length}")
    for name, other in (
        ("node_weight", "species"),
        ("edge_weight", "distances"),
        ("senders", "distances"),
        ("receivers", "distances"),
        ("angles", "distances"),
    ):
        if len(getattr(graphs, name)) != len(getattr(graphs, other)):
            raise ValueError(
                f"{name} has {len(getattr(graphs, name))} entries but {other} has {len(getattr(graphs, other))}"
            )
    first = np.repeat(_starts(n_node), n_edge)
    last = first + np.repeat(n_node, n_edge)
    for name in ("senders", "receivers"):
        index = np.asarray(getattr(graphs, name))
        outside = np.flatnonzero((index < first) | (index >= last))
        if outside.size:
            edge = outside[0]
            raise ValueError(
                f"{name}[{edge}] is {index[edge]}, outside its crystal's nodes {first[edge]}..{last[edge] - 1}"
            )
    if np.any(np.diff(np.asarray(graphs.receivers)) < 0):
        raise ValueError("receivers must be ascending; sort the edges by receiver")
    for name in ("distances", "edge_weight", "node_weight", "angles"):
        if not np.isfinite(getattr(graphs, name)).all():
            raise ValueError(f"{name} holds a value that is not finite")


def check_fits(n_node: int, n_edge: int, n_graph: int, budget: PadBudget) -> None:
    """Raises ValueError if so many nodes, edges and graphs, plus the padding's own, exceed the budget."""
    for name, needed, held in (
        ("nodes", n_node + 1, budget.n_node),
        ("edges", n_edge, budget.n_edge),
        ("graphs", n_graph + 1, budget.n_graph),
    ):
        if needed > held:
            raise ValueError(
                f"the batch needs {needed} {name} (padding included) but the budget holds {held}; "
                "rebuild it with data.batching.training_budget or packing_budget"
            )


def _starts(counts: Array) -> Array:
    """Index of the first element of each group, [n_group]; 64 bits on the host, where sets may be large."""
    xp = counts.__array_namespace__()
    return counts.cumsum(dtype=np.int64 if xp is np else counts.dtype) - counts


def _owner(counts: Array, length: int) -> Array:
    """Group of each of `length` consecutive elements, i32[length]; those past the last group count to the last."""
    xp = counts.__array_namespace__()
    position = xp.arange(length, dtype=np.int32)
    group = xp.searchsorted(counts.cumsum(dtype=np.int32), position, side="right")
    return xp.minimum(group, len(counts) - 1).astype(np.int32)


def _gather_index(first: Array, counts: Array, length: int) -> tuple[Array, Array, Array]:
    """For each of `length` places: its element in the set, whether it is one, and its place in the batch.

    Args:
      first: Each crystal's first element in the set, [n_place].
      counts: Its number of elements, [n_place].
      length: Of the padded array.
    """
    xp = counts.__array_namespace__()
    position = xp.arange(length, dtype=np.int32)
    is_real = position < counts.sum()
    if not len(counts):
        return xp.zeros_like(position), is_real, xp.zeros_like(position)
    place = _owner(counts, length)
    element = (first - _starts(counts))[place] + position
    return xp.where(is_real, element, 0), is_real, place


def _with_padding(counts: Array, n_empty: int, total: int) -> Array:
    """Appends empty graphs and one last graph that owns the rest."""
    xp = counts.__array_namespace__()
    rest = xp.reshape(total - counts.sum(), (1,)).astype(np.int32)
    return xp.concatenate([counts.astype(np.int32), xp.zeros(n_empty, dtype=np.int32), rest])
