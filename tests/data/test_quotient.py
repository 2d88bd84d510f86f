"""The quotient is the full graph to every message-passing network: equal by hand, by brute force and in float64."""

import numpy as np
import pytest

from cgcnn_jax.data import quotient
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.neighbors import Edges, NearestK, NeighborRule, Radius, WholeShells
from cgcnn_jax.data.quotient import Quotient

TOLERANCE = 1e-3


SHELLS = WholeShells(12)


def reduced(crystal: Crystal, rule: NeighborRule = SHELLS, tolerance: float = TOLERANCE) -> tuple[Edges, Quotient]:
    edges = rule.find(crystal)
    return edges, quotient.reduce(crystal.species, edges, tolerance=tolerance)


def test_bonds_that_count_differently_are_no_equals():
    # Four atoms in a ring of equal bonds, of which those to 2 and 3 count half.
    receivers, senders = np.repeat(np.arange(4), 2), np.array([1, 3, 0, 2, 3, 1, 2, 0])
    edges = Edges(receivers, senders, np.full(8, 2.0), np.where(senders > 1, 0.5, 1.0))
    alike = quotient.reduce(np.full(4, 6), edges._replace(weights=np.full(8, 0.5)), tolerance=TOLERANCE)
    assert alike.node_weight.tolist() == [4] and alike.edge_weight.tolist() == [1.0]
    found = quotient.reduce(np.full(4, 6), edges, tolerance=TOLERANCE)
    assert len(found.edges.distances) == 2 and sorted(found.edge_weight.tolist()) == [0.5, 1.0]


def message_passing(species, edges, edge_weight, seed: int) -> np.ndarray:
    """Three rounds of an arbitrary gated sum over neighbours, float64[n_node, 8]."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(120, 8))[species]
    for _ in range(3):
        w_self, w_other, w_bond = rng.normal(size=(8, 8)) / 3, rng.normal(size=(8, 8)) / 3, rng.normal(size=(8, 1))
        z = v[edges.receivers] @ w_self + v[edges.senders] @ w_other + np.cos(edges.distances[:, None] * w_bond.T)
        messages = np.zeros_like(v)
        np.add.at(messages, edges.receivers, edge_weight[:, None] * np.tanh(z))
        v = np.tanh(v @ w_self + messages / 12)
    return v


def test_rock_salt_is_two_nodes_and_four_edges(rock_salt):
    _, q = reduced(rock_salt)
    np.testing.assert_array_equal(q.species, [11, 17])
    np.testing.assert_array_equal(q.node_weight, [4, 4])
    np.testing.assert_array_equal(q.atom_node, [0] * 4 + [1] * 4)
    found = sorted(zip(*q.edges[:2], np.round(q.edges.distances, 3), q.edge_weight, strict=True))
    assert found == [(0, 0, 3.988, 12), (0, 1, 2.82, 6), (1, 0, 2.82, 6), (1, 1, 3.988, 12)]


def test_prototypes_by_hand(copper, diamond, cesium_chloride):
    assert [len(reduced(c)[1].species) for c in (copper, diamond, cesium_chloride)] == [1, 1, 2]
    _, q = reduced(diamond)  # 4 at 1.545 Å, 12 at 2.522 Å
    np.testing.assert_array_equal(q.node_weight, [2])
    np.testing.assert_array_equal(np.sort(q.edge_weight), [4, 12])


def test_atoms_of_one_species_split_only_when_their_surroundings_differ():
    """A chain A-B-C-B along x at 2 Å, atoms O: the distances alone cannot part them, one different species can."""
    same = Crystal.from_arrays("same", np.diag([8, 9, 9]), ["O"] * 4, [[x, 0, 0] for x in (0, 0.25, 0.5, 0.75)])
    assert len(reduced(same, Radius(2.5))[1].species) == 1
    # S at 0: O at 2 and 6 Å touch it, O at 4 Å does not.
    other = Crystal.from_arrays("other", np.diag([8, 9, 9]), ["S", "O", "O", "O"], same.frac_coords)
    _, q = reduced(other, Radius(2.5))
    np.testing.assert_array_equal(q.atom_node, [0, 1, 2, 1])
    np.testing.assert_array_equal(q.node_weight, [1, 2, 1])


def test_a_difference_reaches_atoms_several_bonds_away():
    """S-O-O-O-O-O-O-O in a ring: refinement has to run four rounds to give the five distances from S."""
    coords = [[x / 8, 0, 0] for x in range(8)]
    ring = Crystal.from_arrays("ring", np.diag([16, 9, 9]), ["S"] + ["O"] * 7, coords)
    np.testing.assert_array_equal(reduced(ring, Radius(2.5))[1].atom_node, [0, 1, 2, 3, 4, 3, 2, 1])


def crystals_of(request) -> list[Crystal]:
    return [*request.getfixturevalue("phonons"), *request.getfixturevalue("random_crystals")]


@pytest.mark.parametrize("rule", [WholeShells(12), NearestK(12)], ids=lambda rule: type(rule).__name__)
def test_weights_add_up_to_the_full_graph(request, rule):
    for crystal in crystals_of(request):
        edges, q = reduced(crystal, rule)
        assert q.node_weight.sum() == len(crystal.species)
        assert (q.node_weight[q.edges.receivers] * q.edge_weight).sum() == len(edges.distances)
        np.testing.assert_array_equal(q.species[q.atom_node], crystal.species)
        np.testing.assert_array_equal(np.bincount(q.atom_node), q.node_weight)
        assert (np.diff(q.edges.receivers) >= 0).all()
        assert q.edge_weight.min() >= 1


@pytest.mark.parametrize("rule", [WholeShells(12), NearestK(12)], ids=lambda rule: type(rule).__name__)
def test_partition_is_equitable(request, rule):
    """Atom by atom: its bonds into each class are its node's edges, in number and, to the tolerance, in length."""
    for crystal in crystals_of(request)[::4]:
        edges, q = reduced(crystal, rule)
        for atom, node in enumerate(q.atom_node):
            mine, its = edges.receivers == atom, q.edges.receivers == node
            for other in range(len(q.species)):
                full = np.sort(edges.distances[mine][q.atom_node[edges.senders[mine]] == other])
                to_other = q.edges.senders[its] == other
                merged = np.repeat(q.edges.distances[its][to_other], q.edge_weight[its][to_other].astype(int))
                np.testing.assert_allclose(np.sort(merged), full, rtol=0, atol=TOLERANCE)


