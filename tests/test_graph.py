"""Padding keeps every crystal, changes no number, and raises where jax would stay silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.graph import (
    CrystalGraphs,
    PadBudget,
    concatenate,
    members,
    node_graph,
    offsets,
    pad,
    select,
    unpad,
    validate,
)

BUDGET = PadBudget(n_node=20, n_edge=64, n_graph=6)


def make(n_node: int, n_edge: int, seed: int) -> CrystalGraphs:
    rng = np.random.default_rng(seed)
    return CrystalGraphs(
        species=rng.integers(1, 90, n_node, dtype=np.int32),
        node_weight=rng.integers(1, 5, n_node).astype(np.float32),
        distances=rng.uniform(1, 8, n_edge).astype(np.float32),
        edge_weight=rng.integers(1, 9, n_edge).astype(np.float32),
        senders=rng.integers(0, n_node, n_edge, dtype=np.int32),
        receivers=np.sort(rng.integers(0, n_node, n_edge, dtype=np.int32)),
        n_node=np.array([n_node], np.int32),
        n_edge=np.array([n_edge], np.int32),
        graph_mask=np.ones(1, bool),
        angles=rng.uniform(-1, 1, (n_edge, 3)).astype(np.float32),
    )


@pytest.fixture
def parts() -> list[CrystalGraphs]:
    return [make(2, 18, 0), make(5, 12, 1), make(1, 3, 2), make(7, 30, 3)]


@pytest.fixture
def graphs(parts) -> CrystalGraphs:
    return concatenate(parts)


def assert_equal(a: CrystalGraphs, b: CrystalGraphs) -> None:
    for name in CrystalGraphs._fields:
        x, y = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_rank_promotion_is_an_error():
    with pytest.raises(ValueError, match="rank"):
        jnp.zeros((2, 3)) + jnp.zeros(3)


def test_concatenate_shifts_indices_to_where_the_crystals_nodes_are(parts, graphs):
    # The second crystal's nodes follow the two of the first, the fourth's the 2 + 5 + 1 of the others.
    np.testing.assert_array_equal(graphs.senders[18:30], parts[1].senders + 2)
    np.testing.assert_array_equal(graphs.receivers[33:], parts[3].receivers + 8)
    np.testing.assert_array_equal(graphs.n_node, [2, 5, 1, 7])
    validate(graphs)


def test_concatenate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="concatenate needs at least one graph"):
        concatenate([])


def test_unpad_undoes_pad(graphs):
    padded = pad(graphs, BUDGET)
    validate(padded)
    assert_equal(unpad(padded), graphs)


def test_a_tight_budget_holds_exactly_its_crystals(graphs):
    assert_equal(unpad(pad(graphs, PadBudget(16, 63, 5))), graphs)


@pytest.mark.parametrize("index", [[3, 0], [2, 2, 1], [0], [1, 0, 3, 2]])
def test_select_takes_the_crystals_in_the_order_of_the_index(parts, graphs, index):
    assert_equal(
        unpad(select(graphs, np.array(index, np.int32), PadBudget(40, 200, 6))), concatenate([parts[i] for i in index])
    )


def test_an_empty_place_stays_an_empty_graph_between_others(parts, graphs):
    chosen = select(graphs, np.array([-1, 3, -1, 0], np.int32), BUDGET)
    np.testing.assert_array_equal(chosen.n_node, [0, 7, 0, 2, 0, 11])
    np.testing.assert_array_equal(chosen.n_edge, [0, 30, 0, 18, 0, 16])
    np.testing.assert_array_equal(chosen.graph_mask, [False, True, False, True, False, False])
    validate(chosen)
    assert_equal(unpad(chosen), concatenate([parts[3], parts[0]]))


def test_only_empty_places_are_all_padding(graphs):
    empty = select(graphs, np.full(3, -1, np.int32), BUDGET)
    validate(empty)
    assert not empty.node_weight.any() and not empty.edge_weight.any() and not empty.graph_mask.any()


def test_padding_is_finite_weightless_and_loops_on_the_last_node(graphs):
    padded = pad(graphs, BUDGET)
    np.testing.assert_array_equal(padded.species[15:], 0)
    np.testing.assert_array_equal(padded.node_weight[15:], 0)
    np.testing.assert_array_equal(padded.distances[63:], 1)
    np.testing.assert_array_equal(padded.edge_weight[63:], 0)
    np.testing.assert_array_equal(padded.senders[63:], 19)
    np.testing.assert_array_equal(padded.receivers[63:], 19)
    assert padded.n_node.sum() == 20 and padded.n_edge.sum() == 64


def test_jit_and_numpy_give_the_same_batch(graphs):
    index = np.array([3, -1, 0, 2], np.int32)
    on_device = jax.jit(select, static_argnums=2)(jax.tree.map(jnp.asarray, graphs), jnp.asarray(index), BUDGET)
    assert_equal(on_device, select(graphs, index, BUDGET))
    assert_equal(select(jax.tree.map(jnp.asarray, graphs), jnp.asarray(index), BUDGET), select(graphs, index, BUDGET))


def test_batches_are_32_bit_whatever_the_index(graphs):
    chosen = select(graphs, np.array([1, 2]), BUDGET)  # i64
    for name, dtype in zip(CrystalGraphs._fields, "ifffiiii?f", strict=True):
        assert getattr(chosen, name).dtype == np.dtype(dtype), name


def test_node_graph_names_the_crystal_of_every_node(graphs):
    expected = np.repeat(np.arange(4), [2, 5, 1, 7])
    np.testing.assert_array_equal(node_graph(graphs), expected)
    padded = select(graphs, np.array([-1, 3, -1, 0], np.int32), BUDGET)
    np.testing.assert_array_equal(node_graph(padded), [1] * 7 + [3] * 2 + [5] * 11)


def test_bonds_keep_their_species_under_any_selection(graphs):
    """A bond is (species i, species j, distance): the multiset of a selection is the union of its crystals'."""

    def bonds(g: CrystalGraphs) -> list[tuple[float, ...]]:
        return sorted(zip(g.species[g.receivers], g.species[g.senders], g.distances, g.edge_weight, strict=True))

    rng = np.random.default_rng(0)
    budget = PadBudget(64, 300, 8)
    for _ in range(20):
        index = rng.integers(-1, 4, 7).astype(np.int32)
        expected = [bond for i in index if i >= 0 for bond in bonds(unpad(select(graphs, np.array([i]), BUDGET)))]
        assert bonds(unpad(select(graphs, index, budget))) == sorted(expected)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (PadBudget(15, 64, 6), "needs 16 nodes .* holds 15"),
        (PadBudget(20, 62, 6), "needs 63 edges .* holds 62"),
        (PadBudget(20, 64, 4), "needs 5 graphs .* holds 4"),
    ],
)
def test_too_small_a_budget_names_the_deficit(graphs, budget, message):
    with pytest.raises(ValueError, match=message):
        pad(graphs, budget)


