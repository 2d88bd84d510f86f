"""run_sweep: tries a list of trials, many at a time, and goes on where it was stopped."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data import duplicates
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.preparation import facts
from cgcnn_jax.run import Load, Watcher, load_dataset, run
from cgcnn_jax.sweep.folder import SweepFolder
from cgcnn_jax.sweep.space import MEMBER_FIELDS, Overrides, with_overrides
from cgcnn_jax.together import Run, fits_together, prepare_together, train_together
from cgcnn_jax.train.checkpoint import has_whole
from cgcnn_jax.train.loop import Diverged


@dataclass(frozen=True)
class Trial:
    """A run of a sweep: its number, what it changes, and the configuration that makes."""

    number: int
    overrides: Overrides
    config: ConfigDict


class SweepWatcher(Watcher):
    """What a sweep tells beside what its runs tell."""

    def ended(self, record: Mapping[str, Any], n_ended: int, n_trial: int) -> None:
        """After each trial: what trial.json holds, and how many have ended of how many."""


def run_sweep(
    config: ConfigDict,
    trials: Sequence[Overrides],
    path: str | Path,
    *,
    population: int = 16,
    parallel: str = "shard",
    data: Load = load_dataset,
    watcher: SweepWatcher | None = None,
    command: str = "",
) -> bool:
    """Trains every trial and writes results.csv; trials that have ended are not repeated.

    Trials that differ in MEMBER_FIELDS alone train together as one program (train.population). Processes that share
    the folder share the trials: each takes populations that no other is training.

    Args:
      config: What the trials change.
      trials: The changes of each.
      path: Folder of the sweep; `sweep.folder` says what will be in it.
      population: Trials that train together at most; 1 trains each by itself, on the devices that its configuration
        gives to a run, as do crystals that are streamed.
      parallel: How devices share a population, see fit_population.
      data: What loads the crystals.
      watcher: Told of the progress.
      command: What the user typed, for the summaries.

    Returns:
      Whether all trials have ended; False if it was stopped, or other processes are training some.

    Raises:
      ValueError: If a trial or its configuration is wrong, or the folder holds another sweep.
      DataError: If crystals cannot be used.
    """
    watcher, folder = watcher or SweepWatcher(), SweepFolder(path)
    if population < 1:
        raise ValueError(f"population must be at least 1; got {population}")
    own = [make_trial(config, number, overrides) for number, overrides in enumerate(trials)]
    folder.claim(configs.to_dict(config), {"trials": list(trials)})
    _train_all(own, folder, Crystals(data, watcher), population, parallel, watcher, command)
    report(folder, config, watcher)
    return len(folder.ended()) == len(own)


def report(folder: SweepFolder, config: ConfigDict, watcher: Watcher) -> None:
    """Writes the table, and the picture if it can be drawn."""
    folder.write_table()
    # Where trials choose what is learned, there may be none in common.
    unit = next(iter(configs.learned(config)[1]), "")
    # The numbers are safe by now, whatever drawing runs into.
    try:
        folder.draw(unit)
    except Exception as error:
        watcher.message(f"no picture was drawn ({type(error).__name__}: {error}); all numbers are in {folder.path}")


def _train_all(
    trials: Sequence[Trial],
    folder: SweepFolder,
    crystals_of: "Crystals",
    population: int,
    parallel: str,
    watcher: SweepWatcher,
    command: str,
) -> None:
    """Trains what no other process trains, until all is done or it is stopped."""
    for first in folder.populations():
        with folder.lock_if_free(_lock_of(first)) as is_mine:
            # It died before it saved anything, for want of memory perhaps: its trials may be cut anew.
            if is_mine and not has_whole(folder.population(first) / "checkpoints"):
                folder.close_population(first)
    for group in _groups(trials, folder.populations(), population):
        with contextlib.ExitStack() as held:
            if not held.enter_context(folder.lock_if_free(_lock_of(group[0]))):
                continue
            # As it was begun, if it was: its checkpoints hold just these trials.
            begun = folder.populations().get(group[0])
            left = [number for number in begun or group if not folder.has_ended(number)]
            if not left:
                if begun:
                    folder.close_population(group[0])
                continue
            # Once it has begun, other processes know it by its first trial, which is another where the group's has ended.
            if not begun and left[0] != group[0] and not held.enter_context(folder.lock_if_free(_lock_of(left[0]))):
                continue
            if watcher.should_stop():
                return
            chosen = [trials[number] for number in begun or left]
            crystals = crystals_of(chosen[0].config)
            folder.check_data(*crystals_of.identity)
            crystals_of.tell(chosen[0].config)
            if begun or (population > 1 and fits_together(chosen[0].config, crystals)):
                is_finished = _train_together(chosen, folder, crystals, parallel, watcher, command)
            else:
                is_finished = all(train_one(trial, folder, crystals, watcher, command) for trial in chosen)
            if not is_finished:
                return
            n_before = len(folder.ended()) - len(left)
            for nth, number in enumerate(left, start=1):
                watcher.ended(folder.record(number), n_before + nth, len(trials))
            folder.write_table()


def _lock_of(number: int) -> str:
    """Name of the lock of the population whose first trial this is."""
    return f"population_{number:04d}"


def make_trial(config: ConfigDict, number: int, overrides: Overrides) -> Trial:
    """Raises ValueError, naming the trial, if its configuration is wrong."""
    try:
        own = with_overrides(config, overrides)
        if "data.target" in overrides and "data.unit" not in overrides:
            own.data.unit = ""  # the file's is that of the file's property
        configs.validate(own)
    except ValueError as error:
        raise ValueError(f"trial {number} ({overrides}): {error}") from error
    return Trial(number, overrides, own)


def train_one(trial: Trial, folder: SweepFolder, crystals: Dataset, watcher: Watcher, command: str) -> bool:
    """Trains a trial by itself. Returns False if it was stopped."""
    place = folder.trial(trial.number)
    try:
        if not run(trial.config, place.path, data=crystals, watcher=watcher, command=command, report=False).is_finished:
            return False
        folder.end_finished(trial.number, trial.overrides)
    except Diverged as error:
        folder.end_diverged(trial.number, trial.overrides, error)
    return True


def _train_together(
    trials: Sequence[Trial],
    folder: SweepFolder,
    crystals: Dataset,
    parallel: str,
    watcher: Watcher,
    command: str,
) -> bool:
    """Trains a population; each trial ends as a work directory. Returns False if it was stopped."""
    watcher.message(_titled(trials))
    runs = [Run(one.config, folder.trial(one.number), folder.has_ended(one.number)) for one in trials]
    checkpoints = folder.population(trials[0].number) / "checkpoints"
    setups = prepare_together(runs, crystals, checkpoints, watcher)
    folder.open_population([trial.number for trial in trials])
    trained = train_together(
        runs,
        setups,
        checkpoints,
        parallel=parallel,
        watcher=watcher,
        command=command,
    )
    if trained is None:
        return False
    for trial, one in zip(trials, trained, strict=True):
        if folder.has_ended(trial.number):
            continue
        try:
            one.judge()
            folder.end_finished(trial.number, trial.overrides)
        except Diverged as error:
            folder.end_diverged(trial.number, trial.overrides, error)
    folder.close_population(trials[0].number)
    return True


_NOT_READ = ("fold", "unit", "cache", "workers", "wanted")  # fields of config.data that change no crystal


class Crystals:
    """Loads crystals when a trial wants others than the one before.

    Attributes:
      identity: What tells which they are, wherever they lie, and the digest of those loaded last.
    """

    def __init__(self, load: Load, watcher: Watcher) -> None:
        self._load, self._watcher = load, watcher
        self._key = self._told = ""
        self._crystals: Dataset | None = None
        self.identity = "", ""

    def __call__(self, config: ConfigDict) -> Dataset:
        plain = configs.to_dict(config)
        table = configs.build_atom_table(config)
        read = {name: value for name, value in plain["data"].items() if name not in _NOT_READ}
        # Of the element table, the data depend only on which elements it knows.
        known = np.asarray(table.any(axis=1))
        graph = [plain["graph"], np.flatnonzero(known).tolist()]
        key = json.dumps([read, *graph])
        if self._crystals is None or key != self._key:
            self._crystals = None  # before others need memory
            self._key, self._crystals = key, self._load(config, table)
            read = {name: value for name, value in read.items() if f"data.{name}" not in configs.WITHOUT_EFFECT}
            about = hashlib.sha256(json.dumps([read, *graph]).encode()).hexdigest()[:16]
            self.identity = about, self._crystals.digest(known)
        return self._crystals

    def tell(self, config: ConfigDict) -> None:
        """Says what to know of the crystals that were loaded, once. Raises ValueError if the split cannot be made."""
        assert self._crystals is not None
        if self._told != self._key:
            split = configs.build_split(config, self._crystals)
            for line in facts(config, self._crystals, split, duplicates.find(self._crystals.fingerprints, split)):
                self._watcher.message(line)
            self._told = self._key


def _groups(trials: Sequence[Trial], begun: Mapping[int, Sequence[int]], size: int) -> list[list[int]]:
    """Numbers of the trials that train together: populations begun earlier as they are, then new ones, in order.

    All trials are cut into groups, ended ones and those of begun populations too, so that processes that start at
    different times cut alike.
    """
    of_shape: dict[str, list[int]] = {}
    for trial in trials:
        of_shape.setdefault(_program(trial.config), []).append(trial.number)
    taken = {number for numbers in begun.values() for number in numbers}
    fresh = [
        [number for number in numbers[i : i + size] if number not in taken]
        for numbers in of_shape.values()
        for i in range(0, len(numbers), size)
    ]
    return [list(numbers) for numbers in begun.values()] + sorted(group for group in fresh if group)


def _program(config: ConfigDict) -> str:
    """What trials that train as one program have in common."""
    plain = configs.to_dict(config)
    # An optimiser with L2 is another one than that without.
    plain["has_l2"] = config.optimizer.l2 > 0
    for name in MEMBER_FIELDS:
        group, field = name.split(".")
        plain[group] = {key: value for key, value in plain[group].items() if key != field}
    return json.dumps(plain, sort_keys=True)


def _titled(trials: Sequence[Trial]) -> str:
    """Which trials train, and what they have in common of what trials change."""
    numbers = ", ".join(str(trial.number) for trial in trials)
    common = [
        f"{name}={value}"
        for name, value in trials[0].overrides.items()
        if all(trial.overrides.get(name) == value for trial in trials)
    ]
    return f"\ntrials {numbers}" + (f": {', '.join(common)}" if common else "")