def test_partition_is_the_coarsest(request):
    """No two nodes of one species have equal edges: else one would be enough."""
    for crystal in crystals_of(request):
        _, q = reduced(crystal)
        rows = set()
        for node, z in enumerate(q.species):
            mine = q.edges.receivers == node
            bonds = zip(q.edges.senders[mine], q.edges.distances[mine].round(9), q.edge_weight[mine], strict=True)
            rows.add((int(z), *sorted(bonds)))
        assert len(rows) == len(q.species)


@pytest.mark.parametrize("seed", range(3))
def test_features_of_every_atom_are_those_of_its_node(request, seed):
    for crystal in crystals_of(request):
        edges = WholeShells(12).find(crystal)
        # An ideal crystal: lengths are equal or 0.01 Å apart.
        edges = edges._replace(distances=edges.distances.round(2))
        q = quotient.reduce(crystal.species, edges, tolerance=TOLERANCE)
        full = message_passing(crystal.species, edges, np.ones(len(edges.distances)), seed)
        on_quotient = message_passing(q.species, q.edges, q.edge_weight, seed)
        # Sums of up to 50 terms in another order, through three rounds.
        np.testing.assert_allclose(on_quotient[q.atom_node], full, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            (q.node_weight[:, None] * on_quotient).sum(axis=0) / q.node_weight.sum(), full.mean(axis=0), atol=1e-12
        )


def test_features_of_real_crystals_differ_by_the_order_of_the_tolerance(phonons):
    for crystal in phonons:
        edges, q = reduced(crystal, tolerance=1e-5)
        full = message_passing(crystal.species, edges, np.ones(len(edges.distances)), 0)
        # Distances move by at most 1e-5 Å; cosine, tanh and 8 weights of 1/3 have slopes of order 1.
        np.testing.assert_allclose(message_passing(q.species, q.edges, q.edge_weight, 0)[q.atom_node], full, atol=1e-4)


def test_tolerance_zero_merges_equal_bits_only(rock_salt, request):
    for crystal in [rock_salt, *crystals_of(request)[:20]]:
        edges, q = reduced(crystal, tolerance=0.0)
        full = message_passing(crystal.species, edges, np.ones(len(edges.distances)), 0)
        merged = message_passing(q.species, q.edges, q.edge_weight, 0)[q.atom_node]
        np.testing.assert_allclose(merged, full, atol=1e-12)


