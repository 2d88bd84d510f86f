"""Training on from old weights: the network starts where the old one ended, whatever scales the new labels."""

import numpy as np
import pytest

from cgcnn_jax import Predictor
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.elements import atom_features
from cgcnn_jax.graph import concatenate
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.state import Weights
from tests.predictors import BUDGET, make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")


@pytest.mark.parametrize("pool", ["mean", "site"])
def test_first_predictions_are_those_of_the_old_network(rock_salt: Crystal, pool: str) -> None:
    old = make_predictor(pool=pool)
    scaler = TargetScaler("regression", ("energy",), ("eV/atom",), (2.5,), (3.1,))
    variables = old.variables_for(old.model, atom_features("released"), scaler)
    weights = Weights(variables["params"], variables["batch_stats"], variables["constants"])
    new = Predictor(old.model, weights, scaler, old.featurizer, {})
    new._budget = BUDGET
    crystals = [
        Crystal.from_arrays(str(scale), scale * rock_salt.lattice, rock_salt.species, rock_salt.frac_coords)
        for scale in (0.9, 1.0, 1.1)
    ]
    graphs = concatenate([old.featurizer(crystal).graphs for crystal in crystals])
    before, after = old.predict_graphs(graphs), new.predict_graphs(graphs)
    assert np.ptp(before) > 1e-3
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
