"""Losses by hand: sums over known labels only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.graph import Batch
from cgcnn_jax.train.losses import loss_sums


def batch(targets, known) -> Batch:
    return Batch(None, jnp.array(targets, jnp.float32), jnp.array(known))


def test_regression_by_hand():
    # Differences 1, -3 and one unknown: squares 1 + 9, absolute 1 + 3, two labels.
    sums = loss_sums(
        "regression", jnp.array([[2.0], [-1.0], [50.0]]), batch([[1], [2], [0]], [[True], [True], [False]])
    )
    np.testing.assert_allclose(sums[0], 10)
    np.testing.assert_allclose(sums[1], [4])
    np.testing.assert_allclose(sums[2], [2])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Differences 1/2, -3 and one unknown: 1/4 + 9, 1/2 + 3, and (1/2)^2/2 + (3 - 1/2).
        ("auto", 9.25),
        ("mse", 9.25),
        ("mae", 3.5),
        ("huber", 2.625),
    ],
)
def test_losses_of_regression_by_hand(name, expected):
    known = batch([[1], [2], [0]], [[True], [True], [False]])
    loss, error, count = loss_sums("regression", jnp.array([[1.5], [-1.0], [50.0]]), known, name)
    assert loss == expected
    np.testing.assert_array_equal(error, [3.5])  # the error is the same whatever the loss
    np.testing.assert_array_equal(count, [2])


@pytest.mark.parametrize(
    ("name", "expected"),
    # By outputs 1/2 above, 3 below and unknown: 2 x, sign x, and x cut at +-1.
    [("mse", [1, -6, 0]), ("mae", [1, -1, 0]), ("huber", [0.5, -1, 0])],
)
def test_gradients_of_the_losses_by_hand(name, expected):
    known = batch([[1], [2], [0]], [[True], [True], [False]])
    gradient = jax.grad(lambda outputs: loss_sums("regression", outputs, known, name)[0])
    np.testing.assert_array_equal(gradient(jnp.array([[1.5], [-1.0], [50.0]]))[:, 0], expected)


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("classification", "mae", r"classification has no loss 'mae'; choose one of \['auto', 'cross_entropy'\]"),
        ("regression", "cross_entropy", r"regression has no loss 'cross_entropy'; choose one of \['auto', 'mse', "),
    ],
)
def test_a_loss_of_another_task_is_refused(task, name, message):
    with pytest.raises(ValueError, match=message):
        loss_sums(task, jnp.ones((1, 2)), batch([[0]], [[True]]), name)


def test_several_targets_with_missing_labels_by_hand():
    # Target 0: differences 1 and 2; target 1: 3 alone. Loss 1 + 4 + 9.
    loss, error, count = loss_sums(
        "regression", jnp.array([[1.0, 99.0], [2.0, 3.0]]), batch([[0, 0], [0, 0]], [[True, False], [True, True]])
    )
    assert loss == 14
    np.testing.assert_array_equal(error, [3, 3])
    np.testing.assert_array_equal(count, [2, 1])


def test_classification_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4): -ln(3/4) for class 0, -ln(1/4) for class 1, which is wrong; ln 3 for three equals.
    logits = jnp.array([[np.log(3), 0.0], [np.log(3), 0.0], [7.0, -7.0]])
    loss, error, count = loss_sums("classification", logits, batch([[0], [1], [0]], [[True], [True], [False]]))
    np.testing.assert_allclose(loss, np.log(4 / 3) + np.log(4), rtol=1e-6)
    np.testing.assert_array_equal(error, [1])
    np.testing.assert_array_equal(count, [2])


def test_cross_entropy_is_finite_for_logits_far_apart():
    loss, _, _ = loss_sums("classification", jnp.array([[1e4, -1e4]]), batch([[1]], [[True]]))
    np.testing.assert_allclose(loss, 2e4, rtol=1e-6)


def test_unknown_labels_have_no_gradient():
    def loss(outputs):
        return loss_sums("regression", outputs, batch([[1, 0], [2, 5]], [[True, False], [False, True]]))[0]

    # 2 (o - t): 2 (4 - 1) and 2 (7 - 5).
    np.testing.assert_array_equal(jax.grad(loss)(jnp.array([[4.0, 1e6], [1e6, 7.0]])), [[6, 0], [0, 4]])


def test_a_batch_without_labels_adds_nothing():
    for task in ("regression", "classification"):
        loss, error, count = loss_sums(task, jnp.ones((2, 2)), batch([[0]] * 2, [[False]] * 2))
        assert loss == 0 and not error.any() and not count.any()
