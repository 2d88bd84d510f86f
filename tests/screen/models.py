"""Models to screen with: networks as initialised, saved as a training run saves them."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from cgcnn_jax import config as configs
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.predict import describe
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.optimizer import build_optimizer
from cgcnn_jax.train.state import init_state
from configs import base


def save_model(
    folder: Path, seed: int = 0, names: Sequence[str] = ("energy",), num_neighbors: int = 12, train: Sequence[str] = ()
) -> Path:
    """Writes the checkpoint of a small network and returns its folder."""
    config = base.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.data.target = ",".join(names)
        config.data.unit = ",".join(["eV"] * len(names))
        config.model.features, config.model.num_convs = 4, 1
        config.graph.num_neighbors = num_neighbors
    table = configs.build_atom_table(config)
    ones = (1.0,) * len(names)
    scaler = TargetScaler("regression", tuple(names), ("eV",) * len(names), ones, ones)
    variables = init_variables(configs.build_model(config, table.shape, len(names)), seed, table)
    optimizer = build_optimizer(configs.build_optimizer_settings(config), lambda step: 0.0)
    state = init_state(variables, optimizer, len(names), averages=False).replace(
        step=jnp.asarray(1), best_epoch=jnp.asarray(0)
    )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(state, describe(config, scaler, table.shape, {"train": list(train)}))
    return folder
