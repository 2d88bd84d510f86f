"""One run: a configuration and a work directory in, a trained model, its predictions and their errors out.

Where jax.distributed connects several processes, all call `run` alike. All load the crystals and train together; the
first one alone reads and writes the work directory, and tells the watcher more than when to stop.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import evaluation
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data import dataset, duplicates
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.duplicates import Twins
from cgcnn_jax.data.splits import NAMES, Split
from cgcnn_jax.nn.model import CGCNN, Variables, count_parameters, init_variables
from cgcnn_jax.predict import Predictor, describe
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
      report: Write report.html, and beside each prediction the nearest training crystal; both take some seconds.

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
    setup = prepare(config, atom_table, crystals, split, watcher, has_weights=has_whole(workdir.checkpoints))
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
                workdir.check_stored(before["config"], plain)  # config.json may be gone
            del before
            # With the last checkpoint lost, the one before would predict otherwise than the summary says.
            if has_begun and workdir.is_finished and checkpoints.latest_step() >= workdir.last_step():
                _was_finished(True)
                return RunResult(workdir, True, True, workdir.summary())
            first = checkpoints.latest_step() // settings.steps_per_epoch(len(split["train"]))
            # From here on the folder is this run's: a start that failed before may be corrected.
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


@dataclass(frozen=True)
class Setup:
    """What a configuration says to train, with the crystals at hand.

    Attributes:
      crystals: The data set.
      split: Indices of train, val and test.
      scaler: Fitted on train.
      model: The network.
      variables: Its initial variables.
      about: What the run's checkpoints say of themselves.
    """

    crystals: Dataset
    split: Split
    scaler: TargetScaler
    model: CGCNN
    variables: Variables
    about: Mapping[str, Any]

    @cached_property
    def twins(self) -> Twins:
        """Crystals that stand in two splits."""
        return duplicates.find(self.crystals.fingerprints, self.split)


def prepare(
    config: ConfigDict,
    atom_table: np.ndarray,
    crystals: Dataset,
    split: Split | None,
    watcher: Watcher,
    *,
    has_weights: bool = False,
    digest: str = "",
) -> Setup:
    """Builds what a run trains; without a split the configured one.

    With `has_weights` it goes on from a checkpoint, so that the model of init_from is not read: it may be gone.
    `digest` is that of the crystals, if it is known.

    Raises:
      ValueError: If the split cannot be made, or the weights of init_from do not fit.
    """
    split = configs.build_split(config, crystals) if split is None else split
    ids = {name: [crystals.ids[i] for i in split[name]] for name in NAMES}
    scaler = configs.build_scaler(config, crystals.targets, split["train"])
    model = configs.build_model(config, atom_table.shape, scaler.n_output)
    if has_weights or not config.init_from:
        variables = init_variables(model, config.train.seed, atom_table)
    else:
        variables = _variables_of_init_from(config, model, atom_table, scaler, ids, watcher)
    about = describe(config, scaler, atom_table.shape, ids, digest or crystals.digest(atom_table))
    return Setup(crystals, split, scaler, model, variables, about)


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
                "twins_in_train": {name: setup.twins.n_of(name) for name in NAMES[1:]},
                # Of this session; epochs before a stop are in the sum of all.
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
    """Columns of predictions.csv: the nearest training crystal and the distance to it; none if that cannot be told."""
    train = split["train"]
    if judged == "train" or len(train) < 2:
        return {}
    if len(train) > _MOST_SEARCHED:
        watcher.message(f"distances to the training crystals are left out: there are more than {_MOST_SEARCHED:,}")
        return {}
    try:
        predictor = Predictor.restore(workdir.path)
        seen = Applicability.fit(predictor, [crystals.ids[i] for i in train], crystals.store.take(train))
        vectors = predictor.inspect_graphs(crystals.store.take(split[judged])).crystals
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


def _variables_of_init_from(
    config: ConfigDict,
    model: CGCNN,
    atom_table: np.ndarray,
    scaler: TargetScaler,
    ids: Mapping[str, Sequence[str]],
    watcher: Watcher,
) -> Variables:
    start = Predictor.restore(config.init_from)
    # Of the quotient predictions do not depend.
    old, new = (
        {"graph": {key: value for key, value in one["graph"].items() if not key.startswith("quotient")}}
        for one in (start.about["config"], configs.to_dict(config))
    )
    other = configs.differences(old, new)
    variables = start.variables_for(model, atom_table, scaler)
    if other:
        watcher.message(
            "the weights of init_from were trained on other graphs, so their first predictions may be far off:\n"
            + "\n".join(f"  {field}" for field in other)
        )
    trained, chosen = (set((start.about["split"] or {}).get(part, ())) for part in ("train", "val"))
    # What chose the old weights may choose the new ones, but is no test of them.
    seen = {"test": len((trained | chosen).intersection(ids["test"])), "val": len(trained.intersection(ids["val"]))}
    if any(seen.values()):
        counts = " and ".join(f"{n} of {len(ids[name])} {name}" for name, n in seen.items() if n)
        watcher.message(
            f"{counts} crystals have ids that the model of init_from was trained on or chosen by: the error on them is of "
            "memory. Keep its split (config.split), or judge by crystals that it has not seen"
        )
    return variables


def facts(config: ConfigDict, crystals: Dataset, split: Split, twins: Twins) -> Iterator[str]:
    """What to know of the data before training."""
    if config.data.source == "demo":
        yield (
            "The demo crystals' labels come from a machine-learned potential (CHGNet), not from DFT or experiment:\n"
            "this set is for trying the software. For your own: --config.data.source=directory --config.data.path=..."
        )
    atoms, nodes = int(crystals.store.n_atom.sum()), int(crystals.graphs.n_node.sum())
    yield (
        f"{len(crystals)} crystals ({len(crystals.rejected)} left out), {atoms} atoms as {nodes} nodes; "
        + ", ".join(f"{name} {len(split[name])}" for name in NAMES)
    )
    if len(split["val"]) or len(split["test"]):
        yield _about_twins(config, crystals, split, twins)
    if not len(split["val"]):
        averaged = "averaged " if config.train.average_decay else ""
        yield f"no crystal validates: the {averaged}weights after the last epoch are kept"
    if configs.atom_table_name(config).endswith(".json"):
        yield f"atom features of {configs.atom_table_name(config)}"


def _about_twins(config: ConfigDict, crystals: Dataset, split: Split, twins: Twins) -> str:
    """Whether what is judged was trained on, and what to do."""
    in_train = np.array([other == "train" for _, other in twins.split], bool)
    if not in_train.any():
        return "no crystal of val or test has a twin in train"
    one, other = twins.crystal[in_train], twins.twin[in_train]
    counts = " and ".join(
        f"{twins.n_of(name)} of {len(split[name])} {name}" for name in ("test", "val") if len(split[name])
    )
    first = ", ".join(f"{crystals.ids[a]} = {crystals.ids[b]}" for a, b in zip(one[:3], other[:3], strict=True))
    apart = np.abs(crystals.targets[one] - crystals.targets[other])
    known = ~np.isnan(apart)
    if config.model.task == "classification":
        labels = f"labels agree in {np.count_nonzero(apart[known] == 0)} of {np.count_nonzero(known)}"
    else:
        scaled = (apart / np.maximum(np.nanstd(crystals.targets, axis=0), 1e-30))[known]
        labels = f"labels differ by {scaled.mean() if len(scaled) else 0:.2g} standard deviations on average"
    remedy = (
        "To keep twins in one split: --config.split.by_structure=True"
        if configs.split_kind(config) in ("ratio", "k_fold")
        else "This split is given; judge without them where that matters"
    )
    return (
        f"{counts} crystals have a twin in train, alike to the network within {duplicates.TOLERANCE} Å "
        f"({first}{', ...' if len(one) > 3 else ''}; {labels}).\n"
        f"The error on them is of memory. {remedy}. All are listed in duplicates.csv"
    )


def check_data(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raises ValueError, saying why, if the data are not those that the run began with."""
    if before is None or all(before[key] == now[key] for key in ("data_digest", "split")):
        return
    old, new = ({id for ids in about["split"].values() for id in ids} for about in (before, now))
    if old != new:
        what = f"the data changed since this run began: {len(new - old)} crystals are new and {len(old - new)} are gone"
    elif before["data_digest"] != now["data_digest"]:
        what = "the data changed since this run began: labels or structures differ"
    else:
        what = "the split changed since this run began: crystals moved between train, val and test"
    raise ValueError(f"{what}. Choose another --workdir, or restore the data")


def _both(*functions: Callable[[Any], None]) -> Callable[[Any], None]:
    def call(value: Any) -> None:
        for function in functions:
            function(value)

    return call
