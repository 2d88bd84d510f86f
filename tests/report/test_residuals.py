import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.report import residuals


def test_a_crystal_counts_for_each_of_its_elements():
    frame = pd.DataFrame({"formula": ["NaCl", "NaN", "C"], "miss": [1.0, 3.0, 5.0], "error": [-1.0, 3.0, 5.0]})
    table = residuals.by_element(frame)
    # Na is in the first two: (1 + 3) / 2 and (-1 + 3) / 2. NaN holds sodium and nitrogen.
    assert table.to_dict("index") == {
        "C": {"n": 1, "miss": 5, "error": 5},
        "Cl": {"n": 1, "miss": 1, "error": -1},
        "N": {"n": 1, "miss": 3, "error": 3},
        "Na": {"n": 2, "miss": 2, "error": 1},
    }


def test_equal_numbers_are_in_one_bin_and_bins_hold_all():
    # 60 of 100 values are 4: no bin may cut through them.
    numbers = np.array([1] * 10 + [2] * 10 + [4] * 60 + [8] * 15 + [40] * 5)
    frame = pd.DataFrame({"n_atom": numbers.astype(float), "miss": numbers / 10})
    table = residuals.along(frame, "n_atom", num_bins=5)
    assert table["n"].sum() == 100
    (of_four,) = table[(table["lower"] <= 4) & (table["upper"] >= 4)].itertuples()
    assert of_four.upper == 4
    assert (table["lower"].to_numpy()[1:] > table["upper"].to_numpy()[:-1]).all()
    for row in table.itertuples():
        inside = frame[frame["n_atom"].between(row.lower, row.upper)]
        assert row.n == len(inside)
        assert row.miss == pytest.approx(inside["miss"].mean())
        assert row.low <= row.miss <= row.high


def test_unknown_numbers_are_in_no_bin():
    frame = pd.DataFrame({"distance": [1.0, np.nan, 1.0], "miss": [1.0, 100.0, 3.0]})
    assert residuals.along(frame, "distance")[["n", "miss", "low", "high"]].to_numpy().tolist() == [[2, 2, 1, 3]]


def test_the_interval_of_a_mean_is_about_two_standard_errors():
    miss = np.random.default_rng(0).exponential(size=4000)
    (row,) = residuals.along(pd.DataFrame({"n_atom": 1.0, "miss": miss}), "n_atom").itertuples()
    error = miss.std() / np.sqrt(len(miss))
    np.testing.assert_allclose([row.low, row.high], [miss.mean() - 1.96 * error, miss.mean() + 1.96 * error], rtol=0.01)


def test_worst_and_best_are_the_ends_and_share_no_crystal():
    frame = pd.DataFrame({"id": list("abcde"), "miss": [3.0, 1.0, 5.0, 2.0, 5.0]})
    worst, best = residuals.extremes(frame, 2)
    assert worst["id"].tolist() == ["c", "e"]
    assert best["id"].tolist() == ["b", "d"]
    worst, best = residuals.extremes(frame, 10)
    assert (worst["id"].tolist(), best["id"].tolist()) == (["c", "e", "a"], ["b", "d"])


def test_equal_predictions_stand_in_the_order_of_ids():
    frame = pd.DataFrame({"id": list("fbdace"), "miss": [0.0] * 6})
    worst, best = residuals.extremes(frame, 2)
    assert (worst["id"].tolist(), best["id"].tolist()) == (["a", "b"], ["c", "d"])


def test_the_worst_class_is_the_one_thought_least_likely():
    frame = pd.DataFrame({"id": list("abc"), "miss": [1.0, 1.0, 0.0], "certainty": [0.2, 0.01, 0.99]})
    worst, best = residuals.extremes(frame, 1)
    assert (worst["id"].item(), best["id"].item()) == ("b", "c")


def cloud(n: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    target = random.normal(size=n)
    error = 0.05 * random.standard_t(2, size=n)
    return pd.DataFrame(
        {"id": [f"x{k}" for k in range(n)], "target": target, "prediction": target + error, "miss": np.abs(error)}
    )


def test_a_thinned_plot_keeps_the_worst_and_every_region_and_counts_all():
    frame = cloud(30_000)
    shown = residuals.thinned(frame, 3000, keep=100, cells=40)
    assert len(shown) <= 3000
    assert set(frame.nlargest(100, "miss")["id"]) <= set(shown["id"])
    # The counts of the cells that are shown make up the whole set: no cell lost its last crystal.
    axes = ["target", "prediction"]
    low, high = frame[axes].to_numpy().min(), frame[axes].to_numpy().max()
    place = ((shown[axes] - low) / (high - low) * 40).clip(0, 39).astype(int).assign(n=shown["neighbours"])
    counts = place.groupby(axes)["n"]
    assert counts.nunique().max() == 1
    assert counts.first().sum() == 30_000


def test_thinning_does_not_depend_on_the_order_of_the_crystals():
    frame = cloud(5000)
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    assert set(residuals.thinned(frame, 800)["id"]) == set(residuals.thinned(shuffled, 800)["id"])


def test_few_crystals_all_stay_and_equal_ones_do_not_break_it():
    frame = cloud(50)
    assert residuals.thinned(frame, 800)["id"].tolist() == frame["id"].tolist()
    same = pd.DataFrame({"id": [f"{k:03}" for k in range(500)], "target": 1.0, "prediction": 1.0, "miss": 0.0})
    shown = residuals.thinned(same, 250, keep=200)
    assert len(shown) == 250 and set(shown["neighbours"]) == {500}
    with pytest.raises(ValueError, match="need limit >= keep, got 100 and 200"):
        residuals.thinned(frame, 100)
