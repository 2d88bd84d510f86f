"""A task from its crystals to its record: every fold an ordinary run, so that a stopped benchmark goes on where it was.

FOLDER/fold_0 ...       work directories as experiments.train makes them, with fold.json once the fold is finished and its speed measured
FOLDER/fold_0_seed_1    of an ensemble, the second network of fold 0, and so on: alike but for train.seed
FOLDER/fold_0.lock      held by the process that has the fold: several may share the folds of a task
FOLDER/together/fold_0  of networks that train together, until they are judged: which (runs.json), and their checkpoints
FOLDER/record.json      the task's record, once all folds are finished
"""

import contextlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.benchmark.record import ensemble_record, fold_record, task_record
from cgcnn_jax.benchmark.tasks import check_marks
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.splits import Split
from cgcnn_jax.data.tasks import Task
from cgcnn_jax.files import lock_if_free
from cgcnn_jax.run import Load, Watcher, load_dataset, run
from cgcnn_jax.together import Run as Together
from cgcnn_jax.together import fits_together, train_together
from cgcnn_jax.train.loop import Diverged
from cgcnn_jax.workdir import Workdir


def run_task(
    config: ConfigDict,
    task: Task,
    path: str | Path,
    folder: Path,
    *,
    networks: int = 1,
    population: int = 1,
    load: Load = load_dataset,
    watcher: Watcher | None = None,
    command: str = "",
) -> dict[str, Any] | None:
    """Runs the folds of a task that are neither finished nor in the hands of another process, and records all.

    The test fold is looked at once, after training: scaling, weights and the choice of weights come from the others.

    Args:
      config: Network, graphs and training; what the protocol says (data, task, split) is set here. With
        split.val_ratio=0 every crystal outside the test fold trains, and the last weights are kept.
      task: What to predict.
      path: `data.path`, the file or folder of its crystals; empty for the official files that were fetched.
      folder: Where the folds and the record go.
      networks: Trained per fold, with the seeds train.seed, train.seed + 1, ...; the mean of their predictions is judged.
        Raising it later adds the missing ones; lowering it judges the first ones alone.
      population: Networks, of all folds and seeds, that train together as one program at most (train.population); with 1
        each trains by itself, as do crystals that are streamed.
      load: Loads the crystals; called once, and not at all if every fold is finished.
      watcher: Told of the progress of every fold.
      command: What the user typed, for the record; empty takes that of the last fold.

    Returns:
      What record.json holds. None if the watcher stopped it, and the same call goes on; or if other processes have the
      folds that are left: the last one to finish writes the record.

    Raises:
      ValueError: If the configuration or the number of networks is wrong, or the folder holds folds of another
        configuration or of other data.
    """
    if population < 1:
        raise ValueError(f"the number of networks that train together must be at least 1; got {population}")
    runs = plan(config, task, path, folder, networks=networks)
    places = [one.place for one in runs]
    folder.mkdir(parents=True, exist_ok=True)
    _train_all(_Folds(task, folder, runs, load, watcher or Watcher(), command, networks), population)
    if not all(map(_finished, places)):
        return None
    _check_digest(task, places, places[-1].read_json("fold.json")["data_digest"])
    of_folds = []
    for fold in range(task.num_folds):
        alike = [place for of_fold, _, place in runs if of_fold == fold]
        records = [place.read_json("fold.json") for place in alike]
        of_folds.append(records[0] if networks == 1 else ensemble_record(task, records, alike))
    record = task_record(task, of_folds) | ({"command": command} if command else {})
    Workdir(folder).write_json("record.json", record)
    return record


class Run(NamedTuple):
    """A network of a fold: its test fold, its configuration, and where it is trained."""

    fold: int
    config: ConfigDict
    place: Workdir


