"""From a crystal to arrays that graph.validate accepts."""

import re

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal, CrystalError
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK, Radius, VoronoiBonds, WholeShells
from cgcnn_jax.graph import CrystalGraphs, validate

RULES = [WholeShells(), NearestK(), Radius(4.5), VoronoiBonds()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("use_quotient", [True, False])
def test_every_rule_gives_a_valid_graph(rock_salt, random_crystals, rule, use_quotient):
    featurizer = Featurizer(rule, use_quotient)
    for crystal in [rock_salt, *random_crystals]:
        try:
            graphs, atom_node, _ = featurizer(crystal)
        except CrystalError:
            # Some random cell has an atom farther from all others than the radius or the Voronoi rule reaches.
            assert isinstance(rule, Radius | VoronoiBonds)
            with pytest.raises(CrystalError, match="has no neighbour"):
                featurizer(crystal)
            continue
        validate(graphs)
        for name, dtype in zip(CrystalGraphs._fields, "ifffiiii?f", strict=True):
            assert getattr(graphs, name).dtype == np.dtype(dtype), name
        np.testing.assert_array_equal(graphs.species[atom_node], crystal.species)
        assert graphs.node_weight.sum() == len(crystal.species)


def test_rock_salt_in_numbers(rock_salt):
    graphs, atom_node, empty = Featurizer()(rock_salt)
    np.testing.assert_array_equal(graphs.node_weight, [4, 4])
    np.testing.assert_allclose(np.sort(graphs.distances), [2.82, 2.82, 3.98808, 3.98808], rtol=1e-6)
    np.testing.assert_array_equal(atom_node, [0, 0, 0, 0, 1, 1, 1, 1])
    full, *_ = Featurizer(use_quotient=False)(rock_salt)
    assert (full.n_node, full.n_edge) == (8, 8 * 18)
    assert empty == pytest.approx(2.82)


def test_an_element_without_features_is_refused(rock_salt):
    with pytest.raises(
        CrystalError, match=re.escape("NaCl: no atom features for Na, Cl; leave the crystal out or give")
    ):
        Featurizer(known_species=(1, 8))(rock_salt)
    Featurizer(known_species=(11, 17))(rock_salt)


def test_an_atom_without_neighbour_is_refused():
    crystal = Crystal.from_arrays("Ar", 20 * np.eye(3), ["Ar"], [[0, 0, 0]])
    with pytest.raises(CrystalError, match=r"site 0 \(Ar\) has no neighbour"):
        Featurizer()(crystal)


def test_settings_can_be_told_apart_by_their_names():
    """The graph store is named by them."""
    some = [
        Featurizer(),
        Featurizer(WholeShells(11)),
        Featurizer(WholeShells(12, 7.0)),
        Featurizer(NearestK()),
        Featurizer(NearestK(published_padding=True)),
        Featurizer(use_quotient=False),
        Featurizer(tolerance=1e-4),
        Featurizer(known_species=(1, 8)),
        Featurizer(angles=True),
    ]
    assert len({repr(one) for one in some}) == len(some)
