"""Linear layers: over rows, and over the concatenation z = v_i + v_j + u of the paper, split by source."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cgcnn_jax.graph import CrystalGraphs


class Dense(nn.Module):
    """x W + b.

    Attributes:
      features: Columns of the result.
      init_scale: Standard deviation of Gaussian initial weights with zero bias (the paper's Table S1); None draws both
        uniformly from +-1/sqrt(fan_in), as the released code does.
    """

    features: int
    init_scale: float | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = _weights(self, x.shape[-1], self.features, self.init_scale)
        return x @ kernel + bias


class EdgeDense(nn.Module):
    """z W + b with z_ij = [v_i, v_j, u_ij] (Eq. 5), without ever forming z.

    z W = v_i W_i + v_j W_j + u W_u for the three blocks of rows of W: the first two are computed once per node and
    gathered, which is the same mathematics with several times less arithmetic.

    Attributes: see Dense.
    """

    features: int
    init_scale: float | None = None

    @nn.compact
    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs) -> Array:
        """v [n_node, d_node], u [n_edge, d_edge] -> [n_edge, features]."""
        width = v.shape[-1]
        kernel, bias = _weights(self, 2 * width + u.shape[-1], self.features, self.init_scale)
        receiver = v @ kernel[:width] + bias
        sender = v @ kernel[width : 2 * width]
        return receiver[graphs.receivers] + sender[graphs.senders] + u @ kernel[2 * width :]


def _weights(module: nn.Module, fan_in: int, features: int, init_scale: float | None) -> tuple[Array, Array]:
    if init_scale is None:
        bound = fan_in**-0.5

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        kernel_init, bias_init = uniform, uniform
    else:
        kernel_init, bias_init = nn.initializers.normal(init_scale), nn.initializers.zeros
    return (
        module.param("kernel", kernel_init, (fan_in, features)),
        module.param("bias", bias_init, (features,)),
    )
