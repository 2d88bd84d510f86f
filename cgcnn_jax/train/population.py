"""fit_population: many runs of one shape as one compiled program, spread over the local devices."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cgcnn_jax.data import batching
from cgcnn_jax.graph import CrystalGraphs, PadBudget
from cgcnn_jax.nn.model import CGCNN, Variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.train.loop import (
    Clock,
    Diverged,
    Fit,
    Record,
    TrainSettings,
    check_validation,
    is_better,
    is_patience_over,
    train_record,
    val_record,
)
from cgcnn_jax.train.optimizer import OptimizerSettings, build_optimizer, learning_rate_schedule
from cgcnn_jax.train.parallel import WAYS
from cgcnn_jax.train.state import Sums, TrainState, Tree, Weights, init_state
from cgcnn_jax.train.step import Compiled, compile_steps, to_device


@dataclass(frozen=True)
class Member:
    """What a run of a population has of its own; all else is common.

    Attributes:
      variables: Initial variables.
      seed: Of shuffles and dropout; see TrainSettings.
      learning_rate: See OptimizerSettings.
      l2: See OptimizerSettings; 0 for all members or for none, because L2 is a part of the optimiser.
      dropout: See CGCNN.
      split: Indices of train and val.
      scaler: Fitted on its training split.
    """

    variables: Variables
    seed: int
    learning_rate: float
    l2: float
    dropout: float
    split: Mapping[str, np.ndarray]
    scaler: TargetScaler


class _Own(NamedTuple):
    """What is each member's own as arrays, [n_slot, ...], on the devices or on the host."""

    seed: Any
    learning_rate: Any
    l2: Any
    dropout: Any
    targets: Any  # scaled, [n_slot, n_graph, n_target]
    target_mask: Any
    schedule: Any  # which of the schedules, of as many steps an epoch as the member has


