"""The embedded set."""

import importlib.resources

import numpy as np
import pytest

from cgcnn_jax.data.dataset import load
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import Request, read, read_demo

ASSET = importlib.resources.files("cgcnn_jax") / "assets" / "demo.jsonl.gz"


def test_crystals_that_are_named_are_not_taken_for_the_embedded_ones():
    with pytest.raises(ValueError, match=r"config\.data\.path=mine names crystals, and config\.data\.source=demo"):
        read("demo", Request("mine"))


@pytest.mark.skipif(not ASSET.is_file(), reason="the demo set has not been made (cgcnn_jax/assets/make_demo.py)")
def test_every_demo_crystal_has_a_graph_and_a_label():
    dataset = load(read_demo(), Featurizer(), ["formation_energy_eV_per_atom"])
    assert len(dataset) > 2000 and dataset.rejected == ()
    assert np.isfinite(dataset.targets).all()
    # Prototypes: every atom of an element in a perovskite, rock salt, ... has few distinct surroundings.
    assert dataset.graphs.n_node.max() <= 5
