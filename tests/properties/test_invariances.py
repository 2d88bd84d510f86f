"""What every network must satisfy: a prediction belongs to the crystal, not to how it was written down."""

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal

# float32 sums in another order: some 20 terms in each of two layers, outputs of order 1.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def supercell(crystal: Crystal, times) -> Crystal:
    cells = np.indices(times).reshape(3, -1).T
    coords = (crystal.frac_coords[None] + cells[:, None]).reshape(-1, 3) / times
    return Crystal.from_arrays(
        "supercell", crystal.lattice * np.array(times)[:, None], np.tile(crystal.species, len(cells)), coords
    )


@pytest.fixture(params=["perovskite", "triclinic"])
def crystal(request) -> Crystal:
    return request.getfixturevalue(request.param)


def test_predictions_tell_crystals_apart(network, graphs_of, rock_salt, perovskite, triclinic):
    # Without this a constant network would pass everything below.
    values = network.predict(graphs_of(rock_salt, perovskite, triclinic))[:, 0]
    assert np.abs(np.subtract.outer(values, values)[np.triu_indices(3, 1)]).min() > 1e-3


def test_the_order_of_atoms_does_not_matter(network, graphs_of, crystal):
    order = np.random.default_rng(0).permutation(len(crystal.species))
    assert not np.array_equal(order, np.arange(len(order)))
    shuffled = Crystal.from_arrays("shuffled", crystal.lattice, crystal.species[order], crystal.frac_coords[order])
    np.testing.assert_allclose(network.predict(graphs_of(shuffled)), network.predict(graphs_of(crystal)), **CLOSE)


@pytest.mark.parametrize("times", [(2, 1, 1), (2, 2, 2)], ids=str)
def test_supercells_have_the_prediction_of_their_cell(network, graphs_of, crystal, times):
    doubled = graphs_of(supercell(crystal, times))
    assert len(doubled.species) == np.prod(times) * len(crystal.species)
    np.testing.assert_allclose(network.predict(doubled), network.predict(graphs_of(crystal)), **CLOSE)


def test_the_primitive_cell_has_the_prediction_of_the_conventional_one(network, graphs_of, rock_salt):
    half = 5.64 / 2
    primitive = Crystal.from_arrays(
        "primitive", [[0, half, half], [half, 0, half], [half, half, 0]], ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    np.testing.assert_allclose(network.predict(graphs_of(primitive)), network.predict(graphs_of(rock_salt)), **CLOSE)


def test_rotations_reflections_and_translations_do_not_matter(network, graphs_of, crystal):
    random = np.random.default_rng(0)
    orthogonal = np.linalg.qr(random.normal(size=(3, 3)))[0]
    expected = network.predict(graphs_of(crystal))
    for rotation in (orthogonal, -orthogonal):
        moved = Crystal.from_arrays(
            "moved", crystal.lattice @ rotation, crystal.species, crystal.frac_coords + random.uniform(-1, 1, 3)
        )
        np.testing.assert_allclose(network.predict(graphs_of(moved)), expected, **CLOSE)


def test_stretching_the_crystal_matters(network, graphs_of, triclinic):
    # The counterpart of the invariances: 3 % longer bonds are another crystal, unless no bond left its bin.
    stretched = Crystal.from_arrays("stretched", 1.03 * triclinic.lattice, triclinic.species, triclinic.frac_coords)
    assert np.abs(network.predict(graphs_of(stretched)) - network.predict(graphs_of(triclinic))).max() > 1e-4


def test_position_and_company_in_the_batch_do_not_matter(network, graphs_of, rock_salt, perovskite, triclinic):
    alone = [network.predict(graphs_of(crystal))[0] for crystal in (rock_salt, perovskite, triclinic)]
    together = network.predict(graphs_of(triclinic, rock_salt, rock_salt, perovskite))
    np.testing.assert_allclose(together, np.stack([alone[2], alone[0], alone[0], alone[1]]), **CLOSE)


def test_the_quotient_graph_has_the_prediction_of_the_full_graph(network, graphs_of, rock_salt, perovskite, triclinic):
    crystals = (rock_salt, perovskite, triclinic)
    full, reduced = graphs_of(*crystals), graphs_of(*crystals, quotient=True)
    np.testing.assert_array_equal(reduced.n_node, [2, 3, 3])
    assert full.n_node.sum() == 16
    np.testing.assert_allclose(network.predict(reduced), network.predict(full), **CLOSE)
