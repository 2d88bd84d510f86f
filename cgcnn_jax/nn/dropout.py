"""Dropout whose rate may be an array, so that runs of one compiled program can differ in it."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class Dropout(nn.Module):
    """x / (1 - rate) with probability 1 - rate, 0 otherwise; in training alone.

    flax's own compares the rate in Python, so that a traced one fails there. The draws are the same.

    Attributes:
      rate: At least 0 and below 1; a number, or a traced scalar.
    """

    rate: float | Array

    @nn.compact
    def __call__(self, x: Array, *, training: bool) -> Array:
        """x of any shape -> x of that shape. Training needs the rng "dropout" unless the rate is the number 0."""
        if not training or (isinstance(self.rate, int | float) and self.rate == 0):
            return x
        keep = 1.0 - self.rate
        is_kept = jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape)
        return jnp.where(is_kept, x / keep, jnp.zeros((), x.dtype))
