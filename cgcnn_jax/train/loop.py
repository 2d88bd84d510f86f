"""fit: epochs of training with validation, checkpoints and early stopping, from wherever the last run stopped."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cgcnn_jax.data import batching
from cgcnn_jax.graph import CrystalGraphs, PadBudget
from cgcnn_jax.nn.model import CGCNN, Variables
from cgcnn_jax.scaling import TargetScaler, Task
from cgcnn_jax.train import metrics
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.feed import DeviceFeed, Feed, StreamFeed, fits_device
from cgcnn_jax.train.optimizer import OptimizerSettings, build_optimizer, learning_rate_schedule
from cgcnn_jax.train.parallel import Devices, any_process, from_first_process
from cgcnn_jax.train.state import Sums, TrainState, Weights, init_state
from cgcnn_jax.train.step import Compiled, compile_steps

Record = dict[str, Any]


class Diverged(RuntimeError):
    """Loss or gradient became NaN or infinite; the message names the step.

    Attributes:
      step: That step; None if the steps were finite and the validation error was not.
      epoch: Its epoch, the first being 0; people are told it counted from 1.
    """

    def __init__(self, step: int | None, epoch: int = 0) -> None:
        self.step, self.epoch = step, epoch
        super().__init__(
            "the validation error was never finite; lower optimizer.learning_rate, in a new --workdir"
            if step is None
            else f"loss or gradient is not finite at step {step} (epoch {epoch + 1}); in a new --workdir, lower "
            "optimizer.learning_rate or set optimizer.clip_norm. The last checkpoint before is kept"
        )


@dataclass(frozen=True)
class TrainSettings:
    """How long and in what portions to train.

    Attributes:
      epochs: Passes over the training split.
      batch_size: Crystals a step, on average over an epoch.
      seed: Of initial weights, shuffles and dropout.
      patience: Epochs without a better validation error after which training stops; 0 never stops early, as it must be
        where no crystal validates.
      average_decay: Of the exponential average of the weights that then predicts, (1 + t) / (10 + t) at step t until
        that is larger; 0 leaves averaging off.
      loss: What training lowers, see losses.loss_sums; "auto" is mse, and cross_entropy in classification. The
        validation error, which chooses the weights, does not depend on it.
      save_seconds: Time between checkpoints.
      feed: "device" puts all crystals there at once, "stream" sends batches that the host pads a few steps ahead, "auto"
        streams what is large against the device's memory. The steps are the same.
      devices: How many devices of this process share every batch, 0 for all of them; of several processes, each gives so
        many. The steps are the same but for the rounding of sums and the draws of dropout.
      parallel: See parallel.Devices.way.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    patience: int = 0
    average_decay: float = 0.0
    loss: str = "auto"
    save_seconds: float = 60.0
    feed: str = "auto"
    devices: int = 0
    parallel: str = "shard"

    def steps_per_epoch(self, n_train: int) -> int:
        """Batches that n_train crystals make."""
        return max(1, round(n_train / self.batch_size))


@dataclass(frozen=True)
class Fit:
    """A finished or stopped training.

    Attributes:
      state: The last state; `state.best` predicts.
      values: What the best weights predict for every crystal, in units [n_graph, n_target], or class probabilities
        [n_graph, num_classes]; None if training was stopped.
      is_finished: False if it was stopped from outside.
      seconds: Time spent compiling, training, validating and saving, this time.
      crystals_per_second: In training, compilation left out; NaN if nothing was trained.
      inference_crystals_per_second: In the prediction of all crystals, whose graphs are made and whose program is
        compiled; NaN if training was stopped.
      padding: Shares of nodes and edges of the last epoch that were padding.
    """

    state: TrainState
    values: np.ndarray | None
    is_finished: bool
    seconds: dict[str, float]
    crystals_per_second: float
    inference_crystals_per_second: float
    padding: tuple[float, float]


