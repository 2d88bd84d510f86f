"""Targets are scaled by the training split and come back in their units."""

import json
import re

import numpy as np
import pytest

from cgcnn_jax.scaling import TargetScaler

NAMES, UNITS = ("gap", "energy"), ("eV", "eV/atom")


def test_mean_and_deviation_are_those_of_the_known_labels():
    # gap: 1, 2, 3 -> mean 2, std sqrt(2/3); energy: 4, 8 -> mean 6, std 2
    targets = np.array([[1.0, 4.0], [2.0, np.nan], [3.0, 8.0]])
    scaler = TargetScaler.fit(targets, NAMES, UNITS)
    np.testing.assert_allclose(scaler.mean, [2, 6], rtol=1e-15)
    np.testing.assert_allclose(scaler.std, [np.sqrt(2 / 3), 2], rtol=1e-15)
    assert scaler.n_output == 2


def test_unknown_labels_scale_to_zero_with_a_false_mask():
    scaler = TargetScaler("regression", NAMES, UNITS, (2.0, 6.0), (0.5, 2.0))
    scaled, known = scaler.scale(np.array([[3.0, np.nan], [np.nan, 2.0]]))
    np.testing.assert_array_equal(scaled, np.array([[2, 0], [0, -2]], np.float32))
    np.testing.assert_array_equal(known, [[True, False], [False, True]])
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e-9])
@pytest.mark.parametrize("count", [1, 3, 1000])
def test_equal_labels_have_deviation_one(value, count):
    # np.std of three times 0.1 is 1.4e-17: dividing by it would make a label of 0.2 seven quadrillion.
    scaler = TargetScaler.fit(np.full((count, 1), value), ("gap",), ("eV",))
    assert scaler.std == (1.0,)
    np.testing.assert_allclose(scaler.scale(np.array([[value + 2]]))[0], [[2]], rtol=1e-6)


def test_unscale_undoes_scale():
    rng = np.random.default_rng(0)
    targets = rng.normal(-3, 40, (50, 2))
    scaler = TargetScaler.fit(targets, NAMES, UNITS)
    # Through float32, so to 1e-6 of the spread.
    np.testing.assert_allclose(scaler.unscale(scaler.scale(targets)[0]), targets, atol=1e-6 * 200)


def test_scaled_training_labels_have_mean_zero_and_deviation_one():
    targets = np.random.default_rng(0).gamma(2, 30, (500, 1))
    scaled, _ = TargetScaler.fit(targets, ("k",), ("GPa",)).scale(targets)
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-5)


@pytest.mark.parametrize("targets", [np.full((4, 2), [1.0, np.nan]), np.zeros((0, 2))], ids=["all unknown", "empty"])
def test_a_target_without_labels_is_refused(targets):
    with pytest.raises(ValueError, match=r"'(energy|gap)' has no label in the training split"):
        TargetScaler.fit(targets, NAMES, UNITS)


@pytest.mark.parametrize("labels", [[1.0, 1e300], [1e-170, 3e-170], [1e300] * 20], ids=["large", "small", "equal"])
def test_labels_that_cannot_be_scaled_are_refused(labels):
    # Squares overflow or vanish, and a mean of equals rounds: scaled labels would all be 0, or infinite.
    targets = np.array([[float(number), label] for number, label in enumerate(labels)])
    span = re.escape(f"{min(labels):g} to {max(labels):g}")
    with pytest.raises(ValueError, match=rf"{NAMES[1]!r} has labels from {span}, which cannot be scaled"):
        TargetScaler.fit(targets, NAMES, UNITS)


def test_classes_are_kept_as_they_are_and_outputs_become_probabilities():
    scaler = TargetScaler.for_classes(np.array([[0.0], [2.0], [np.nan]]), "metal", 3)
    assert scaler.n_output == 3
    np.testing.assert_array_equal(scaler.scale(np.array([[2.0]]))[0], [[2]])
    # softmax(0, ln 2, ln 5) = 1/8, 2/8, 5/8, and the same far from zero
    outputs = np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(scaler.unscale(outputs), [[0.125, 0.25, 0.625]], rtol=1e-12)
    np.testing.assert_allclose(scaler.unscale(outputs + 1e4), [[0.125, 0.25, 0.625]], rtol=1e-9)


@pytest.mark.parametrize("label", [-1, 0.5, 2])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(ValueError, match=f"'metal' holds the label {label:g}; 2 classes are numbered 0 to 1"):
        TargetScaler.for_classes(np.array([[0.0], [label]]), "metal", 2)


@pytest.mark.parametrize(
    "scaler",
    [
        TargetScaler.fit(np.random.default_rng(0).normal(size=(9, 2)), NAMES, UNITS),
        TargetScaler.for_classes(np.array([[1.0]]), "metal", 2),
    ],
    ids=["regression", "classification"],
)
def test_json_keeps_every_bit(scaler):
    assert TargetScaler.from_dict(json.loads(json.dumps(scaler.to_dict()))) == scaler
