"""Batch normalisation that knows weights, padding and devices."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cgcnn_jax.nn.ops import Affine, sum_over_devices


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, over weighted rows.

    A row of weight w counts as w equal rows, so padding (weight 0) is invisible and a quotient graph has the statistics
    of the full one. Sums, not means, are added over devices. As in torch: the batch's variance is biased when it
    normalises and unbiased when it enters the running average. flax's BatchNorm differs in all of these.

    Attributes:
      momentum: Share of the running statistics that a step keeps; 0.9 is torch's default.
      epsilon: Added to the variance.
      axis_name: Mapped axis over which the batch is spread, if any.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, weight: Array, *, training: bool) -> Affine:
        """The normalisation of x [rows, d] under weight [rows], to be applied. In training needs batch_stats mutable."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (width,))
        if training and not self.is_initializing():
            mean, var, count = weighted_moments(x, weight, self.axis_name)
            unbiased = var * count / jnp.maximum(count - 1, 1)
            for running, now in ((running_mean, mean), (running_var, unbiased)):
                # A batch without rows says nothing.
                running.value = jnp.where(
                    count > 0, self.momentum * running.value + (1 - self.momentum) * now, running.value
                )
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return Affine(factor, bias - mean * factor)


def weighted_moments(x: Array, weight: Array, axis_name: str | None = None) -> tuple[Array, Array, Array]:
    """Mean [d], biased variance [d] and count of weighted rows, over all devices.

    Two passes, because E[x^2] - E[x]^2 cancels in float32. A sum over rows is a product with the weights, which on the
    CPU is several times faster than a reduction.
    """

    def total(rows: Array) -> Array:
        # In full precision on a GPU too, where products of float32 are rounded to 10 bits by default.
        return sum_over_devices(jnp.matmul(weight, rows, precision="highest"), axis_name)

    count = sum_over_devices(weight.sum(), axis_name)
    rows = jnp.maximum(count, 1.0)
    mean = total(x) / rows
    # The variance does not change with the mean to first order: d/dm sum w (x - m)^2 = -2 sum w (x - m) = 0 at the mean.
    centered = x - jax.lax.stop_gradient(mean)[None, :]
    return mean, total(jnp.square(centered)) / rows, count
