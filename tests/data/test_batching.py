"""An epoch deals every crystal once into batches of one shape with little padding."""

import itertools

import numpy as np
import pytest

from cgcnn_jax.data import batching, store
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_jsonl
from cgcnn_jax.graph import CrystalGraphs, PadBudget, select, validate


def sized(n_node: np.ndarray, n_edge: np.ndarray) -> CrystalGraphs:
    """Graphs of given sizes; plans look at nothing else."""
    empty = np.zeros(0)
    n = len(n_node)
    return CrystalGraphs(
        *[empty] * 6,
        n_node=n_node.astype(np.int32),
        n_edge=n_edge.astype(np.int32),
        graph_mask=np.ones(n, bool),
        angles=np.zeros((0, 0)),
    )


@pytest.fixture(scope="module")
def skewed() -> CrystalGraphs:
    """1000 crystals of lognormal size, as materials databases have."""
    rng = np.random.default_rng(0)
    n_node = np.ceil(rng.lognormal(1.8, 0.9, 1000))
    return sized(n_node, np.ceil(n_node * rng.uniform(4, 16, 1000)))


@pytest.fixture(scope="module")
def materials(shared_data) -> CrystalGraphs:
    """2000 crystals of MP-2018.6.1, quotient graphs."""
    crystals = itertools.islice(read_jsonl(shared_data / "mp_2018_6_1"), 2000)
    return store.build([c for c in crystals if not hasattr(c, "reason")], Featurizer()).graphs


def assert_fits(graphs: CrystalGraphs, plan: np.ndarray, budget: PadBudget) -> None:
    assert plan.shape[1] == budget.n_graph - 1
    for row in plan:
        row = row[row >= 0]
        assert graphs.n_node[row].sum() < budget.n_node
        assert graphs.n_edge[row].sum() <= budget.n_edge
        assert len(row) < budget.n_graph


def test_an_epoch_holds_every_member_once_and_fits(skewed):
    members = np.random.default_rng(1).permutation(1000)[:700]
    budget = batching.training_budget(skewed, members, 11, seed=0)
    for epoch in range(30):
        plan = batching.epoch_plan(skewed, members, budget, 11, (0, epoch))
        assert len(plan) == 11
        assert_fits(skewed, plan, budget)
        np.testing.assert_array_equal(np.sort(plan[plan >= 0]), np.sort(members))


def test_a_plan_follows_from_its_seed_alone(skewed):
    members = np.arange(1000)
    budget = batching.training_budget(skewed, members, 8, seed=0)
    plans = [batching.epoch_plan(skewed, members, budget, 8, seed) for seed in ((0, 1), (0, 1), (0, 2), (1, 1))]
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2]) and not np.array_equal(plans[0], plans[3])
    assert batching.training_budget(skewed, members, 8, seed=0) == budget


def test_epochs_deal_other_companions(skewed):
    """Two crystals of one batch meet again in 1 of n_batch epochs: batches are shuffled, not only their order."""
    members, n_batch = np.arange(1000), 10
    budget = batching.training_budget(skewed, members, n_batch, seed=0)
    owners = []
    for epoch in range(2):
        plan = batching.epoch_plan(skewed, members, budget, n_batch, (0, epoch))
        owner = np.empty(1000, int)
        owner[plan[plan >= 0]] = np.nonzero(plan >= 0)[0]
        owners.append(owner)
    first, second = (owner[:, None] == owner[None] for owner in owners)
    assert (second[first].sum() - 1000) / (first.sum() - 1000) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("n_batch", [4, 8])  # 500 and 250 crystals a batch
def test_training_pads_less_than_4_percent(materials, n_batch):
    members = np.arange(len(materials.n_node))
    budget = batching.training_budget(materials, members, n_batch, seed=0)
    for epoch in range(3):
        plan = batching.epoch_plan(materials, members, budget, n_batch, (0, epoch))
        assert max(batching.padding_share(materials, plan, budget)) < 0.04


def test_padding_share_by_hand():
    graphs = sized(np.array([3, 5]), np.array([10, 30]))
    # 2 batches of 10 nodes and 40 edges hold 8 and 40: 12 of 20 and 40 of 80 are padding.
    shares = batching.padding_share(graphs, np.array([[0, -1], [1, -1]]), PadBudget(10, 40, 3))
    np.testing.assert_allclose(shares, [0.6, 0.5])


def test_planned_batches_can_be_selected(materials):
    members = np.arange(len(materials.n_node))
    budget = batching.training_budget(materials, members, 8, seed=0)
    for row in batching.epoch_plan(materials, members, budget, 8, (0, 0)):
        validate(select(materials, row, budget))


@pytest.mark.parametrize(("n", "n_batch"), [(1, 1), (2, 2), (5, 2), (20, 3)])
def test_small_sets_fit_too(skewed, n, n_batch):
    for start in range(0, 200, n):
        members = np.arange(start, start + n)
        budget = batching.training_budget(skewed, members, n_batch, seed=start)
        for epoch in range(5):
            plan = batching.epoch_plan(skewed, members, budget, n_batch, (start, epoch))
            np.testing.assert_array_equal(np.sort(plan[plan >= 0]), members)


def test_a_budget_that_no_shuffle_fits_is_refused(skewed):
    with pytest.raises(ValueError, match=r"1000 crystals do not fit 4 batches of .*training_budget"):
        batching.epoch_plan(skewed, np.arange(1000), PadBudget(500, 5000, 300), 4, (0, 0))


def test_packing_keeps_the_order_and_fits(skewed):
    budget = batching.packing_budget(skewed, 64)
    for members in (np.arange(1000), np.arange(1000)[::-7], np.array([], int)):
        plan = batching.packed_plan(skewed, members, budget)
        np.testing.assert_array_equal(plan[plan >= 0], members)
        assert_fits(skewed, plan, budget)


