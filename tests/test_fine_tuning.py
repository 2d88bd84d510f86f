"""Training on from old weights: the network starts where the old one ended, whatever scales the new labels."""

import dataclasses
import re

import numpy as np
import pytest

from cgcnn_jax import Predictor
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.elements import atom_features
from cgcnn_jax.graph import concatenate
from cgcnn_jax.predict import Misfit
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.state import Weights
from tests.predictors import BUDGET, make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")


def test_a_table_may_end_at_an_earlier_element() -> None:
    # The released atom_init.json has 100 elements, the table kept here three more.
    long, old = atom_features("released"), make_predictor()
    short = long[:101]
    shorter = dataclasses.replace(old.model, table_shape=short.shape)
    cut = Predictor(shorter, old.weights.replace(constants={"atom_table": short}), old.scaler, old.featurizer, {})
    for start, model, table in ((old, shorter, short), (cut, old.model, long)):
        variables = start.variables_for(model, table, start.scaler)
        np.testing.assert_array_equal(variables["constants"]["atom_table"], table)
        other = table.copy()
        other[11, 0] += 1
        with pytest.raises(Misfit, match=r"atom_table"):
            start.variables_for(model, other, start.scaler)


def test_classes_and_values_are_not_taken_for_each_other() -> None:
    # Two classes are as many outputs as two properties, so that the shapes alone would fit.
    classes = TargetScaler("classification", ("is_metal",), ("",), (), (), num_classes=2)
    values = TargetScaler("regression", ("gap", "energy"), ("eV", "eV/atom"), (0.0, 0.0), (1.0, 1.0))
    table = atom_features("released")
    for old, new in ((classes, values), (values, classes)):
        start = make_predictor(pool="mean", scaler=old)
        with pytest.raises(
            Misfit, match=f"predict {re.escape(old.described)}, and the labels are {re.escape(new.described)}"
        ):
            start.variables_for(start.model, table, new)


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
