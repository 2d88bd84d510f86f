"""A task from its crystals to its record: every fold an ordinary run, so that a stopped benchmark goes on where it was.

FOLDER/fold_0 ...       work directories as experiments.train makes them, with fold.json once the fold is finished and its speed measured
FOLDER/fold_0_seed_1    of an ensemble, the second network of fold 0, and so on: alike but for train.seed
FOLDER/fold_0.lock      held by the process that has the fold: several may share the folds of a task
FOLDER/record.json      the task's record, once all folds are finished
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.benchmark.record import ensemble_record, fold_record, task_record
from cgcnn_jax.benchmark.tasks import check_marks
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.tasks import Task
from cgcnn_jax.files import lock_if_free
from cgcnn_jax.run import Load, Watcher, load_dataset, run
from cgcnn_jax.workdir import Workdir


def run_task(
    config: ConfigDict,
    task: Task,
    path: str | Path,
    folder: Path,
    *,
    networks: int = 1,
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
    watcher = watcher or Watcher()
    runs = plan(config, task, path, folder, networks=networks)
    places = [one.place for one in runs]
    folder.mkdir(parents=True, exist_ok=True)
    crystals: Dataset | None = None
    atom_table = configs.build_atom_table(runs[0].config)
    for fold, settings, place in runs:
        with lock_if_free(folder / f"{place.path.name}.lock") as is_free:
            if not is_free or _finished(place):
                continue
            if watcher.should_stop():
                return None
            if crystals is None:
                crystals = load(settings, atom_table)
                check_marks(task, crystals)
                digest = crystals.digest(atom_table)
            # Other processes may have finished folds meanwhile.
            _check_digest(task, places, digest)
            split = configs.build_split(settings, crystals)
            watcher.message(_title(task, fold, settings.train.seed, networks))
            result = run(
                settings, place.path, data=crystals, split=split, watcher=watcher, command=command, report=False
            )
            if not result.is_finished:
                return None
            place.write_json(
                "fold.json",
                fold_record(task, fold, place, crystals, split, command)
                | {"data_digest": digest, "config": configs.to_dict(settings)},
            )
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