def test_a_part_never_needs_more_batches_than_the_whole(skewed):
    """The training loop compiles prediction for the plan of all crystals and puts that of a split into it."""
    budget = batching.packing_budget(skewed, 16)
    n_all = len(batching.packed_plan(skewed, np.arange(1000), budget))
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9, 0.99):
        for _ in range(10):
            part = np.flatnonzero(rng.random(1000) < share)
            assert len(batching.packed_plan(skewed, part, budget)) <= n_all


def test_packing_fills_batches_by_hand():
    graphs = sized(np.array([4, 4, 4, 9]), np.array([10, 10, 10, 10]))
    # 10 nodes, one of them padding: 4 + 4 fit, a third does not; 9 fills a batch alone.
    plan = batching.packed_plan(graphs, np.arange(4), PadBudget(10, 100, 5))
    np.testing.assert_array_equal(plan, [[0, 1, -1, -1], [2, -1, -1, -1], [3, -1, -1, -1]])
    # Edges and places are limits too.
    assert len(batching.packed_plan(graphs, np.arange(4), PadBudget(100, 20, 5))) == 2
    assert len(batching.packed_plan(graphs, np.arange(4), PadBudget(100, 100, 2))) == 4


def test_packing_holds_the_largest_crystal_whatever_the_batch_size(skewed):
    for batch_size in (1, 10, 5000):
        budget = batching.packing_budget(skewed, batch_size)
        assert budget.n_node > skewed.n_node.max() and budget.n_edge >= skewed.n_edge.max()


def test_a_crystal_larger_than_the_budget_is_refused():
    graphs = sized(np.array([4, 10]), np.array([10, 10]))
    with pytest.raises(ValueError, match="crystal 1 has 10 nodes and 10 edges, more than PadBudget"):
        batching.packed_plan(graphs, np.arange(2), PadBudget(10, 100, 5))


def shared(graphs, members, n_batch, n_device, epoch=0):
    """A plan, its shares and their budget."""
    whole = batching.training_budget(graphs, members, n_batch, seed=0)
    plan = batching.epoch_plan(graphs, members, whole, n_batch, (0, epoch))
    budget = batching.share_budget(graphs, members, n_batch, n_device, seed=0)
    return plan, batching.share_plan(graphs, plan, budget, n_device), budget


@pytest.mark.parametrize("n_device", [2, 3, 8])
def test_shares_of_a_batch_hold_its_crystals_once_and_fit(skewed, n_device):
    members = np.arange(len(skewed.n_node))
    for epoch in range(5):
        plan, shares, budget = shared(skewed, members, 20, n_device, epoch)
        assert shares.shape == (20, n_device, budget.n_graph - 1)
        for row, of_row in zip(plan, shares, strict=True):
            np.testing.assert_array_equal(np.sort(of_row[of_row >= 0]), np.sort(row[row >= 0]))
        assert_fits(skewed, shares.reshape(-1, shares.shape[2]), budget)


@pytest.mark.parametrize("seed", [0, 1])
def test_few_batches_of_very_different_crystals_can_be_shared_in_every_epoch(seed):
    # Sizes spread over a factor of a hundred: an epoch in fifty has a batch worse than all of four others.
    rng = np.random.default_rng([seed, 300, 2])
    n_node = np.maximum(1, np.round(np.exp(rng.normal(2, 1.2, 300)))).astype(int)
    graphs = sized(n_node, np.maximum(1, (n_node * rng.uniform(6, 16, 300)).astype(int)))
    members = np.arange(300)
    whole = batching.training_budget(graphs, members, 10, seed)
    budget = batching.share_budget(graphs, members, 10, 2, seed)
    for epoch in range(100):
        plan = batching.epoch_plan(graphs, members, whole, 10, (seed, epoch))
        shares = batching.share_plan(graphs, plan, budget, 2)
        np.testing.assert_array_equal(np.sort(shares[shares >= 0]), members)


def test_shares_are_nearly_equal(skewed):
    members = np.arange(len(skewed.n_node))
    _, shares, budget = shared(skewed, members, 8, 4)
    # 1000 crystals in 32 shares: about 31 each, so that the largest crystal is all that keeps them from being equal.
    nodes = np.where(shares >= 0, skewed.n_node[shares], 0).sum(axis=2)
    assert nodes.max() - nodes.min() <= skewed.n_node.max()
    assert max(batching.padding_share(skewed, shares, budget)) < 0.25


def test_one_device_has_the_whole_batch(skewed):
    members = np.arange(len(skewed.n_node))
    plan, shares, budget = shared(skewed, members, 8, 1)
    np.testing.assert_array_equal(shares[:, 0], plan)
    assert budget == batching.training_budget(skewed, members, 8, seed=0)


def test_more_devices_than_crystals_leave_some_without(skewed):
    _, shares, _ = shared(skewed, np.arange(6), 2, 8)
    assert sorted(shares[shares >= 0]) == list(range(6))
    assert (shares >= 0).sum(axis=2).max() == 1


def test_batches_that_no_share_holds_are_refused(skewed):
    plan, _, budget = shared(skewed, np.arange(1000), 4, 2)
    with pytest.raises(ValueError, match=r"4 batches do not fit 2 shares of .*share_budget"):
        batching.share_plan(skewed, plan, budget._replace(n_node=50), 2)
    # Never cut to the places that there are: the crystals would be lost.
    with pytest.raises(ValueError, match=r"4 batches do not fit 2 shares of .*share_budget"):
        batching.share_plan(skewed, plan, budget._replace(n_graph=100), 2)