class _Folds:
    """The runs of a task, and what they have in common."""

    def __init__(
        self, task: Task, folder: Path, runs: Sequence[Run], load: Load, watcher: Watcher, command: str, networks: int
    ) -> None:
        self.task, self.folder, self.runs, self.watcher = task, folder, runs, watcher
        self._load, self._command, self._networks = load, command, networks
        self._loaded: tuple[Dataset, str] | None = None

    def lock(self, run: Run) -> AbstractContextManager[bool]:
        """Held by the process that has the run."""
        return lock_if_free(self.folder / f"{run.place.path.name}.lock")

    def begun(self) -> list[list[Run]]:
        """Those that a process began to train together, and that are not all judged."""
        named = {run.place.path.name: run for run in self.runs}
        found = []
        for file in sorted((self.folder / "together").glob("*/runs.json")):
            # Another process may remove it at this moment.
            with contextlib.suppress(FileNotFoundError):
                names = Workdir(file.parent).read_json(file.name)["runs"]
                if all(name in named for name in names):
                    found.append([named[name] for name in names])
        return found

    def crystals(self) -> Dataset:
        """The crystals, loaded when they are first wanted."""
        if self._loaded is None:
            settings = self.runs[0].config
            atom_table = configs.build_atom_table(settings)
            crystals = self._load(settings, atom_table)
            check_marks(self.task, crystals)
            self._loaded = crystals, crystals.digest(atom_table)
        # Other processes may have finished folds meanwhile.
        _check_digest(self.task, [run.place for run in self.runs], self._loaded[1])
        return self._loaded[0]

    def train(self, one: Run) -> bool:
        """Trains a run by itself. Returns False if it was stopped."""
        crystals = self.crystals()
        split = configs.build_split(one.config, crystals)
        self.watcher.message(_title(self.task, one.fold, one.config.train.seed, self._networks))
        place, told = one.place.path, self._command
        result = run(one.config, place, data=crystals, split=split, watcher=self.watcher, command=told, report=False)
        if result.is_finished:
            self._finish(one, split, measures=True)
        return result.is_finished

    def train_together(self, runs: Sequence[Run]) -> bool:
        """Trains runs as one program, and judges those that are not judged. Returns False if it was stopped."""
        place = self._together(runs)
        names = [one.place.path.name for one in runs]
        if (place.path / "runs.json").exists() and (others := place.read_json("runs.json")["runs"]) != names:
            raise ValueError(
                f"{place.path} has the training of {len(others)} networks together, up to {others[-1]}, which so many "
                "--networks as then go on with; or remove that folder"
            )
        place.path.mkdir(parents=True, exist_ok=True)
        place.write_json("runs.json", {"runs": names})
        self.watcher.message(f"{self.task.name}, {len(runs)} networks together")
        ends = train_together(
            [Together(one.config, one.place) for one in runs],
            self.crystals(),
            place.checkpoints,
            watcher=self.watcher,
            command=self._command,
        )
        if ends is None:
            return False
        # Those that diverged last: what raises for one keeps no other from its record.
        for one, end in sorted(zip(runs, ends, strict=True), key=lambda pair: isinstance(pair[1].end, Diverged)):
            if not _finished(one.place):
                end.judge()
                self._finish(one, end.setup.split, measures=False)
        self.close(runs)
        return True

    def close(self, runs: Sequence[Run]) -> None:
        """Removes what only runs in training need."""
        place = self._together(runs).path
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in it
            place.parent.rmdir()

    def _together(self, runs: Sequence[Run]) -> Workdir:
        return Workdir(self.folder / "together" / runs[0].place.path.name)

    def _finish(self, one: Run, split: Split, *, measures: bool) -> None:
        """Writes the record of a run that was trained and judged."""
        assert self._loaded is not None
        crystals, digest = self._loaded
        record = fold_record(self.task, one.fold, one.place, crystals, split, self._command, measures=measures)
        one.place.write_json("fold.json", record | {"data_digest": digest, "config": configs.to_dict(one.config)})


