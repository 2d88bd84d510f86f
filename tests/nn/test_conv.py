"""The fast paths of the convolutions against the equations written down plainly, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.nn.conv import CONVOLUTIONS, GatedConv, MLPGatedConv, NormGatedConv, UpdateGatedConv
from cgcnn_jax.nn.dense import EdgeDense
from cgcnn_jax.nn.ops import Affine, gated_sum

# tests/numbers has each convolution as users compile it.
pytestmark = pytest.mark.usefixtures("quicker_compiling")
N_NODE, N_EDGE, WIDTH, BONDS = 7, 40, 5, 3


def graph(seed: int) -> CrystalGraphs:
    """Any graph: weights between 0 (padding) and 3."""
    random = np.random.default_rng(seed)
    return CrystalGraphs(
        species=np.ones(N_NODE, np.int32),
        node_weight=random.integers(1, 4, N_NODE).astype(np.float32),
        distances=random.uniform(1, 5, N_EDGE).astype(np.float32),
        edge_weight=random.integers(0, 4, N_EDGE).astype(np.float32),
        senders=random.integers(0, N_NODE, N_EDGE).astype(np.int32),
        receivers=np.sort(random.integers(0, N_NODE, N_EDGE)).astype(np.int32),
        n_node=np.array([N_NODE], np.int32),
        n_edge=np.array([N_EDGE], np.int32),
        graph_mask=np.ones(1, bool),
        angles=np.zeros((N_EDGE, 0), np.float32),
    )


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1.5, shape), jnp.float32)


def concatenated(v, u, graphs):
    """z of Eq. 5, formed as it is printed."""
    return jnp.concatenate([v[graphs.receivers], v[graphs.senders], u], axis=1)


def plain_norm(params, x, weight):
    mean = (weight[:, None] * x).sum(0) / weight.sum()
    var = (weight[:, None] * (x - mean[None]) ** 2).sum(0) / weight.sum()
    return (x - mean[None]) / jnp.sqrt(var + 1e-5)[None] * params["scale"][None] + params["bias"][None]


def plain_linear(params, x):
    return x @ params["kernel"] + params["bias"][None]


def plain_silu(x):
    return x / (1 + jnp.exp(-x))


def plain_norm_gated(params, v, u, graphs):
    z = concatenated(v, u, graphs)
    gate, core = plain_linear(params["gate"], z), plain_linear(params["core"], z)
    return jax.nn.softplus(v + plain_sum(params, v, graphs, gate, core))


def plain_mlp_sum(params, v, u, graphs):
    z = concatenated(v, u, graphs)

    def two_layers(name):
        return plain_silu(plain_linear(params[f"{name}_hidden"], z)) @ params[name]["kernel"]

    return plain_sum(params, v, graphs, two_layers("gate"), two_layers("core"))


def plain_mlp_gated(params, v, u, graphs):
    return jax.nn.softplus(v + plain_mlp_sum(params, v, u, graphs))


def plain_update_gated(params, v, u, graphs):
    w = v + plain_mlp_sum(params, v, u, graphs)
    hidden = plain_silu(plain_linear(params["update_hidden"], plain_norm(params["update_norm"], w, graphs.node_weight)))
    return w + plain_linear(params["update"], hidden)


def plain_sum(params, v, graphs, gate, core):
    bonds = graphs.edge_weight * graphs.node_weight[graphs.receivers]
    gate = jax.nn.sigmoid(plain_norm(params["gate_norm"], gate, bonds))
    core = jax.nn.softplus(plain_norm(params["core_norm"], core, bonds))
    total = jnp.zeros_like(v).at[graphs.receivers].add(graphs.edge_weight[:, None] * gate * core)
    return plain_norm(params["sum_norm"], total, graphs.node_weight)


def plain_gated(params, v, u, graphs):
    z = concatenated(v, u, graphs)
    gate = jax.nn.sigmoid(plain_linear(params["gate"], z))
    core = jax.nn.softplus(plain_linear(params["core"], z))
    return v.at[graphs.receivers].add(graphs.edge_weight[:, None] * gate * core)


@pytest.mark.parametrize(
    ("conv", "plain"),
    [
        (NormGatedConv, plain_norm_gated),
        (GatedConv, plain_gated),
        (MLPGatedConv, plain_mlp_gated),
        (UpdateGatedConv, plain_update_gated),
    ],
)
def test_a_fast_convolution_and_its_gradients_are_those_of_the_plain_equation(conv, plain):
    graphs, v, u = graph(0), draw(1, N_NODE, WIDTH), draw(2, N_EDGE, BONDS)
    variables = conv().init(jax.random.key(0), v, u, graphs, training=False)
    params = jax.tree.map(lambda leaf: leaf + draw(leaf.size, *leaf.shape) / 5, variables["params"])
    upstream = draw(3, N_NODE, WIDTH)

    def fast(params, v, u, weight):
        out, _ = conv().apply(
            variables | {"params": params},
            v,
            u,
            graphs._replace(edge_weight=weight),
            training=True,
            mutable=["batch_stats"],
        )
        return (upstream * out).sum(), out

    def slow(params, v, u, weight):
        out = plain(params, v, u, graphs._replace(edge_weight=weight))
        return (upstream * out).sum(), out

    arguments = (params, v, u, jnp.asarray(graphs.edge_weight))
    found, out = jax.jit(jax.grad(fast, argnums=(0, 1, 2, 3), has_aux=True))(*arguments)
    expected, plain_out = jax.jit(jax.grad(slow, argnums=(0, 1, 2, 3), has_aux=True))(*arguments)
    np.testing.assert_allclose(out, plain_out, rtol=2e-5, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=5e-5), found, expected)
    assert float(jnp.abs(expected[3]).max()) > 0.1  # by the weights too, where a lazy derivative would be zero


def test_gated_sum_by_hand():
    # Two bonds of atom 0, one of weight 2: 2 sigmoid(0) softplus(0) + sigmoid(ln 3) softplus(ln(e - 1))
    # = 2 * 1/2 * ln 2 + 3/4 * 1; atom 1 has none.
    gate, core = jnp.array([[0.0], [np.log(3)]]), jnp.array([[0.0], [np.log(np.e - 1)]])
    one = Affine.identity(1)
    total = gated_sum(gate, core, one, one, jnp.array([2.0, 1.0]), jnp.array([0, 0]), 2)
    np.testing.assert_allclose(total, [[np.log(2) + 0.75], [0]], rtol=1e-6)


def test_bfloat16_products_round_to_eight_bits_and_sum_in_float32():
    graphs, v, u = graph(0), draw(1, N_NODE, WIDTH), draw(2, N_EDGE, BONDS)
    exact, rounded = EdgeDense(4, precision="float32"), EdgeDense(4, precision="bfloat16")
    variables = exact.init(jax.random.key(0), v, u, graphs)
    expected, found = exact.apply(variables, v, u, graphs), rounded.apply(variables, v, u, graphs)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 2e-2  # bfloat16 has 8 bits: 2^-9 = 0.2 % a factor
    assert found.dtype == jnp.float32


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match="unknown precision 'fp8'; choose one of"):
        EdgeDense(4, precision="fp8").init(jax.random.key(0), draw(1, N_NODE, 2), draw(2, N_EDGE, 2), graph(0))


TWO_DEVICES = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, PartitionSpec as P
    from cgcnn_jax.nn.conv import NormGatedConv
    from tests.nn.test_conv import N_NODE, draw, graph

    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    first, second = graph(0), graph(1)
    shares = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    shifted = second._replace(senders=second.senders + N_NODE, receivers=second.receivers + N_NODE)
    whole = type(first)(*(np.concatenate(pair) for pair in zip(first, shifted, strict=True)))
    v, u = draw(1, 2 * N_NODE, 5), draw(2, len(whole.distances), 3)
    params = NormGatedConv().init(jax.random.key(0), v, u, whole, training=False)

    def loss(axis_name):
        def one(params, v, u, *graphs):
            out, updated = NormGatedConv(axis_name=axis_name).apply(
                params, v, u, type(first)(*graphs), training=True, mutable=["batch_stats"]
            )
            total = (out**2).sum()
            return (jax.lax.psum(total, axis_name) if axis_name else total), updated

        return jax.value_and_grad(one, has_aux=True)

    one = jax.jit(loss(None))(params, v, u, *whole)
    spread = jax.shard_map(loss("batch"), mesh=mesh, in_specs=(P(), *[P("batch")] * (2 + len(first))), out_specs=P())
    two = jax.jit(spread)(params, v, u, *shares)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, two)
    print("equal", float(jnp.abs(two[1]["params"]["gate"]["kernel"]).max()) > 1e-3)
"""


