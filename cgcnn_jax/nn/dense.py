"""Linear layers: over rows, and over the concatenation z = v_i + v_j + u of the paper, split by source."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.nn.ops import matmul, spread_like, sum_by_receiver

Initializer = Callable[..., Array]


class Dense(nn.Module):
    """x W + b.

    Attributes:
      features: Columns of the result.
      use_bias: Whether there is a b.
      init_scale: Standard deviation of Gaussian initial weights with zero bias (the paper's Table S1); None draws both
        uniformly from +-1/sqrt(fan_in), as the released code does.
      precision: See nn.ops.matmul.
    """

    features: int
    init_scale: float | None = None
    precision: str = "default"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x [rows, d] -> [rows, features]."""
        kernel_init, bias_init = initializers(x.shape[-1], self.init_scale)
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features))
        if not self.use_bias:
            return matmul(x, kernel, self.precision)
        return matmul(x, kernel, self.precision) + self.param("bias", bias_init, (self.features,))[None, :]


class EdgeDense(nn.Module):
    """z W + b with z_ij = [v_i, v_j, u_ij] (Eq. 5), without ever forming z.

    z W = v_i W_i + v_j W_j + u W_u for the three blocks of rows of W: the first two are computed once per node and
    gathered, which is the same mathematics with several times less arithmetic.

    Attributes: see Dense.
    """

    features: int
    init_scale: float | None = None
    precision: str = "default"

    @nn.compact
    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs) -> Array:
        """v [n_node, d_node], u [n_edge, d_edge] -> [n_edge, features]."""
        width = v.shape[-1]
        fan_in = 2 * width + u.shape[-1]
        kernel_init, bias_init = initializers(fan_in, self.init_scale)
        kernel = self.param("kernel", kernel_init, (fan_in, self.features))
        bias = self.param("bias", bias_init, (self.features,))
        receiver = matmul(v, kernel[:width], self.precision) + bias[None, :]
        sender = matmul(v, kernel[width : 2 * width], self.precision)
        kernel_u = spread_like(kernel[2 * width :], u)
        return _edge_linear(receiver, sender, kernel_u, u, graphs.receivers, graphs.senders, self.precision)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _edge_linear(receiver, sender, kernel, u, receivers, senders, precision):  # type: ignore[no-untyped-def]
    """receiver_i + sender_j + u_ij W, [n_edge, features]."""
    return receiver[receivers] + sender[senders] + matmul(u, kernel, precision)


def _edge_linear_forward(receiver, sender, kernel, u, receivers, senders, precision):  # type: ignore[no-untyped-def]
    # All layers have the same u: transposed in memory once, it serves the derivatives of all kernels. The barrier keeps
    # the transposition from being merged into each product, where it costs as much as the product.
    transposed = jax.lax.optimization_barrier(u.T)
    kept = (receiver, kernel, transposed, receivers, senders)
    return _edge_linear(receiver, sender, kernel, u, receivers, senders, precision), kept


def _edge_linear_backward(precision, kept, out_bar):  # type: ignore[no-untyped-def]
    receiver, kernel, transposed, receivers, senders = kept
    return (
        sum_by_receiver(out_bar, receivers, len(receiver)),
        jax.ops.segment_sum(out_bar, senders, num_segments=len(receiver)),
        matmul(transposed, out_bar, precision),
        matmul(out_bar, kernel.T, precision),
        None,
        None,
    )


_edge_linear.defvjp(_edge_linear_forward, _edge_linear_backward)


def initializers(fan_in: int, init_scale: float | None) -> tuple[Initializer, Initializer]:
    """Of kernel and bias; see Dense.init_scale."""
    if init_scale is not None:
        return nn.initializers.normal(init_scale), nn.initializers.zeros
    bound = fan_in**-0.5

    def uniform(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

    return uniform, uniform
