import pandas as pd
import pytest

from cgcnn_jax.report.figures import VERMILLION
from cgcnn_jax.studies.perovskites.energies import by_element, trends
from cgcnn_jax.studies.perovskites.figures import trend_figure
from cgcnn_jax.studies.perovskites.report import paragraph

# Radii of Be to Cs grow in this order, energies fall; on B the groups 4 and 5 are lowest.
ON_A = ["Be", "B", "Si", "Zn", "Al", "Sn", "Mg", "In", "Na", "Ca", "Ba", "Cs"]
ON_B = ["Ti", "Nb", "Zr", "V", "Mn", "Fe", "Ni", "Cu", "Zn"]


@pytest.fixture(scope="module")
def elements_table() -> pd.DataFrame:
    rows = [
        {"A": a, "B": b, "energy_A": -float(i), "energy_B": float(j), "e": float(j - i)}
        for i, a in enumerate(ON_A)
        for j, b in enumerate(ON_B)
    ]
    return by_element(pd.DataFrame(rows), "e")


def test_the_paragraph_says_what_the_numbers_say(elements_table):
    found = trends(elements_table).assign(value_of_labels=trends(elements_table, "mean_label")["value"])
    text = paragraph(elements_table, found, unit="eV")
    assert "Lowest: Cs, Ba, Ca, Na, In, Mg, Sn, Al, Zn, Si; highest: Be, B, Si, Zn, Al." in text
    assert (
        "they take places 1 (Be), 2 (B) and 3 (Si) of 12 from the top (lower than others 0.00, of the labels 0.00"
        in text
    )
    assert "4 of the 9 are among the 9 lowest" in text
    # Ti 0 and Zr 2 are group 4, Nb 1 and V 3 group 5.
    assert "lowest for groups 4 (1.00 eV), 5 (2.00 eV), 7 (4.00 eV) and 8 (5.00 eV)" in text
    assert "Stable there are, it says, groups 1 to 3 (" in text and ") and large atoms of groups 13 to 15 (" in text
    assert "disagrees" not in text


def test_the_picture_marks_the_search_and_covers_no_symbol(elements_table):
    left, right = trend_figure(elements_table, unit="eV").axes
    marked = {text.get_text() for axes in (left, right) for text in axes.texts if text.get_color() == VERMILLION}
    assert marked == {"Sn", "In", "Ti", "Zr", "V", "Nb"}
    assert right.lines[0].get_ydata()[0] == 1.0  # group 4
    assert (left.get_xlabel(), right.get_ylabel()) == ("covalent radius (Å)", "mean energy of the B site (eV)")


def test_symbols_of_one_place_are_set_side_by_side(elements_table):
    same = elements_table.assign(energy=0.0)
    places = [
        text.get_position()[0]
        for text in trend_figure(same, unit="eV").axes[1].texts
        if text.get_text() in ("Ti", "Zr")
    ]
    assert abs(places[0] - places[1]) == pytest.approx(0.45)
