import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.studies.perovskites.search import count, disagreement, expected_below, found, is_candidate

CRYSTALS = pd.DataFrame(
    [
        ("PbTiO3", "Pb", "Ti", "O3", "test", 0.1, 0.1),
        ("PbHfO3", "Pb", "Hf", "O3", "train", 0.1, np.nan),
        ("SnTiO2F", "Sn", "Ti", "O2F", "train", 0.1, np.nan),
        ("TiPbO3", "Ti", "Pb", "O3", "test", 0.1, 0.3),
        ("BaTiO2F", "Ba", "Ti", "O2F", "test", 0.1, 0.4),
        ("BaNbO2F", "Ba", "Nb", "O2F", "train", 0.1, 0.1),
        ("BaZnO3", "Ba", "Zn", "O3", "val", 0.2, 0.2),
        ("BaTaO3", "Ba", "Ta", "O3", "", np.nan, np.nan),
    ],
    columns=["formula", "A", "B", "X", "split", "e", "h"],
)


def test_candidates_have_the_cations_on_their_sites():
    assert CRYSTALS["formula"][is_candidate(CRYSTALS)].tolist() == ["PbTiO3", "PbHfO3", "SnTiO2F"]


def test_counts_by_hand():
    paper, by_e, by_h = count(CRYSTALS, {"e": "e", "h": "h"}).to_dict("records")
    # 33 / 378 against 228 / 18,928.
    assert paper["factor"] == pytest.approx(7.2475, abs=1e-4)
    assert (by_e["candidates"], by_e["below"], by_e["all"], by_e["all below"]) == (3, 3, 7, 6)  # 0.2 is not below 0.2
    assert by_e["factor"] == pytest.approx(7 / 6)
    assert (by_e["test candidates"], by_e["test below"]) == (1, 1)
    assert (by_h["candidates"], by_h["below"], by_h["all"], by_h["all below"]) == (1, 1, 5, 2)


def test_an_unknown_label_counts_as_often_as_its_like():
    # PbHfO3: of PbTiO3 and TiPbO3, below by e with O3, one in two is below by h. SnTiO2F: BaNbO2F of two.
    assert expected_below(CRYSTALS, "h", "e") == {"below": 2.0, "all below": 3.0}
    alone = CRYSTALS[CRYSTALS["formula"] == "PbHfO3"]
    assert expected_below(alone, "h", "e") == {"below": 1.0, "all below": 1.0}


def test_labels_that_differ_are_counted_with_their_anions():
    assert disagreement(CRYSTALS, "h", "e") == {"both": 5, "differ": 2, "anions": ["O2F", "O3"]}


def test_what_is_found_comes_lowest_first_beside_the_paper():
    table = found(CRYSTALS, "e", {"energy": "e"})
    assert table["formula"].tolist() == ["PbHfO3", "PbTiO3", "SnTiO2F"]
    assert table["paper"].tolist()[0] == 0.1
    assert table["paper"].isna().tolist() == [False, True, True]


def test_the_counts_and_energies_of_the_paper_against_the_data(perovskites):
    crystals = perovskites[0].assign(split="")
    label, heat = "e_form_eV_per_cell", "heat_all_eV_per_cell"
    assert is_candidate(crystals).sum() == 378
    counts = count(crystals, {"e": label}).iloc[1]
    assert (counts["candidates"], counts["below"], counts["all"], counts["all below"]) == (378, 39, 18584, 270)
    # The paper has 33 and 228 by heat_all, which is known of 8,596 crystals alone.
    expected = expected_below(crystals, heat, label)
    assert expected["below"] == pytest.approx(33, abs=1.5)
    assert expected["all below"] == pytest.approx(228, rel=0.02)
    energies = crystals.set_index("formula")[heat]
    assert [energies[formula] for formula in ("InTaO3", "SnTaO3", "PbHfO3")] == [-0.16, 0.0, 0.1]
