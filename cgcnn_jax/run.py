"""One run: a configuration and a work directory in, a trained model, its predictions and their errors out.

Where jax.distributed connects several processes, all call `run` alike. All load the crystals and train together; the
first one alone reads and writes the work directory, and tells the watcher more than when to stop.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import evaluation
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data import dataset
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.splits import NAMES, Split, are_folds
from cgcnn_jax.nn.model import count_parameters
from cgcnn_jax.predict import Predictor
from cgcnn_jax.preparation import SEEN, Setup, check_data, facts, prepare
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.checkpoint import Checkpoints, has_whole
from cgcnn_jax.train.loop import Fit, fit
from cgcnn_jax.train.parallel import from_first_process, is_first_process
from cgcnn_jax.workdir import Workdir, environment

REPORT = "report.html"
# Training crystals among which the nearest are searched: minutes of two cores, growing with their square.
_MOST_SEARCHED = 200_000

Load = Callable[[ConfigDict, np.ndarray], Dataset]  # configuration and element table -> crystals


class Watcher:
    """What a run tells while it goes, and asks. Nothing happens here; override what is wanted."""

    def message(self, text: str) -> None:
        """Something to know, in whole sentences for people."""

    def training(self, first: int, epochs: int, scaler: TargetScaler) -> AbstractContextManager[None]:
        """Entered while epochs first .. epochs - 1 are trained."""
        return contextlib.nullcontext()

    def step(self, epoch: int, done: int, of: int) -> None:
        """About once a second: steps done in the epoch."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """After each epoch, what metrics.jsonl then holds of it."""

    def should_stop(self) -> bool:
        """True saves and ends the run; asked about once a second while it trains."""
        return False


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
      workdir: Its folder.
      is_finished: False if it was stopped; the same call goes on.
      was_finished: True if it was finished before, so that nothing was done.
      summary: What summary.json holds; None if the run was stopped, or in a process that is not the first.
      judged: The split that predictions.csv holds.
      headline: Lines for people about the errors on that split; empty if nothing was done.
      pictures: Names of the pictures drawn.
      has_report: Whether REPORT was written.
    """

    workdir: Workdir
    is_finished: bool
    was_finished: bool = False
    summary: Mapping[str, Any] | None = None
    judged: str = ""
    headline: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    has_report: bool = False


