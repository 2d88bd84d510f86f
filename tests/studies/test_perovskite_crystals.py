import gzip
import json

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected
from cgcnn_jax.studies.perovskites.crystals import Sites, find_sites, tabulate
from tests.studies.perovskite_cells import cell

# As they stand in the data set, with the formula of the source, which names A first.
HG_NB_O2N = (
    ["Nb", "Hg", "N", "O", "O"],
    [[0.510555, 0.5, 0.5], [0.121628, 0, 0], [0.376805, 0, 0.5], [0.523401, 0.5, 0], [0.967339, 0.5, 0.5]],
)
TI_AS_O2N = (
    ["Ti", "As", "N", "O", "O"],
    [[0.213821, 0, 0], [0.558528, 0.5, 0.5], [0.466346, 0, 0.5], [0.456091, 0.5, 0], [0.017747, 0.5, 0.5]],
)


@pytest.mark.parametrize(("atoms", "a", "b"), [(HG_NB_O2N, 1, 0), (TI_AS_O2N, 0, 1)], ids=["HgNbO2N", "TiAsO2N"])
def test_cells_of_the_data_have_the_sites_of_their_formula(atoms, a, b):
    crystal = Crystal.from_arrays("x", 4.0 * np.eye(3), *atoms)
    assert find_sites(crystal) == Sites(a, b, (2, 3, 4))


@pytest.mark.parametrize("shift", [(0, 0, 0), (0.5, 0.5, 0.5), (0.3, 0.9, 0.25)])
@pytest.mark.parametrize("moved", [0.0, 0.2, 0.4])
def test_the_sites_depend_neither_on_the_origin_nor_on_the_displacement_of_a(shift, moved):
    # Moved by 0.2 of 4 Å, A is 2.33, 2.33 and 2.94 Å from the X; B 2.0 Å from all: beyond, distances mislead.
    assert find_sites(cell("Ba", "Ti", "OOO", shift=shift, moved=moved)) == Sites(4, 0, (1, 2, 3))


def test_a_and_b_may_be_one_element():
    assert find_sites(cell("Zn", "Zn", "NOF")) == Sites(4, 0, (1, 2, 3))


@pytest.mark.parametrize(
    ("symbols", "coords", "message"),
    [
        (["Ba", "Ti", "Ti", "O", "O"], None, "two cations and three of O, F, N, S; got Ba Ti Ti O O"),
        (["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], "two cations"),
        (
            ["Ba", "Ti", "O", "O", "O"],
            [[0, 0.03, 0], *([0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0])],
            "second or third axis",
        ),
        (
            ["Ba", "Ti", "O", "O", "O"],
            [[0, 0, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.7, 0.5, 0.5], [0.5, 0.5, 0]],
            "one cation must have an X behind it",
        ),
    ],
    ids=["three cations", "rock salt", "displaced", "another order"],
)
def test_other_cells_are_told_apart(symbols, coords, message):
    ideal = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    with pytest.raises(CrystalError, match=message):
        find_sites(Crystal.from_arrays("x", 4.0 * np.eye(3), symbols, ideal if coords is None else coords))


def test_the_table_names_cells_and_keeps_what_is_none():
    table, sites, rejected = tabulate(
        [cell("Hg", "Nb", "NOO", id="one"), Rejected("two", "damaged"), cell("Zn", "Na", ["Cl", "O", "O"], id="three")]
    )
    assert table.loc["one"].tolist() == ["HgNbO2N", "Hg", "Nb", "O2N"]
    assert list(sites) == ["one"]
    assert [one.id for one in rejected] == ["two", "three"]
    assert tabulate([])[0].empty
    _, sites, (twice,) = tabulate([cell("Hg", "Nb", "NOO", id="one"), cell("Zr", "Ba", "OOO", id="one")])
    assert list(sites) == ["one"] and "the id stands twice" in twice.reason


def test_every_cell_of_the_data_has_sites_and_the_formula_that_is_recorded(perovskites, perovskite_folder):
    table, rejected = perovskites
    assert not rejected
    assert len(table) == 18928
    # 52 cations on A, 52 on B, 7 sets of anions, each once: no site is confused with the other anywhere.
    assert len(table[["A", "B", "X"]].drop_duplicates()) == 52 * 52 * 7 == 18928
    recorded = {}
    with gzip.open(next(perovskite_folder.glob("*.jsonl.gz")), "rt") as lines:
        for line in lines:
            record = json.loads(line)
            if "formula_abx" in record["meta"]:
                recorded[record["id"]] = record["meta"]["formula_abx"]
    assert len(recorded) == 12732
    cations = table.loc[list(recorded)]
    wrong = [
        id
        for id, a, b in zip(cations.index, cations["A"], cations["B"], strict=True)
        if not recorded[id].startswith(a + b)
    ]
    assert wrong == []
