"""Angular features: worked by hand, and against pymatgen's neighbours and scipy's polynomials, pair by pair."""

import re

import numpy as np
import pytest
from scipy.special import eval_legendre

from cgcnn_jax.data import quotient, store
from cgcnn_jax.data.angles import NUM_ANGLES, bond_angles
from cgcnn_jax.data.crystal import Crystal, CrystalError
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import Edges, NearestK, Radius, VoronoiBonds, WholeShells
from tests.predictors import make_predictor


def test_a_bent_molecule_by_hand():
    # Atom 0 at the corner, 1 at a distance of 1 along x, 2 at 1.15 along y: what counts there of a bond to 2 is 1/e.
    edges = Edges(
        np.array([0, 0, 1, 2]),
        np.array([1, 2, 0, 0]),
        np.array([1, 1.15, 1, 1.15]),
        vectors=np.array([[1, 0, 0], [0, 1.15, 0], [-1, 0, 0], [0, -1.15, 0]]),
    )
    found = bond_angles(edges).reshape(4, 4, 4)  # bond; receiver near and all, sender near and all; l = 1 to 4
    e = np.exp(-1)
    # P_l(1) = 1; P_l(0) = 0, -1/2, 0, 3/8.
    along_x = np.array([1, 1 - e / 2, 1, 1 + 3 * e / 8]) / (1 + e)
    along_y = np.array([e, e - 1 / 2, e, e + 3 / 8]) / (1 + e)
    alike = np.array([1, 1 / 4, 1, 11 / 8]) / [2, 1, 2, 2]
    alone = np.ones(4)
    expected = [
        [along_x, alike, alone, alone],
        [along_y, alike, alone, alone],
        [alone, alone, along_x, alike],
        [alone, alone, along_y, alike],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Were the bond to 2 half a bond, it would count half.
    half = bond_angles(edges._replace(weights=np.array([1, 0.5, 1, 1]))).reshape(4, 4, 4)
    np.testing.assert_allclose(half[0, :2, 0], [1 / (1 + e / 2), 1 / 1.5], atol=1e-6)


def test_simple_cubic_by_hand():
    # Of six neighbours one lies along the bond, one against it, four across: P_4 is (1 + 1 + 4 * 3/8) / 6, others cancel.
    polonium = Crystal.from_arrays("Po", 3.35 * np.eye(3), ["Po"], [[0, 0, 0]])
    found = bond_angles(WholeShells(6).find(polonium))
    assert found.shape == (6, NUM_ANGLES)
    np.testing.assert_allclose(found, np.tile([0, 0, 0, 7 / 12], (6, 4)), atol=1e-6)


@pytest.mark.parametrize("cutoff", [3.5, 5.0])
def test_all_pairs_of_bonds_say_the_same(random_crystals, cutoff):
    n_bond = 0
    for crystal in random_crystals:
        structure = crystal.to_structure()
        receivers, senders, images, distances = structure.get_neighbor_list(cutoff)
        if len(np.unique(receivers)) < len(structure):
            continue  # an atom without a neighbour
        order = np.argsort(receivers, kind="stable")
        receivers, senders, images, distances = receivers[order], senders[order], images[order], distances[order]
        cart = structure.cart_coords
        vectors = cart[senders] + images @ structure.lattice.matrix - cart[receivers]
        found = bond_angles(Edges(receivers, senders, distances, vectors=vectors)).reshape(-1, 4, 4)
        for bond in np.random.default_rng(0).choice(len(distances), 20):
            for end, (atom, sign) in enumerate(((receivers[bond], 1), (senders[bond], -1))):
                own = receivers == atom
                cosines = [sign * vectors[bond] @ r / distances[bond] / np.linalg.norm(r) for r in vectors[own]]
                near = np.exp(-(distances[own] / distances[own].min() - 1) / 0.15)
                for mean, weights in enumerate((near, np.ones(own.sum()))):
                    expected = [np.average(eval_legendre(degree, cosines), weights=weights) for degree in (1, 2, 3, 4)]
                    np.testing.assert_allclose(found[bond, 2 * end + mean], expected, atol=1e-6)
            n_bond += 1
    assert n_bond > 100


@pytest.mark.parametrize(
    "rule",
    [
        WholeShells(),
        WholeShells(share_last=True),
        NearestK(),
        NearestK(published_padding=True),
        Radius(6.0),
        VoronoiBonds(8.0, 2.0),
    ],
)
def test_every_rule_knows_where_its_bonds_point(random_crystals, rule):
    n_bond = 0
    for crystal in random_crystals:
        try:
            edges = rule.find(crystal)
        except CrystalError:  # an atom that neither the radius nor the Voronoi rule gives a neighbour
            continue
        assert edges.vectors is not None
        np.testing.assert_allclose(np.linalg.norm(edges.vectors, axis=1), edges.distances, rtol=1e-9)
        # The end of a vector is an atom: in cells of the lattice, an integer away from the sender.
        away = np.linalg.solve(crystal.lattice.T, edges.vectors.T).T + crystal.frac_coords[edges.receivers]
        np.testing.assert_allclose(
            away - crystal.frac_coords[edges.senders], np.rint(away - crystal.frac_coords[edges.senders]), atol=1e-9
        )
        n_bond += len(edges.distances)
    assert n_bond > 100


def test_invented_bonds_have_no_direction():
    lonely = Crystal.from_arrays("Ar", 7 * np.eye(3), ["Ar"], [[0, 0, 0]])
    with pytest.raises(ValueError, match="bonds that the published code invents have none"):
        bond_angles(NearestK(12, 8.0, published_padding=True).find(lonely))


def test_bonds_that_differ_in_angles_are_no_equals():
    # A ring of four equal atoms and bonds, but for what the angles of two bonds say.
    edges = Edges(np.repeat(np.arange(4), 2), np.array([1, 3, 0, 2, 3, 1, 2, 0]), np.full(8, 2.0))
    angles = np.zeros((8, 2))
    angles[:2] = [[0.004, 0.3], [0.006, 0.3]]
    assert quotient.reduce(np.full(4, 6), edges, tolerance=1e-3).node_weight.tolist() == [4]
    alike = quotient.reduce(np.full(4, 6), edges, 0.01 * angles, tolerance=1e-3)
    assert alike.node_weight.tolist() == [4]
    np.testing.assert_allclose(alike.angles, [[1.25e-5, 7.5e-4]])
    found = quotient.reduce(np.full(4, 6), edges, angles, tolerance=1e-3)
    assert found.node_weight.tolist() == [1, 2, 1]  # atom 0, its two neighbours, the one opposite
    np.testing.assert_allclose(found.angles[0], [0.005, 0.3])
    assert not found.angles[1:].any()


def test_graphs_keep_their_angles_in_the_cache(random_crystals, tmp_path, monkeypatch):
    # The first part has no crystal at all, and so does not know how many columns there are.
    monkeypatch.setattr(store, "_CHUNK", 2)
    lonely = [Crystal.from_arrays(f"Ar{i}", 30 * np.eye(3), ["Ar"], [[0, 0, 0]]) for i in range(2)]
    entries = [*lonely, *random_crystals]
    featurizer = Featurizer(angles=True)
    expected = np.concatenate([featurizer(crystal).graphs.angles for crystal in random_crystals])
    for _ in range(2):
        built = store.build(entries, featurizer, cache=tmp_path)
        assert len(built.rejected) == 2
        np.testing.assert_array_equal(built.graphs.angles, expected)
    np.testing.assert_array_equal(store.build(entries, featurizer).graphs.angles, expected)
    assert built.take(np.array([1])).angles.shape == (built.graphs.n_edge[1], NUM_ANGLES)


def test_a_network_that_takes_angles_asks_for_them():
    predictor = make_predictor(pool="mean", angles=True)
    salt = Crystal.from_arrays("CsCl", 4.12 * np.eye(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match=re.escape("takes 16 angular features of every bond, and the graphs have 0")):
        predictor.predict_graphs(Featurizer(WholeShells(8))(salt).graphs)
