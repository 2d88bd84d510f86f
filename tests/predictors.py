"""Predictors with random weights, for tests of what is done with a trained network."""

import dataclasses
import functools

import jax
import numpy as np

from cgcnn_jax.data import elements
from cgcnn_jax.data.angles import NUM_ANGLES
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.graph import PadBudget
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.predict import Predictor
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.state import Weights
from tests.networks import RELEASED

ENERGY = TargetScaler("regression", ("energy",), ("eV/atom",), (-1.5,), (0.7,))
CLASSES = TargetScaler.for_classes(np.array([0.0, 1.0]), "is_metal", 2)
BUDGET = PadBudget(n_node=96, n_edge=1024, n_graph=16)
"""One shape for the crystals of most tests, so that it is compiled once."""


@functools.cache  # make_predictor.__wrapped__ makes one that no test has used
def make_predictor(
    *,
    conv: str = "gated_norm",
    pool: str = "site",
    scaler: TargetScaler = ENERGY,
    quotient: bool = True,
    angles: bool = False,
) -> Predictor:
    """A small network; its weights are those of the seed 0 with noise, so that no gate or site is like another."""
    table = elements.atom_features("released")
    model = dataclasses.replace(
        RELEASED,
        n_output=scaler.n_output,
        table_shape=table.shape,
        features=6,
        conv=conv,
        num_convs=2,
        pool=pool,
        activate_pooled=False,
        atom_layers=1 if pool == "site" else 0,
        crystal_layers=0 if pool == "site" else 1,
        crystal_features=5,
        n_angle=NUM_ANGLES if angles else 0,
    )
    variables = init_variables(model, 0, table)
    random = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf + random.normal(0, 0.3, leaf.shape), np.float32), variables["params"]
    )
    weights = Weights(params, variables["batch_stats"], variables["constants"])
    featurizer = Featurizer(WholeShells(num_neighbors=8), use_quotient=quotient, angles=angles)
    predictor = Predictor(model, weights, scaler, featurizer, {})
    predictor._budget = BUDGET
    return predictor
