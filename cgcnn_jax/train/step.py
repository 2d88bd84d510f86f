"""The compiled functions: many training steps, predictions for many batches, prediction for one batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cgcnn_jax.graph import Batch, CrystalGraphs, Offsets, PadBudget, offsets, select
from cgcnn_jax.nn.model import CGCNN
from cgcnn_jax.nn.ops import spread_like, sum_over_devices
from cgcnn_jax.scaling import TargetScaler, Task
from cgcnn_jax.train.losses import loss_sums
from cgcnn_jax.train.parallel import Devices
from cgcnn_jax.train.state import Sums, TrainState, Weights


class LabelledSet(NamedTuple):
    """A whole data set: graphs, and labels as in Batch. On the host or, small as raw physics is, on the device."""

    graphs: CrystalGraphs
    starts: Offsets
    targets: Any
    target_mask: Any


def on_host(graphs: CrystalGraphs, targets: np.ndarray, scaler: TargetScaler) -> LabelledSet:
    """Graphs as they are, memory-mapped ones too, and scaled labels."""
    scaled, known = scaler.scale(targets)
    return LabelledSet(graphs, offsets(graphs), scaled, known)


def to_device(
    graphs: CrystalGraphs, targets: np.ndarray, scaler: TargetScaler, devices: Devices | None = None
) -> LabelledSet:
    """Places graphs and scaled labels on each of the devices, by default on the default device."""
    narrowed = jax.tree.map(lambda array: np.asarray(array, _narrow(array.dtype)), on_host(graphs, targets, scaler))
    return (devices or Devices()).share(narrowed)


def take_batch(data: LabelledSet, index: Any, budget: PadBudget) -> Batch:
    """The crystals `index` (-1 for none) with their labels, padded to the budget; numpy or jax."""
    xp = index.__array_namespace__()
    n_empty = budget.n_graph - index.shape[0]
    place = xp.concatenate([index, xp.full(n_empty, -1, index.dtype)])
    is_crystal = (place >= 0)[:, None]
    crystal = xp.maximum(place, 0)
    return Batch(
        select(data.graphs, index, budget, data.starts),
        xp.where(is_crystal, data.targets[crystal], xp.zeros((), data.targets.dtype)),
        is_crystal & data.target_mask[crystal],
    )


def train_step(
    state: TrainState,
    batch: Batch,
    seed: Array,
    *,
    model: CGCNN,
    optimizer: optax.GradientTransformation,
    task: Task,
    average_decay: float,
    loss: str,
) -> TrainState:
    """One step: mean loss over the known labels of the batch, gradient, update.

    Where the model has an axis_name, the batch is this device's share, and all devices take the step together.
    """
    axis = model.axis_name
    # From the step, not from a key in the state: resuming at step t replays the same dropout.
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    if axis:
        # Or the first crystals of all shares would lose the same features.
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))

    def share_of_loss(params):  # type: ignore[no-untyped-def]
        outputs, updated = model.apply(
            state.weights.replace(params=params).variables(),
            batch.graphs,
            training=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        total, error, count = loss_sums(task, outputs, batch, loss)
        of_all = sum_over_devices(count, axis)
        return total / jnp.maximum(of_all.sum(), 1.0), (total, error, of_all, updated.get("batch_stats", {}))

    # Parameters as this device's own, or shard_map would add the gradients up here and pmap would not.
    params = spread_like(state.weights.params, batch.targets)
    gradient, (total, error, count, batch_stats) = jax.grad(share_of_loss, has_aux=True)(params)
    gradient, total, error = sum_over_devices((gradient, total, error), axis)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights.params)
    weights = state.weights.replace(params=optax.apply_updates(state.weights.params, updates), batch_stats=batch_stats)
    is_bad = ~jnp.isfinite(total + optax.tree.norm(updates))
    average = state.average
    if average is not None:
        # Short at first, or the average of a short run would be mostly its initial weights.
        decay = jnp.minimum(average_decay, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, weights)
        # Which rounding would move: the element table must stay what it is.
        average = average.replace(constants=weights.constants)
    return state.replace(
        step=state.step + 1,
        weights=weights,
        average=average,
        opt_state=opt_state,
        sums=Sums(
            loss=state.sums.loss + total,
            error=state.sums.error + error,
            count=state.sums.count + count,
            bad_step=jnp.where(is_bad & (state.sums.bad_step < 0), state.step, state.sums.bad_step),
        ),
    )


class Compiled(NamedTuple):
    """The compiled functions of a run; one compilation of each serves every stretch and epoch.

    Attributes:
      train: (state, data, plan, start, stop, seed) -> state; takes rows start .. stop - 1 of the plan from a set on the
        device, one step each. The state is donated.
      predict: (weights, data, plan, n_row) -> outputs [n_graph in data, n_output], zero for crystals not planned.
      train_batches: (state, batches, n_batch, seed) -> state; the same from batches stacked along a leading axis.
      predict_batches: (weights, graphs, n_batch) -> outputs [stacked, n_device, n_graph of a batch, n_output].

    On several devices plans and stacked batches have their shares as second axis: see parallel.Devices.deal.
    """

    train: Callable[..., TrainState]
    predict: Callable[[Weights, LabelledSet, Array, int], Array]
    train_batches: Callable[..., TrainState]
    predict_batches: Callable[[Weights, CrystalGraphs, int], Array]


def compile_steps(
    model: CGCNN,
    optimizer: optax.GradientTransformation,
    task: Task,
    train_budget: PadBudget,
    eval_budget: PadBudget,
    average_decay: float,
    loss: str = "auto",
    devices: Devices | None = None,
    *,
    rests: bool = False,
) -> Compiled:
    """Closes the step over a model and its shapes; compilation happens at the first call.

    The training budget is that of one device's share of a batch. By default there is the default device. With `rests` a
    row of the plan without crystals is no step.
    """
    devices = devices or Devices()
    axis = devices.axis_name
    model = model.clone(axis_name=axis)

    def step(state: TrainState, batch: Batch, seed: Array) -> TrainState:
        return train_step(
            state, batch, seed, model=model, optimizer=optimizer, task=task, average_decay=average_decay, loss=loss
        )

    def train(state: TrainState, data: LabelledSet, plan: Array, start: Array, stop: Array, seed: Array) -> TrainState:
        def body(row: Array, state: TrainState) -> TrainState:
            after = step(state, take_batch(data, plan[row], train_budget), seed)
            if not rests:
                return after
            is_step = (plan[row] >= 0).any()
            return jax.tree.map(lambda new, old: jnp.where(is_step, new, old), after, state)

        return jax.lax.fori_loop(start, stop, body, state)

    def train_batches(state: TrainState, batches: Batch, n_batch: Array, seed: Array) -> TrainState:
        def body(row: Array, state: TrainState) -> TrainState:
            return step(state, jax.tree.map(lambda stacked: stacked[row], batches), seed)

        return jax.lax.fori_loop(0, n_batch, body, state)

    def predict(weights: Weights, data: LabelledSet, plan: Array, n_row: Array) -> Array:
        n_graph = data.graphs.n_node.shape[0]

        def body(row: Array, outputs: Array) -> Array:
            index = plan[row]
            graphs = select(data.graphs, index, eval_budget, data.starts)
            values = predict_batch(model, weights, graphs)[: index.shape[0]]
            # An empty place writes past the end, which "drop" ignores.
            return outputs.at[jnp.where(index < 0, n_graph, index)].set(values, mode="drop")

        empty = spread_like(jnp.zeros((n_graph, model.n_output)), plan)
        return sum_over_devices(jax.lax.fori_loop(0, n_row, body, empty), axis)

    def predict_batches(weights: Weights, graphs: CrystalGraphs, n_batch: Array) -> Array:
        def body(row: Array, outputs: Array) -> Array:
            values = predict_batch(model, weights, jax.tree.map(lambda stacked: stacked[row], graphs))
            return outputs.at[row].set(values)

        empty = spread_like(jnp.zeros((graphs.n_node.shape[0], eval_budget.n_graph, model.n_output)), graphs.species)
        return devices.gather(jax.lax.fori_loop(0, n_batch, body, empty))

    return Compiled(
        devices.compile(train, dealt=2, donate=0),
        devices.compile(predict, dealt=2),
        devices.compile(train_batches, dealt=1, donate=0),
        devices.compile(predict_batches, dealt=1),
    )


def predict_batch(model: CGCNN, weights: Weights, graphs: CrystalGraphs) -> Array:
    """Outputs of one padded batch, [n_graph, n_output]."""
    outputs = model.apply(weights.variables(), graphs)
    assert isinstance(outputs, jax.Array)
    return outputs


def inspect_batch(model: CGCNN, weights: Weights, graphs: CrystalGraphs) -> tuple[Array, dict[str, Array]]:
    """Outputs of one padded batch, and what the model sows on the way, if it does.

    "crystals" [n_graph, d]; "atoms" [n_node, d] and "sites" [n_node, n_output]; "gates" and "messages" of all
    convolutions, [n_edge, num_convs].
    """
    outputs, state = model.apply(weights.variables(), graphs, mutable=["intermediates"])
    sown = state["intermediates"]
    arrays = {name: sown[name][0] for name in ("crystals", "atoms", "sites") if name in sown}
    layers = [sown[f"conv_{t}"] for t in range(model.num_convs) if f"conv_{t}" in sown]
    for name, of_layer in (("gates", "mean_gate"), ("messages", "mean_message")):
        if layers:
            arrays[name] = jnp.stack([layer[of_layer][0] for layer in layers], axis=1)
    return outputs, arrays


def embed_batch(model: CGCNN, weights: Weights, graphs: CrystalGraphs) -> tuple[Array, Array]:
    """Outputs of one padded batch, and the pooled vectors behind them, [n_graph, d]; compiled, nothing else is computed."""
    outputs, sown = inspect_batch(model, weights, graphs)
    return outputs, sown["crystals"]


def _narrow(dtype: np.dtype) -> np.dtype:
    """jax has 32 bits; what lies on a device is small enough for them."""
    return np.dtype(np.int32) if dtype == np.int64 else dtype