def fit_population(
    model: CGCNN,
    members: Sequence[Member],
    graphs: CrystalGraphs,
    targets: np.ndarray,
    settings: TrainSettings,
    optimizer_settings: OptimizerSettings,
    *,
    parallel: str = "shard",
    checkpoints: Checkpoints | None = None,
    about: Mapping[str, Any] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_epoch: Callable[[int, Record], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Fit | Diverged] | None:
    """Trains all members at once; each ends as `loop.fit` would end it alone, to float32 rounding.

    Every member has its own weights, optimiser, split, shuffles, best weights and patience. One that diverges is left
    behind and does not touch the others. The members are dealt to the local devices in equal shares, and a device
    computes its share as one program with a leading axis; nothing is exchanged between devices.

    Args:
      model: The network; its dropout is each member's own.
      members: The runs.
      graphs: All crystals, unpadded; they are placed on every device.
      targets: See `loop.fit`.
      settings: Portions; the seed is each member's own, and the crystals always lie on the device.
      optimizer_settings: Updates; learning rate and L2 are each member's own.
      parallel: How devices share the members, "shard" (jit over a mesh) or "pmap"; the numbers are the same.
      checkpoints: Where to save and resume the whole population; None keeps nothing.
      about: JSON saved with every checkpoint.
      on_step: Called with epoch, steps done and steps in the epoch.
      on_epoch: Called with the member's number and the record of each of its epochs. Its seconds are the member's share.
      should_stop: Asked between stretches of about a second; True saves and returns.

    Returns:
      What became of each member, in order, where times are shares of the population's; None if training was stopped.

    Raises:
      ValueError: As `loop.fit`; or if there is no member, only some have L2 or validate, or there is no such way of
        sharing.
    """
    _check(members, parallel)
    for member in members:
        check_validation(targets, member.split["val"], settings.patience)
    # Training splits may differ by some crystals, and epochs by some steps: who has fewer rests for the last of them.
    own_steps = [settings.steps_per_epoch(len(member.split["train"])) for member in members]
    steps_per_epoch = max(own_steps)
    are_alike = len(set(own_steps)) == 1
    validates = len(members[0].split["val"]) > 0
    shuffles = _Shuffles(graphs, members, own_steps, settings.epochs)
    train_budget = shuffles.budget
    eval_budget = batching.packing_budget(graphs, settings.batch_size)
    all_plan = batching.packed_plan(graphs, np.arange(len(graphs.n_node)), eval_budget)

    # Every schedule is proportional to the learning rate.
    one = replace(optimizer_settings, learning_rate=1.0)
    units = {n_step: learning_rate_schedule(one, settings.epochs, n_step) for n_step in sorted(set(own_steps))}

    def learning_rate(own: _Own, step: Array | int) -> Array:
        return own.learning_rate * jnp.stack([jnp.asarray(unit(step)) for unit in units.values()])[own.schedule]

    def optimizer_of(own: _Own) -> optax.GradientTransformation:
        return build_optimizer(
            replace(optimizer_settings, l2=own.l2 if members[0].l2 else 0.0), partial(learning_rate, own)
        )

    def compiled_for(own: _Own) -> Compiled:
        optimizer = optimizer_of(own)
        network = model.clone(dropout=own.dropout)
        return compile_steps(
            network,
            optimizer,
            members[0].scaler.task,
            train_budget,
            eval_budget,
            settings.average_decay,
            settings.loss,
            rests=not are_alike,
        )

    spread = _Spread(len(members), parallel)

    @partial(spread.compile, n_own=3, n_shared=3, donates=True)
    def train_members(state, own, plan, data, start, stop):  # type: ignore[no-untyped-def]
        labelled = data._replace(targets=own.targets, target_mask=own.target_mask)
        return compiled_for(own).train(state, labelled, plan, start, stop, own.seed)

    @partial(spread.compile, n_own=3, n_shared=2)
    def predict_members(weights, own, plan, data, n_row):  # type: ignore[no-untyped-def]
        return compiled_for(own).predict(weights, data, plan, n_row)

    @partial(spread.compile, n_own=3, n_shared=1, donates=True)
    def close_epoch(state, is_best, error, epoch):  # type: ignore[no-untyped-def]
        return _close_epoch(state, is_best, error, epoch, targets.shape[1])

    averages = settings.average_decay > 0
    scaled = [member.scaler.scale(targets) for member in members]
    host_own = _Own(
        np.array([m.seed for m in members], np.int32),
        np.array([m.learning_rate for m in members], np.float32),
        np.array([m.l2 for m in members], np.float32),
        np.array([m.dropout for m in members], np.float32),
        np.stack([labels for labels, _ in scaled]),
        np.stack([known for _, known in scaled]),
        np.array([list(units).index(n_step) for n_step in own_steps], np.int32),
    )
    state = _stacked(
        [
            jax.device_get(
                init_state(
                    member.variables, optimizer_of(_member(host_own, number)), targets.shape[1], averages=averages
                )
            )
            for number, member in enumerate(members)
        ]
    )
    diverged: list[Diverged | None] = [None] * len(members)
    if checkpoints is not None and (before := checkpoints.about()) is not None:
        state = jax.device_get(checkpoints.restore(state))
        diverged = [one and Diverged(*one) for one in before["diverged"]]
    steps_done = int(np.max(state.step))
    state = spread.put(state)
    own = spread.put(host_own)
    data = spread.share(to_device(graphs, targets, members[0].scaler))
    everything = _PackedPlans(spread, [all_plan] * len(members), len(all_plan))
    held_out = _PackedPlans(
        spread, [batching.packed_plan(graphs, m.split["val"], eval_budget) for m in members], len(all_plan)
    )
    clock = Clock()
    last_save = time.monotonic()
    stretch = 1
    n_timed = 0.0
    padding = [(math.nan, math.nan)] * len(members)
    is_compiled = False

    def save() -> None:
        nonlocal last_save
        if checkpoints is not None:
            with clock("saving"):
                lost = [one and [one.step, one.epoch] for one in diverged]
                checkpoints.save(spread.get(state), {**(about or {}), "diverged": lost})
        last_save = time.monotonic()

    def predict(weights: Weights, plans: _PackedPlans) -> np.ndarray:
        """Values [n_member, n_graph, n_output]."""
        with clock("validating"):
            outputs = spread.get(predict_members(weights, own, plans.rows, data, plans.n_row))
            return np.stack([member.scaler.unscale(one) for member, one in zip(members, outputs, strict=True)])

    for epoch in range(steps_done // steps_per_epoch, settings.epochs):
        best_epoch, best_error = spread.get((state.best_epoch, state.best_error))
        active = [
            number
            for number in range(len(members))
            if diverged[number] is None and not is_patience_over(int(best_epoch[number]), epoch, settings.patience)
        ]
        if not active:
            break
        began = time.monotonic()
        plans = shuffles.of(epoch)
        padding = [batching.padding_share(graphs, plan, train_budget) for plan in plans]
        plan = spread.put(np.stack(plans))
        done = steps_done % steps_per_epoch
        while done < steps_per_epoch:
            until = min(done + stretch, steps_per_epoch)
            with clock("training" if is_compiled else "compiling") as lap:
                state = train_members(state, own, plan, data, done, until)
                bad_step = spread.get(state.sums.bad_step)
            if is_compiled:
                # Steps deal the crystals evenly, near enough for a speed.
                n_timed += sum(len(m.split["train"]) for m in members) * (until - done) / steps_per_epoch
                stretch = max(1, round((until - done) / max(lap(), 1e-6)))
            is_compiled = True
            for number in [number for number in active if bad_step[number] >= 0]:
                diverged[number] = Diverged(int(bad_step[number]), epoch)
                active.remove(number)
            steps_done += until - done
            done = until
            if on_step:
                on_step(epoch, done, steps_per_epoch)
            if not active:
                break
            if done < steps_per_epoch and should_stop():
                save()
                return None
            if done < steps_per_epoch and time.monotonic() - last_save > settings.save_seconds:
                save()
        if not active:
            break
        values = predict(state.predicting, held_out) if validates else None
        sums = spread.get(state.sums)
        is_best, error = np.zeros(len(members), bool), np.full(len(members), np.inf, np.float32)
        records = {}
        for number in active:
            member, val = members[number], members[number].split["val"]
            step = own_steps[number] * (epoch + 1)
            record: Record = {
                "epoch": epoch,
                "step": step,
                "learning_rate": float(learning_rate(_member(host_own, number), step - 1)),
                **train_record(_member(sums, number), member.scaler),
            }
            if values is not None:
                record |= val_record(targets[val], values[number][val], member.scaler)
                record["is_best"] = is_better(record["val_error"], best_error[number])
            is_best[number] = record.get("is_best", True)
            error[number] = record.get("val_error", np.inf)
            records[number] = record
        state = close_epoch(state, spread.put(is_best), spread.put(error), epoch)
        for number, record in records.items():
            record["seconds"] = (time.monotonic() - began) / len(members)
            if on_epoch:
                on_epoch(number, record)
        if should_stop() and epoch < settings.epochs - 1:
            save()
            return None
        if time.monotonic() - last_save > settings.save_seconds:
            save()

    save()
    if not clock.seconds["validating"]:
        # Compiled here, so that the time of the next is that of inference alone.
        predict(state.best, held_out)
    began = time.perf_counter()
    values = predict(state.best, everything)
    inferred = values.shape[0] * values.shape[1] / (time.perf_counter() - began)
    states = spread.get(state)
    seconds = {phase: spent / len(members) for phase, spent in clock.seconds.items()}
    timed = clock.seconds["training"]
    rate = n_timed / timed if timed else math.nan
    fits: list[Fit | Diverged] = []
    for number, lost in enumerate(diverged):
        one = _member(states, number)
        if lost is None and int(one.best_epoch) < 0:
            lost = Diverged(None)
        fits.append(lost or Fit(one, values[number], True, seconds, rate, inferred, padding[number]))
    return fits


_Kind = tuple[int, bytes]  # seed, and the training split


class _Shuffles:
    """Which crystals of each epoch make which step, of every member; the next epoch is dealt while this one trains.

    Each run plans with its own budget, as it would alone, and the largest holds all plans.
    """

    def __init__(self, graphs: CrystalGraphs, members: Sequence[Member], own_steps: Sequence[int], epochs: int) -> None:
        self._graphs, self._n_step, self._epochs = graphs, max(own_steps), epochs
        self._kinds = [(member.seed, member.split["train"].tobytes()) for member in members]
        # Members of one seed and split are dealt the same.
        self._kind = {
            kind: (member.split["train"], n_step)
            for kind, member, n_step in zip(self._kinds, members, own_steps, strict=True)
        }
        self._pool = ThreadPoolExecutor(thread_name_prefix="shuffles")
        budgets = self._pool.map(lambda kind: batching.training_budget(graphs, *self._kind[kind], kind[0]), self._kind)
        self._budgets = dict(zip(self._kind, budgets, strict=True))
        self.budget = PadBudget(*(max(sizes) for sizes in zip(*self._budgets.values(), strict=True)))
        self._dealt: dict[int, dict[_Kind, Future[np.ndarray]]] = {}

    def of(self, epoch: int) -> list[np.ndarray]:
        """The plan of each member, i32[n_step, n_place]."""
        found = self._dealt.pop(epoch, None) or self._deal(epoch)
        if epoch + 1 < self._epochs:
            self._dealt[epoch + 1] = self._deal(epoch + 1)
        return [found[kind].result() for kind in self._kinds]

    def _deal(self, epoch: int) -> "dict[_Kind, Future[np.ndarray]]":
        return {kind: self._pool.submit(self._plan, kind, epoch) for kind in self._kind}

    def _plan(self, kind: "_Kind", epoch: int) -> np.ndarray:
        crystals, n_step = self._kind[kind]
        plan = batching.epoch_plan(self._graphs, crystals, self._budgets[kind], n_step, (kind[0], epoch))
        return _widened(plan, self._n_step, self.budget.n_graph - 1)


class _PackedPlans:
    """Which crystals are predicted together, of every member, on the devices: n_row of i32[n_member, room, n_place].

    All have room for the longest, so that one compilation serves them.
    """

    def __init__(self, spread: "_Spread", plans: Sequence[np.ndarray], room: int) -> None:
        self.n_row = max(len(plan) for plan in plans)
        self.rows = spread.put(np.stack([_widened(plan, room, plan.shape[1]) for plan in plans]))


def _check(members: Sequence[Member], parallel: str) -> None:
    if not members:
        raise ValueError("a population needs at least one member")
    if len({bool(member.l2) for member in members}) > 1:
        raise ValueError("l2 must be 0 for all members of a population or for none")
    n_val = [len(member.split["val"]) for member in members]
    if any(n_val) and not all(n_val):
        raise ValueError(
            "all members of a population must have crystals to validate on, or none; got "
            f"{sum(map(bool, n_val))} of {len(n_val)} with such crystals. Train those with and those without apart"
        )
    if parallel not in WAYS:
        raise ValueError(f"unknown parallel {parallel!r}; choose one of {', '.join(WAYS)}")


def _close_epoch(state: TrainState, is_best: Array, error: Array, epoch: Array, n_target: int) -> TrainState:
    """Keeps the weights that predict if they are the best, and starts the sums anew; of one member."""

    def chosen(new: Tree, old: Tree) -> Tree:
        return jax.tree.map(lambda one, other: jnp.where(is_best, one, other), new, old)

    return state.replace(
        best=chosen(state.predicting, state.best),
        best_error=chosen(error, state.best_error),
        best_epoch=chosen(jnp.asarray(epoch, jnp.int32), state.best_epoch),
        sums=Sums.zero(n_target),
    )


class _Spread:
    """Members on devices: arrays with a leading axis for them, filled up to equal shares with copies of the last one."""

    def __init__(self, n_member: int, parallel: str) -> None:
        self._devices = jax.local_devices()[:n_member]
        self._n_member = n_member
        self._per_device = -(-n_member // len(self._devices))
        self._is_pmap = parallel == "pmap"
        self._mesh = jax.make_mesh(
            (len(self._devices),), ("members",), devices=self._devices, axis_types=(AxisType.Auto,)
        )

    def put(self, tree: Tree) -> Tree:
        """Host arrays [n_member, ...] onto the devices."""
        n_device, n_slot = len(self._devices), len(self._devices) * self._per_device
        place = np.minimum(np.arange(n_slot), self._n_member - 1)
        shape = (n_device, self._per_device) if self._is_pmap else (n_slot,)

        def one(array: np.ndarray) -> np.ndarray:
            filled = np.asarray(array)[place]
            return filled.reshape(*shape, *filled.shape[1:])

        return jax.device_put(jax.tree.map(one, tree), self._sharding(PartitionSpec("members")))

    def share(self, tree: Tree) -> Tree:
        """Puts a copy of the whole on every device."""
        return jax.device_put(tree, self._sharding(PartitionSpec()))

    def get(self, tree: Tree) -> Tree:
        """Arrays of the devices as host arrays [n_member, ...]."""

        def one(array: np.ndarray) -> np.ndarray:
            flat = array.reshape(-1, *array.shape[2:]) if self._is_pmap else array
            return flat[: self._n_member]

        return jax.tree.map(one, jax.device_get(tree))

    def compile(
        self, function: Callable[..., Tree], *, n_own: int, n_shared: int, donates: bool = False
    ) -> Callable[..., Tree]:
        """Compiles a function of one member for all.

        Args:
          function: Its first n_own arguments and its result are the member's own, the n_shared others are everybody's.
          n_own: See function.
          n_shared: See function.
          donates: Whether the first argument's memory is given to the result.
        """
        donated = 0 if donates else ()
        axes = (0,) * n_own + (None,) * n_shared
        local = jax.vmap(function, in_axes=axes)
        if self._is_pmap:
            # Named as the mesh: of another name, what one function gives would compile the next one anew.
            return jax.pmap(local, "members", in_axes=axes, donate_argnums=donated, devices=self._devices)
        specs = tuple(PartitionSpec("members") if axis == 0 else PartitionSpec() for axis in axes)
        # Nothing is exchanged, so there is nothing to check about what varies.
        spread = jax.shard_map(
            local, mesh=self._mesh, in_specs=specs, out_specs=PartitionSpec("members"), check_vma=False
        )
        return jax.jit(spread, donate_argnums=donated)

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self._mesh, spec)


def _widened(plan: np.ndarray, n_row: int, n_place: int) -> np.ndarray:
    """The same plan with empty rows and places added."""
    return np.pad(plan, ((0, n_row - len(plan)), (0, n_place - plan.shape[1])), constant_values=-1)


def _stacked(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _member(tree: Tree, number: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[number], tree)
