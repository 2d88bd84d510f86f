from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.data import store
from cgcnn_jax.predict import Predictor
from cgcnn_jax.studies.perovskites.crystals import tabulate
from cgcnn_jax.studies.perovskites.energies import by_element, least_stable, site_energies, trends
from tests.predictors import make_predictor
from tests.studies.perovskite_cells import cell

pytestmark = pytest.mark.usefixtures("quicker_compiling")


def elements_table(on_a: dict[str, float], on_b: dict[str, float]) -> pd.DataFrame:
    rows = [
        {"A": a, "B": b, "energy_A": on_a[a], "energy_B": on_b[b], "energy_X": 0.0, "e": on_a[a] + on_b[b]}
        for a in on_a
        for b in on_b
    ]
    return by_element(pd.DataFrame(rows), "e")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return make_predictor()


def test_the_mean_of_five_sites_is_the_prediction(predictor):
    crystals = [cell("Ba", "Ti", "OOO"), cell("Hg", "Nb", "NOO", moved=0.1), cell("Zn", "Zn", "FON")]
    built = store.build(crystals, predictor.featurizer)
    _, sites, _ = tabulate(crystals)
    found = site_energies(predictor, built, sites)
    assert list(found.index) == ["BaTi", "HgNb", "ZnZn"]
    sums = found["energy_A"] + found["energy_B"] + 3 * found["energy_X"]
    np.testing.assert_allclose(sums / 5, predictor.predict_graphs(built.graphs)[:, 0], rtol=1e-6)
    # Equal elements on the two sites have their own numbers.
    assert abs(found.loc["ZnZn", "energy_A"] - found.loc["ZnZn", "energy_B"]) > 1e-3


def test_an_atom_is_a_or_b_by_its_surroundings(predictor):
    one, other = cell("Ba", "Ti", "OOO"), cell("Ba", "Ti", "OOO", shift=(0.5, 0.5, 0.5))
    both = [replace(one, id="one"), replace(other, id="other")]
    found = site_energies(predictor, store.build(both, predictor.featurizer), tabulate(both)[1])
    np.testing.assert_allclose(found.loc["one"], found.loc["other"], rtol=1e-5)


def test_full_pooling_has_no_site_energies():
    full = make_predictor(pool="mean")
    with pytest.raises(ValueError, match="pools by 'mean'"):
        site_energies(full, store.build([cell("Ba", "Ti", "OOO")], full.featurizer), {})


def test_averages_are_over_the_crystals_with_the_element_on_the_site():
    crystals = pd.DataFrame(
        {
            "A": ["Ba", "Ba", "Ti"],
            "B": ["Ti", "Zr", "Ba"],
            "energy_A": [1.0, 3.0, 10.0],
            "energy_B": [5.0, 6.0, 7.0],
            "e": [0.5, np.nan, 1.5],
        }
    )
    table = by_element(crystals, "e").set_index(["site", "element"])
    assert list(table.loc["A"].index) == ["Ba", "Ti"]  # the lowest first
    assert table.loc[("A", "Ba"), ["crystals", "energy", "spread", "mean_label"]].tolist() == [2, 2.0, 1.0, 0.5]
    assert table.loc[("B", "Ti"), ["crystals", "energy", "mean_label"]].tolist() == [1, 5.0, 0.5]
    assert table.loc[("A", "Ba"), ["group", "period", "covalent_radius"]].tolist() == [2, 6, 1.96]  # Pyykkö


def test_claims_that_hold_agree_and_their_opposites_disagree():
    # Covalent radii from Be to Cs grow in this order; Ti, Zr, Hf, V, Nb, Ta are of groups 4 and 5.
    by_size = ["Be", "B", "Si", "Zn", "Al", "Sn", "Mg", "In", "Tl", "Na", "Ca", "K", "Ba", "Rb", "Cs"]
    d_first = ["Ti", "Zr", "Hf", "V", "Nb", "Ta", "Mn", "Re", "Fe", "Co", "Ni", "Cu", "Zn", "Al", "Ba"]
    verdicts = {}
    for sign in (1, -1):
        table = elements_table(
            {symbol: -sign * float(n) for n, symbol in enumerate(by_size)},
            {symbol: sign * float(n) for n, symbol in enumerate(d_first)},
        )
        found = trends(table).set_index(["site", "name"])
        verdicts[sign] = found["verdict"]
    for name in (("A", "atom"), ("A", "small"), ("B", "d groups"), ("B", "d electrons")):
        assert (verdicts[1][name], verdicts[-1][name]) == ("agrees", "disagrees")
    assert least_stable(table, "A", ["Be", "Cs", "Xe"]) == {"Be": 15, "Cs": 1}


def test_the_share_of_pairs_is_counted_by_hand():
    # In 1 and Tl 4 on A against Ba 2, Ti 3: of the four pairs In wins both, Tl none.
    table = elements_table({"In": 1.0, "Ba": 2.0, "Ti": 3.0, "Tl": 4.0}, {"Ti": 0.0, "Zr": 1.0})
    row = trends(table).set_index(["site", "name"]).loc[("A", "late")]
    assert row["value"] == 0.5
    assert row["verdict"] == "undecided"


def test_too_few_elements_decide_nothing():
    found = trends(elements_table({"Ba": 1.0}, {"Ti": 1.0}))
    assert set(found["verdict"]) == {"undecided", ""}
    assert found["value"].isna().all()


def test_the_labels_are_asked_without_a_network():
    # The network's numbers say nothing, the labels rise with the radius.
    table = elements_table({"Be": 1.0, "Mg": 2.0, "Ca": 3.0, "Ba": 4.0}, {"Ti": 0.0}).assign(energy=0.0)
    assert np.isnan(trends(table).loc[0, "value"])
    assert trends(table, "mean_label").loc[0, "value"] == pytest.approx(1.0)
