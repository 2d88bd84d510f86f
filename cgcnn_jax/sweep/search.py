"""run_search: trials chosen by what earlier ones reached, shared by any number of processes; needs the extra `sweep`."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import memory
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.predict import Misfit
from cgcnn_jax.run import Load, Watcher, load_dataset
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.sweep.folder import FAILED, FINISHED, SweepFolder
from cgcnn_jax.sweep.runner import Crystals, SweepWatcher, Trial, make_trial, report, train_one
from cgcnn_jax.sweep.space import Integers, Overrides, Space, Uniform, assigned, check_space

if TYPE_CHECKING:
    import optuna

_JOURNAL = "optuna.journal"
_STUDY = "sweep"
# Trials that are never pruned because there is nothing to compare with, and the share of the epochs before which none is.
_STARTUP_TRIALS = 5
_WARMUP_SHARE = 0.2
# A trial that changes one of these may want memory that another choice does not.
_LARGER = ("atoms.", "bonds.", "data.", "graph.", "model.", "train.batch_size")


def run_search(
    config: ConfigDict,
    space: Space,
    path: str | Path,
    n_trial: int,
    *,
    seed: int = 0,
    data: Load = load_dataset,
    watcher: SweepWatcher | None = None,
    command: str = "",
) -> bool:
    """Searches the space with optuna's TPE for the lowest validation error, and writes results.csv.

    A trial whose validation error is above the median of earlier trials at the same epoch is given up. The study is a
    journal file in the folder: processes that share the folder, on one host or several, share the trials. Each holds a
    lock while it trains one. A trial that nobody holds although it never ended, because its process was stopped or
    killed, is taken up by the next process that looks for work, and goes on from its last checkpoint. What is chosen and
    cannot be trained, such as fields that exclude each other, ends as failed, with the reason.

    Args:
      config: What the trials change.
      space: Fields and what they may be.
      path: Folder of the search; `sweep.folder` says what will be in it, beside the journal.
      n_trial: Trials of all processes together, earlier ones included.
      seed: Of the choices. One process alone makes the same ones each time, however often it was stopped.
      data: What loads the crystals.
      watcher: Told of the progress.
      command: What the user typed, for the summaries.

    Returns:
      Whether all trials have ended; False if it was stopped, or other processes are training some.

    Raises:
      ImportError: Without optuna.
      ValueError: If the space or the configuration is wrong, none of the first trials can be trained, or the folder
        holds another sweep.
    """
    optuna = _optuna()
    check_space(space)
    if n_trial < 1:
        raise ValueError(f"a search needs at least 1 trial; got {n_trial}")
    watcher, folder = watcher or SweepWatcher(), SweepFolder(path)
    configs.validate(config)
    folder.claim(configs.to_dict(config), {"space": _described(space)})
    crystals_of = Crystals(data, watcher)
    backend = optuna.storages.journal.JournalFileBackend(str(folder.path / _JOURNAL))
    with folder.lock("search"):
        study = optuna.create_study(
            study_name=_STUDY,
            storage=optuna.storages.JournalStorage(backend),
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(_STARTUP_TRIALS, round(_WARMUP_SHARE * config.train.epochs)),
        )
    is_going = True
    while is_going and not watcher.should_stop():
        is_going = _try_one(study, config, space, n_trial, seed, folder, crystals_of, watcher, command)
    with folder.lock("search"):
        report(folder, config, watcher)
    _check_trains(study, folder, n_trial)
    return len(folder.ended()) >= n_trial


def _try_one(
    study: "optuna.Study",
    config: ConfigDict,
    space: Space,
    n_trial: int,
    seed: int,
    folder: SweepFolder,
    crystals_of: Crystals,
    watcher: SweepWatcher,
    command: str,
) -> bool:
    """Trains a trial to its end. Returns False if there is none to train, or it was stopped."""
    optuna = _optuna()
    with ExitStack() as held:
        with folder.lock("search"):
            taken = _take(study, folder, space, n_trial, seed, held)
        if taken is None:
            return False
        number, overrides = taken.number, _suggested(taken, space)
        if not folder.has_ended(number):
            pruning = _Pruning(watcher, taken)
            try:
                with _blaming_size(number, overrides):
                    trial, crystals = _prepared(config, number, overrides, crystals_of)
                    folder.check_data(*crystals_of.identity)
                    watcher.message(f"\ntrial {number} of {n_trial}: {_changes(trial)}")
                    has_ended = train_one(trial, folder, crystals, pruning, command)
            except (_Unusable, Misfit) as error:
                watcher.message(f"\n{error}")
                folder.end_failed(number, overrides, error)
            else:
                if not has_ended and not pruning.is_pruned:
                    return False
                if not has_ended:
                    folder.end_pruned(number, overrides)
        record = folder.record(number)
        # One that diverged or failed, too, is to be kept away from, which optuna learns of pruned trials alone.
        if record["status"] == FINISHED:
            study.tell(number, record["val_error"], skip_if_finished=True)  # another process may have told it meanwhile
        else:
            study.tell(number, state=optuna.trial.TrialState.PRUNED, skip_if_finished=True)
    watcher.ended(record, len(folder.ended()), n_trial)
    with folder.lock("search"):
        folder.write_table()
    _check_trains(study, folder, min(n_trial, _STARTUP_TRIALS))
    return True


def _check_trains(study: "optuna.Study", folder: SweepFolder, n_trial: int) -> None:
    """Raises ValueError if so many trials have ended, all of them failed, and none is being trained."""
    ended = folder.ended()
    is_running = any(not trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    if len(ended) >= n_trial and not is_running and all(one["status"] == FAILED for one in ended):
        raise ValueError(f"none of {len(ended)} trials can be trained; the last: {ended[-1]['reason']}")


class _Unusable(ValueError):
    """What was chosen cannot be trained; the message names the trial and the reason."""


def _prepared(config: ConfigDict, number: int, overrides: Overrides, crystals_of: Crystals) -> tuple[Trial, Dataset]:
    """A trial and its crystals.

    Raises:
      _Unusable: If the trial is to blame.
      ValueError: If the crystals or their split cannot be had whatever the trial changes.
    """
    try:
        trial = make_trial(config, number, overrides)
    except ValueError as error:
        raise _Unusable(str(error)) from error
    changed = {name.split(".")[0] for name in overrides}
    with _blaming(number, overrides, bool(changed & {"data", "graph", "atoms"})):
        crystals = crystals_of(trial.config)
    with _blaming(number, overrides, bool(changed & {"data", "split"})):
        if not len(configs.build_split(trial.config, crystals)["val"]):
            raise ValueError("a search chooses by the validation error, and config.split leaves val empty")
        crystals_of.tell(trial.config)
    return trial, crystals


@contextlib.contextmanager
def _blaming(number: int, overrides: Overrides, is_to_blame: bool) -> Iterator[None]:
    """Raises _Unusable for a ValueError if the trial is to blame for it."""
    try:
        yield
    except ValueError as error:
        if not is_to_blame:
            raise
        raise _Unusable(f"trial {number} ({overrides}): {error}") from error


@contextlib.contextmanager
def _blaming_size(number: int, overrides: Overrides) -> Iterator[None]:
    """Raises _Unusable for a lack of memory if the trial may want more than another."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Left behind, it would be the first that the same command takes up.
        if not (memory.is_lacking(error) and any(name.startswith(_LARGER) for name in overrides)):
            raise
        raise _Unusable(f"trial {number} ({overrides}): not enough memory ({str(error) or repr(error)})") from error


