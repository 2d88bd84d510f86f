"""Labels that say nothing of their crystals cannot be predicted; where they are, something leaks."""

import dataclasses
import itertools

import numpy as np
import pytest

from cgcnn_jax.data import dataset, duplicates, elements
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.loop import TrainSettings, fit
from cgcnn_jax.train.optimizer import OptimizerSettings
from tests.networks import RELEASED

ENERGY = "formation_energy_eV_per_atom"
SHUFFLES = tuple(f"shuffle {k}" for k in range(8))
N_TRAIN, N_VAL, N_CLEAN, N_COPIED = 100, 40, 60, 40


def doubled(crystal: Crystal) -> Crystal:
    """The same crystal in a cell of two."""
    shift = np.repeat([0, 1], len(crystal.species))[:, None] * [0, 0, 1]
    coords = (np.tile(crystal.frac_coords, (2, 1)) + shift) / [1, 1, 2]
    return Crystal.from_arrays(
        f"{crystal.id}-doubled", crystal.lattice * [[1], [1], [2]], np.tile(crystal.species, 2), coords, crystal.targets
    )


def train(seed: int) -> dict[str, np.ndarray]:
    """Correlations between label and prediction for each column: the real labels, and shuffles of them.

    Every crystal has its own label in each shuffle. Those of "copied" are in train too, as cells of two with the label
    they have in test: the leak that must be noticed.

    Returns:
      "val", "clean" and "copied", [1 + len(SHUFFLES)] each; "noticed", the number of twins that the run would report.
    """
    random = np.random.default_rng(seed)
    n = N_TRAIN + N_VAL + N_CLEAN + N_COPIED
    every = [crystal for crystal in itertools.islice(read_demo(), 4 * n) if ENERGY in crystal.targets]
    chosen = [every[i] for i in random.permutation(len(every))[:n]]
    energy = np.array([crystal.targets[ENERGY] for crystal in chosen])
    labels = np.stack([energy, *(random.permutation(energy) for _ in SHUFFLES)], axis=1)
    names = (ENERGY, *SHUFFLES)
    entries = [
        Crystal.from_arrays(c.id, c.lattice, c.species, c.frac_coords, dict(zip(names, row, strict=True)))
        for c, row in zip(chosen, labels, strict=True)
    ]
    entries += [doubled(crystal) for crystal in entries[-N_COPIED:]]
    data = dataset.load(entries, Featurizer(), names)
    split = {
        "train": np.r_[np.arange(N_TRAIN), np.arange(n, len(entries))],
        "val": np.arange(N_TRAIN, N_TRAIN + N_VAL),
        "test": np.arange(N_TRAIN + N_VAL, n),
    }
    table = elements.atom_features("released")
    model = dataclasses.replace(RELEASED, n_output=len(names), table_shape=table.shape, features=24, num_convs=2)
    fitted = fit(
        model,
        init_variables(model, seed, table),
        data.graphs,
        data.targets,
        # Without val the last weights are kept: by then shuffles of train are remembered, which val would advise against.
        split | {"val": np.array([], int)},
        TargetScaler.fit(data.targets[split["train"]], names, ("",) * len(names)),
        TrainSettings(epochs=60, batch_size=20, seed=seed),
        OptimizerSettings("adam", 1e-2, schedule="cosine"),
    )

    ends = np.cumsum([N_TRAIN, N_VAL, N_CLEAN, N_COPIED])
    found = {}
    for name, low, high in zip(("val", "clean", "copied"), ends, ends[1:], strict=False):
        both = zip(fitted.values[low:high].T, data.targets[low:high].T, strict=True)
        found[name] = np.array([np.corrcoef(*pair)[0, 1] for pair in both])
    return found | {"noticed": np.array(duplicates.find(data.fingerprints, split).n_of("test"))}


def deviations(correlation: np.ndarray, n: int) -> float:
    """Of the mean over independent shuffles, in standard deviations of chance: that of Fisher's z is 1 / sqrt(n - 3)."""
    return float(np.arctanh(correlation).mean() * np.sqrt(len(correlation)) * np.sqrt(n - 3))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_shuffled_labels_are_not_predicted_but_for_crystals_that_train_has_too(seed):
    found = train(seed)
    # Three deviations happen by chance once in a thousand; no label of these was used for anything.
    assert deviations(found["clean"][1:], N_CLEAN) < 3.1
    assert deviations(found["val"][1:], N_VAL) < 3.1
    # That nothing is found is not for lack of learning: labels as they are can be predicted, by the same measure,
    assert deviations(found["clean"][:1], N_CLEAN) > 3.1
    # and the first line would fail where there is a leak.
    assert deviations(found["copied"][1:], N_COPIED) > 3.1
    assert found["noticed"] >= N_COPIED
