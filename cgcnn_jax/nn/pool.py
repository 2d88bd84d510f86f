"""Atom features to one vector per crystal: every pool is a normalised sum, so that supercells give equal vectors."""

from collections.abc import Sequence

import jax
from flax import linen as nn
from jax import Array

from cgcnn_jax.graph import CrystalGraphs, node_graph
from cgcnn_jax.nn.dense import Dense
from cgcnn_jax.nn.ops import mean_by_graph


def mean_pool(v: Array, graphs: CrystalGraphs) -> Array:
    """Eq. S16: v_c = (1/N) sum_i v_i, weighted by the atoms that each node stands for, [n_graph, d]."""
    return mean_by_graph(v, graphs.node_weight, node_graph(graphs), graphs.n_node.shape[0])


class SoftmaxPool(nn.Module):
    """Eqs. S11-S13: v_c = sum_t (1/N) sum_i softmax(v_i^(t) W^(t) + b^(t)), over all layers t = 0 ... R.

    Each atom casts one vote per layer for the columns of v_c, as in neural fingerprints (Duvenaud et al., 2015).
    """

    features: int
    init_scale: float | None = None
    precision: str = "default"

    @nn.compact
    def __call__(self, layers: Sequence[Array], graphs: CrystalGraphs) -> Array:
        """Node features of every layer, each [n_node, d] -> [n_graph, features]."""
        pooled = [
            mean_pool(
                jax.nn.softmax(Dense(self.features, self.init_scale, self.precision, name=f"layer_{t}")(v)), graphs
            )
            for t, v in enumerate(layers)
        ]
        return sum(pooled[1:], start=pooled[0])


POOLS: tuple[str, ...] = ("mean", "softmax", "site")
