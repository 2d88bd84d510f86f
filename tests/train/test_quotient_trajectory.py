"""Training on quotient graphs takes the path of training on full graphs."""

import dataclasses

import numpy as np
import pytest

from cgcnn_jax.data import dataset, elements, splits
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.loop import TrainSettings, fit
from cgcnn_jax.train.optimizer import OptimizerSettings
from tests.networks import RELEASED

pytestmark = pytest.mark.usefixtures("quicker_compiling")

TARGET = "formation_energy_eV_per_atom"


# A bias before a batch normalisation has no gradient but rounding, which Adam scales up to full steps: under Adam the
# biases of gated_norm wander differently in every order of summation, with any library. SGD leaves them in place;
# gated_mlp and gated_update have no such biases.
@pytest.mark.parametrize(
    ("conv", "optimizer"),
    [
        ("sum", OptimizerSettings("adam", 5e-3)),
        ("gated", OptimizerSettings("adam", 5e-3)),
        ("gated_norm", OptimizerSettings("sgd", 0.05)),
        pytest.param("gated_mlp", OptimizerSettings("adam", 5e-3), marks=pytest.mark.slow),
        pytest.param("gated_update", OptimizerSettings("adam", 5e-3), marks=pytest.mark.slow),
    ],
    ids=["sum", "gated", "gated_norm", "gated_mlp", "gated_update"],
)
def test_quotient_and_full_graphs_train_alike(conv: str, optimizer: OptimizerSettings) -> None:
    # Doubled cells, so that the full graphs have at least twice the nodes. One batch an epoch: crystals are dealt to
    # batches by size, which differs, so that with several batches other crystals would meet.
    crystals = [crystal for crystal, _ in zip(read_demo(), range(40), strict=False)]
    doubled = [
        type(crystal).from_structure(
            crystal.id, crystal.to_structure().make_supercell([2, 1, 1], in_place=False), crystal.targets
        )
        for crystal in crystals
    ]
    table = elements.atom_features("released")
    model = dataclasses.replace(
        RELEASED, table_shape=table.shape, features=8, conv=conv, num_convs=2, crystal_features=8
    )
    curves, nodes = [], []
    for use_quotient in (True, False):
        data = dataset.load(doubled, Featurizer(use_quotient=use_quotient), (TARGET,))
        split = splits.by_ratio(data.ids, (0.6, 0.2, 0.2), 0)
        scaler = TargetScaler.fit(data.targets[split["train"]], (TARGET,), ("eV/atom",))
        records: list[dict] = []
        fit(
            model,
            init_variables(model, 0, table),
            data.graphs,
            data.targets,
            split,
            scaler,
            TrainSettings(epochs=15, batch_size=100),
            optimizer,
            on_epoch=records.append,
        )
        curves.append([(record["train_loss"], record["val_mae"]) for record in records])
        nodes.append(len(data.graphs.species))
    assert nodes[1] >= 2 * nodes[0]
    assert curves[0][-1][0] < 0.8 * curves[0][0][0]  # it does learn
    # Rounding of float32 grows along the path.
    np.testing.assert_allclose(*curves, rtol=2e-3)