def test_the_last_digits_are_a_difference_only_without_tolerance():
    edges = Edges(np.array([0, 0]), np.array([0, 0]), np.array([2.0, 2.0 + 1e-12]))
    assert len(quotient.reduce(np.array([29]), edges, tolerance=0.0).edge_weight) == 2
    np.testing.assert_array_equal(quotient.reduce(np.array([29]), edges, tolerance=1e-3).edge_weight, [2])


def canonical(q: Quotient) -> list[tuple]:
    """What a graph of classes is, whatever the order of its nodes: each node's share, species and bonds."""
    share = q.node_weight / q.node_weight.sum()
    rows = []
    for node, z in enumerate(q.species):
        mine = q.edges.receivers == node
        bonds = zip(
            q.edges.distances[mine].round(5),
            q.species[q.edges.senders[mine]],
            share[q.edges.senders[mine]].round(9),
            q.edge_weight[mine],
            strict=True,
        )
        rows.append((int(z), round(share[node], 9), tuple(sorted(bonds))))
    return sorted(rows)


def test_order_of_atoms_and_supercells_change_the_weights_alone(rock_salt, copper, diamond, cesium_chloride):
    for crystal in (rock_salt, copper, diamond, cesium_chloride):
        _, q = reduced(crystal)
        for scale in ((1, 1, 1), (2, 1, 1), (2, 2, 2)):
            big = Crystal.from_structure("big", crystal.to_structure().make_supercell(scale, in_place=False))
            order = np.random.default_rng(0).permutation(len(big.species))
            shuffled = Crystal.from_arrays("s", big.lattice, big.species[order], big.frac_coords[order])
            _, other = reduced(shuffled)
            assert canonical(other) == canonical(q)
            assert other.node_weight.sum() == np.prod(scale) * q.node_weight.sum()


def test_real_supercells_have_as_many_nodes_and_edges(phonons):
    for crystal in phonons[:30]:
        _, q = reduced(crystal)
        big = Crystal.from_structure("big", crystal.to_structure().make_supercell((2, 1, 1), in_place=False))
        _, other = reduced(big)
        np.testing.assert_array_equal(np.sort(other.node_weight), np.sort(2 * q.node_weight), err_msg=crystal.id)
        assert len(other.edge_weight) == len(q.edge_weight), crystal.id


def test_full_keeps_every_atom_with_weight_one(rock_salt):
    edges = WholeShells(12).find(rock_salt)
    q = quotient.full(rock_salt.species, edges)
    assert q.edges is edges
    np.testing.assert_array_equal(q.node_weight, np.ones(8))
    np.testing.assert_array_equal(q.edge_weight, np.ones(8 * 18))
    np.testing.assert_array_equal(q.atom_node, np.arange(8))


# ---- Shells ----


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([2.0, 3.0, 2.0005, 3.0005, 4.0], [0, 1, 0, 1, 2]),
        ([2.0, 2.0008, 2.0016, 2.0024], [0, 0, 1, 1]),  # a chain longer than the tolerance is cut
        ([2.0] * 3, [0, 0, 0]),
        ([5.0], [0]),
    ],
)
def test_shells_by_hand(distances, expected):
    np.testing.assert_array_equal(quotient._shells(np.array(distances), 1e-3), expected)


def test_no_shell_is_wider_than_the_tolerance():
    rng = np.random.default_rng(0)
    for _ in range(50):
        distances = rng.choice(rng.uniform(2, 2.05, 60), 200)
        shell = quotient._shells(distances, TOLERANCE)
        for number in range(shell.max() + 1):
            assert np.ptp(distances[shell == number]) <= TOLERANCE * (1 + 1e-9)
        # Numbered without gaps in order of length, whatever the order of the edges.
        order = np.argsort(distances, kind="stable")
        assert set(np.diff(shell[order])) <= {0, 1}


def test_shells_survive_a_width_that_rounds_to_the_tolerance():
    # 6.6938916744019075 - 6.692891674401907 > 1e-3 but 6.692891674401907 + 1e-3 rounds to the former.
    distances = np.array([6.692891674401907, 6.6934, 6.6938916744019075])
    np.testing.assert_array_equal(quotient._shells(distances, 1e-3), [0, 0, 0])
