"""Small fixed networks, each compiled once a process: what is held against float64 and against other versions of jax."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgcnn_jax import config as configs
from cgcnn_jax.graph import CrystalGraphs, PadBudget, pad
from cgcnn_jax.nn.conv import CONVOLUTIONS
from cgcnn_jax.nn.model import CGCNN, init_variables
from cgcnn_jax.nn.pool import POOLS
from configs.base import PRESETS, get_config
from tests.numbers.float64 import ULP
from tests.paper.test_equations import random_graph

GRAPHS: CrystalGraphs = random_graph(6)
PADDED = pad(GRAPHS, PadBudget(len(GRAPHS.species) + 2, len(GRAPHS.distances) + 3, 4))
BONDS = int((GRAPHS.edge_weight * GRAPHS.node_weight[GRAPHS.receivers]).sum())
GOAL = np.array([[0.3], [-1.2]], np.float32)
"""Labels of the two crystals."""


class Case(NamedTuple):
    """A network and its compiled loss.

    Attributes:
      model: The network.
      variables: Initial weights as this library draws them, with scales and statistics moved off 1 and 0.
      of_loss: Parameters -> gradient of sum (o - goal)^2 in training, and (outputs of both crystals, batch statistics).
      admitted: Largest relative difference that is rounding: each layer passes on that of sums over all bonds, on the
        way to the outputs and back.
    """

    model: CGCNN
    variables: dict[str, Any]
    of_loss: Callable[[Any], tuple[Any, tuple[jax.Array, Any]]]
    admitted: float


def _names() -> dict[str, tuple[str, dict[str, Any]]]:
    """Case -> preset and what is changed: every preset, and every convolution and pool that none of them has."""
    found: dict[str, tuple[str, dict[str, Any]]] = {preset: (preset, {}) for preset in PRESETS}
    seen = [get_config(preset).model for preset in PRESETS]
    convs = [name for name in CONVOLUTIONS if name not in {model.conv for model in seen}]
    pools = [name for name in POOLS if name not in {model.pool for model in seen}]
    while convs or pools:
        change = {"conv": convs.pop()} if convs else {}
        if pools:
            change["pool"] = pools.pop()
            # A site model has no layers after its pool.
            change |= {"crystal_layers": 0, "atom_layers": 1} if change["pool"] == "site" else {}
        found["-".join(str(change[key]) for key in ("conv", "pool") if key in change)] = ("paper", change)
    return found


CASES = _names()


@functools.cache
def case(name: str) -> Case:
    preset, change = CASES[name]
    config = get_config(preset)
    config.model.update(change)
    table = configs.build_atom_table(config)
    model = configs.build_model(config, table.shape, 1)
    random = np.random.default_rng(1)

    def moved(path: Any, leaf: Any) -> Any:
        is_norm = "norm" in jax.tree_util.keystr(path)
        return leaf + random.uniform(0.1, 0.5, leaf.shape).astype(np.float32) if is_norm else leaf

    variables = jax.tree_util.tree_map_with_path(moved, init_variables(model, 0, table))

    def loss(params: Any) -> Any:
        changed = variables | {"params": params}
        outputs, updated = model.apply(changed, PADDED, training=True, mutable=["batch_stats"])
        return ((outputs[:2] - jnp.asarray(GOAL)) ** 2).sum(), (outputs[:2], updated.get("batch_stats", {}))

    return Case(model, variables, jax.jit(jax.grad(loss, has_aux=True)), 8 * 2 * BONDS * max(1, model.num_convs) * ULP)
