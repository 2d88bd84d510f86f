"""Runs that train together, as one compiled program, and end each as a work directory of its own."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.preparation import SEEN, Setup, check_data, facts, prepare
from cgcnn_jax.run import RunResult, Watcher, claim, judge
from cgcnn_jax.train.checkpoint import Checkpoints, has_whole
from cgcnn_jax.train.feed import fits_device
from cgcnn_jax.train.loop import Diverged, Fit
from cgcnn_jax.train.population import Member, fit_population
from cgcnn_jax.workdir import Workdir


class Run(NamedTuple):
    """A run among those that train together: its configuration, where it ends, and whether it was judged there already."""

    config: ConfigDict
    place: Workdir
    is_judged: bool = False


@dataclass(frozen=True)
class Trained:
    """A run whose training is over, with what it takes to judge it.

    Attributes:
      run: Which.
      setup: What it trained.
      end: Its fit, or how it diverged.
    """

    run: Run
    setup: Setup
    end: Fit | Diverged
    _watcher: Watcher
    _command: str
    _seconds: float

    def judge(self) -> RunResult:
        """Writes the weights, predictions and summary of the run.

        Raises:
          Diverged: If it did.
        """
        if isinstance(self.end, Diverged):
            raise self.end
        place = self.run.place
        with place.lock():
            with Checkpoints(place.checkpoints) as checkpoints:
                checkpoints.save(self.end.state, self.setup.about)
            began = time.monotonic() - self._seconds
            return judge(place, self.setup, self.end, {}, self._watcher, self._command, began, draws=False)


def prepare_together(
    runs: Sequence[Run], crystals: Dataset, checkpoints: Path, watcher: Watcher | None = None
) -> list[Setup]:
    """What each run trains, from the start or from the population's checkpoints; what `prepare` tells is told once.

    Raises:
      ValueError: As `prepare`, before anything is written.
    """
    atom_table = configs.build_atom_table(runs[0].config)
    digest, has_weights = crystals.digest(atom_table), has_whole(checkpoints)
    tell = _once((watcher or Watcher()).message)
    return [
        prepare(run.config, atom_table, crystals, None, tell, has_weights=has_weights, digest=digest) for run in runs
    ]


def train_together(
    runs: Sequence[Run],
    setups: Sequence[Setup],
    checkpoints: Path,
    *,
    parallel: str = "shard",
    watcher: Watcher | None = None,
    command: str = "",
) -> list[Trained] | None:
    """Trains runs that differ in what train.population.Member has, or goes on with those that were stopped.

    Args:
      runs: At least one. The split may differ from run to run.
      setups: Of `prepare_together`.
      checkpoints: Folder of the population's checkpoints; its owner removes it when all runs are judged.
      parallel: How devices share the population, see fit_population.
      watcher: Told of the progress, and of the data of each split after the first.
      command: What the user typed, for the summaries.

    Returns:
      What became of each, in order, to be judged; None if the watcher stopped it, and the same call goes on.

    Raises:
      ValueError: If a folder holds another run, these began with another configuration, or the data changed under them.
    """
    watcher, began = watcher or Watcher(), time.monotonic()
    crystals, config = setups[0].crystals, runs[0].config
    members = [
        Member(
            setup.variables,
            run.config.train.seed,
            run.config.optimizer.learning_rate,
            run.config.optimizer.l2,
            run.config.model.dropout,
            setup.split,
            setup.scaler,
        )
        for run, setup in zip(runs, setups, strict=True)
    ]
    settings = configs.build_train_settings(config)
    digests = [_digest(setup) for setup in setups]
    for number, (run, setup) in enumerate(zip(runs, setups, strict=True)):
        if number and digests[number] not in digests[:number]:
            for line in facts(run.config, crystals, setup.split, setup.twins):
                watcher.message(line)
    shown = _Shown(watcher, [None if run.is_judged else run.place for run in runs])
    # Of the splits of all, digests: each has the id of every crystal once more.
    about = {
        **{key: setups[0].about[key] for key in ("data_digest", "split")},
        "splits": digests,
        "configs": [configs.to_dict(run.config) for run in runs],
        SEEN: [setup.about.get(SEEN) for setup in setups],
    }
    with Checkpoints(checkpoints) as kept:
        before = kept.about()
        _check_before(before, about, runs)
        if before is not None:
            about[SEEN] = before.get(SEEN, [None] * len(runs))
        for run, setup, seen in zip(runs, setups, about[SEEN], strict=True):
            if run.config.init_from:
                setup.about[SEEN] = seen
        lost = (before or {}).get("diverged") or [None] * len(runs)
        first = kept.latest_step() // max(settings.steps_per_epoch(len(setup.split["train"])) for setup in setups)
        for run, setup, has_diverged in zip(runs, setups, lost, strict=True):
            if not run.is_judged:
                may_have_ended = bool(has_diverged or settings.patience)
                claim(run.place, run.config, setup, first, watcher, may_have_ended=may_have_ended)
        if first:
            watcher.message(f"going on after {first} of {settings.epochs} epochs")
        with watcher.training(first, settings.epochs, setups[0].scaler):
            ends = fit_population(
                setups[0].model,
                members,
                crystals.graphs,
                crystals.targets,
                settings,
                configs.build_optimizer_settings(config),
                parallel=parallel,
                checkpoints=kept,
                about=about,
                on_step=watcher.step,
                on_epoch=shown.epoch,
                should_stop=watcher.should_stop,
            )
    if ends is None:
        return None
    share = (time.monotonic() - began) / len(runs)
    return [
        Trained(run, setup, end, watcher, command, share) for run, setup, end in zip(runs, setups, ends, strict=True)
    ]


def _digest(setup: Setup) -> str:
    return hashlib.sha256(json.dumps(setup.about["split"]).encode()).hexdigest()


def _check_before(before: Mapping[str, Any] | None, now: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Raises ValueError if a population began with other data, splits or configurations.

    One of an older version had one split, and does not tell its configurations.
    """
    check_data(before, now)
    if before is None:
        return
    # Until they are judged their folders have no checkpoints, by which a run alone is known to have begun.
    for run, stored, config in zip(runs, before.get("configs", now["configs"]), now["configs"], strict=True):
        run.place.check_stored(stored, config)
    if before.get("splits", now["splits"]) != now["splits"]:
        raise ValueError(
            "the split of one of the runs that train together changed since they began: crystals moved between train, "
            "val and test. Choose another --workdir, or restore the data"
        )


def fits_together(config: ConfigDict, crystals: Dataset) -> bool:
    """Whether the crystals can lie on every device, as runs that train together need."""
    return config.train.feed == "device" or (config.train.feed == "auto" and fits_device(crystals.graphs))


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Passes each message on once."""
    told: set[str] = set()

    def tell_if_new(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    return tell_if_new


class _Shown:
    """Writes the records of runs with a place, and shows that of the best of all at each epoch."""

    def __init__(self, watcher: Watcher, places: Sequence[Workdir | None]) -> None:
        self._watcher, self._places = watcher, places
        self._epoch, self._lowest = -1, np.inf

    def epoch(self, number: int, record: Mapping[str, Any]) -> None:
        if (place := self._places[number]) is not None:
            place.append_record(record)
        if record["epoch"] != self._epoch or self._error(record) < self._lowest:
            self._epoch, self._lowest = record["epoch"], self._error(record)
            self._watcher.epoch(record)

    def _error(self, record: Mapping[str, Any]) -> float:
        return record.get("val_error", record["train_loss"])
