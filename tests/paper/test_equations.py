"""The paper's equations: small cases worked by hand, and plain float64 loops written from the formulas."""

import functools

import jax
import numpy as np
import pytest

from cgcnn_jax.graph import CrystalGraphs, PadBudget, pad
from cgcnn_jax.nn.basis import BinnedBasis, GaussianBasis, ReciprocalBasis
from cgcnn_jax.nn.conv import CONVOLUTIONS, GatedConv, NormGatedConv, SumConv
from cgcnn_jax.nn.model import CGCNN, init_variables
from cgcnn_jax.nn.pool import POOLS, SoftmaxPool, mean_pool
from tests.compiling import quick_jit

HALF = 0.5  # sigmoid(0)
LN2 = np.log(2.0)  # softplus(0)
SOFTPLUS_1 = 1.3132616875182228  # ln(1 + e)
SOFTPLUS_MINUS_1 = 0.31326168751822286  # ln(1 + 1/e) = softplus(1) - 1


def graph(species, bonds, *, node_weight=None, edge_weight=None, n_node=None) -> CrystalGraphs:
    """Bonds are (receiver, sender, distance), ascending in the receiver; one crystal unless n_node says otherwise."""
    n_node = n_node or [len(species)]
    receivers, senders, distances = (np.array(column) for column in zip(*bonds, strict=True))
    last = np.cumsum(n_node)
    n_edge = np.bincount(np.searchsorted(last, receivers, side="right"), minlength=len(n_node))
    return CrystalGraphs(
        species=np.array(species, np.int32),
        node_weight=np.array(node_weight or [1] * len(species), np.float32),
        distances=distances.astype(np.float32),
        edge_weight=np.array(edge_weight or [1] * len(bonds), np.float32),
        senders=senders.astype(np.int32),
        receivers=receivers.astype(np.int32),
        n_node=np.array(n_node, np.int32),
        n_edge=n_edge.astype(np.int32),
        graph_mask=np.ones(len(n_node), bool),
        angles=np.zeros((len(bonds), 0), np.float32),
    )


def column(*values) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


# By hand


def test_eq4_by_hand():
    # One atom, v = 2, two bonds to its own images with u = 0.25 and 0.75. Sums: v_j 4, u 1.
    # 4 * 0.1 + 1 * 1.0 (W_c) + 2 * -0.3 (W_s) + 0.2 (b) = 1.0, and softplus(1) is above.
    params = {
        "neighbors": {"kernel": column(0.1, 1.0), "bias": np.float32([0.2])},
        "self": {"kernel": column(-0.3)},
    }
    graphs = graph([11], [(0, 0, 3.0), (0, 0, 3.5)])
    v = SumConv().apply({"params": params}, column(2.0), column(0.25, 0.75), graphs, training=False)
    np.testing.assert_allclose(v, [[SOFTPLUS_1]], rtol=1e-6)


def test_eq5_with_zero_weights_adds_half_ln2_per_bond():
    zero = {"kernel": np.zeros((3, 1), np.float32), "bias": np.zeros(1, np.float32)}
    graphs = graph([11, 17], [(0, 0, 3.0), (0, 1, 3.0), (0, 1, 4.0), (1, 0, 3.0)])
    v = column(0.25, -1.0)
    after = GatedConv().apply({"params": {"gate": zero, "core": zero}}, v, column(1, 2, 3, 4), graphs, training=False)
    np.testing.assert_allclose(after, v + HALF * LN2 * column(3, 1), rtol=1e-6)


def test_eq5_tells_receiver_sender_and_bond_apart():
    # z W_s = 1 v_i + 10 v_j + 100 u = 0.1 + 2 + 0.3 = 2.4 for the one bond; the second atom has none and stays.
    core = {"kernel": column(1, 10, 100), "bias": np.zeros(1, np.float32)}
    gate = {"kernel": np.zeros((3, 1), np.float32), "bias": np.zeros(1, np.float32)}
    graphs = graph([11, 17], [(0, 1, 3.0)])
    v = GatedConv().apply(
        {"params": {"gate": gate, "core": core}}, column(0.1, 0.2), column(0.003), graphs, training=False
    )
    np.testing.assert_allclose(v, column(0.1 + HALF * np.log(1 + np.exp(2.4)), 0.2), rtol=1e-6)


def test_the_gate_of_eq5_closes_and_opens():
    # sigmoid(-40) = 4e-18 shuts the bond, sigmoid(40) = 1 lets all of softplus(0) = ln 2 through.
    core = {"kernel": np.zeros((3, 1), np.float32), "bias": np.zeros(1, np.float32)}
    graphs = graph([11], [(0, 0, 3.0), (0, 0, 4.0)])
    for u, passed in (((-1, -1), 0), ((-1, 1), 1), ((1, 1), 2)):
        gate = {"kernel": column(0, 0, 40), "bias": np.zeros(1, np.float32)}
        v = GatedConv().apply({"params": {"gate": gate, "core": core}}, column(1.0), column(*u), graphs, training=False)
        np.testing.assert_allclose(v, [[1 + passed * LN2]], rtol=1e-6)


