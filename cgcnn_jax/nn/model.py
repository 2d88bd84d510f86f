"""CGCNN: embed the atoms, convolve, pool, predict."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.nn.basis import Basis
from cgcnn_jax.nn.conv import CONVOLUTIONS
from cgcnn_jax.nn.dense import Dense
from cgcnn_jax.nn.dropout import Dropout
from cgcnn_jax.nn.ops import softplus
from cgcnn_jax.nn.pool import POOLS, SoftmaxPool, mean_pool

Variables = dict[str, dict]


class CGCNN(nn.Module):
    """Crystal graph convolutional neural network (Xie & Grossman, 2018).

    species -> table -> linear -> R convolutions -> L1 hidden layers per atom -> pool -> L2 hidden layers -> linear.

    The element table is a variable ("constants/atom_table"), so that a checkpoint carries its own representation.

    Attributes:
      n_output: Targets, or classes.
      table_shape: Elements (row 0 is padding) and columns of the element table.
      features: Width of the atom vectors.
      conv: "sum" (Eq. 4), "gated" (Eq. 5 as printed), "gated_norm" (Eq. 5 as released), "gated_mlp" (that with two
        layers) or "gated_update" (that, and a network at every atom).
      num_convs: R.
      basis: Bond lengths as features.
      n_angle: Angular features that bonds have besides, 0 or those of `CrystalGraphs.angles`; a network without
        passes over those of the graphs.
      pool: "mean" (S16), "softmax" (S11-S13) or "site" (S14-S15: the prediction is the mean of a number per atom).
      activate_pooled: Apply g to the pooled vector, as released.
      atom_layers: L1, hidden layers per atom, of width `features`.
      crystal_layers: L2, hidden layers after pooling.
      crystal_features: Width of the hidden layers after pooling.
      dropout: Share of the last hidden vector dropped in training, a number (in populations a traced scalar); with
        pool="site" drawn anew for every node, so that a quotient trains with other draws than its full graph.
      init_scale: See nn.dense.Dense.
      precision: Of matrix products, see nn.ops.matmul.
      axis_name: Mapped axis over which a batch is spread, if any.
    """

    n_output: int
    table_shape: tuple[int, int]
    features: int
    conv: str
    num_convs: int
    basis: Basis
    pool: str
    activate_pooled: bool
    atom_layers: int
    crystal_layers: int
    crystal_features: int
    dropout: float | Array
    n_angle: int = 0
    init_scale: float | None = None
    precision: str = "default"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, graphs: CrystalGraphs, *, training: bool = False) -> Array:
        """Scaled predictions, or logits, [n_graph, n_output]; padding graphs hold finite nonsense.

        Training needs the rng "dropout" and batch_stats mutable. The vectors of atoms ("atoms"), the pooled vectors
        ("crystals"), with pool="site" each node's number ("sites"), and what each gated convolution sows of its bonds
        ("conv_0" and so on, see Convolution.sow_bonds) are found in "intermediates".
        """
        if self.pool not in POOLS:
            raise ValueError(f"unknown pool {self.pool!r}; choose one of {sorted(POOLS)}")
        if self.conv not in CONVOLUTIONS:
            raise ValueError(f"unknown convolution {self.conv!r}; choose one of {sorted(CONVOLUTIONS)}")
        convolution = CONVOLUTIONS[self.conv]
        linear = (self.init_scale, self.precision)
        table = self.variable("constants", "atom_table", jnp.zeros, self.table_shape).value
        # Embedding the hundred elements and gathering costs less than embedding every atom.
        v = Dense(self.features, *linear, name="embedding")(table)[graphs.species]
        u = jnp.concatenate([self.basis(graphs.distances), self._angles(graphs)], axis=-1)
        layers = [v]
        for t in range(self.num_convs):
            v = convolution(*linear, self.axis_name, name=f"conv_{t}")(v, u, graphs, training=training)
            layers.append(v)
        for layer in range(self.atom_layers):
            v = softplus(Dense(self.features, *linear, name=f"atom_{layer}")(v))
        self.sow("intermediates", "atoms", v)

        output = Dense(self.n_output, *linear, name="output")
        drop = Dropout(self.dropout)
        if self.pool == "site":
            sites = output(drop(v, training=training))
            self.sow("intermediates", "sites", sites)
            self.sow("intermediates", "crystals", mean_pool(v, graphs))
            return mean_pool(sites, graphs)
        if self.pool == "softmax":
            crystal = SoftmaxPool(self.features, *linear, name="pool")([*layers[:-1], v], graphs)
        else:
            crystal = mean_pool(v, graphs)
        self.sow("intermediates", "crystals", crystal)
        if self.activate_pooled:
            crystal = softplus(crystal)
        for layer in range(self.crystal_layers):
            crystal = softplus(Dense(self.crystal_features, *linear, name=f"crystal_{layer}")(crystal))
        return output(drop(crystal, training=training))

    def _angles(self, graphs: CrystalGraphs) -> Array:
        if graphs.angles.shape[-1] < self.n_angle:
            raise ValueError(
                f"the network takes {self.n_angle} angular features of every bond, and the graphs have "
                f"{graphs.angles.shape[-1]} (Featurizer.angles)"
            )
        return jnp.asarray(graphs.angles)[:, : self.n_angle]


def init_variables(model: CGCNN, seed: int, atom_table: np.ndarray) -> Variables:
    """Initial parameters, statistics and constants; the same for one seed on any machine.

    Raises:
      ValueError: If the table has not the model's shape.
    """
    if atom_table.shape != model.table_shape:
        raise ValueError(f"the element table is {atom_table.shape}, the model expects {model.table_shape}")
    key = jax.random.key(seed)
    variables = dict(model.init(key, _smallest_graph(model.n_angle)))
    variables.pop("intermediates", None)
    variables["constants"] = {"atom_table": jnp.asarray(atom_table, jnp.float32)}
    return {"batch_stats": {}} | variables


def count_parameters(variables: Variables) -> int:
    """Trainable numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _smallest_graph(n_angle: int) -> CrystalGraphs:
    """One atom bonded to its image: enough to trace the shapes of parameters."""
    one = np.ones(1, np.int32)
    zero = np.zeros(1, np.int32)
    weight = np.ones(1, np.float32)
    return CrystalGraphs(
        one, weight, 3 * weight, weight, zero, zero, one, one, np.ones(1, bool), np.zeros((1, n_angle), np.float32)
    )
