import json
import math
import time

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)

from cgcnn_jax.train.metrics import classification_metrics, intervals, regression_metrics

# Six crystals, sorted into pairs (positive, negative) by hand: 0.8 and 0.7 beat 0.1, 0.4 and 0.6; 0.55 beats 0.1 and
# 0.4: 8 of 9 pairs. At one half there are 3 true positives, 1 false positive and 2 true negatives.
LABEL = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
SCORE = np.array([0.1, 0.4, 0.6, 0.8, 0.7, 0.55])
PROBABILITY = np.stack([1 - SCORE, SCORE], axis=1)


def three_classes(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    label = random.choice(3, size=n, p=[0.6, 0.3, 0.1])
    exponent = np.exp(np.eye(3)[label] + random.normal(size=(n, 3)))
    return label.astype(float), exponent / exponent.sum(axis=1, keepdims=True)


def test_regression_metrics_by_hand():
    # Errors 1, 0, -1, -1; mean 3, deviations -2, -1, 0, 3, their squares sum to 14.
    metrics = regression_metrics([1.0, 2.0, 3.0, 6.0], [2.0, 2.0, 2.0, 5.0])
    assert metrics == pytest.approx(
        {"mae": 3 / 4, "rmse": math.sqrt(3 / 4), "r2": 1 - 3 / 14, "mad": 6 / 4, "mad_over_mae": 2.0}, rel=1e-14
    )


def test_regression_metrics_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    target = random.normal(-1.5, 1.0, 500)
    prediction = target + random.normal(0.1, 0.2, 500)
    metrics = regression_metrics(target, prediction)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(target, prediction), rel=1e-12)
    assert metrics["r2"] == pytest.approx(r2_score(target, prediction), rel=1e-12)


def test_predicting_the_mean_has_r2_of_0_and_an_error_of_mad():
    target = np.array([1.0, 2.0, 3.0, 6.0])
    metrics = regression_metrics(target, np.full(4, 3.0))
    assert metrics["r2"] == 0.0
    assert metrics["mad_over_mae"] == 1.0


def test_unknown_targets_are_left_out():
    with_unknown = regression_metrics([1.0, math.nan, 2.0, 3.0, 6.0], [2.0, 99.0, 2.0, 2.0, 5.0])
    assert with_unknown == regression_metrics([1.0, 2.0, 3.0, 6.0], [2.0, 2.0, 2.0, 5.0])


@pytest.mark.parametrize("target", [[0.7], [0.1, 0.1, 0.1]], ids=["one crystal", "equal labels"])
def test_equal_labels_have_no_r2_and_no_deviation(target):  # the mean of three 0.1 is 0.10000000000000002
    metrics = regression_metrics(target, np.array(target) + 0.5)
    assert math.isnan(metrics["r2"])
    assert metrics["mad"] == 0.0
    assert metrics["mad_over_mae"] == 0.0
    assert metrics["mae"] == pytest.approx(0.5)


def test_exact_predictions():
    metrics = regression_metrics([1.0, 2.0], [1.0, 2.0])
    assert (metrics["mae"], metrics["r2"], metrics["mad_over_mae"]) == (0.0, 1.0, math.inf)
    assert math.isnan(regression_metrics([1.0], [1.0])["mad_over_mae"])


def test_a_prediction_of_nan_shows():
    metrics = regression_metrics([1.0, 2.0], [1.0, math.nan])
    assert all(math.isnan(metrics[name]) for name in ("mae", "rmse", "r2", "mad_over_mae"))
    assert all(math.isnan(value) for value in classification_metrics([0, 1], [[0.5, 0.5], [math.nan, 0.5]]).values())


def test_classification_metrics_by_hand():
    expected = {
        "accuracy": 5 / 6,
        "balanced_accuracy": (2 / 3 + 1) / 2,
        "precision": 3 / 4,
        "recall": 1.0,
        "f1": 6 / 7,
        "roc_auc": 8 / 9,
    }
    assert classification_metrics(LABEL, PROBABILITY) == pytest.approx(expected, rel=1e-14)


def test_equal_scores_count_one_half():  # pairs: 0.5 = 0.5 counts 1/2, 0.9 > 0.5 counts 1
    score = np.array([0.5, 0.5, 0.9])
    metrics = classification_metrics([0, 1, 1], np.stack([1 - score, score], axis=1))
    assert metrics["roc_auc"] == 0.75


def test_never_predicting_the_rare_class_shows_in_all_but_the_accuracy():
    metrics = classification_metrics([0, 0, 0, 0, 1], [[0.9, 0.1]] * 5)
    expected = {"accuracy": 0.8, "balanced_accuracy": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0, "roc_auc": 0.5}
    assert metrics == pytest.approx(expected)


def test_three_classes_are_averaged_as_scikit_learn_does():
    label, probability = three_classes()
    predicted = probability.argmax(axis=1)
    metrics = classification_metrics(label, probability)
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, predicted))
    assert metrics["precision"] == pytest.approx(precision_score(label, predicted, average="macro"))
    assert metrics["recall"] == pytest.approx(recall_score(label, predicted, average="macro"))
    assert metrics["f1"] == pytest.approx(f1_score(label, predicted, average="macro"))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(label, probability, multi_class="ovr"))


def test_two_classes_with_equal_scores_are_measured_as_scikit_learn_does():
    random = np.random.default_rng(1)
    label = random.integers(2, size=400)
    score = np.round(np.clip(0.2 * label + random.normal(0.4, 0.2, 400), 0, 1), 1)  # eleven values
    predicted = score > 0.5  # at one half the first class is as probable
    metrics = classification_metrics(label, np.stack([1 - score, score], axis=1))
    assert metrics["precision"] == pytest.approx(precision_score(label, predicted))
    assert metrics["recall"] == pytest.approx(recall_score(label, predicted))
    assert metrics["f1"] == pytest.approx(f1_score(label, predicted))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(label, score))


