"""softplus at its extremes, and means over crystals that may be empty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.nn.ops import mean_by_graph, softplus, sum_by_receiver


@pytest.mark.parametrize("x", [-1e4, -100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 1e4])
def test_softplus_and_its_derivatives_are_those_of_float64(x):
    expected = np.logaddexp(0.0, x)
    slope = np.exp(x - expected)  # sigmoid(x) = e^x / (1 + e^x), without overflow
    np.testing.assert_allclose(softplus(jnp.float32(x)), expected, rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(jax.grad(softplus)(jnp.float32(x)), slope, rtol=1e-6, atol=1e-37)
    # The second derivative s (1 - s) loses what float32 cannot hold of 1 - s.
    np.testing.assert_allclose(jax.grad(jax.grad(softplus))(jnp.float32(x)), slope * (1 - slope), rtol=1e-6, atol=1e-7)


def test_softplus_at_zero_is_ln2_with_slope_one_half():
    assert softplus(jnp.float32(0)) == np.float32(np.log(2))
    assert jax.grad(softplus)(jnp.float32(0)) == 0.5


def test_sum_by_receiver_leaves_an_atom_without_bonds_at_zero():
    messages = jnp.array([[1.0], [2.0], [4.0]])
    np.testing.assert_array_equal(sum_by_receiver(messages, jnp.array([0, 0, 2]), 4), [[3], [0], [4], [0]])


def test_a_mean_weighs_its_atoms_and_an_empty_graph_is_zero():
    # (1 * 10 + 3 * 2) / 4 = 4; a graph without nodes; 5 / 1; a padding graph of weight 0.
    mean = mean_by_graph(
        jnp.array([[10.0], [2.0], [5.0], [1e3]]), jnp.array([1.0, 3, 1, 0]), jnp.array([0, 0, 2, 3]), 4
    )
    np.testing.assert_array_equal(mean, [[4], [0], [5], [0]])


def test_the_gradient_of_a_mean_with_an_empty_graph_is_finite():
    def total(values):
        return mean_by_graph(values, jnp.array([1.0, 3, 0]), jnp.array([0, 0, 2]), 3).sum()

    # 1/4 and 3/4 of the first graph; the padding row has none.
    np.testing.assert_array_equal(jax.grad(total)(jnp.ones((3, 1))), [[0.25], [0.75], [0]])


def test_a_nan_in_the_padding_stays_there():
    def total(values):
        return mean_by_graph(values, jnp.array([1.0, 0]), jnp.array([0, 1]), 2).sum()

    values = jnp.array([[2.0], [jnp.nan]])
    assert total(values) == 2
    np.testing.assert_array_equal(jax.grad(total)(values), [[1], [0]])
