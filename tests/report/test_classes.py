import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.report import classes


def frame(labels: list[int], of_class_1: list[float]) -> pd.DataFrame:
    probability = np.array(of_class_1)
    return pd.DataFrame(
        {
            "target": np.array(labels, float),
            "prediction": (probability > 0.5).astype(float),
            "probability_0": 1 - probability,
            "probability_1": probability,
        }
    )


# Ordered by probability: 1 1 0 1 0, so that of 3 x 2 pairs 5 are ordered right.
SMALL = frame([1, 1, 0, 1, 0], [0.9, 0.8, 0.6, 0.4, 0.1])


def test_roc_by_hand():
    ((name, curve),) = classes.roc(SMALL).items()
    assert name == "class 1: AUC 0.833"  # 5 / 6
    # At a threshold of 0.6 all but one of class 1 and one of two others are taken for class 1.
    at = curve[curve["threshold"] == 0.6]
    np.testing.assert_allclose(at[["x", "y"]], [[1 / 2, 2 / 3]])


def test_precision_and_recall_by_hand():
    ((name, curve),) = classes.precision_recall(SMALL).items()
    # Steps of recall of 1/3 at precisions 1, 1 and 3/4.
    assert name == "class 1: AP 0.917"
    at = curve[curve["threshold"] == 0.4]
    np.testing.assert_allclose(at[["x", "y"]], [[1, 3 / 4]])


def test_calibration_by_hand():
    # Two crystals at 0.2, one of class 1; three at 0.9, all of class 1: |0.5 - 0.2| 2/5 + |1 - 0.9| 3/5.
    table, error = classes.calibration(frame([0, 1, 1, 1, 1], [0.2, 0.2, 0.9, 0.9, 0.9]))
    np.testing.assert_allclose(table[["x", "y", "n"]], [[0.2, 0.5, 2], [0.9, 1.0, 3]])
    assert error == pytest.approx(0.18)
    # Wilson's interval of 3 of 3: n / (n + z^2) to 1.
    np.testing.assert_allclose(table.loc[1, ["low", "high"]].astype(float), [3 / (3 + 1.959964**2), 1], rtol=1e-6)


def test_probabilities_that_are_what_they_say_are_calibrated():
    random = np.random.default_rng(0)
    probability = random.uniform(size=40_000)
    labels = (random.uniform(size=40_000) < probability).astype(int)
    table, error = classes.calibration(frame(labels.tolist(), probability.tolist()))
    assert error < 0.01
    assert ((table["low"] <= table["x"]) & (table["x"] <= table["high"])).sum() >= 8  # 95 % of ten bins


def test_probability_1_is_in_the_last_bin():
    table, _ = classes.calibration(frame([1, 0], [1.0, 0.0]))
    assert table[["x", "y"]].to_numpy().tolist() == [[0, 0], [1, 1]]


def test_of_three_classes_confidence_is_calibrated_and_each_has_a_curve():
    table = pd.DataFrame(
        {
            "target": [0.0, 1.0, 2.0, 0.0],
            "prediction": [0.0, 1.0, 1.0, 0.0],
            "probability_0": [0.8, 0.1, 0.1, 0.8],
            "probability_1": [0.1, 0.8, 0.8, 0.1],
            "probability_2": [0.1, 0.1, 0.1, 0.1],
        }
    )
    bins, error = classes.calibration(table)
    np.testing.assert_allclose(bins[["x", "y", "n"]], [[0.8, 0.75, 4]])
    assert error == pytest.approx(0.05)
    assert [name.split(":")[0] for name in classes.roc(table)] == ["class 0", "class 1", "class 2"]
    assert classes.confusion(table).to_numpy().tolist() == [[2, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_one_class_has_no_curve():
    assert classes.roc(frame([1, 1], [0.3, 0.6])) == classes.precision_recall(frame([1, 1], [0.3, 0.6])) == {}
