"""Graph convolutions: (node features, edge features, graph) -> node features."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.nn.dense import Dense, EdgeDense
from cgcnn_jax.nn.norm import BatchNorm
from cgcnn_jax.nn.ops import Affine, gated_sum, softplus, sum_by_receiver


class Convolution(nn.Module):
    """What every convolution takes.

    Attributes:
      init_scale: See nn.dense.Dense.
      precision: See nn.ops.matmul.
      axis_name: See nn.norm.BatchNorm.
    """

    init_scale: float | None = None
    precision: str = "default"
    axis_name: str | None = None

    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs, *, training: bool) -> Array:
        """Node features v [n_node, d_node] and edge features u [n_edge, d_edge] -> new v [n_node, d_node]."""
        raise TypeError(f"{type(self).__name__} has no __call__")

    def sow_bonds(self, gate: Array, core: Array, gate_affine: Affine, core_affine: Affine) -> None:
        """Sows, averaged over the features, each bond's sigmoid of Eq. 5 and its term of the sum, [n_edge] each.

        They are "mean_gate" and "mean_message" of "intermediates", computed only where somebody asks for those.
        """
        if self.is_mutable_collection("intermediates"):
            opening = jax.nn.sigmoid(gate_affine(gate))
            self.sow("intermediates", "mean_gate", opening.mean(axis=-1))
            self.sow("intermediates", "mean_message", (opening * softplus(core_affine(core))).mean(axis=-1))


class SumConv(Convolution):
    """Eq. 4 of Xie & Grossman (2018): v_i <- g[(sum_jk v_j + u_ij,k) W_c + v_i W_s + b], + a concatenation, g softplus.

    The sum comes before the weights, so all neighbours share them whatever their distance.
    """

    @nn.compact
    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs, *, training: bool) -> Array:
        n_node, width = v.shape
        weight = graphs.edge_weight[:, None]
        senders = sum_by_receiver(weight * v[graphs.senders], graphs.receivers, n_node)
        bonds = sum_by_receiver(weight * u, graphs.receivers, n_node)
        neighbors = Dense(width, self.init_scale, self.precision, name="neighbors")
        own = Dense(width, self.init_scale, self.precision, use_bias=False, name="self")
        return softplus(neighbors(jnp.concatenate([senders, bonds], axis=-1)) + own(v))


class GatedConv(Convolution):
    """Eq. 5 of Xie & Grossman (2018): v_i + sum_jk sigmoid(z W_f + b_f) * g(z W_s + b_s), z = v_i + v_j + u_ij,k.

    + in z is a concatenation, g the softplus. The sigmoid is a learned weight for every bond.
    """

    @nn.compact
    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs, *, training: bool) -> Array:
        gate = EdgeDense(v.shape[-1], self.init_scale, self.precision, name="gate")(v, u, graphs)
        core = EdgeDense(v.shape[-1], self.init_scale, self.precision, name="core")(v, u, graphs)
        as_is = Affine.identity(v.shape[-1])
        self.sow_bonds(gate, core, as_is, as_is)
        return v + gated_sum(gate, core, as_is, as_is, graphs.edge_weight, graphs.receivers, v.shape[0])


class NormGatedConv(Convolution):
    """Eq. 5 as released: g(v_i + BN(sum_jk sigmoid(BN(z W_f + b_f)) * g(BN(z W_s + b_s)))).

    The released code adds both batch normalisations and the outer softplus to the printed equation.
    """

    @nn.compact
    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs, *, training: bool) -> Array:
        return softplus(v + self.of_neighbors(v, u, graphs, training))

    def of_neighbors(self, v: Array, u: Array, graphs: CrystalGraphs, training: bool) -> Array:
        """What the neighbours add: BN(sum_jk sigmoid(BN(z W_f + b_f)) * g(BN(z W_s + b_s))), [n_node, d_node]."""
        # An edge of the quotient stands for edge_weight bonds at each of its receiver's node_weight atoms.
        bonds = graphs.edge_weight * graphs.node_weight[graphs.receivers]
        gate = self.of_bonds("gate", v, u, graphs)
        core = self.of_bonds("core", v, u, graphs)
        gate_affine = self.norm("gate_norm")(gate, bonds, training=training)
        core_affine = self.norm("core_norm")(core, bonds, training=training)
        self.sow_bonds(gate, core, gate_affine, core_affine)
        total = gated_sum(gate, core, gate_affine, core_affine, graphs.edge_weight, graphs.receivers, v.shape[0])
        return self.norm("sum_norm")(total, graphs.node_weight, training=training)(total)

    def norm(self, name: str) -> BatchNorm:
        """A batch normalisation over all devices."""
        return BatchNorm(axis_name=self.axis_name, name=name)

    def of_bonds(self, name: str, v: Array, u: Array, graphs: CrystalGraphs) -> Array:
        """What is normalised, of the "gate" or the "core": z W + b, [n_edge, d_node]."""
        return EdgeDense(v.shape[-1], self.init_scale, self.precision, name=name)(v, u, graphs)


class MLPGatedConv(NormGatedConv):
    """Eq. 5 as released, with silu(z W_1 + b_1) W_2 for both z W + b: the same shape with networks of two layers.

    One layer scores a bond by a sum of what its atoms and its length say alone; a second one can weigh them together.
    There is no second bias, because the normalisation that follows would take it out. Source: as PotNet (Lin et al.,
    2023) and ComFormer (Yan et al., 2024) describe their messages.
    """

    def of_bonds(self, name: str, v: Array, u: Array, graphs: CrystalGraphs) -> Array:
        width = v.shape[-1]
        hidden = EdgeDense(width, self.init_scale, self.precision, name=f"{name}_hidden")(v, u, graphs)
        return Dense(width, self.init_scale, self.precision, use_bias=False, name=name)(jax.nn.silu(hidden))


class UpdateGatedConv(MLPGatedConv):
    """Eq. 5 with two-layer gate and core, then a network of two layers at every atom.

    w_i = v_i + BN(sum_jk sigmoid(BN(f(z))) * g(BN(s(z)))),  v_i <- w_i + silu(BN(w_i) W_1 + b_1) W_2 + b_2

    W_1 has 2 d columns. Eq. 5 only ever adds up what single bonds say; here an atom weighs the sum of all. Atoms are
    fewer than bonds, so this costs little. As in transformers, whose layers have these two halves, nothing bends the sum
    of v_i and its updates: the softplus around the released equation is left out.
    """

    @nn.compact
    def __call__(self, v: Array, u: Array, graphs: CrystalGraphs, *, training: bool) -> Array:
        width = v.shape[-1]
        w = v + self.of_neighbors(v, u, graphs, training)
        normalised = self.norm("update_norm")(w, graphs.node_weight, training=training)(w)
        hidden = jax.nn.silu(Dense(2 * width, self.init_scale, self.precision, name="update_hidden")(normalised))
        return w + Dense(width, self.init_scale, self.precision, name="update")(hidden)


CONVOLUTIONS: dict[str, type[Convolution]] = {
    "sum": SumConv,
    "gated": GatedConv,
    "gated_norm": NormGatedConv,
    "gated_mlp": MLPGatedConv,
    "gated_update": UpdateGatedConv,
}