def norm_gated(core_kernel, core_bias, gate_bias, core_stats, sum_stats):
    unit = {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}
    params = {
        "gate": {"kernel": np.zeros((3, 1), np.float32), "bias": np.float32([gate_bias])},
        "core": {"kernel": core_kernel, "bias": np.float32([core_bias])},
        **dict.fromkeys(("gate_norm", "core_norm", "sum_norm"), unit),
    }

    def stats(mean, var):
        return {"mean": np.float32([mean]), "var": np.float32([var])}

    # The gate's statistics are those of the core: BN maps its bias to 0 where it equals the mean.
    return {
        "params": params,
        "batch_stats": {
            "gate_norm": stats(*core_stats),
            "core_norm": stats(*core_stats),
            "sum_norm": stats(*sum_stats),
        },
    }


def test_released_eq5_in_evaluation_by_hand():
    # Running mean 1 and variance 4 - 1e-5 (epsilon 1e-5): gate (1 - 1) / 2 = 0 -> 1/2, core (3 - 1) / 2 = 1.
    # Two bonds: 2 * 1/2 * softplus(1) = 1.31326; minus the mean of sums 0.31326, by 1: 1. v' = softplus(-2 + 1).
    variables = norm_gated(np.zeros((3, 1), np.float32), 3.0, 1.0, (1.0, 4 - 1e-5), (SOFTPLUS_MINUS_1, 1 - 1e-5))
    graphs = graph([11], [(0, 0, 3.0), (0, 0, 4.0)])
    v = NormGatedConv().apply(variables, column(-2.0), column(1, 2), graphs, training=False)
    np.testing.assert_allclose(v, [[SOFTPLUS_MINUS_1]], rtol=1e-5)


