"""Which crystals go into which batch, and the one shape that holds every batch.

A plan is i32[n_batch, n_place]: crystal indices, -1 for an empty place. `graph.select` turns a row into a batch. Where
several devices share each batch, it is dealt further, to i32[n_batch, n_device, n_place].
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cgcnn_jax.graph import CrystalGraphs, PadBudget

# Shapes are rounded up to multiples of this: aligned loops, and fewer shapes to compile.
_ROUND_TO = 8
# How many shuffles are tried to keep an epoch inside its budget, and how many are looked at to choose the budget.
_TRIES = 100
_TRIALS = 4
# Batches whose shares are looked at, at least: of few, a later epoch would hold one that is worse than all of them.
_SHARED = 400


def epoch_plan(graphs: CrystalGraphs, members: np.ndarray, budget: PadBudget, n_batch: int, seed: tuple) -> np.ndarray:
    """Deals the shuffled crystals into n_batch batches of nearly equal size.

    Every batch holds about len(members) / n_batch crystals, nodes and edges, so an epoch always has the same number of
    steps, no step is short, and one shape with little padding holds all.

    Args:
      graphs: The set.
      members: Crystals to deal, i64[n_member].
      budget: Shape that each batch must fit.
      n_batch: Batches in the epoch.
      seed: Integers that name the shuffle, such as (seed, epoch); the same seed gives the same plan anywhere.

    Raises:
      ValueError: If no shuffle fits the budget.
    """
    for attempt in range(_TRIES):
        batches = _deal(graphs, members, n_batch, np.random.default_rng([*seed, attempt]))
        if all(_fits(graphs, batch, budget) for batch in batches):
            return _as_plan(batches, budget.n_graph - 1)
    raise ValueError(
        f"{len(members)} crystals do not fit {n_batch} batches of {budget}; choose the budget with training_budget"
    )


def training_budget(graphs: CrystalGraphs, members: np.ndarray, n_batch: int, seed: int) -> PadBudget:
    """A shape that the batches of every epoch fit, with about 1 % to spare."""
    largest = np.zeros(3)
    for trial in range(_TRIALS):
        for batch in _deal(graphs, members, n_batch, np.random.default_rng([seed, trial])):
            size = (graphs.n_node[batch].sum(), graphs.n_edge[batch].sum(), len(batch))
            largest = np.maximum(largest, size)
    return _rounded(*(1.01 * largest if n_batch > 1 else largest))


def share_plan(graphs: CrystalGraphs, plan: np.ndarray, budget: PadBudget, n_device: int) -> np.ndarray:
    """Deals every batch to n_device devices in shares of nearly equal size.

    The batches stay what they are, so that training takes the same steps on any number of devices.

    Args:
      graphs: The set.
      plan: Batches, i32[n_batch, n_place].
      budget: Shape that each share must fit, of `share_budget`.
      n_device: Number of shares of a batch.

    Returns:
      i32[n_batch, n_device, budget.n_graph - 1].

    Raises:
      ValueError: If a batch cannot be dealt so.
    """
    if n_device == 1:
        return plan[:, None]
    shares = np.full((len(plan), n_device, budget.n_graph - 1), -1, np.int32)
    rest = np.arange(len(plan))
    for attempt in range(_TRIES):
        device, loads = _deal_shares(graphs, plan[rest], n_device, attempt)
        fits = (loads + [1, 0, 1] <= budget).all(axis=(1, 2))
        for own in range(n_device):
            chosen = _to_the_left(np.where(device == own, plan[rest], -1)[fits])[:, : budget.n_graph - 1]
            shares[rest[fits], own, : chosen.shape[1]] = chosen
        rest = rest[~fits]
        if not len(rest):
            return shares
    raise ValueError(f"{len(rest)} batches do not fit {n_device} shares of {budget}; choose it with share_budget")


def share_budget(graphs: CrystalGraphs, members: np.ndarray, n_batch: int, n_device: int, seed: int) -> PadBudget:
    """A shape that a device's shares of all batches fit, with about 1 % to spare; of one device, `training_budget`."""
    whole = training_budget(graphs, members, n_batch, seed)
    if n_device == 1:
        return whole
    largest = np.zeros(2)
    for trial in range(max(_TRIALS, -(-_SHARED // n_batch))):
        batches = _deal(graphs, members, n_batch, np.random.default_rng([seed, trial]))
        plan = _as_plan(batches, max(len(batch) for batch in batches))
        largest = np.maximum(largest, _deal_shares(graphs, plan, n_device, 0)[1][..., :2].max(axis=(0, 1)))
    # Places for crystals cost nothing, and many small ones may balance a large one.
    n_node, n_edge = 1.01 * largest
    return _rounded(n_node, n_edge, whole.n_graph - 1)


def packed_plan(graphs: CrystalGraphs, members: np.ndarray, budget: PadBudget) -> np.ndarray:
    """Packs crystals in their order into as few batches as fill the budget, for evaluation.

    Raises:
      ValueError: If one crystal alone exceeds the budget.
    """
    n_node, n_edge = graphs.n_node[members], graphs.n_edge[members]
    too_large = np.flatnonzero((n_node + 1 > budget.n_node) | (n_edge > budget.n_edge))
    if len(too_large):
        first = too_large[0]
        raise ValueError(
            f"crystal {members[first]} has {n_node[first]} nodes and {n_edge[first]} edges, more than {budget} holds"
        )
    nodes, edges = (np.concatenate([[0], np.cumsum(count, dtype=np.int64)]) for count in (n_node, n_edge))
    cuts = [0]
    while cuts[-1] < len(members):
        start = cuts[-1]
        full = (
            np.searchsorted(nodes, nodes[start] + budget.n_node - 1, side="right") - 1,
            np.searchsorted(edges, edges[start] + budget.n_edge, side="right") - 1,
            start + budget.n_graph - 1,
            len(members),
        )
        cuts.append(max(start + 1, int(min(full))))
    return _as_plan([members[start:stop] for start, stop in pairwise(cuts)], budget.n_graph - 1)


def packing_budget(graphs: CrystalGraphs, batch_size: int) -> PadBudget:
    """A shape for `packed_plan`: batch_size average crystals, and at least the largest one."""
    n_graph = len(graphs.n_node)
    size = min(batch_size, n_graph)
    return _rounded(
        max(graphs.n_node.sum() / n_graph * size, graphs.n_node.max()),
        max(graphs.n_edge.sum() / n_graph * size, graphs.n_edge.max()),
        min(2 * size, n_graph),
    )


def padding_share(graphs: CrystalGraphs, plan: np.ndarray, budget: PadBudget) -> tuple[float, float]:
    """Shares of nodes and of edges that are padding in a plan, each of whose rows fills the budget."""
    crystals = plan[plan >= 0]
    n_row = plan[..., 0].size
    return (
        1 - float(graphs.n_node[crystals].sum()) / (n_row * budget.n_node),
        1 - float(graphs.n_edge[crystals].sum()) / (n_row * budget.n_edge),
    )


def _deal(graphs: CrystalGraphs, members: np.ndarray, n_batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every crystal, roughly from the largest to the smallest, goes to one of the emptiest batches.

    The fullness of a batch is the larger of its shares of nodes and of edges. Large ones first, or a late one would
    find every batch nearly full; roughly, by sizes times random factors of about 1.3, or every epoch would deal alike.
    """
    share = np.stack([graphs.n_node[members], graphs.n_edge[members]], axis=1)
    share = share / share.mean(axis=0)
    order = np.argsort(-share.max(axis=1) * np.exp(0.3 * rng.standard_normal(len(members))))
    batch_of = np.empty(len(members), int)
    loads = np.zeros((n_batch, 2))
    # An eighth of the batches at a time get one crystal each: as even as one by one, and 0.4 instead of 5 microseconds
    # a crystal.
    stride = max(1, n_batch // 8)
    for start in range(0, len(members), stride):
        dealt = order[start : start + stride]
        emptiest = np.argsort(loads.max(axis=1), kind="stable")[: len(dealt)]
        batch_of[dealt] = emptiest
        loads[emptiest] += share[dealt]
    by_batch = np.argsort(batch_of, kind="stable")
    return np.split(members[by_batch], np.cumsum(np.bincount(batch_of, minlength=n_batch))[:-1])


def _deal_shares(graphs: CrystalGraphs, plan: np.ndarray, n_device: int, attempt: int) -> tuple[np.ndarray, np.ndarray]:
    """The crystals of each batch, from the largest to the smallest, go to the emptiest of its shares.

    Later attempts take other orders, by sizes times random factors, from about 1.1 up to 3.

    Returns:
      The share of each place of the plan, and the nodes, edges and crystals of each share, [n_batch, n_device, 3].
    """
    is_crystal = plan >= 0
    size = np.stack([graphs.n_node[plan], graphs.n_edge[plan], np.ones(plan.shape)], axis=2) * is_crystal[:, :, None]
    fullness = (size / size[is_crystal].mean(axis=0))[:, :, :2]
    spread = 0.1 + attempt / _TRIES
    factors = np.exp(spread * np.random.default_rng(attempt).standard_normal(plan.shape)) if attempt else 1.0
    order = np.argsort(-fullness.max(axis=2) * factors, axis=1, kind="stable")
    device = np.zeros(plan.shape, int)
    loads = np.zeros((len(plan), n_device, 2))
    batch = np.arange(len(plan))
    # All batches at once: as many rounds as a batch has places.
    for place in order.T:
        emptiest = loads.max(axis=2).argmin(axis=1)
        device[batch, place] = emptiest
        loads[batch, emptiest] += fullness[batch, place]
    totals = np.zeros((len(plan), n_device, 3))
    np.add.at(totals, (batch[:, None], device), size)
    return device, totals


def _to_the_left(plan: np.ndarray) -> np.ndarray:
    """Rows with their crystals, in order, before the empty places."""
    return np.take_along_axis(plan, np.argsort(plan < 0, axis=1, kind="stable"), axis=1)


def _fits(graphs: CrystalGraphs, batch: np.ndarray, budget: PadBudget) -> bool:
    return (
        graphs.n_node[batch].sum() + 1 <= budget.n_node
        and graphs.n_edge[batch].sum() <= budget.n_edge
        and len(batch) + 1 <= budget.n_graph
    )


def _as_plan(batches: Sequence[np.ndarray | list[int]], n_place: int) -> np.ndarray:
    plan = np.full((len(batches), n_place), -1, np.int32)
    for row, batch in zip(plan, batches, strict=True):
        row[: len(batch)] = batch
    return plan


def _rounded(n_node: float, n_edge: float, n_graph: float) -> PadBudget:
    def up(n: float) -> int:
        return int(-(-n // _ROUND_TO) * _ROUND_TO)

    return PadBudget(up(n_node + 1), up(n_edge), int(np.ceil(n_graph)) + 1)