def fit(
    model: CGCNN,
    variables: Variables,
    graphs: CrystalGraphs,
    targets: np.ndarray,
    split: Mapping[str, np.ndarray],
    scaler: TargetScaler,
    settings: TrainSettings,
    optimizer_settings: OptimizerSettings,
    *,
    checkpoints: Checkpoints | None = None,
    about: Mapping[str, Any] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Fit:
    """Trains, and keeps the weights with the lowest validation error; with an empty validation split, the last.

    The same arguments give the same parameters bit for bit on the CPU, however often training was stopped and resumed.
    A run may go on on another number of devices; it then takes the same steps up to the rounding of sums.

    Where jax.distributed connects several processes, all call this with the same arguments and train as one, from the
    state of the first process. That one alone needs checkpoints. A request of any process stops all.

    Args:
      model: The network.
      variables: Its initial variables; ignored when a checkpoint is there.
      graphs: All crystals, unpadded.
      targets: Labels in their units, [n_graph, n_target], NaN where unknown.
      split: Indices of train and val. Where val is empty, records have no val_* and the weights after the last epoch
        (their average, with averaging) are the best.
      scaler: Fitted on the training split.
      settings: Portions.
      optimizer_settings: Updates.
      checkpoints: Where to save and resume; None keeps nothing.
      about: JSON saved with every checkpoint.
      on_step: Called with epoch, steps done and steps in the epoch.
      on_epoch: Called with the record of each epoch.
      should_stop: Asked between stretches of about a second; True saves and returns.

    Raises:
      ValueError: If the crystals of the validation split have no label, so that no weights are better than others, or
        there is patience and no validation split, the task has no such loss, or there are not so many devices.
      Diverged: If loss or gradient is not finite; the last checkpoint before that is kept.
    """
    train, val = split["train"], split["val"]
    check_validation(targets, val, settings.patience)
    steps_per_epoch = settings.steps_per_epoch(len(train))
    devices = Devices.choose(settings.devices, settings.parallel)
    train_budget = batching.training_budget(graphs, train, steps_per_epoch, settings.seed)
    share_budget = batching.share_budget(graphs, train, steps_per_epoch, devices.count, settings.seed)
    eval_budget = batching.packing_budget(graphs, settings.batch_size)
    schedule, optimizer, compiled = programs(
        model,
        optimizer_settings,
        settings.epochs,
        steps_per_epoch,
        scaler.task,
        share_budget,
        eval_budget,
        settings.average_decay,
        settings.loss,
        devices,
    )
    all_plan = batching.packed_plan(graphs, np.arange(len(graphs.n_node)), eval_budget)
    val_plan = batching.packed_plan(graphs, val, eval_budget)
    feed: Feed
    if settings.feed == "stream" or (settings.feed == "auto" and any_process(not fits_device(graphs))):
        feed = StreamFeed(compiled, graphs, targets, scaler, share_budget, eval_budget, devices)
    else:
        feed = DeviceFeed(compiled, graphs, targets, scaler, len(all_plan), devices)

    state = init_state(variables, optimizer, targets.shape[1], averages=settings.average_decay > 0)
    if checkpoints is not None:
        state = checkpoints.restore(state) or state
    state = devices.share(from_first_process(state))
    clock = Clock()
    last_save = time.monotonic()
    stretch = 1
    has_compiled = False
    n_timed = 0
    padding = (math.nan, math.nan)

    def save() -> None:
        nonlocal last_save
        if checkpoints is not None:
            with clock("saving"):
                checkpoints.save(state, about or {})
        last_save = time.monotonic()

    def predict(weights: Weights, plan: np.ndarray) -> np.ndarray:
        with clock("validating"):
            return scaler.unscale(feed.predict(weights, plan))

    def stopped(is_finished: bool) -> Fit:
        save()
        timed = clock.seconds["training"]
        if is_finished and int(state.best_epoch) < 0:
            raise Diverged(None)
        # Whoever asked to stop is waiting.
        values, inferred = None, math.nan
        if is_finished:
            # Compiled here if nothing was validated, so that the time of the next is that of inference alone.
            predict(state.best, all_plan[:1])
            began = time.perf_counter()
            values = predict(state.best, all_plan)
            inferred = len(values) / (time.perf_counter() - began)
        trained = n_timed / timed if timed else math.nan
        return Fit(state, values, is_finished, clock.seconds, trained, inferred, padding)

    for epoch in range(int(state.step) // steps_per_epoch, settings.epochs):
        if is_patience_over(int(state.best_epoch), epoch, settings.patience):
            return stopped(True)
        began = time.monotonic()
        plan = batching.epoch_plan(graphs, train, train_budget, steps_per_epoch, (settings.seed, epoch))
        plan = batching.share_plan(graphs, plan, share_budget, devices.count)
        padding = batching.padding_share(graphs, plan, share_budget)
        done = int(state.step) % steps_per_epoch
        while done < steps_per_epoch:
            stop = min(done + stretch, steps_per_epoch)
            with clock("training" if has_compiled else "compiling") as lap:
                state = feed.train(state, plan, done, stop, settings.seed)
                bad_step = int(state.sums.bad_step)
            if bad_step >= 0:
                raise Diverged(bad_step, epoch)
            if has_compiled:
                n_timed += int((plan[done:stop] >= 0).sum())
                # About a second at a time: long enough to cost nothing, short enough to stop and report.
                stretch = int(from_first_process(max(1, round((stop - done) / max(lap(), 1e-6)))))
            has_compiled = True
            done = stop
            if on_step:
                on_step(epoch, done, steps_per_epoch)
            if done < steps_per_epoch and any_process(should_stop()):
                return stopped(False)
            if done < steps_per_epoch and time.monotonic() - last_save > settings.save_seconds:
                save()
        record: Record = {
            "epoch": epoch,
            "step": int(state.step),
            "learning_rate": float(schedule(int(state.step) - 1)),
            **train_record(state.sums, scaler),
        }
        if len(val):
            record |= val_record(targets[val], predict(state.predicting, val_plan)[val], scaler)
            record["is_best"] = is_better(record["val_error"], float(state.best_error))
        # With nothing to choose by, the latest weights are the best.
        if record.get("is_best", True):
            state = state.replace(
                best=jax.tree.map(jnp.array, state.predicting),
                best_error=jnp.float32(record.get("val_error", np.inf)),
                best_epoch=jnp.int32(epoch),
            )
        state = devices.share(state.replace(sums=Sums.zero(targets.shape[1])))
        record["seconds"] = time.monotonic() - began
        if on_epoch:
            on_epoch(record)
        if any_process(should_stop()):
            return stopped(epoch == settings.epochs - 1)
        if time.monotonic() - last_save > settings.save_seconds:
            save()
    return stopped(True)


@functools.lru_cache(maxsize=8)
def programs(
    model: CGCNN,
    settings: OptimizerSettings,
    epochs: int,
    steps_per_epoch: int,
    task: Task,
    share_budget: PadBudget,
    eval_budget: PadBudget,
    average_decay: float,
    loss: str,
    devices: Devices,
) -> tuple[optax.Schedule, optax.GradientTransformation, Compiled]:
    """Learning rate, optimiser and compiled functions of a fit.

    Kept, so that the next fit of the same shapes (a run that goes on, other initial weights) traces and compiles nothing.
    """
    schedule = learning_rate_schedule(settings, epochs, steps_per_epoch)
    optimizer = build_optimizer(settings, schedule)
    compiled = compile_steps(model, optimizer, task, share_budget, eval_budget, average_decay, loss, devices)
    return schedule, optimizer, compiled


def check_validation(targets: np.ndarray, val: np.ndarray, patience: int) -> None:
    """Raises ValueError if there is nothing to choose weights by where something must be; see `fit`."""
    if not len(val) and patience:
        raise ValueError(f"train.patience needs crystals to validate on, and val is empty; got {patience}")
    if len(val) and np.isnan(targets[val]).all():
        raise ValueError(f"none of the {len(val)} crystals of the validation split has a label to choose weights by")


def is_patience_over(best_epoch: int, epoch: int, patience: int) -> bool:
    """Whether a run ends before this epoch, because none of the last `patience` was better than an earlier one."""
    return bool(patience) and best_epoch >= 0 and epoch - best_epoch > patience


def train_record(sums: Sums, scaler: TargetScaler) -> Record:
    """Means over the epoch, of the weights as they moved."""
    count = np.maximum(np.asarray(sums.count, np.float64), 1)
    mean_error = np.asarray(sums.error, np.float64) / count
    record: Record = {"train_loss": float(sums.loss) / float(count.sum())}
    if scaler.task == "classification":
        return record | {"train_accuracy": 1 - float(mean_error[0])}
    return record | _per_target("train_mae", mean_error * scaler.std, scaler)


def is_better(error: float, best: float) -> bool:
    """Whether a validation error is below the best, which is kept in float32: rounded up, that would be above its equal."""
    return bool(np.float32(error) < np.float32(best))


def val_record(targets: np.ndarray, values: np.ndarray, scaler: TargetScaler) -> Record:
    """Errors of the validation split; val_error chooses the best weights."""
    if scaler.task == "classification":
        measured = metrics.classification_metrics(targets[:, 0], values)
        # With one class only there is no curve to take the area of.
        score = measured["accuracy"] if math.isnan(measured["roc_auc"]) else measured["roc_auc"]
        return {
            "val_error": 1 - score,
            "val_accuracy": measured["accuracy"],
            "val_roc_auc": measured["roc_auc"],
        }
    known = ~np.isnan(targets)
    count = known.sum(axis=0)
    error = np.where(known, np.abs(values - targets), 0.0).sum(axis=0) / np.maximum(count, 1)
    error[count == 0] = np.nan
    scaled = (error / scaler.std)[count > 0].mean()
    # A prediction that is not a number is the worst, not one to overlook.
    return {"val_error": float(scaled) if np.isfinite(scaled) else math.inf, **_per_target("val_mae", error, scaler)}


def _per_target(key: str, values: np.ndarray, scaler: TargetScaler) -> Record:
    if len(values) == 1:
        return {key: float(values[0])}
    return {f"{key}/{name}": float(value) for name, value in zip(scaler.names, values, strict=True)}


class Clock:
    """Adds up the time spent on each phase."""

    def __init__(self) -> None:
        self.seconds = {"compiling": 0.0, "training": 0.0, "validating": 0.0, "saving": 0.0}

    def __call__(self, phase: str) -> "_Lap":
        return _Lap(self, phase)


class _Lap:
    def __init__(self, clock: Clock, phase: str) -> None:
        self._clock, self._phase = clock, phase

    def __enter__(self) -> Callable[[], float]:
        self._began = time.monotonic()
        return lambda: self._took

    def __exit__(self, *error: object) -> None:
        self._took = time.monotonic() - self._began
        self._clock.seconds[self._phase] += self._took
