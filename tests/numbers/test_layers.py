"""Every layer and operation against float64 numpy, in value and gradient. The equations are those of tests/paper."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.nn import basis
from cgcnn_jax.nn.conv import CONVOLUTIONS
from cgcnn_jax.nn.dense import Dense, EdgeDense
from cgcnn_jax.nn.norm import BatchNorm
from cgcnn_jax.nn.ops import Affine, gated_sum, mean_by_graph, softplus
from cgcnn_jax.nn.pool import SoftmaxPool, mean_pool
from tests.numbers.float64 import as_float64, check, errors
from tests.paper.test_equations import (
    BOND_FEATURES,
    EQUATIONS,
    batch_norm,
    crystal_means,
    linear,
    random_graph,
    randomised,
    sigmoid,
    softmax,
)
from tests.paper.test_equations import softplus as plain_softplus

GRAPHS = random_graph(1)
N_NODE, N_EDGE = len(GRAPHS.species), len(GRAPHS.distances)
BONDS = int((GRAPHS.edge_weight * GRAPHS.node_weight[GRAPHS.receivers]).sum())
ATOMS = int(GRAPHS.node_weight.sum())


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def variables_of(layer, *arguments, seed: int = 3, **options):
    return {"batch_stats": {}} | randomised(layer.init(jax.random.key(0), *arguments, **options), seed)


def test_every_convolution_and_basis_has_an_equation():
    missing = CONVOLUTIONS.keys() - EQUATIONS.keys()
    assert not missing, (
        f"no float64 reference for the convolutions {sorted(missing)}: write each as a loop over bonds, from its "
        "equation, and name it in EQUATIONS of tests/paper/test_equations.py"
    )
    missing = {one.__name__ for one in typing.get_args(basis.Basis)} - {one.__name__ for one in BOND_FEATURES}
    assert not missing, (
        f"no float64 reference for {sorted(missing)}: add a function (basis, distances) -> features to BOND_FEATURES of "
        "tests/paper/test_equations.py"
    )


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_in_training(name):  # in evaluation its normalisations are fixed factors, which come below
    v, u = draw(1, N_NODE, 3), draw(2, N_EDGE, 4)
    layer = CONVOLUTIONS[name]()
    variables = variables_of(layer, v, u, GRAPHS, training=False)
    stats = as_float64(variables["batch_stats"])

    def ours(at):
        changed = variables | {"params": at["params"]}
        return layer.apply(changed, at["v"], at["u"], GRAPHS, training=True, mutable=["batch_stats"])[0]

    def reference(at):
        return EQUATIONS[name](at["params"], stats, at["v"], at["u"], GRAPHS, True)

    # A batch normalisation's gradient adds over all bonds twice.
    check(ours, reference, {"params": variables["params"], "v": v, "u": u}, terms=2 * BONDS)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_tolerance_shows_one_bond_too_many_a_lost_weight_and_a_wrong_sign(name):
    v, u = draw(1, N_NODE, 3), draw(2, N_EDGE, 4)
    layer = CONVOLUTIONS[name]()
    variables = variables_of(layer, v, u, GRAPHS, training=False)
    more, fewer = GRAPHS.edge_weight.copy(), GRAPHS.edge_weight.copy()
    more[3] += 1
    heavy = int(GRAPHS.edge_weight.argmax())
    fewer[heavy] = 1
    turned = u.copy()
    turned[2] *= -1
    params, stats = as_float64(variables["params"]), as_float64(variables["batch_stats"])
    expected = EQUATIONS[name](params, stats, v.astype(float), u.astype(float), GRAPHS, True)
    for weight, bonds in ((more, u), (fewer, u), (GRAPHS.edge_weight, turned)):
        found, _ = layer.apply(
            variables, v, bonds, GRAPHS._replace(edge_weight=weight), training=True, mutable=["batch_stats"]
        )
        assert errors(found, expected)[""] > 10 * 8 * 2 * BONDS


def test_batch_normalisation_in_training():
    # A row of weight w is w rows; a row of weight 0 is none. Bias and scale too.
    x, weight = draw(1, 12, 3), np.array([0, 1, 2, 3] * 3)
    layer = BatchNorm()
    variables = variables_of(layer, x, weight.astype(np.float32), training=False)

    def ours(at):
        changed = variables | {"params": at["params"]}
        apply, _ = layer.apply(changed, at["x"], jnp.float32(weight), training=True, mutable=["batch_stats"])
        return apply(at["x"])

    def reference(at):
        repeated = np.repeat(np.arange(12), weight)
        rows = at["x"][repeated]
        mean, var = rows.mean(axis=0), rows.var(axis=0)
        return (at["x"] - mean) / np.sqrt(var + 1e-5) * at["params"]["scale"] + at["params"]["bias"]

    check(ours, reference, {"params": variables["params"], "x": x}, terms=2 * int(weight.sum()))


def test_batch_normalisation_in_evaluation():
    x, weight = draw(1, 12, 3), np.ones(12, np.float32)
    variables = variables_of(BatchNorm(), x, weight, training=False)
    stats = as_float64(variables["batch_stats"])

    def ours(at):
        return BatchNorm().apply(variables | {"params": at["params"]}, at["x"], weight, training=False)(at["x"])

    check(
        ours,
        lambda at: batch_norm(at["params"], stats, at["x"], False),
        {"params": variables["params"], "x": x},
        terms=12,
    )


def test_a_linear_layer_and_that_of_bonds():
    v, u = draw(1, N_NODE, 3), draw(2, N_EDGE, 4)
    params = variables_of(Dense(4), v)["params"]
    check(
        lambda at: Dense(4).apply({"params": at["params"]}, at["x"]),
        lambda at: linear(at["params"], at["x"]),
        {"params": params, "x": v},
        terms=N_NODE,
    )
    params = variables_of(EdgeDense(4), v, u, GRAPHS)["params"]

    def of_bonds(at):
        z = np.concatenate([at["v"][GRAPHS.receivers], at["v"][GRAPHS.senders], at["u"]], axis=1)
        return linear(at["params"], z)

    check(
        lambda at: EdgeDense(4).apply({"params": at["params"]}, at["v"], at["u"], GRAPHS),
        of_bonds,
        {"params": params, "v": v, "u": u},
        terms=N_EDGE,
    )


def test_the_gated_sum():
    at = {
        "gate": draw(1, N_EDGE, 3),
        "core": draw(2, N_EDGE, 3),
        "a": {"factor": draw(3, 3), "shift": draw(4, 3)},
        "b": {"factor": draw(5, 3), "shift": draw(6, 3)},
        "weight": GRAPHS.edge_weight,
    }

    def ours(at):
        a, b = Affine(**at["a"]), Affine(**at["b"])
        return gated_sum(at["gate"], at["core"], a, b, at["weight"], GRAPHS.receivers, N_NODE)

    def reference(at):
        y, z = (at[x] * at[n]["factor"] + at[n]["shift"] for x, n in (("gate", "a"), ("core", "b")))
        out = np.zeros((N_NODE, 3))
        np.add.at(out, GRAPHS.receivers, at["weight"][:, None] * sigmoid(y) * plain_softplus(z))
        return out

    check(ours, reference, at, terms=N_EDGE)


def test_softplus():
    x = np.linspace(-30, 30, 241).astype(np.float32)
    check(lambda at: softplus(at["x"]), lambda at: plain_softplus(at["x"]), {"x": x}, terms=1)


@pytest.mark.parametrize("one", typing.get_args(basis.Basis), ids=lambda one: one.__name__)
def test_a_basis(one):
    # Off the edges of bins and off the ends of 1/d, where there is no derivative.
    distances = np.linspace(0.6123, 9.1, 60).astype(np.float32)
    reference = BOND_FEATURES[one]
    made = one()
    # A Gaussian of width s is exp of a number that float32 knows to d/s roundings; its slope is 1/s.
    width = {basis.GaussianBasis: 0.2, basis.ReciprocalBasis: (1 / 0.7 - 1 / 8) / 127}.get(one, 1.0)
    check(
        lambda at: made(at["d"]), lambda at: reference(made, at["d"]), {"d": distances}, terms=round(10 / width)
    ) if one is not basis.BinnedBasis else np.testing.assert_array_equal(made(distances), reference(made, distances))


def test_pools():
    v = [draw(1, N_NODE, 3), draw(2, N_NODE, 3)]
    check(lambda at: mean_pool(at["v"], GRAPHS), lambda at: crystal_means(GRAPHS, at["v"]), {"v": v[0]}, terms=ATOMS)
    params = variables_of(SoftmaxPool(4), v, GRAPHS)["params"]

    def reference(at):
        votes = [
            np.array([softmax(linear(at["params"][f"layer_{t}"], row)) for row in rows])
            for t, rows in enumerate(at["v"])
        ]
        return crystal_means(GRAPHS, sum(votes))

    check(
        lambda at: SoftmaxPool(4).apply({"params": at["params"]}, at["v"], GRAPHS),
        reference,
        {"params": params, "v": v},
        terms=ATOMS,
    )


def test_a_mean_by_its_weights_too():
    weight = draw(3, 6) ** 2 + 1
    graph = np.array([0, 0, 0, 1, 1, 1])

    def reference(at):
        return np.stack(
            [
                (at["w"][part, None] * at["v"][part]).sum(axis=0) / at["w"][part].sum()
                for part in (slice(3), slice(3, 6))
            ]
        )

    check(lambda at: mean_by_graph(at["v"], at["w"], graph, 2), reference, {"v": draw(1, 6, 3), "w": weight}, terms=6)
