"""A task from its crystals to its record: every fold an ordinary run, so that a stopped benchmark goes on where it was.

FOLDER/fold_0 ...       work directories as experiments.train makes them, with fold.json once the fold is finished and its speed measured
FOLDER/fold_0_seed_1    of an ensemble, the second network of fold 0, and so on: alike but for train.seed
FOLDER/fold_0.lock      held by the process that has the fold: several may share the folds of a task
FOLDER/together/fold_0  of networks that train together, until they are judged: which (runs.json), and checkpoints
FOLDER/record.json      the task's record, once all folds are finished
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.benchmark.folds import Folds, Run, check_digest
from cgcnn_jax.benchmark.record import ensemble_record, task_record
from cgcnn_jax.data.tasks import Task
from cgcnn_jax.run import Load, Watcher, load_dataset
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
        each trains by itself, as do crystals that are streamed. Networks that began together or alone go on so.
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
        raise ValueError(
            f"--population, the networks that train together at most, must be at least 1; got {population}"
        )
    runs = plan(config, task, path, folder, networks=networks)
    folder.mkdir(parents=True, exist_ok=True)
    Folds(task, folder, runs, load, watcher or Watcher(), command, networks).train(population)
    if not all(one.is_finished for one in runs):
        return None
    check_digest(task, runs, runs[-1].place.read_json("fold.json")["data_digest"])
    of_folds = []
    for fold in range(task.num_folds):
        alike = [one.place for one in runs if one.fold == fold]
        records = [place.read_json("fold.json") for place in alike]
        of_folds.append(records[0] if networks == 1 else ensemble_record(task, records, alike))
    record = task_record(task, of_folds) | ({"command": command} if command else {})
    Workdir(folder).write_json("record.json", record)
    return record


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
        _check_finished(one)
        if networks > 1 and one.is_finished and not (one.place.path / "predictions.csv").is_file():
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


def _check_finished(one: Run) -> None:
    """Raises ValueError if the fold was finished with another configuration."""
    if not one.is_finished:
        return
    stored = configs.upgraded(one.place.read_json("fold.json")["config"])
    other = configs.differences(stored, configs.to_dict(one.config))
    if other:
        listed = "\n".join(f"  {field}" for field in other)
        raise ValueError(
            f"{one.place.path} holds a fold of another configuration:\n{listed}\nChoose another --workdir, or remove this "
            "one"
        )
