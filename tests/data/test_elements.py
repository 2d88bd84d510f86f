"""The element tables against the published file, the periodic table of pymatgen and bins worked out by hand."""

import itertools
import json
import math
import os
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax import config as configs
from cgcnn_jax.data import elements
from cgcnn_jax.data.elements import PAPER, RELEASED, Property
from configs import base

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CGCNN_DATA", ROOT.parent / "shared" / "data"))
ATOM_INIT = DATA / "cgcnn_reference" / "sample-regression" / "atom_init.json"


def blocks(properties: tuple[Property, ...], row: np.ndarray) -> list[int | None]:
    """Column set in the block of each property, None for a block of zeros."""
    edges = np.cumsum([0, *(one.n_column for one in properties)])
    found = [np.flatnonzero(row[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert all(len(columns) <= 1 for columns in found)
    return [int(columns[0]) if len(columns) else None for columns in found]


def test_hydrogen_by_group_and_period_is_27_numbers_with_the_1st_and_the_19th_set():  # the paper's worked example
    hydrogen = elements.atom_features("paper", properties=2)[1]
    assert hydrogen.shape == (27,)
    assert (np.flatnonzero(hydrogen) + 1).tolist() == [1, 19]


@pytest.mark.parametrize(
    ("table", "properties", "n_column"),
    [("paper", 2, 27), ("paper", 3, 37), ("paper", 9, 93), ("paper", None, 93), ("released", None, 92)],
)
def test_tables_have_the_published_number_of_columns(table, properties, n_column):
    features = elements.atom_features(table, properties=properties)
    assert features.shape == (104, n_column)
    assert features.dtype == np.float32
    assert not features[0].any()  # padding


def test_fewer_properties_are_the_first_columns_of_more():
    np.testing.assert_array_equal(elements.atom_features(properties=3), elements.atom_features()[:, :37])


@pytest.mark.parametrize(("table", "properties"), [("paper", PAPER), ("released", RELEASED)])
def test_every_block_of_every_element_is_one_hot_or_zero(table, properties):
    features = elements.atom_features(table)
    assert set(np.unique(features)) == {0.0, 1.0}
    rows = [blocks(properties, row) for row in features[1:]]
    always = {one.name for one, columns in zip(properties, zip(*rows, strict=True), strict=True) if None not in columns}
    assert {one.name for one in properties} - always == {"electronegativity", "electron_affinity", "atomic_volume"}


# Bins by hand, columns from 0: group, period, electronegativity, radius, valence, ln ionisation, affinity, block,
# ln volume. Na: (0.93 - 0.5) / 0.35 = 1.2, (155 - 25) / 22.5 = 5.8, (ln 5.139 - 1.3) / 0.2 = 1.7,
# (0.548 + 3) / 0.67 = 5.3, (ln 23.7 - 1.5) / 0.28 = 5.9. He: affinity -19.7 eV is below -3, no electronegativity.
# Ce: (1.12 - 0.5) / 0.35 = 1.8, (163 - 25) / 22.5 = 6.1, (ln 5.5386 - 1.3) / 0.2 = 2.1, (0.65 + 3) / 0.67 = 5.4,
# (ln 21 - 1.5) / 0.28 = 5.5.
@pytest.mark.parametrize(
    ("name", "paper", "released"),
    [
        ("Na", [0, 2, 1, 5, 0, 1, 5, 0, 5], [1, 2, 1, 5, 0, 1, 5, 0, 5]),
        ("He", [17, 0, None, 0, 1, 9, None, 0, 6], [18, 0, None, 0, 1, 9, None, 0, 6]),
        ("Fe", [7, 3, 3, 4, 7, 3, 4, 2, 1], [8, 3, 3, 4, 7, 3, 4, 2, 1]),
        ("Ce", [3, 7, 1, 6, 1, 2, 5, 3, 5], [0, 5, 1, 6, 1, 2, 5, 3, 5]),
    ],
)
def test_bins_worked_out_by_hand(name, paper, released):
    z = elements.atomic_number(name)
    assert blocks(PAPER, elements.atom_features("paper")[z]) == paper
    assert blocks(RELEASED, elements.atom_features("released")[z]) == released


def test_released_table_is_the_published_file():
    if not ATOM_INIT.is_file():
        pytest.skip(f"{ATOM_INIT} not found; set CGCNN_DATA to the folder of data sets")
    published = json.loads(ATOM_INIT.read_text())
    features = elements.atom_features("released")
    assert sorted(map(int, published)) == list(range(1, 101))
    differing = [
        symbol
        for symbol in elements.SYMBOLS[:100]
        if (features[z := elements.atomic_number(symbol)]).tolist() != published[str(z)]
    ]
    assert differing == []


def test_the_two_tables_share_seven_properties():
    np.testing.assert_array_equal(elements.atom_features("paper")[:, 27:], elements.atom_features("released")[:, 26:])


def test_symbols_blocks_and_paper_positions_agree_with_pymatgen():  # its rows 8 and 9 are La-Lu and Ac-Lr
    from pymatgen.core.periodic_table import Element

    for z, (name, record) in enumerate(elements.ELEMENTS.items(), start=1):
        assert Element(name).Z == z == record["atomic_number"] == elements.atomic_number(name)
        assert elements.symbol(z) == name
        assert z == Element.from_row_and_group(record["paper_period"], record["paper_group"]).Z
        assert record["period"] == Element(name).row
        assert record["block"] == ("s" if name == "He" else Element(name).block)


def test_electronegativities_agree_with_pymatgen_except_where_pauling_was_revised():
    from pymatgen.core.periodic_table import Element

    def differs(name: str, ours: float) -> bool:
        return not math.isclose(Element(name).X, ours)

    known = {name: value for name, value in elements.column("electronegativity").items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns where it has no value
        different = {name for name, value in known.items() if differs(name, value)}
    assert different == {"Tc", "Lu", "W", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "U", "Np", "Pu"}


def test_covalent_radii_are_cordero_in_angstrom():  # Dalton Trans. 2008, 2832: H, C (sp2), O, Na, Ti, Cs, Cm; Fe below
    radii = elements.covalent_radii()
    np.testing.assert_allclose(radii[[1, 6, 8, 11, 22, 55, 96]], [0.31, 0.73, 0.66, 1.66, 1.60, 2.44, 1.69])
    np.testing.assert_allclose(radii[26], (1.32 + 1.52) / 2)  # low and high spin
    assert np.flatnonzero(np.isnan(radii)).tolist() == [0, *range(97, 104)]
    with pytest.raises(ValueError, match="read-only"):
        radii[1] = 0.0


def test_electronegativity_orders_formulas_and_puts_unknown_last():
    order = sorted([8, 18, 11, 2], key=elements.electronegativity_key)
    assert order == [11, 8, 2, 18]  # Na, O, then He and Ar, which have none


def test_upper_bound_is_in_the_last_bin_and_the_outside_in_none():
    number = Property("x", bounds=(0.0, 1.0), bins=4)
    assert [number.column_of(x) for x in (0.0, 0.249, 0.25, 1.0, 1.001, -0.001, None, math.nan)] == [
        0, 0, 1, 3, None, None, None, None,
    ]  # fmt: skip
    logarithm = Property("x", bounds=(0.0, 2.0), bins=2, log=True)
    assert [logarithm.column_of(x) for x in (1.0, math.e + 1e-9, math.e**2 - 1e-9, 0.0, -1.0)] == [0, 1, 1, None, None]


def test_a_property_of_ones_own_appends_columns():
    melting_point = Property("melting_point", bounds=(0.0, 4000.0), bins=4, unit="K")
    features = elements.atom_features("released")
    extended = elements.with_property(features, melting_point, {"Na": 371.0, "W": 3695.0, "Fe": None, "He": math.nan})
    assert extended.shape == (104, 96)
    assert extended.dtype == np.float32
    np.testing.assert_array_equal(extended[:, :92], features)
    assert np.argwhere(extended[:, 92:]).tolist() == [[11, 0], [74, 3]]


def test_a_category_of_ones_own():
    magnetic = Property("magnetic", choices=("no", "yes"))
    extended = elements.with_property(elements.atom_features(), magnetic, {"Fe": "yes", "Cu": "no"})
    assert np.argwhere(extended[:, 93:]).tolist() == [[26, 1], [29, 0]]


@pytest.mark.parametrize(
    ("new", "values", "message"),
    [
        (Property("mass", bounds=(1.0, 100.0)), {"U": 238.0}, r"mass: 238.0 of U is outside bounds \(1.0, 100.0\)"),
        (Property("mass", bounds=(0.0, 6.0), log=True), {"H": 0.0}, "0.0 of H is outside .* of the logarithm"),
        (Property("magnetic", choices=("no", "yes")), {"Fe": "si"}, "magnetic: 'si' of Fe is outside"),
        (Property("mass", bounds=(1.0, 300.0)), {"Xx": 1.0}, "unknown element 'Xx'"),
        (Property("mass", bounds=(1.0, 300.0)), {"O": 16.0}, "features end at Be and have no row for O"),
    ],
)
def test_a_value_without_a_column_is_refused(new, values, message):
    features = elements.atom_features()[:5] if "O" in values else elements.atom_features()
    with pytest.raises(ValueError, match=message):
        elements.with_property(features, new, values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "x: give either choices"),
        ({"choices": (1, 2), "bounds": (0.0, 1.0)}, "x: give either choices"),
        ({"choices": (1, 1)}, "listed twice"),
        ({"bounds": (1.0, 1.0)}, "need low < high"),
        ({"bounds": (0.0, 1.0), "bins": 0}, "bins >= 1"),
    ],
)
def test_a_property_that_makes_no_columns_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Property("x", **fields)


def test_unknown_tables_and_columns_are_refused():
    with pytest.raises(ValueError, match=r"unknown table of atom features 'magpie'; choose one of \['paper', 'rel"):
        elements.atom_features("magpie")
    for count in (0, 10):
        with pytest.raises(ValueError, match=f"has 9 properties, so properties={count} is not possible"):
            elements.atom_features(properties=count)
    with pytest.raises(ValueError, match="unknown element property 'mass'"):
        elements.column("mass")


@pytest.mark.parametrize("name", ["X", "", "na", "Fe3+", "Rf"])
def test_unknown_symbols_are_refused(name):
    with pytest.raises(ValueError, match=rf"unknown element '{name}'".replace("+", r"\+")):
        elements.atomic_number(name)


@pytest.mark.parametrize("name", ["D", "T"])
def test_isotopes_of_hydrogen_are_refused_with_advice(name):
    with pytest.raises(ValueError, match=f"'{name}' is an isotope of hydrogen; replace it by 'H'"):
        elements.atomic_number(name)


@pytest.mark.parametrize("z", [-1, 0, 104])
def test_unknown_atomic_numbers_are_refused(z):
    with pytest.raises(ValueError, match=f"unknown atomic number {z}; known are 1"):
        elements.symbol(z)


def test_atom_init_is_read_and_its_gaps_count_as_unknown(tmp_path):
    path = tmp_path / "atom_init.json"
    path.write_text('{"8": [0, 0.5], "1": [1, 0]}')
    features = elements.read_atom_init(path)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[[0, 1, 2, 8]], [[0, 0], [1, 0], [0, 0], [0, 0.5]])
    assert features.shape == (9, 2)
    assert configs.build_featurizer(base.get_config(), features).known_species == (1, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[[1, 2]]", "expected an object such as"),
        ("{}", "expected an object such as"),
        ('{"H": [1]}', "key 'H' is not an atomic number"),
        ('{"0": [1]}', "key '0' is not an atomic number"),
        ('{"119": [1]}', "key '119' is not an atomic number"),
        ('{"1": [1, 0], "2": [1]}', "element 2 has 1 numbers and element 1 has 2"),
        ('{"1": []}', "element 1 must have a list of numbers"),
        ('{"1": 5}', "element 1 must have a list of numbers"),
        ('{"1": ["1"]}', "element 1 must have a list of numbers"),
        ('{"1": [true]}', "element 1 must have a list of numbers"),
        ('{"1": [null]}', "element 1 must have a list of numbers"),
        ('{"1": [NaN]}', "element 1 has a value that is not a finite"),
        ('{"1": [1e39]}', "element 1 has a value that is not a finite"),
    ],
)
def test_a_malformed_atom_init_is_refused(tmp_path, text, message):
    path = tmp_path / "atom_init.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        elements.read_atom_init(path)
    assert str(path) in str(caught.value)


def test_a_missing_atom_init_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: no such file"):
        elements.read_atom_init(tmp_path / "nowhere.json")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_elements_csv_is_what_its_generator_writes():
    pytest.importorskip("mendeleev")
    from cgcnn_jax.assets import make_elements

    if metadata.version("mendeleev") != make_elements.VERSION:
        with pytest.raises(ImportError, match=r"elements\.csv needs mendeleev"):
            make_elements.render()
        pytest.skip(f"needs mendeleev {make_elements.VERSION}")
    committed = ROOT / "cgcnn_jax" / "assets" / "elements.csv"
    assert make_elements.render() == committed.read_text(encoding="utf-8")


def test_a_table_written_as_atom_init_reads_back(tmp_path):
    features = elements.atom_features("paper")
    elements.write_atom_init(tmp_path / "atoms.json", features)
    np.testing.assert_array_equal(elements.read_atom_init(tmp_path / "atoms.json"), features)