def test_two_devices_give_the_gradient_of_one(on_devices):
    assert on_devices(2, TWO_DEVICES) == "equal True"


def test_the_mean_gate_and_message_worked_out_by_hand():
    # Two features, one of a bond: z = [v_i, v_j, u] = [1, 0, 0, 2, 0.5] for the bond to node 0 from node 1, and the
    # reverse. Column 0 of W_f weighs v_i's first number by ln 3, column 1 the bond's by ln 7 / 0.5; b_f is zero.
    # Node 0: sigmoid(ln 3) = 3/4 and sigmoid(ln 7) = 7/8, mean 13/16; node 1 (v_i = [0, 2]): 1/2 and 7/8, mean 11/16.
    # W_s is zero and b_s too, so that the core is ln 2 and the messages are the gates times ln 2.
    v = np.array([[1, 0], [0, 2]], np.float32)
    u = np.array([[0.5], [0.5]], np.float32)
    graphs = CrystalGraphs(
        species=np.array([1, 2], np.int32),
        node_weight=np.ones(2, np.float32),
        distances=np.ones(2, np.float32),
        edge_weight=np.array([4, 4], np.float32),
        senders=np.array([1, 0], np.int32),
        receivers=np.array([0, 1], np.int32),
        n_node=np.array([2], np.int32),
        n_edge=np.array([2], np.int32),
        graph_mask=np.array([True]),
        angles=np.zeros((2, 0), np.float32),
    )
    gate = np.zeros((5, 2), np.float32)
    gate[0, 0], gate[4, 1] = np.log(3), np.log(7) / 0.5
    zero = {"kernel": np.zeros((5, 2), np.float32), "bias": np.zeros(2, np.float32)}
    params = {"gate": zero | {"kernel": gate}, "core": zero}
    _, sown = GatedConv().apply({"params": params}, v, u, graphs, training=False, mutable=["intermediates"])
    found = sown["intermediates"]
    np.testing.assert_allclose(found["mean_gate"][0], [13 / 16, 11 / 16], rtol=1e-6)
    np.testing.assert_allclose(found["mean_message"][0], np.array([13 / 16, 11 / 16]) * np.log(2), rtol=1e-6)

    # Normalised: with running variance 4 - 1e-5 and scale 2 nothing changes, with mean ln 3 the first gate of node 0 is
    # 1/2, and that of node 1 sigmoid(-ln 3) = 1/4.
    same = {"scale": np.full(2, 2, np.float32), "bias": np.zeros(2, np.float32)}
    stats = {"mean": np.zeros(2, np.float32), "var": np.full(2, 4 - 1e-5, np.float32)}
    moved = stats | {"mean": np.array([np.log(3), 0], np.float32)}
    variables = {
        "params": params | {"gate_norm": same, "core_norm": same, "sum_norm": same},
        "batch_stats": {"gate_norm": moved, "core_norm": stats, "sum_norm": stats},
    }
    _, sown = NormGatedConv().apply(variables, v, u, graphs, training=False, mutable=["intermediates"])
    np.testing.assert_allclose(
        sown["intermediates"]["mean_gate"][0], [(1 / 2 + 7 / 8) / 2, (1 / 4 + 7 / 8) / 2], rtol=1e-5
    )


@pytest.mark.parametrize("conv", ["gated", "gated_norm", "gated_mlp", "gated_update"])
def test_the_messages_of_a_node_average_to_its_sum(conv):
    v, u, graphs = draw(1, N_NODE, WIDTH), draw(2, N_EDGE, BONDS), graph(3)
    layer = CONVOLUTIONS[conv]()
    variables = layer.init(jax.random.key(0), v, u, graphs, training=False)
    if conv == "gated_update":  # an atom's network that adds nothing leaves the sum to be seen
        variables["params"]["update"] = jax.tree.map(jnp.zeros_like, variables["params"]["update"])
    new, sown = layer.apply(variables, v, u, graphs, training=False, mutable=["intermediates"])
    message = np.asarray(sown["intermediates"]["mean_message"][0]) * graphs.edge_weight
    # The printed layer adds the sum to v; the others normalise it, freshly by 1/sqrt(1+1e-5), and the released ones take a
    # softplus of all.
    new = np.asarray(new, np.float64)
    added = (np.log(np.expm1(new)) if conv in ("gated_norm", "gated_mlp") else new) - v
    total = added if conv == "gated" else added * np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(np.mean(total, axis=1), np.bincount(graphs.receivers, message, N_NODE), rtol=1e-4)