def load_dataset(
    config: ConfigDict,
    atom_table: np.ndarray,
    entries: Iterable[Entry | Rejected] | None = None,
    *,
    executor: Executor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The configured crystals, or those of `entries`, with the configured graphs and labels.

    Raises:
      DataError: For what cannot be used; see `dataset.load`, also for the other arguments.
    """
    return dataset.load(
        configs.build_entries(config) if entries is None else entries,
        configs.build_featurizer(config, atom_table),
        configs.target_names(config),
        log10=config.data.log10,
        on_error=config.data.on_error,
        cache=configs.cache_folder(config),
        executor=executor,
        on_progress=on_progress,
    )


def run(
    config: ConfigDict,
    path: str | Path,
    *,
    data: Dataset | Load = load_dataset,
    split: Split | None = None,
    watcher: Watcher | None = None,
    command: str = "",
    began: float | None = None,
    report: bool = True,
) -> RunResult:
    """Trains, judges and writes a run, or goes on with one that was stopped.

    Args:
      config: All that defines the run.
      path: Its folder; `cgcnn_jax.workdir` says what will be in it.
      data: The crystals, or what loads them.
      split: Indices of train, val and test; the configured split if not given.
      watcher: Told of the progress.
      command: What the user typed, for the summary.
      began: `time.monotonic()` of the caller's start, if its preparations are to count in the summary's total.
      report: Write report.html, beside each prediction the nearest training crystal, and what tells whether others are
        like these (applicability.npz); it takes some seconds.

    Raises:
      ValueError: If the configuration is wrong, the folder holds another run, or the data changed under this one.
      DataError: If crystals cannot be used.
      Diverged: If the loss becomes NaN or infinite.
    """
    watcher, workdir = watcher or Watcher(), Workdir(path)
    began = time.monotonic() if began is None else began
    configs.validate(config)
    plain = configs.to_dict(config)
    if is_first_process():
        workdir.check(plain)
    atom_table = configs.build_atom_table(config)

    data_began = time.monotonic()
    crystals = data if isinstance(data, Dataset) else data(config, atom_table)
    seconds = {"data": time.monotonic() - data_began}
    setup = prepare(config, atom_table, crystals, split, watcher.message, has_weights=has_whole(workdir.checkpoints))
    split, scaler, about = setup.split, setup.scaler, setup.about
    settings = configs.build_train_settings(config)

    def train(first: int, **to_keep: Any) -> Fit:
        with watcher.training(first, settings.epochs, scaler):
            return fit(
                setup.model,
                setup.variables,
                crystals.graphs,
                crystals.targets,
                split,
                scaler,
                settings,
                configs.build_optimizer_settings(config),
                should_stop=watcher.should_stop,
                **to_keep,
            )

    if not is_first_process():
        if _was_finished():
            return RunResult(workdir, True, True)
        return RunResult(workdir, train(0).is_finished)
    for line in facts(config, crystals, split, setup.twins):
        watcher.message(line)
    watcher.message(
        f"{config.model.num_convs} x {config.model.conv}, {count_parameters(setup.variables)} parameters, "
        f"in {workdir.path}"
    )

    with workdir.lock():
        with Checkpoints(workdir.checkpoints) as checkpoints:
            # Not kept while it trains: it holds the id of every crystal once more.
            before = checkpoints.about()
            check_data(before, about)
            has_begun = before is not None
            if before is not None:
                if not checkpoints.has_state:
                    raise ValueError(
                        f"{workdir.path} holds a trained network without its training, so that none can go on there; choose "
                        f"another --workdir, and --config.init_from={workdir.path} to start from its weights"
                    )
                workdir.check_stored(before["config"], plain)  # config.json may be gone
                if SEEN in before:
                    about[SEEN] = before[SEEN]
            del before
            # With the last checkpoint lost, the one before would predict otherwise than the summary says.
            if has_begun and workdir.is_finished and checkpoints.latest_step() >= workdir.last_step():
                _was_finished(True)
                return RunResult(workdir, True, True, workdir.summary())
            first = checkpoints.latest_step() // settings.steps_per_epoch(len(split["train"]))
            # From here on the folder is this run's: a start that failed before may be corrected.
            workdir.reopen()
            claim(workdir, config, setup, first, watcher)
            if first:
                watcher.message(f"going on after {first} of {settings.epochs} epochs")
            _was_finished(False)
            fitted = train(
                first,
                checkpoints=checkpoints,
                about=about,
                on_step=watcher.step,
                on_epoch=_both(workdir.append_record, watcher.epoch),
            )
        if fitted.values is None:
            return RunResult(workdir, False)
        return judge(workdir, setup, fitted, seconds, watcher, command, began, reports=report)


def _was_finished(answer: bool = False) -> bool:
    """Whether there is nothing to do: what the first process answers, in all processes."""
    return bool(from_first_process(np.array(int(answer))))


def claim(
    workdir: Workdir, config: ConfigDict, setup: Setup, first: int, watcher: Watcher, *, may_have_ended: bool = False
) -> None:
    """Makes the folder a run's own, and writes what is known before it trains from epoch `first` on.

    One that `may_have_ended` before, among others that train on, has records up to its end.
    """
    workdir.claim(configs.to_dict(config))
    workdir.write_json("split.json", setup.about["split"])
    if config.data.on_error == "skip":
        workdir.write_rejected(setup.crystals.rejected)
    workdir.write_csv("duplicates.csv", *evaluation.twin_table(setup.crystals, setup.twins, setup.scaler.names))
    kept = workdir.keep_records(first)
    if kept != list(range(len(kept) if may_have_ended else first)):
        watcher.message(
            f"{workdir.path}/metrics.jsonl is damaged: it lacks epochs, which curves and times then lack too"
        )


def judge(
    workdir: Workdir,
    setup: Setup,
    fitted: Fit,
    seconds: dict[str, float],
    watcher: Watcher,
    command: str,
    began: float,
    *,
    draws: bool = True,
    reports: bool = False,
) -> RunResult:
    """Writes predictions and summary of a finished training, and, where it draws and reports, pictures and the page."""
    with workdir.judging():
        assert fitted.values is not None
        crystals, split, scaler = setup.crystals, setup.split, setup.scaler
        judge_began = time.monotonic()
        measured = {
            name: evaluation.measure(scaler, crystals.targets[split[name]], fitted.values[split[name]])
            for name in NAMES
        }
        judged = next(name for name in ("test", "val", "train") if len(split[name]))
        targets, values = crystals.targets[split[judged]], fitted.values[split[judged]]
        bounds = evaluation.measure_intervals(scaler, targets, values)
        ids = [crystals.ids[i] for i in split[judged]]
        columns: dict[str, Sequence[Any]] = {**evaluation.crystal_columns(crystals, split[judged])}
        workdir.write_csv("predictions.csv", *evaluation.prediction_table(scaler, ids, targets, values, columns))
        records = workdir.records()
        seconds = seconds | fitted.seconds | {"evaluation": time.monotonic() - judge_began}
        total = time.monotonic() - began
        seconds |= {"total": total, "rest": total - sum(seconds.values())}
        workdir.write_json(
            "summary.json",
            {
                "metrics": measured,
                "intervals_95": {judged: bounds},
                "properties": dict(zip(scaler.names, scaler.units, strict=True)),
                "best_epoch": int(fitted.state.best_epoch),
                "parameters": count_parameters(setup.variables),
                "crystals": _counts(crystals, split),
                "split_is_fold": are_folds(crystals.source_split),
                "twins_in_train": {name: setup.twins.n_of(name) for name in NAMES[1:]},
                **({SEEN: setup.about[SEEN]} if SEEN in setup.about else {}),
                # Of this session; epochs before a stop are in the sum of all, where one that was stopped counts from
                # where it went on.
                "seconds": seconds,
                "seconds_of_all_epochs": sum(record["seconds"] for record in records),
                "train_crystals_per_second": fitted.crystals_per_second,
                "inference_crystals_per_second": fitted.inference_crystals_per_second,
                "padding": dict(zip(("nodes", "edges"), np.round(fitted.padding, 4).tolist(), strict=True)),
                "command": command,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                **environment(),
            },
        )
        # The numbers are safe by now: whatever drawing runs into, the run is finished.
        drawn: dict[str, Any] = {}
        try:
            if draws:
                drawn = evaluation.pictures(scaler, targets, values, judged)
                drawn |= evaluation.learning_curves(scaler, records, int(fitted.state.best_epoch))
                workdir.save_figures(drawn)
        except Exception as error:
            watcher.message(
                f"no pictures were drawn ({type(error).__name__}: {error}); all numbers are in {workdir.path}"
            )
            drawn = {}
        has_report = False
        if reports:
            columns |= _nearest(workdir, crystals, split, judged, watcher)
            workdir.write_csv("predictions.csv", *evaluation.prediction_table(scaler, ids, targets, values, columns))
            has_report = _report(workdir, watcher)
        headline = evaluation.headline(scaler, measured[judged], bounds)
        return RunResult(workdir, True, False, workdir.summary(), judged, tuple(headline), tuple(drawn), has_report)


def _nearest(
    workdir: Workdir, crystals: Dataset, split: Split, judged: str, watcher: Watcher
) -> dict[str, Sequence[Any]]:
    """Columns of predictions.csv: the nearest training crystal and the distance to it; none if that cannot be told.

    What the run was trained on is kept for those who predict (`Applicability.save`).
    """
    train = split["train"]
    if len(train) < 2:
        return {}
    if len(train) > _MOST_SEARCHED:
        watcher.message(f"distances to the training crystals are left out: there are more than {_MOST_SEARCHED:,}")
        return {}
    try:
        predictor = Predictor.restore(workdir.path)
        seen = Applicability.fit(predictor, crystals, train)
        seen.save(workdir.path)
        if judged == "train":
            return {}
        _, vectors = predictor.embed_graphs(crystals.store.take(split[judged]))
        distances, places = seen.nearest(vectors)
    except Exception as error:
        watcher.message(f"distances to the training crystals are left out ({type(error).__name__}: {error})")
        return {}
    return {
        "nearest": [seen.ids[place] for place in places[:, 0]],
        "distance": [float(f"{distance:.6g}") for distance in distances[:, 0]],
    }


def _report(workdir: Workdir, watcher: Watcher) -> bool:
    """Writes report.html; whatever that runs into but a full disk, the run is finished."""
    try:
        from cgcnn_jax.report import page

        page.write([workdir.path], workdir.path / REPORT)
    except OSError:
        raise  # the next start finds the run unfinished, and judges and reports again
    except Exception as error:
        watcher.message(f"no report was written ({type(error).__name__}: {error}); all numbers are in {workdir.path}")
        return False
    return True


def _counts(crystals: Dataset, split: Split) -> dict[str, int]:
    """Crystals of each part, of none (a split may take a subset), and those that could not be used."""
    counts = {name: len(split[name]) for name in NAMES}
    return counts | {"unused": len(crystals) - sum(counts.values()), "left_out": len(crystals.rejected)}


def _both(*functions: Callable[[Any], None]) -> Callable[[Any], None]:
    def call(value: Any) -> None:
        for function in functions:
            function(value)

    return call
