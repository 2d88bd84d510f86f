"""A Crystal is checked on its way in; what cannot be a crystal says why."""

import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from cgcnn_jax.data.crystal import Crystal, CrystalError, as_number, parse_json, reduced_formula

CUBE = 4.0 * np.eye(3)


def test_symbols_and_atomic_numbers_are_one():
    a = Crystal.from_arrays("a", CUBE, ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    b = Crystal.from_arrays("b", CUBE, [55, np.int64(17)], [[0, 0, 0], [0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(a.species, b.species)
    assert a.digest() == b.digest()  # the id is no part of the content


@pytest.mark.parametrize(
    ("lattice", "species", "coords", "message"),
    [
        (CUBE, ["Na"], [[0, 0, 0], [0.5, 0, 0]], r"x: 1 species need coordinates of shape \(1, 3\), got \(2, 3\)"),
        (CUBE, ["Na", "Cl"], [[0, 0], [0, 0.5], [0.5, 0.5]], r"2 species .* got \(3, 2\)"),  # transposed
        (CUBE, [], [], "x: no atoms"),
        (CUBE, [0], [[0, 0, 0]], "atomic numbers must be 1 to .*, got 0"),
        (CUBE, [200], [[0, 0, 0]], "atomic numbers must be 1 to .*, got 200"),
        (CUBE, [10**12], [[0, 0, 0]], "x: .*out of bounds"),
        (CUBE, [11.5], [[0, 0, 0]], "x: .*integer"),
        (CUBE, None, [[0, 0, 0]], "x: "),
        (CUBE, ["D"], [[0, 0, 0]], "x: 'D' is an isotope of hydrogen"),
        (CUBE, ["X"], [[0, 0, 0]], "x: unknown element 'X'"),
        (CUBE, ["Na"], [[0, float("nan"), 0]], "x: lattice or coordinates hold a value that is not finite"),
        (np.full((3, 3), np.inf), ["Na"], [[0, 0, 0]], "not finite"),
        ([1, 2, 3], ["Na"], [[0, 0, 0]], "x: cannot reshape"),
        ([["a"]], ["Na"], [[0, 0, 0]], "x: could not convert"),
        (np.diag([4.0, 4.0, 0.0]), ["Na"], [[0, 0, 0]], "x: cell of 0 Å³ for 1 atoms; the lattice is degenerate"),
    ],
)
def test_what_is_no_crystal_is_refused(lattice, species, coords, message):
    with pytest.raises(CrystalError, match=message):
        Crystal.from_arrays("x", lattice, species, coords)


def test_record_without_its_keys_names_them_and_those_there_are():
    with pytest.raises(CrystalError, match="a: the record has no species, frac_coords; it has id, lattice"):
        Crystal.from_record({"id": "a", "lattice": CUBE.tolist()}, "default")


def test_record_with_odd_labels_still_is_a_crystal():
    record = {
        "id": None,
        "lattice": CUBE.tolist(),
        "species": ["Na"],
        "frac_coords": [[0, 0, 0]],
        "properties": {"gap": None, "k": "12.5", "huge": 10**400, "is_metal": True, "note": "good"},
    }
    crystal = Crystal.from_record(record, "set.jsonl:7")
    assert crystal.id == "set.jsonl:7"
    np.testing.assert_equal(
        dict(crystal.targets), {"gap": np.nan, "k": 12.5, "huge": np.nan, "is_metal": 1.0, "note": np.nan}
    )
    with pytest.raises(CrystalError, match="a: properties must be an object of names and values"):
        Crystal.from_record({**record, "id": "a", "properties": [1.5]}, "default")


def test_partial_occupancy_is_refused_and_names_the_site():
    lattice = Lattice.cubic(4.0)
    half = Structure(lattice, [{"Na": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(CrystalError, match=r"x: site 0 \(Na:0.5\) is partially occupied.*Order it first"):
        Crystal.from_structure("x", half)
    mixed = Structure(lattice, ["Cl", {"Na": 0.5, "K": 0.5}], [[0.5, 0.5, 0.5], [0, 0, 0]])
    with pytest.raises(CrystalError, match=r"x: site 1 .* is partially occupied"):
        Crystal.from_structure("x", mixed)


def test_what_repeats_in_two_directions_is_no_crystal(rock_salt):
    whole = rock_salt.to_structure()
    slab = Structure(Lattice(whole.lattice.matrix, pbc=(True, True, False)), whole.species, whole.frac_coords)
    with pytest.raises(
        CrystalError, match=r"^s: periodic along a and b only; a crystal repeats in all three directions"
    ):
        Crystal.from_structure("s", slab)


def test_oxidation_states_are_ignored():
    structure = Structure(Lattice.cubic(4.0), ["Cs+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    np.testing.assert_array_equal(Crystal.from_structure("x", structure).species, [55, 17])


def test_structure_and_back(phonons):
    for crystal in phonons[:20]:
        again = Crystal.from_structure(crystal.id, crystal.to_structure())
        np.testing.assert_array_equal(again.species, crystal.species)
        np.testing.assert_allclose(again.frac_coords, crystal.frac_coords, atol=1e-12)
        np.testing.assert_allclose(again.lattice, crystal.lattice, atol=1e-12)


def test_digest_follows_the_content(rock_salt):
    moved = rock_salt.frac_coords.copy()
    moved[0, 0] += 1e-9
    assert Crystal.from_arrays("a", rock_salt.lattice, rock_salt.species, moved).digest() != rock_salt.digest()
    copy = Crystal.from_arrays("a", rock_salt.lattice, rock_salt.species, rock_salt.frac_coords, {"gap": 1.0})
    assert copy.digest() == rock_salt.digest()  # labels are no part of a graph


@pytest.mark.parametrize(
    "formula", ["NaCl", "Fe2O3", "SiO2", "CaTiO3", "SrTiO3", "GaAs", "MgAl2O4", "Cu", "LiFePO4", "Hg2Cl2"]
)
def test_formula_is_pymatgens_for_inorganic_crystals(formula):
    composition = Composition(formula)
    counts = {element.Z: n for element, n in composition.items()}
    ours = reduced_formula(np.array(list(counts)), 4 * np.array(list(counts.values())))
    assert ours == composition.get_reduced_composition_and_factor()[0].formula.replace(" ", "").replace("1", "")


def test_formula_does_not_depend_on_order_or_multiplicity():
    assert reduced_formula(np.array([17, 11, 17, 11]), np.array([1, 3, 2, 0])) == "NaCl"


@pytest.mark.parametrize(("value", "expected"), [("1.5e3", 1500), (None, np.nan), ("", np.nan), ([1], np.nan), (2, 2)])
def test_what_is_no_number_is_unknown(value, expected):
    np.testing.assert_equal(as_number(value), expected)


@pytest.mark.parametrize("text", ['{"a": ', "9" * 5000])
def test_broken_json_says_where(text):
    with pytest.raises(CrystalError, match=r"set\.jsonl:3: not JSON"):
        parse_json(text, "set.jsonl:3")
