import json
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import evaluation
from cgcnn_jax.data import dataset
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.run import RunResult, Watcher, run
from configs import formation_energy


@pytest.fixture(scope="module")
def config() -> ConfigDict:
    config = formation_energy.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.data.target, config.data.unit, config.data.cache = "Z", "", ""
        config.train.epochs, config.train.batch_size = 4, 8
        config.model.features, config.model.num_convs = 4, 1
    return config


@pytest.fixture(scope="module")
def crystals(config: ConfigDict) -> Dataset:
    """30 CsCl-type crystals, labelled with their mean atomic number."""
    entries = [
        Crystal.from_arrays(f"{a}-{b}", (3 + 0.02 * (a + b)) * np.eye(3), [a, b], [[0, 0, 0], [0.5] * 3], {"Z": a + b})
        for a, b in permutations(range(1, 7), 2)
    ]
    return dataset.load(entries, configs.build_featurizer(config, configs.build_atom_table(config)), ["Z"])


@pytest.fixture(scope="module")
def split() -> dict[str, np.ndarray]:
    return {"train": np.arange(20), "val": np.arange(20, 25), "test": np.arange(25, 30)}


class Told(Watcher):
    """Remembers messages, and stops after some epochs."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.messages: list[str] = []
        self.epochs = 0
        self._stop_after = stop_after

    def message(self, text: str) -> None:
        self.messages.append(text)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs += 1

    def should_stop(self) -> bool:
        return self.epochs >= self._stop_after


def test_pictures_that_fail_cost_no_number(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        # Killed here, the run would lose nothing.
        assert (tmp_path / "summary.json").exists() and (tmp_path / "predictions.csv").exists()
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(evaluation, "pictures", fail)
    told = Told()
    result = run(config, tmp_path, data=crystals, split=split, watcher=told)
    assert result.is_finished and result.pictures == ()
    assert told.messages[-1].startswith("no pictures were drawn (ModuleNotFoundError: No module named 'matplotlib')")


def test_a_run_takes_the_crystals_and_the_split_it_is_given_and_prints_nothing(
    config: ConfigDict,
    crystals: Dataset,
    split: dict[str, np.ndarray],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = run(config, tmp_path, data=crystals, split=split, command="a command")
    assert capfd.readouterr() == ("", "")
    assert result.summary is not None
    assert result.summary["command"] == "a command"
    assert json.loads((tmp_path / "split.json").read_text()) == {
        name: [crystals.ids[i] for i in index] for name, index in split.items()
    }
    rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["6-1", "6-2", "6-3", "6-4", "6-5"]
    # Labels are a + b.
    assert [float(row[1]) for row in rows] == [7, 8, 9, 10, 11]
    error = np.mean([abs(float(row[2]) - float(row[1])) for row in rows])
    assert result.summary["metrics"]["test"]["mae"] == pytest.approx(error, rel=1e-6)


def test_a_stopped_run_says_so_and_goes_on_to_the_predictions_of_an_undisturbed_one(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    def start(name: str, watcher: Watcher) -> RunResult:
        return run(config, tmp_path / name, data=crystals, split=split, watcher=watcher)

    start("whole", Told())
    stopped = start("stopped", Told(stop_after=2))
    assert not stopped.is_finished and stopped.summary is None
    assert not stopped.workdir.is_finished
    told = Told()
    assert start("stopped", told).is_finished
    assert "going on after 2 of 4 epochs" in told.messages
    assert told.epochs == 2
    whole, resumed = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("whole", "stopped"))
    assert whole == resumed
    again = start("stopped", told)
    assert again.was_finished and told.epochs == 2
    assert again.summary == stopped.workdir.summary()


def test_another_split_under_a_run_is_refused(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(config, tmp_path, data=crystals, split=split, watcher=Told(stop_after=1))
    moved = {"train": np.arange(10, 30), "val": np.arange(5), "test": np.arange(5, 10)}
    with pytest.raises(ValueError, match="the split changed since this run began: crystals moved between train, val"):
        run(config, tmp_path, data=crystals, split=moved)
