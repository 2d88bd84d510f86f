"""A problem of seconds: mean atomic numbers of CsCl-type crystals. Also run as a script, to be killed (test_resume)."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.graph import CrystalGraphs, concatenate
from cgcnn_jax.nn.basis import GaussianBasis
from cgcnn_jax.nn.model import CGCNN, init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.loop import Fit, TrainSettings, fit
from cgcnn_jax.train.optimizer import OptimizerSettings
from tests.compiling import the_faster_way
from tests.networks import RELEASED


@dataclass(frozen=True)
class Problem:
    """All that fit needs; `run` fits it.

    Attributes:
      graphs: 30 CsCl-type crystals, one for each ordered pair of elements 1 to 6.
      targets: Labels, [30, n_target].
      split: 20 train, 6 val, 4 test.
    """

    graphs: CrystalGraphs
    targets: np.ndarray
    split: dict[str, np.ndarray]
    model: CGCNN
    table: np.ndarray
    scaler: TargetScaler
    settings: TrainSettings
    optimizer: OptimizerSettings
    seed: int = field(default=0)

    def run(self, folder: Path | None = None, **callbacks: Any) -> Fit:
        """Fits, with checkpoints in the folder if there is one."""

        def go(checkpoints: Checkpoints | None) -> Fit:
            return fit(
                self.model,
                init_variables(self.model, self.seed, self.table),
                self.graphs,
                self.targets,
                self.split,
                self.scaler,
                self.settings,
                self.optimizer,
                checkpoints=checkpoints,
                about={"name": "problem", "numbers": [1, 2.5]},
                **callbacks,
            )

        if folder is None:
            return go(None)
        with Checkpoints(folder) as checkpoints:
            return go(checkpoints)

    def changed(self, **groups: dict[str, Any] | Any) -> "Problem":
        """changed(model={...}, settings={...}, optimizer={...}, targets=...) with those fields replaced."""
        return replace(
            self,
            **{
                name: replace(getattr(self, name), **value) if isinstance(value, dict) and name != "split" else value
                for name, value in groups.items()
            },
        )


def build(**changes: Any) -> Problem:
    pairs = list(permutations(range(1, 7), 2))
    featurize = Featurizer(WholeShells(num_neighbors=8))
    graphs = concatenate(
        [
            featurize(
                Crystal.from_arrays(f"{a}-{b}", (3 + 0.02 * (a + b)) * np.eye(3), [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])
            ).graphs
            for a, b in pairs
        ]
    )
    targets = np.array([[np.mean(pair)] for pair in pairs])
    order = np.random.default_rng(0).permutation(len(pairs))
    split = {"train": np.sort(order[:20]), "val": np.sort(order[20:26]), "test": np.sort(order[26:])}
    model = replace(
        RELEASED, table_shape=(7, 7), features=6, num_convs=1, basis=GaussianBasis(6.0, 0.5), crystal_features=5
    )
    problem = Problem(
        graphs=graphs,
        targets=targets,
        split=split,
        model=model,
        table=np.eye(7, dtype=np.float32),
        scaler=TargetScaler.fit(targets[split["train"]], ("Z",), ("",)),
        settings=TrainSettings(epochs=3, batch_size=4, save_seconds=1e9),
        optimizer=OptimizerSettings("adam", 1e-2),
    )
    return problem.changed(**changes)


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    return build


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any], None]:
    """Bit for bit, leaf by leaf."""

    def check(one: Any, other: Any) -> None:
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for (path, left), right in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(left, right, err_msg=jax.tree_util.keystr(path))

    return check


# What the killed process and the one that goes on run; saves after every stretch.
KILLED = {
    "settings": {"epochs": 40, "save_seconds": 0.0, "average_decay": 0.9},
    "model": {"dropout": 0.2},
    "optimizer": {"schedule": "one_cycle"},
}

if __name__ == "__main__":
    # As the test's own process compiles, for the bits are compared.
    with the_faster_way():
        build(**KILLED).run(Path(sys.argv[1]))