def _take(
    study: "optuna.Study", folder: SweepFolder, space: Space, n_trial: int, seed: int, held: ExitStack
) -> "optuna.Trial | None":
    """A trial that nobody trains, whose lock is then held: one left behind, or else a new one if there are too few."""
    optuna = _optuna()
    trials = study.get_trials(deepcopy=False)
    for frozen in trials:
        if not frozen.state.is_finished() and held.enter_context(_lock_of(folder, frozen.number)):
            return optuna.Trial(study, frozen._trial_id)
    if len(trials) >= n_trial:
        return None
    # Seeded by the trials so far, so that a search that is stopped and goes on chooses as one that is not.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(trials))
    trial = study.ask()
    held.enter_context(_lock_of(folder, trial.number))
    # All at once, while no other process looks.
    _suggested(trial, space)
    return trial


def _lock_of(folder: SweepFolder, number: int) -> contextlib.AbstractContextManager[bool]:
    return folder.lock_if_free(f"trial_{number:04d}")


def _suggested(trial: "optuna.Trial", space: Space) -> Overrides:
    """What optuna chooses; of a trial that has been asked before, the same."""

    def choice(name: str, values: Sequence[Any] | Uniform | Integers) -> Any:
        if isinstance(values, Uniform):
            return trial.suggest_float(name, values.low, values.high, log=values.log)
        if isinstance(values, Integers):
            return trial.suggest_int(name, values.low, values.high)
        # By place, because a value may be a tuple.
        return values[trial.suggest_categorical(name, range(len(values)))]

    names = [fields if isinstance(fields, str) else ",".join(fields) for fields in space]
    return assigned(space, [choice(name, values) for name, values in zip(names, space.values(), strict=True)])


class _Pruning(Watcher):
    """Tells optuna of each epoch, and stops a trial that it gives up; all else goes to another watcher."""

    def __init__(self, watcher: Watcher, trial: "optuna.Trial") -> None:
        self._watcher, self._trial = watcher, trial
        self._reported = set(trial._get_latest_trial().intermediate_values)
        self.is_pruned = False

    def message(self, text: str) -> None:
        self._watcher.message(text)

    def training(self, first: int, epochs: int, scaler: TargetScaler) -> contextlib.AbstractContextManager[None]:
        return self._watcher.training(first, epochs, scaler)

    def step(self, epoch: int, done: int, of: int) -> None:
        self._watcher.step(epoch, done, of)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._watcher.epoch(record)
        # After a kill, epochs since the last checkpoint are trained once more.
        if record["epoch"] not in self._reported:
            self._trial.report(record["val_error"], record["epoch"])
            self._reported.add(record["epoch"])
        self.is_pruned = self._trial.should_prune()

    def should_stop(self) -> bool:
        return self.is_pruned or self._watcher.should_stop()


def _described(space: Space) -> dict[str, Any]:
    """The space as JSON."""
    return {
        ",".join([fields] if isinstance(fields, str) else fields): str(values)
        if isinstance(values, Uniform | Integers)
        else json.loads(json.dumps(list(values)))
        for fields, values in space.items()
    }


def _changes(trial: Trial) -> str:
    return ", ".join(f"{name}={value}" for name, value in trial.overrides.items())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("a search needs optuna; install it with: pip install 'cgcnn-jax[sweep]'") from error
    # Its lines about every trial would stand between ours.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
