"""pymatgen structures in memory."""

import numpy as np
from pymatgen.core import Lattice, Structure

from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.data.sources import read_structures

GOOD = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
HALF = Structure(Lattice.cubic(4.12), [{"Cs": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_structures_are_numbered_or_named():
    assert [crystal.id for crystal in read_structures([GOOD, GOOD])] == ["0", "1"]
    (crystal,) = read_structures([GOOD], ["cscl"], [{"gap": 8.3}])
    assert crystal.id == "cscl" and crystal.targets == {"gap": 8.3}
    np.testing.assert_array_equal(crystal.species, [55, 17])
    np.testing.assert_array_equal(crystal.lattice, 4.12 * np.eye(3))


def test_a_disordered_one_is_rejected_in_its_place():
    first, second, third = read_structures([GOOD, HALF, GOOD])
    assert isinstance(second, Rejected) and second.id == "1"
    assert second.reason.startswith("1: site 0 (Cs:0.5) is partially occupied")
    assert (first.id, third.id) == ("0", "2")
    # Numbers are ids, too, as of a table's column.
    first, second = read_structures([HALF, GOOD], [7, 8])
    assert (first.id, second.id) == ("7", "8") and isinstance(first, Rejected)