def test_released_eq5_in_training_by_hand():
    # One bond for each of two atoms, core = u = 1 and 3: mean 2, variance 1 -> -1 and 1 (epsilon: factor 0.999995).
    # Messages softplus(-+1) / 2 = 0.15663 and 0.65663: mean 0.40663, deviations 0.25, variance 1/16.
    # 0.25 / sqrt(1/16 + 1e-5) = 0.99992. Atoms at v = 5: softplus(5 -+ 0.99992).
    variables = norm_gated(column(0, 0, 1), 0.0, 0.0, (0.0, 1.0), (0.0, 1.0))
    graphs = graph([11, 17], [(0, 1, 3.0), (1, 0, 3.0)])
    v, updated = NormGatedConv().apply(
        variables, column(5, 5), column(1, 3), graphs, training=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(v, np.log1p(np.exp(5 + 0.99992 * column(-1, 1))), rtol=1e-5)
    # Running mean 0.9 * 0 + 0.1 * 2; running variance 0.9 * 1 + 0.1 * (1 * 2/1), the 2/1 making it unbiased.
    np.testing.assert_allclose(updated["batch_stats"]["core_norm"]["mean"], [0.2], rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["core_norm"]["var"], [1.1], rtol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["sum_norm"]["mean"], [0.0406630843], rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["sum_norm"]["var"], [0.9 + 0.1 * 2 / 16], rtol=1e-5)


def test_s16_by_hand():
    # Crystals of 4 atoms (3 with v = 1, one with 4: 7/4) and of 2 (v = -6).
    graphs = graph([1, 2, 3], [(0, 0, 1.0), (1, 1, 1.0), (2, 2, 1.0)], node_weight=[3, 1, 2], n_node=[2, 1])
    np.testing.assert_allclose(mean_pool(column(1, 4, -6), graphs), column(7 / 4, -6), rtol=1e-6)


def test_s11_to_s13_by_hand():
    # W = 1, b = 0: softmax(0, 0) = (1/2, 1/2) and softmax(ln 3, 0) = (3/4, 1/4), mean (5/8, 3/8).
    # The second layer holds (0, 0) twice: (1/2, 1/2). The sum of both layers is (9/8, 7/8).
    layer = {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    first = np.float32([[0, 0], [np.log(3), 0]])
    crystal = SoftmaxPool(2).apply(
        {"params": {"layer_0": layer, "layer_1": layer}},
        [first, np.zeros((2, 2), np.float32)],
        graph([1, 2], [(0, 1, 1.0), (1, 0, 1.0)]),
    )
    np.testing.assert_allclose(crystal, [[9 / 8, 7 / 8]], rtol=1e-6)


# Against plain loops


def softplus(x):
    return np.logaddexp(0.0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def neighbors(graphs, i):
    """(j, edge) of every bond of atom i; a bond of weight w comes w times."""
    for edge, (receiver, sender) in enumerate(zip(graphs.receivers, graphs.senders, strict=True)):
        if receiver == i:
            for _ in range(int(graphs.edge_weight[edge])):
                yield sender, edge


def eq4(params, stats, v, u, graphs, training):
    rows = []
    for i in range(len(v)):
        total = np.zeros(v.shape[1] + u.shape[1])
        for j, edge in neighbors(graphs, i):
            total += np.concatenate([v[j], u[edge]])
        rows.append(softplus(linear(params["neighbors"], total) + v[i] @ params["self"]["kernel"]))
    return np.array(rows)


def eq5_printed(params, stats, v, u, graphs, training):
    rows = v.copy()
    for i in range(len(v)):
        for j, edge in neighbors(graphs, i):
            z = np.concatenate([v[i], v[j], u[edge]])
            rows[i] += sigmoid(linear(params["gate"], z)) * softplus(linear(params["core"], z))
    return rows


def batch_norm(params, stats, rows, training):
    """torch.nn.BatchNorm1d over the rows."""
    mean, var = (rows.mean(0), rows.var(0)) if training else (stats["mean"], stats["var"])
    return (rows - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def of_bonds(params, name, z):
    """One layer as released, or two with SiLU between them."""
    if f"{name}_hidden" not in params:
        return linear(params[name], z)
    hidden = linear(params[f"{name}_hidden"], z)
    return hidden * sigmoid(hidden) @ params[name]["kernel"]


def of_neighbors(params, stats, v, u, graphs, training):
    """On the full graph: node i stands for node_weight atoms, each with its own rows in both batch normalisations."""
    atoms = [i for i in range(len(v)) for _ in range(int(graphs.node_weight[i]))]
    bonds = [(a, j, edge) for a, i in enumerate(atoms) for j, edge in neighbors(graphs, i)]
    z = np.array([np.concatenate([v[atoms[a]], v[j], u[edge]]) for a, j, edge in bonds])
    gate = batch_norm(params["gate_norm"], stats["gate_norm"], of_bonds(params, "gate", z), training)
    core = batch_norm(params["core_norm"], stats["core_norm"], of_bonds(params, "core", z), training)
    total = np.zeros((len(atoms), v.shape[1]))
    for (a, _, _), message in zip(bonds, sigmoid(gate) * softplus(core), strict=True):
        total[a] += message
    total = batch_norm(params["sum_norm"], stats["sum_norm"], total, training)
    first = [atoms.index(i) for i in range(len(v))]
    return total[first]


def eq5_released(*arguments):
    return softplus(arguments[2] + of_neighbors(*arguments))


def eq5_updated(params, stats, v, u, graphs, training):
    """Eq. 5, then a network of every atom; its normalisation counts a node as its atoms."""
    rows = v + of_neighbors(params, stats, v, u, graphs, training)
    atoms = np.repeat(rows, graphs.node_weight.astype(int), axis=0)
    first = np.cumsum(graphs.node_weight).astype(int) - 1
    hidden = linear(
        params["update_hidden"], batch_norm(params["update_norm"], stats["update_norm"], atoms, training)[first]
    )
    return rows + linear(params["update"], hidden * sigmoid(hidden))


EQUATIONS = {
    "sum": eq4,
    "gated": eq5_printed,
    "gated_norm": eq5_released,
    "gated_mlp": eq5_released,
    "gated_update": eq5_updated,
}


def gaussians(basis, distances):
    grid = np.linspace(0, basis.cutoff, round(basis.cutoff / basis.spacing) + 1)
    return np.exp(-(((distances[:, None] - grid) / basis.spacing) ** 2))


def reciprocal_gaussians(basis, distances):
    grid = np.linspace(1 / basis.cutoff, 1 / basis.shortest, basis.num_gaussians)
    near = np.clip(distances, basis.shortest, basis.cutoff)
    return np.exp(-(((1 / near[:, None] - grid) / (grid[1] - grid[0])) ** 2))


def bins(basis, distances):
    edges = np.linspace(basis.low, basis.high, basis.num_bins + 1)
    place = np.searchsorted(edges, distances, side="right") - 1
    return np.eye(basis.num_bins)[np.clip(place, 0, basis.num_bins - 1)]


BOND_FEATURES = {GaussianBasis: gaussians, ReciprocalBasis: reciprocal_gaussians, BinnedBasis: bins}


def crystal_means(graphs, rows):
    """(1/N) sum over the N atoms of each crystal."""
    owner = np.repeat(np.arange(len(graphs.n_node)), graphs.n_node)
    atoms = np.repeat(np.arange(len(rows)), graphs.node_weight.astype(int))
    return np.array([rows[atoms[owner[atoms] == c]].mean(axis=0) for c in range(len(graphs.n_node))])


def softmax(x):
    exponent = np.exp(x - x.max())
    return exponent / exponent.sum()


def network(model, variables, graphs, training):
    """The whole network from the supplement, in float64."""
    params, stats = variables["params"], variables["batch_stats"]
    v = linear(params["embedding"], variables["constants"]["atom_table"])[graphs.species]
    u = BOND_FEATURES[type(model.basis)](model.basis, graphs.distances.astype(np.float64))
    layers = [v]
    for t in range(model.num_convs):
        v = EQUATIONS[model.conv](params[f"conv_{t}"], stats.get(f"conv_{t}"), v, u, graphs, training)
        layers.append(v)
    for layer in range(model.atom_layers):
        v = softplus(linear(params[f"atom_{layer}"], v))
    if model.pool == "site":  # S14, S15
        return crystal_means(graphs, linear(params["output"], v))
    if model.pool == "softmax":  # S11 to S13
        layers[-1] = v
        votes = sum(
            np.array([softmax(linear(params["pool"][f"layer_{t}"], row)) for row in rows])
            for t, rows in enumerate(layers)
        )
        crystal = crystal_means(graphs, votes)
    else:
        crystal = crystal_means(graphs, v)
    if model.activate_pooled:
        crystal = softplus(crystal)
    for layer in range(model.crystal_layers):
        crystal = softplus(linear(params[f"crystal_{layer}"], crystal))
    return linear(params["output"], crystal)


def random_graph(seed: int) -> CrystalGraphs:
    """Two crystals of 3 and 2 nodes, with bonds and atoms of weight 1 to 3."""
    random = np.random.default_rng(seed)
    bonds = [
        (first + i, first + random.integers(n), random.uniform(0.5, 6.0))
        for first, n in ((0, 3), (3, 2))
        for i in range(n)
        for _ in range(random.integers(1, 5))
    ]
    return graph(
        random.integers(1, 5, 5),
        bonds,
        node_weight=random.integers(1, 4, 5).tolist(),
        edge_weight=random.integers(1, 4, len(bonds)).tolist(),
        n_node=[3, 2],
    )


def randomised(variables, seed: int):
    """Random numbers of the same shapes; positive where they are variances."""
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        if "var" in jax.tree_util.keystr(path):
            return random.uniform(0.5, 2.0, leaf.shape).astype(np.float32)
        return random.normal(0, 0.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_its_equation_on_a_random_graph(name, training):
    graphs = random_graph(1)
    padded = pad(graphs, PadBudget(len(graphs.species) + 3, len(graphs.distances) + 4, 4))
    random = np.random.default_rng(2)
    v = random.normal(size=(5, 3)).astype(np.float32)
    u = random.normal(size=(len(graphs.distances), 4)).astype(np.float32)
    v_padded = np.concatenate([v, np.ones((3, 3), np.float32)])
    u_padded = np.concatenate([u, np.ones((4, 4), np.float32)])
    convolution = CONVOLUTIONS[name]()
    shapes = convolution.init(jax.random.key(0), v_padded, u_padded, padded, training=False)
    variables = {"batch_stats": {}} | randomised(shapes, 3)
    after, _ = convolution.apply(variables, v_padded, u_padded, padded, training=training, mutable=["batch_stats"])
    expected = EQUATIONS[name](
        variables["params"], variables["batch_stats"], v.astype(float), u.astype(float), graphs, training
    )
    np.testing.assert_allclose(after[:5], expected, rtol=2e-5, atol=2e-5)  # float32 against float64


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("conv", CONVOLUTIONS)
def test_the_network_is_that_of_the_supplement(conv, pool, training):
    basis = {"mean": BinnedBasis(), "softmax": GaussianBasis(), "site": ReciprocalBasis()}[pool]
    model = CGCNN(
        n_output=2,
        table_shape=(5, 6),
        features=3,
        conv=conv,
        num_convs=2,
        basis=basis,
        pool=pool,
        activate_pooled=conv == "gated_norm",
        atom_layers=1,
        crystal_layers=0 if pool == "site" else 2,
        crystal_features=4,
        dropout=0.0,
    )
    table = np.random.default_rng(4).normal(size=(5, 6)).astype(np.float32)
    variables = randomised(init_variables(model, 0, table), 5)
    graphs = random_graph(6)
    padded = pad(graphs, PadBudget(len(graphs.species) + 2, len(graphs.distances) + 3, 4))
    apply = quick_jit(functools.partial(model.apply, training=training, mutable=["batch_stats"]))
    outputs, _ = apply(variables, padded)
    expected = network(model, jax.tree.map(lambda x: x.astype(np.float64), variables), graphs, training)
    np.testing.assert_allclose(outputs[:2], expected, rtol=5e-5, atol=5e-5)  # float32 against float64