def test_a_class_that_never_occurs_changes_nothing():
    label, probability = three_classes()
    with_fourth = np.concatenate([probability, np.zeros((len(label), 1))], axis=1)
    assert classification_metrics(label, with_fourth) == pytest.approx(classification_metrics(label, probability))


def test_one_class_has_no_auc():
    metrics = classification_metrics([1, 1], PROBABILITY[3:5])
    assert math.isnan(metrics.pop("roc_auc"))
    assert all(value == 1.0 for value in metrics.values())


def test_unknown_classes_are_left_out():
    label = np.concatenate([[math.nan], LABEL])
    probability = np.concatenate([[[0.0, 1.0]], PROBABILITY])
    assert classification_metrics(label, probability) == classification_metrics(LABEL, PROBABILITY)


def test_values_are_python_floats():
    json.dumps(regression_metrics([1, 2], [2, 2]))
    json.dumps(classification_metrics(LABEL.astype(np.int32), PROBABILITY.astype(np.float32)))
    json.dumps(intervals(regression_metrics, [1.0, 2.0, 3.0], [2.0, 2.0, 2.5], num_resamples=10))


def test_interval_of_the_mae_of_normal_errors():
    # |e| of a standard normal e has the variance 1 - 2/pi; the 95 % interval is 2 * 1.96 standard errors wide. The
    # width from 4000 resamples of 4000 crystals itself scatters by 2 to 3 %.
    n = 4000
    error = np.random.default_rng(1).normal(size=n)
    lower, upper = intervals(regression_metrics, np.arange(n), np.arange(n) + error, num_resamples=4000)["mae"]
    assert lower < np.abs(error).mean() < upper
    assert upper - lower == pytest.approx(2 * 1.96 * math.sqrt((1 - 2 / math.pi) / n), rel=0.1)
    narrow = intervals(regression_metrics, np.arange(n), np.arange(n) + error, num_resamples=4000, level=0.5)["mae"]
    assert (narrow[1] - narrow[0]) / (upper - lower) == pytest.approx(0.6745 / 1.96, rel=0.1)


def test_intervals_repeat_with_the_seed():
    label, probability = three_classes(50)
    first, again, other = (
        intervals(classification_metrics, label, probability, num_resamples=20, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_unknown_labels_are_not_resampled():
    target, prediction = np.array([1.0, 2.0, 4.0, 5.0]), np.array([1.5, 2.0, 3.0, 7.0])
    with_unknown = intervals(regression_metrics, np.append(target, math.nan), np.append(prediction, 0.0))
    assert with_unknown == intervals(regression_metrics, target, prediction)


def test_resamples_of_one_class_do_not_enter_the_auc():  # 2 * (1/2)^6 of all resamples hold one class
    found = intervals(classification_metrics, LABEL, PROBABILITY, num_resamples=200)
    assert 0.0 <= found["roc_auc"][0] < 8 / 9 < found["roc_auc"][1] == 1.0
    assert np.isnan(intervals(classification_metrics, LABEL[3:], PROBABILITY[3:], num_resamples=9)["roc_auc"]).all()


def test_exact_predictions_have_an_infinite_interval_not_nan():
    assert intervals(regression_metrics, np.arange(50.0), np.arange(50.0))["mad_over_mae"] == (math.inf, math.inf)


def test_intervals_of_ten_thousand_crystals_take_seconds():  # 0.1 s on one core; the bound allows for a busy machine
    random = np.random.default_rng(0)
    target = random.normal(size=10_000)
    start = time.perf_counter()
    intervals(regression_metrics, target, target + random.normal(size=10_000))
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("function", "arrays", "message"),
    [
        (regression_metrics, ([], []), "no label is known among 0 crystals"),
        (regression_metrics, ([math.nan, math.nan], [1.0, 2.0]), "no label is known among 2 crystals"),
        (regression_metrics, ([1.0, 2.0], [1.0]), r"targets \(2,\) and predictions \(1,\) differ in shape; need \[n\]"),
        (regression_metrics, ([[1.0], [2.0]], [[1.0], [2.0]]), r"need labels \[n\].*got the shapes \(2, 1\), \(2, 1\)"),
        (regression_metrics, ([1.0, 2.0], [[1.0], [2.0]]), r"predictions \(2, 1\) differ in shape"),
        (classification_metrics, ([1], PROBABILITY), r"arrays of the same length, got the shapes \(1,\), \(6, 2\)"),
        (classification_metrics, ([2, 0], PROBABILITY[:2]), "label 2 is not a class; 2 classes are numbered 0 to 1"),
        (classification_metrics, ([0.5, 0], PROBABILITY[:2]), "label 0.5 is not a class"),
        (classification_metrics, ([1, 0], [0.4, 0.6]), r"of two or more classes, \[n, n_class\], got \(2,\)"),
        (classification_metrics, ([0, 0], [[1.0], [1.0]]), r"got \(2, 1\)"),
    ],
)
def test_wrong_input_is_named(function, arrays, message):
    with pytest.raises(ValueError, match=message):
        function(*arrays)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"level": 1.0}, "need 0 < level < 1, got 1.0"), ({"num_resamples": 0}, "need num_resamples >= 1, got 0")],
)
def test_wrong_resampling_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        intervals(regression_metrics, [1.0], [1.0], **arguments)