def _train_all(folds: _Folds, population: int) -> None:
    """Trains what no other process trains, until all is done or it is stopped.

    All runs are cut into groups, finished ones too, so that processes that start at different times cut alike; groups
    that were begun stay as they are.
    """
    begun = folds.begun()
    taken = {run.place.path for group in begun for run in group}
    cut = [folds.runs[i : i + population] for i in range(0, len(folds.runs), population)]
    fresh = [[run for run in group if run.place.path not in taken] for group in cut]
    for number, group in enumerate([*begun, *fresh]):
        was_begun = number < len(begun)
        with contextlib.ExitStack() as held:
            if not all(held.enter_context(folds.lock(run)) for run in group):
                continue
            left = [run for run in group if not _finished(run.place)]
            if not left:
                if was_begun:
                    folds.close(group)
                continue
            if folds.watcher.should_stop():
                return
            if was_begun or (len(left) > 1 and fits_together(left[0].config, folds.crystals())):
                is_finished = folds.train_together(group if was_begun else left)
            else:
                is_finished = all(folds.train(run) for run in left)
            if not is_finished:
                return


def plan(config: ConfigDict, task: Task, path: str | Path, folder: Path, *, networks: int = 1) -> list[Run]:
    """The runs of a task, checked before the first is trained. See run_task for arguments and errors."""
    if networks < 1:
        raise ValueError(f"the number of networks per fold must be at least 1; got {networks}")
    # All folds with one seed before any with the next: what is there when it is stopped is a smaller ensemble of all.
    runs = [
        _run_of(config, task, path, folder, fold, number)
        for number in range(networks)
        for fold in range(task.num_folds)
    ]
    for one in runs:
        configs.validate(one.config)
        one.place.check(configs.to_dict(one.config))
        _check_finished(one.place, configs.to_dict(one.config))
        if networks > 1 and _finished(one.place) and not (one.place.path / "predictions.csv").is_file():
            raise FileNotFoundError(
                f"{one.place.path}/predictions.csv is gone, and the mean needs it; remove the folder, and the same command "
                "trains it again"
            )
    return runs


def _run_of(config: ConfigDict, task: Task, path: str | Path, folder: Path, fold: int, number: int) -> Run:
    """Of a network of a fold, by its number in the ensemble."""
    own = _fold_config(config, task, path, fold)
    own.train.seed += number
    return Run(fold, own, Workdir(folder / (f"fold_{fold}_seed_{own.train.seed}" if number else f"fold_{fold}")))


def _title(task: Task, fold: int, seed: int, networks: int) -> str:
    parts = [task.name]
    if task.num_folds > 1:
        parts.append(f"fold {fold + 1} of {task.num_folds}")
    if networks > 1:
        parts.append(f"seed {seed}")
    return ", ".join(parts)


def _fold_config(config: ConfigDict, task: Task, path: str | Path, fold: int) -> ConfigDict:
    """The configuration with what the protocol says. Raises ValueError for what the protocol does not admit."""
    if config.init_from:
        raise ValueError(
            "config.init_from must be empty: weights trained elsewhere may have seen the crystals of the test folds"
        )
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.data.source, own.data.path, own.data.task, own.data.fold = task.source, str(path), task.name, fold
        # The task says target and unit.
        own.data.target, own.data.unit, own.data.log10 = "", "", False
        own.model.task, own.model.num_classes = task.kind, 2
        own.split.kind = "auto"
    return own


def _finished(place: Workdir) -> bool:
    return (place.path / "fold.json").exists()


def _check_finished(place: Workdir, config: Mapping[str, Any]) -> None:
    """Raises ValueError if the fold was finished with another configuration."""
    if not _finished(place):
        return
    other = configs.differences(configs.upgraded(place.read_json("fold.json")["config"]), config)
    if other:
        listed = "\n".join(f"  {field}" for field in other)
        raise ValueError(
            f"{place.path} holds a fold of another configuration:\n{listed}\nChoose another --workdir, or remove this one"
        )


def _check_digest(task: Task, places: Iterable[Workdir], digest: str) -> None:
    """Raises ValueError if a fold was finished on other data."""
    for place in places:
        if _finished(place) and place.read_json("fold.json")["data_digest"] != digest:
            raise ValueError(
                f"{task.name}: the data changed since {place.path.name} was finished; choose another --workdir, or "
                "restore the data"
            )
