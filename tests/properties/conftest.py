"""Every convolution with every pool as a network with random weights and statistics, compiled once.

The graphs have angles, which those networks alone see whose basis says so.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgcnn_jax.data import elements
from cgcnn_jax.data.angles import NUM_ANGLES
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.graph import Batch, CrystalGraphs, PadBudget, concatenate, pad
from cgcnn_jax.nn.basis import BinnedBasis, GaussianBasis, ReciprocalBasis
from cgcnn_jax.nn.conv import CONVOLUTIONS
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.nn.pool import POOLS
from cgcnn_jax.train.losses import loss_sums
from tests.compiling import quick_jit
from tests.networks import RELEASED

BUDGET = PadBudget(n_node=96, n_edge=1024, n_graph=6)
TARGETS = np.array([[0.3], [-1.2], [0.8], [2.0], [0.1], [7.0]], np.float32)
NEIGHBORS = WholeShells(num_neighbors=8)
BASES = {
    "gaussians": GaussianBasis(),
    "angles": GaussianBasis(),
    "bins": BinnedBasis(),
    "reciprocal": ReciprocalBasis(num_gaussians=32),
}


class Network(NamedTuple):
    """A network whose batches all have the shape BUDGET.

    Attributes:
      variables: Random parameters and statistics.
      predict: Unpadded graphs -> predictions [n_graph, n_output].
      outputs: Padded graphs -> outputs, padding included.
      training: Batch -> loss, gradient with respect to the parameters, updated batch statistics.
      sensitivity: Padded graphs, graph -> derivative of its prediction by all distances and weights.
    """

    variables: dict[str, Any]
    predict: Callable[[CrystalGraphs], np.ndarray]
    outputs: Callable[[CrystalGraphs], jax.Array]
    training: Callable[[Batch], tuple[jax.Array, Any, Any]]
    sensitivity: Callable[[CrystalGraphs, int], dict[str, jax.Array]]


def randomised(variables, seed: int):
    """Noise on parameters; running means and variances away from the 0 and 1 they start at."""
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if "constants" in name:
            return leaf
        if "'var'" in name:
            return random.uniform(0.5, 2.0, leaf.shape).astype(np.float32)
        return np.asarray(leaf + random.normal(0, 0.3, leaf.shape), np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def build(conv: str, pool: str, basis: str) -> Network:
    bins = basis == "bins"
    table = elements.atom_features("paper" if bins else "released")
    model = dataclasses.replace(
        RELEASED,
        table_shape=table.shape,
        features=4,
        conv=conv,
        num_convs=2,
        basis=BASES[basis],
        n_angle=NUM_ANGLES if basis == "angles" else 0,
        pool=pool,
        activate_pooled=not bins,
        atom_layers=0 if pool == "mean" else 1,
        crystal_layers=0 if pool == "site" else 1,
        crystal_features=5,
    )
    variables = randomised(init_variables(model, 0, table), 1)
    outputs = jax.jit(lambda graphs: model.apply(variables, graphs))

    # Gradients compile for longest; predictions are the programs that users have.
    @quick_jit
    def training(batch):
        def mean_loss(params):
            values, updated = model.apply(
                variables | {"params": params}, batch.graphs, training=True, mutable=["batch_stats"]
            )
            loss, _, count = loss_sums("regression", values, batch)
            return loss / count.sum(), updated.get("batch_stats", {})

        (loss, stats), gradient = jax.value_and_grad(mean_loss, has_aux=True)(variables["params"])
        return loss, gradient, stats

    @quick_jit
    def sensitivity(graphs, number):
        names = ("distances", "angles", "edge_weight", "node_weight")

        def prediction(inputs):
            return model.apply(variables, graphs._replace(**inputs))[number, 0]

        return jax.grad(prediction)({name: jnp.asarray(getattr(graphs, name)) for name in names})

    def predict(graphs):
        return np.asarray(outputs(pad(graphs, BUDGET)))[: len(graphs.n_node)]

    return Network(variables, predict, outputs, training, sensitivity)


CASES = [(conv, pool, "gaussians") for conv in CONVOLUTIONS for pool in POOLS] + [
    *((conv, "mean", "bins") for conv in CONVOLUTIONS),
    ("gated_mlp", "mean", "reciprocal"),
    ("gated_update", "mean", "angles"),
]
# Every convolution, pool and basis is in one of these; the other combinations take minutes to compile.
ALWAYS = [
    *((conv, "mean", "gaussians") for conv in ("sum", "gated_norm", "gated_update")),
    *(("gated_norm", pool, "gaussians") for pool in POOLS),
    ("gated", "mean", "bins"),
    ("gated_mlp", "mean", "reciprocal"),
    ("gated_update", "mean", "angles"),
]
PARAMS = [pytest.param(case, id="-".join(case), marks=[] if case in ALWAYS else [pytest.mark.slow]) for case in CASES]


@pytest.fixture(scope="session", params=PARAMS)
def network(request) -> Network:
    return build(*request.param)


def to_graphs(*crystals: Crystal, quotient: bool = False) -> CrystalGraphs:
    featurizer = Featurizer(NEIGHBORS, use_quotient=quotient, angles=True)
    return concatenate([featurizer(crystal).graphs for crystal in crystals])


@pytest.fixture(scope="session")
def graphs_of() -> Callable[..., CrystalGraphs]:
    """Crystals -> unpadded graphs; every atom a node unless quotient=True."""
    return to_graphs


@pytest.fixture(scope="session")
def to_batch() -> Callable[[CrystalGraphs], Batch]:
    """Unpadded graphs -> a padded batch with labels."""

    def batch(graphs: CrystalGraphs) -> Batch:
        padded = pad(graphs, BUDGET)
        return Batch(padded, np.where(padded.graph_mask[:, None], TARGETS, 0), padded.graph_mask[:, None])

    return batch


@pytest.fixture(scope="session")
def perovskite() -> Crystal:
    """CaTiO3, cubic: three kinds of atoms, five in the cell."""
    coords = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal.from_arrays("CaTiO3", 3.89 * np.eye(3), ["Ca", "Ti", "O", "O", "O"], coords)


@pytest.fixture(scope="session")
def triclinic() -> Crystal:
    """No symmetry: all distances differ."""
    lattice = [[4.1, 0.3, -0.2], [0.7, 5.2, 0.4], [-0.5, 0.9, 6.3]]
    coords = [[0.02, 0.05, 0.01], [0.51, 0.43, 0.38], [0.12, 0.61, 0.77]]
    return Crystal.from_arrays("triclinic", lattice, ["Fe", "S", "As"], coords)
