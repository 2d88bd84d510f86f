import math

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cgcnn_jax.report.periodic import SYMBOLS, periodic_table, table_cell

# Both signs, the neutral value, an f element and no value.
VALUES = {"H": -1.0, "O": 0.0, "Pb": 3.0, "La": 1.5, "U": math.nan}


def table(values=VALUES, **keywords) -> Figure:
    return periodic_table(values, **{"label": "site energy", "unit": "eV", **keywords})


def faces(figure: Figure) -> dict[str, str]:
    return {patch.get_gid(): to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches}


def inks(figure: Figure) -> dict[str, str]:
    return {text.get_text(): text.get_color() for text in figure.axes[0].texts}


@pytest.mark.parametrize(
    ("symbol", "cell"),
    {
        "H": (1, 1),
        "He": (1, 18),
        "Li": (2, 1),
        "Be": (2, 2),
        "B": (2, 13),
        "Cl": (3, 17),
        "Sc": (4, 3),
        "Zn": (4, 12),
        "Mo": (5, 6),
        "Ba": (6, 2),
        "Hf": (6, 4),
        "Pb": (6, 14),
        "Og": (7, 18),
        "Rf": (7, 4),
        "La": (9, 3),
        "Lu": (9, 17),
        "Ac": (10, 3),
        "U": (10, 6),
        "Lr": (10, 17),
    }.items(),
)
def test_an_element_stands_where_the_wall_chart_has_it(symbol, cell):
    assert table_cell(symbol) == cell


def test_118_elements_have_118_cells():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == 118
    assert len({table_cell(symbol) for symbol in SYMBOLS}) == 118


def test_rows_and_columns_are_pymatgens_but_for_the_f_elements():
    from pymatgen.core import Element

    for symbol in SYMBOLS:
        element = Element(symbol)
        if not (element.is_lanthanoid or element.is_actinoid):
            assert table_cell(symbol) == (element.row, element.group), symbol


def test_the_colours_are_those_of_the_scale():
    # The largest distance from the centre is Pb's, 3: it has ColorBrewer's last red; -1 is a third of the way to blue.
    shown = faces(table(center=0.0))
    assert shown["Pb"] == "#67001f"
    assert shown["O"] in ("#f7f7f7", "#f6f7f7", "#f7f6f6")  # white, to the table's 256 steps
    blue = shown["H"].removeprefix("#")
    assert int(blue[4:], 16) > int(blue[:2], 16)
    assert shown["U"] == shown["Fe"] == "#e0e0e0"  # without a value


def test_limits_give_two_tables_the_same_colours():
    one, other = table({"H": 1.0}, center=0.0, limits=(-4, 4)), table(center=0.0, limits=(-4, 4))
    both = table({"H": 1.0, "Pb": 3.0}, center=0.0, limits=(-4, 4))
    assert faces(one)["H"] == faces(both)["H"]
    assert faces(other)["Pb"] == faces(both)["Pb"]


def test_without_a_centre_the_range_of_values_is_the_scale():
    shown = faces(table())
    assert (shown["H"], shown["Pb"]) == ("#00224e", "#fee838")  # the ends of cividis


def test_letters_are_light_on_dark_and_dark_on_light():
    ink = inks(table(center=0.0))
    assert (ink["Pb"], ink["O"]) == ("white", "black")
    assert {"3.00", "-1.00", "0.00", "1.50"} <= ink.keys()
    assert "nan" not in ink


def test_the_bar_names_the_values_and_their_unit():
    assert table().axes[1].get_xlabel() == "site energy (eV)"
    assert table(unit="").axes[1].get_xlabel() == "site energy"


@pytest.mark.parametrize(
    ("values", "keywords", "message"),
    [
        ({"Xx": 1.0}, {}, "unknown element 'Xx'"),
        ({}, {}, "no element has a value of site energy"),
        ({"H": math.nan}, {}, "no element has a value"),
        ({"H": math.inf, "O": 1.0}, {}, "infinite for H;"),
        ({"H": 1.0}, {"limits": (1.0, 1.0)}, "low < high"),
        ({"H": 1.0}, {"limits": (0.0, 1.0), "center": 0.0}, "not halfway"),
    ],
)
def test_bad_values_are_named(values, keywords, message):
    with pytest.raises(ValueError, match=message):
        table(values, **keywords)
