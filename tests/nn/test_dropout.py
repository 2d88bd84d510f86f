import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cgcnn_jax.nn.dropout import Dropout

X = jnp.asarray(np.random.default_rng(0).normal(size=(400, 5)), jnp.float32)
KEY = {"dropout": jax.random.key(7)}


def dropped(rate):
    return Dropout(rate).apply({}, X, training=True, rngs=KEY)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_the_draws_are_those_of_flax(rate):
    expected = nn.Dropout(rate, deterministic=False).apply({}, X, rngs=KEY)
    np.testing.assert_array_equal(dropped(rate), expected)
    assert abs(float((expected == 0).mean()) - rate) < 0.04  # 2,000 draws, 3 sigma


def test_an_array_of_rates_draws_as_each_number_does():
    rates = jnp.array([0.0, 0.2, 0.5])
    for rate, found in zip((0.0, 0.2, 0.5), jax.jit(jax.vmap(dropped))(rates), strict=True):
        np.testing.assert_allclose(found, dropped(rate), rtol=1e-6)


def test_prediction_drops_nothing_and_needs_no_key():
    np.testing.assert_array_equal(Dropout(0.5).apply({}, X, training=False), X)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, X, training=True), X)
