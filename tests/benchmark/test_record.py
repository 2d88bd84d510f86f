import math

import numpy as np
import pytest

from cgcnn_jax.benchmark.record import classification_scores, over_folds, regression_scores


def test_regression_scores_of_three_crystals_by_hand() -> None:
    # Errors 1, 1, 2. The label 0 is left out of the percentages: 1/2 and 2/4. Labels vary by 168/9 about -2/3.
    scores = regression_scores(np.array([0.0, 2.0, -4.0]), np.array([1.0, 1.0, -2.0]))
    expected = {"mae": 4 / 3, "rmse": math.sqrt(2), "mape": 0.5, "max_error": 2.0, "r2": 1 - 6 / (168 / 9)}
    assert scores == pytest.approx(expected)


def test_classification_scores_of_five_crystals_by_hand() -> None:
    # Of the 2 x 3 pairs of a metal and another crystal, one (0.3 and 0.6) stands the wrong way round.
    # Predicted are 1 1 0 1 0: 2 true and 1 false positive, 1 false negative; recalls 2/3 and 1/2.
    scores = classification_scores(np.array([1.0, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.3, 0.6, 0.1]))
    expected = {
        "accuracy": 3 / 5,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
        "f1": 2 * 2 / (2 * 2 + 1 + 1),
        "rocauc": 5 / 6,
        # The curve of two values has one corner, at (1 - recall of 0, recall of 1).
        "rocauc_of_labels": (2 / 3 + 1 / 2) / 2,
    }
    assert scores == pytest.approx(expected)


def test_the_spread_over_folds_is_that_of_the_leaderboard() -> None:
    # numpy's std, which Matbench takes: squared deviations 4, 1, 0, 9 over 4 folds, not over 3.
    assert over_folds([1.0, 2.0, 3.0, 6.0]) == {"mean": 3.0, "max": 6.0, "min": 1.0, "std": math.sqrt(14 / 4)}


def test_one_split_has_no_spread_and_a_fold_without_number_no_mean() -> None:
    assert over_folds([2.0]) == {"mean": 2.0, "max": 2.0, "min": 2.0, "std": None}
    assert set(over_folds([2.0, None]).values()) == {None}


def test_a_prediction_that_is_no_number_leaves_no_score() -> None:
    scores = classification_scores(np.array([1.0, 0, 0]), np.array([0.9, np.nan, 0.1]))
    assert all(math.isnan(score) for score in scores.values())
    assert math.isnan(regression_scores(np.array([1.0, 2.0]), np.array([1.0, np.nan]))["max_error"])