def test_an_index_beyond_the_set_is_an_error_on_the_host(graphs):
    with pytest.raises(IndexError):
        select(graphs, np.array([4]), BUDGET)


def change(array: np.ndarray, place: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("senders", 0, 15, r"senders\[0\] is 15, outside its crystal's nodes 0..1"),
        ("senders", 18, 1, r"senders\[18\] is 1, outside its crystal's nodes 2..6"),
        ("senders", 62, -1, r"senders\[62\] is -1"),
        ("receivers", 62, 99, r"receivers\[62\] is 99"),
        ("distances", 5, np.nan, "distances holds a value that is not finite"),
        ("edge_weight", 5, np.inf, "edge_weight holds a value that is not finite"),
        ("node_weight", 5, np.nan, "node_weight holds a value that is not finite"),
        ("n_node", 0, 3, "n_node adds up to 16 but the graph holds 15"),
        ("n_edge", 3, 0, "n_edge adds up to 33 but the graph holds 63"),
    ],
)
def test_validate_finds_what_jax_would_not(graphs, name, place, value, message):
    with pytest.raises(ValueError, match=message):
        validate(graphs._replace(**{name: change(getattr(graphs, name), place, value)}))


def test_validate_wants_receivers_in_order(graphs):
    receivers = graphs.receivers.copy()
    receivers[18:30] = receivers[18:30][::-1]
    with pytest.raises(ValueError, match="receivers must be ascending"):
        validate(graphs._replace(receivers=receivers))


@pytest.mark.parametrize("name", ["node_weight", "edge_weight", "senders", "receivers"])
def test_validate_wants_arrays_of_one_length(graphs, name):
    with pytest.raises(ValueError, match=f"{name} has .* entries but"):
        validate(graphs._replace(**{name: getattr(graphs, name)[:-1]}))


def test_members_are_the_elements_that_select_places(graphs):
    index = np.array([3, 0, -1, 2], np.int32)
    found = members(graphs, index, offsets(graphs))
    batch = select(graphs, index, BUDGET)
    # Nodes of the crystals of 2, 5, 1 and 7 nodes: 8..14, then 0 and 1, then 7.
    np.testing.assert_array_equal(found.node, [8, 9, 10, 11, 12, 13, 14, 0, 1, 7])
    np.testing.assert_array_equal(graphs.species[found.node], batch.species[:10])
    np.testing.assert_array_equal(graphs.distances[found.edge], batch.distances[: 30 + 18 + 3])
