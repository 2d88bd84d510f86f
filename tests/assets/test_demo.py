"""The demo set is what its card says: textbook structures, sane labels, one zero of energy per element."""

import collections
import gzip
import importlib.resources
import json
import math

import numpy as np
import pytest
from pymatgen.core import Composition, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from cgcnn_jax.assets import make_demo

PATH = importlib.resources.files("cgcnn_jax") / "assets" / "demo.jsonl.gz"


@pytest.fixture(scope="module")
def records():
    with gzip.open(PATH, "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def structures(records):
    return [Structure(r["lattice"], r["species"], r["frac_coords"]) for r in records]


@pytest.fixture(scope="module")
def bonds(structures):
    """(i, j, distances) of all pairs within 6 Å."""
    lists = [structure.get_neighbor_list(6.0, exclude_self=True) for structure in structures]
    return [(i, j, distances) for i, j, _, distances in lists]


@pytest.fixture(scope="module")
def find(records):
    table = {
        (r["meta"]["prototype"], Composition(collections.Counter(r["species"])).reduced_formula): r for r in records
    }
    return lambda prototype, formula: table[prototype, Composition(formula).reduced_formula]


def lattice_constant(record):
    """Cubic a in Å: the primitive cell of fcc and bcc holds a³/4 and a³/2."""
    prototype = make_demo.PROTOTYPES[record["meta"]["prototype"]]
    centring = {make_demo.FCC: 4, make_demo.BCC: 2, make_demo.CUBIC: 1}[prototype.lattice]
    return (centring * abs(np.linalg.det(record["lattice"]))) ** (1 / 3)


def test_counts_are_those_of_the_card(records):
    card = PATH.with_name("demo_card.md").read_text()
    prototypes = collections.Counter(r["meta"]["prototype"] for r in records)
    elements = {symbol for r in records for symbol in r["species"]}
    assert 2000 <= len(records) <= 4000
    assert set(prototypes) == set(make_demo.PROTOTYPES)
    assert len(prototypes) >= 15
    assert len(elements) >= 60
    assert f"{len(records)} crystals, {len(prototypes)} prototypes, {len(elements)} elements" in card
    for name, count in prototypes.items():
        prototype = make_demo.PROTOTYPES[name]
        assert f"| {name} | {prototype.symbol} | {prototype.space_group} | {count} |" in card


def test_file_is_small_and_carries_no_time_stamp():
    data = PATH.read_bytes()
    assert len(data) < 1.5e6
    assert data[4:8] == bytes(4)  # gzip mtime


def test_file_is_what_the_script_writes(records, tmp_path):
    make_demo.write(records, tmp_path / "again.gz")
    assert gzip.decompress((tmp_path / "again.gz").read_bytes()) == gzip.decompress(PATH.read_bytes())


def test_ids_are_numbered_and_name_composition_and_prototype(records):
    for number, record in enumerate(records, start=1):
        formula = Composition(collections.Counter(record["species"])).reduced_formula
        prototype = record["meta"]["prototype"].replace(" ", "").replace("_", "")
        assert record["id"] == f"demo-{number:04d}-{formula}-{prototype}"


def test_every_crystal_comes_from_the_plan_in_its_order(records):
    planned = make_demo.plan()
    assert len(set(planned)) == len(planned)
    position = {
        (name, tuple(elements[role] for role, _ in make_demo.PROTOTYPES[name].sites)): i
        for i, (name, elements) in enumerate(planned)
    }
    order = [position[r["meta"]["prototype"], tuple(r["species"])] for r in records]
    assert order == sorted(order)
    for record in records:
        sites = make_demo.PROTOTYPES[record["meta"]["prototype"]].sites
        np.testing.assert_allclose(record["frac_coords"], [site for _, site in sites], atol=1e-6)


def test_crystals_are_ordered_and_atoms_apart(structures, bonds):
    for structure, (i, _, distances) in zip(structures, bonds, strict=True):
        assert structure.is_ordered
        assert distances.min() > 0.5
        assert set(i) == set(range(len(structure)))  # no atom without neighbour


@pytest.mark.parametrize("name", sorted(make_demo.PROTOTYPES))
def test_prototype_has_its_space_group(name, records, structures):
    # International Tables; all crystals of a prototype differ in elements and lengths only, so the first few do.
    chosen = [s for r, s in zip(records, structures, strict=True) if r["meta"]["prototype"] == name][:5]
    assert {SpacegroupAnalyzer(s).get_space_group_number() for s in chosen} == {make_demo.PROTOTYPES[name].space_group}


# First shell as (role of the site, number of neighbours, their roles), see Wells, Structural Inorganic Chemistry.
SHELLS = [
    ("fcc", 0, 12, {0}, math.sqrt(1 / 2)),
    ("bcc", 0, 8, {0}, math.sqrt(3 / 4)),
    ("diamond", 0, 4, {0}, math.sqrt(3 / 16)),
    ("rock salt", 0, 6, {1}, 1 / 2),
    ("CsCl", 0, 8, {1}, math.sqrt(3 / 4)),
    ("zinc blende", 0, 4, {1}, math.sqrt(3 / 16)),
    ("fluorite", 0, 8, {1}, math.sqrt(3 / 16)),
    ("fluorite", 1, 4, {0}, math.sqrt(3 / 16)),
    ("L1_2", 0, 12, {1}, math.sqrt(1 / 2)),
    ("L1_2", 1, 12, {0, 1}, math.sqrt(1 / 2)),
    ("perovskite", 0, 12, {2}, math.sqrt(1 / 2)),
    ("perovskite", 1, 6, {2}, 1 / 2),
    ("half-Heusler", 1, 8, {0, 2}, math.sqrt(3 / 16)),
    ("half-Heusler", 2, 4, {1}, math.sqrt(3 / 16)),
    ("full-Heusler", 0, 8, {1, 2}, math.sqrt(3 / 16)),
    ("full-Heusler", 1, 8, {0}, math.sqrt(3 / 16)),
]


@pytest.mark.parametrize(("name", "role", "count", "others", "length"), SHELLS)
def test_cubic_prototype_has_its_first_shell(name, role, count, others, length, records, bonds):
    roles = [site[0] for site in make_demo.PROTOTYPES[name].sites]
    checked = 0
    for record, (i, j, distances) in zip(records, bonds, strict=True):
        if record["meta"]["prototype"] == name:
            site = roles.index(role)
            first = (i == site) & (distances < distances[i == site].min() + 1e-3)
            assert first.sum() == count
            assert {roles[k] for k in j[first]} == others
            # Lattices are rounded to 1e-6 Å.
            np.testing.assert_allclose(distances[first], length * lattice_constant(record), atol=1e-5)
            checked += 1
    assert checked


@pytest.mark.parametrize(
    ("name", "role", "count"),
    [("hcp", 0, 12), ("wurtzite", 0, 4), ("wurtzite", 1, 4), ("NiAs", 1, 6), ("rutile", 0, 6), ("rutile", 1, 3)],
)
def test_axial_prototype_has_its_polyhedron(name, role, count, records, bonds):
    # c/a is relaxed, which splits the shell: hcp 6 + 6, rutile 4 + 2. So the shell is counted in the ideal crystal, and
    # each crystal of the set must be the ideal one up to a bounded c/a.
    prototype = make_demo.PROTOTYPES[name]
    roles = [site[0] for site in prototype.sites]
    ideal = make_demo.build(prototype, ("Na", "Cl"), 15.0)
    neighbors = ideal.get_neighbors(ideal[roles.index(role)], 6.0)
    if name != "hcp":  # cation and anion touch each other
        neighbors = [n for n in neighbors if roles[n.index] != role]
    shell = sorted(neighbors, key=lambda n: n.nn_distance)
    assert (
        shell[count - 1].nn_distance
        < 1.1 * shell[0].nn_distance
        < 1.2 * shell[0].nn_distance
        < shell[count].nn_distance
    )
    for record in records:
        if record["meta"]["prototype"] == name:
            lattice = np.array(record["lattice"])
            c_over_a = lattice[2, 2] / lattice[0, 0]
            assert abs(math.log(c_over_a / prototype.lattice[2][2])) <= make_demo.MAX_AXIAL_STRAIN + 1e-6
            np.testing.assert_allclose(
                lattice / lattice[0, 0] / [1, 1, c_over_a],
                make_demo.tetragonal(1.0) if name == "rutile" else make_demo.hexagonal(1.0),
                atol=1e-6,
            )


# Experiment, room temperature (Wyckoff, Crystal Structures). CHGNet learnt from PBE, which is 1-2 % long.
@pytest.mark.parametrize(
    ("prototype", "formula", "constant", "tolerance"),
    [
        ("fcc", "Cu", 3.615, 0.03),
        ("fcc", "Al", 4.050, 0.03),
        ("bcc", "Fe", 2.866, 0.03),
        ("bcc", "W", 3.165, 0.03),
        ("diamond", "C", 3.567, 0.03),
        ("diamond", "Si", 5.431, 0.03),
        ("rock salt", "NaCl", 5.640, 0.05),
        ("rock salt", "MgO", 4.212, 0.03),
        ("CsCl", "CsCl", 4.123, 0.05),
        ("CsCl", "NiAl", 2.887, 0.03),
        ("zinc blende", "GaAs", 5.653, 0.03),
        ("fluorite", "CaF2", 5.463, 0.03),
        ("L1_2", "Ni3Al", 3.572, 0.03),
        ("L1_2", "Cu3Au", 3.748, 0.03),
        ("perovskite", "SrTiO3", 3.905, 0.03),
        ("half-Heusler", "TiNiSn", 5.92, 0.03),
        ("full-Heusler", "Co2MnSi", 5.654, 0.03),
    ],
)
def test_lattice_constant_is_near_experiment(prototype, formula, constant, tolerance, find):
    assert lattice_constant(find(prototype, formula)) == pytest.approx(constant, rel=tolerance)


@pytest.mark.parametrize(
    ("prototype", "formula", "a", "c"),
    [
        ("hcp", "Mg", 3.209, 5.211),
        ("wurtzite", "ZnO", 3.250, 5.207),
        ("wurtzite", "GaN", 3.189, 5.185),
        ("NiAs", "NiAs", 3.619, 5.034),
        ("rutile", "TiO2", 4.594, 2.959),
    ],
)
def test_axial_lattice_constants_are_near_experiment(prototype, formula, a, c, find):
    lattice = np.array(find(prototype, formula)["lattice"])
    np.testing.assert_allclose([lattice[0, 0], lattice[2, 2]], [a, c], rtol=0.04)


def test_bulk_moduli_are_near_experiment(find):
    # Kittel, Introduction to Solid State Physics; CHGNet is soft (see the card), hence the wide bands.
    assert find("diamond", "C")["properties"]["bulk_modulus_GPa"] == pytest.approx(443, rel=0.2)
    assert find("fcc", "Cu")["properties"]["bulk_modulus_GPa"] == pytest.approx(137, rel=0.3)
    assert find("bcc", "W")["properties"]["bulk_modulus_GPa"] == pytest.approx(310, rel=0.3)
    assert find("rock salt", "NaCl")["properties"]["bulk_modulus_GPa"] == pytest.approx(24, rel=0.3)


def test_formation_energies_are_near_experiment(find):
    # eV/atom from NIST-JANAF enthalpies of formation at 298 K: NaCl -2.13, MgO -3.12, CaF2 -4.24.
    for formula, prototype, expected in [
        ("NaCl", "rock salt", -2.13),
        ("MgO", "rock salt", -3.12),
        ("CaF2", "fluorite", -4.24),
    ]:
        assert find(prototype, formula)["properties"]["formation_energy_eV_per_atom"] == pytest.approx(
            expected, rel=0.15
        )


def test_zero_of_energy_is_the_lowest_element(records):
    elemental = collections.defaultdict(list)
    for record in records:
        if len(set(record["species"])) == 1:
            elemental[record["species"][0]].append(record["properties"]["formation_energy_eV_per_atom"])
    assert len(elemental) >= 60
    for element, energies in elemental.items():
        assert min(energies) >= 0
        if element not in make_demo.ELEMENT_REFERENCES:
            assert min(energies) == 0


def test_formation_energy_is_energy_less_one_constant_per_element(records):
    symbols = sorted({symbol for record in records for symbol in record["species"]})
    fractions = np.array([[r["species"].count(s) / len(r["species"]) for s in symbols] for r in records])
    p = [r["properties"] for r in records]
    zero = np.array([q["energy_eV_per_atom"] - q["formation_energy_eV_per_atom"] for q in p])
    constants = np.linalg.lstsq(fractions, zero)[0]
    np.testing.assert_allclose(fractions @ constants, zero, atol=2e-6)  # labels are rounded to 1e-6


def test_labels_are_finite_and_agree(records):
    for record in records:
        p = record["properties"]
        assert all(math.isfinite(value) for value in p.values())
        assert p["bulk_modulus_GPa"] > 0
        assert p["log10_bulk_modulus_GPa"] == pytest.approx(math.log10(p["bulk_modulus_GPa"]), abs=1e-6)
        volume = abs(np.linalg.det(record["lattice"])) / len(record["species"])
        assert p["volume_A3_per_atom"] == pytest.approx(volume, rel=1e-5)


def test_formation_energies_spread_over_both_signs(records):
    energies = np.array([r["properties"]["formation_energy_eV_per_atom"] for r in records])
    assert (energies < -0.05).mean() > 0.3
    assert (energies > 0.05).mean() > 0.05


def test_birch_murnaghan_recovers_its_own_curve():
    # E(V) of Birch (1947) with V0 = 20 Å³, E0 = -3 eV, B0 = 100 GPa, B0' = 5.
    v0, e0, b0, slope = 20.0, -3.0, 100.0, 5.0
    volumes = 20.5 * make_demo.WINDOW
    f = (v0 / volumes) ** (2 / 3)
    energies = e0 + 9 * v0 * b0 / make_demo.GPA / 16 * ((f - 1) ** 3 * slope + (f - 1) ** 2 * (6 - 4 * f))
    volume, energy, modulus, residual = make_demo.birch_murnaghan(volumes, energies)
    np.testing.assert_allclose([volume, energy, modulus], [v0, e0, b0], rtol=1e-6)
    assert residual < 1e-9


def test_curve_without_minimum_is_dropped():
    with pytest.raises(make_demo.Dropped, match="no minimum"):
        make_demo.scan_volumes(lambda volumes: 1 / volumes, 20.0)
    with pytest.raises(make_demo.Dropped, match="no minimum"):
        make_demo.find_equation_of_state(lambda volumes: 1 / volumes, 20.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prototype", "elements"), [("rock salt", ("Na", "Cl")), ("fcc", ("Cu",)), ("rutile", ("Ti", "O"))]
)
def test_script_gives_the_committed_labels(prototype, elements, records):
    pytest.importorskip("chgnet")
    sites = make_demo.PROTOTYPES[prototype].sites
    species = [elements[role] for role, _ in sites]
    record = next(r for r in records if r["meta"]["prototype"] == prototype and r["species"] == species)
    row = make_demo.make(f"{prototype}/{' '.join(elements)}")
    assert row["energy"] == pytest.approx(record["properties"]["energy_eV_per_atom"], abs=1e-3)
    assert row["modulus"] == pytest.approx(record["properties"]["bulk_modulus_GPa"], rel=0.02)
    np.testing.assert_allclose(row["lattice"], record["lattice"], rtol=1e-3, atol=1e-6)
