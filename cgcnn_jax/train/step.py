"""The compiled functions: many training steps, predictions for a whole set, prediction for one batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cgcnn_jax.graph import Batch, CrystalGraphs, PadBudget, select
from cgcnn_jax.nn.model import CGCNN
from cgcnn_jax.scaling import TargetScaler, Task
from cgcnn_jax.train.losses import loss_sums
from cgcnn_jax.train.state import Sums, TrainState, Weights


class DeviceData(NamedTuple):
    """A whole data set on the device: graphs, and labels as in Batch. Small enough, since a graph is raw physics."""

    graphs: CrystalGraphs
    targets: Array
    target_mask: Array


def to_device(graphs: CrystalGraphs, targets: np.ndarray, scaler: TargetScaler) -> DeviceData:
    """Places graphs and scaled labels on the default device."""
    scaled, known = scaler.scale(targets)
    return DeviceData(CrystalGraphs(*map(jnp.asarray, graphs)), jnp.asarray(scaled), jnp.asarray(known))


def take_batch(data: DeviceData, index: Array, budget: PadBudget) -> Batch:
    """The crystals `index` (-1 for none) with their labels, padded to the budget."""
    n_empty = budget.n_graph - index.shape[0]
    place = jnp.pad(index, (0, n_empty), constant_values=-1)
    is_crystal = (place >= 0)[:, None]
    crystal = jnp.maximum(place, 0)
    return Batch(
        select(data.graphs, index, budget),
        jnp.where(is_crystal, data.targets[crystal], 0.0),
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
) -> TrainState:
    """One step: mean loss over the known labels of the batch, gradient, update."""
    # From the step, not from a key in the state: resuming at step t replays the same dropout.
    key = jax.random.fold_in(jax.random.key(seed), state.step)

    def mean_loss(params):  # type: ignore[no-untyped-def]
        outputs, updated = model.apply(
            state.weights.replace(params=params).variables(),
            batch.graphs,
            training=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        loss, error, count = loss_sums(task, outputs, batch)
        return loss / jnp.maximum(count.sum(), 1.0), (loss, error, count, updated.get("batch_stats", {}))

    gradient, (loss, error, count, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.weights.params)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.weights.params)
    weights = state.weights.replace(params=optax.apply_updates(state.weights.params, updates), batch_stats=batch_stats)
    is_bad = ~jnp.isfinite(loss + optax.tree.norm(updates))
    average = state.average
    if average is not None:
        # Short at first, or the average of a short run would be mostly its initial weights.
        decay = jnp.minimum(average_decay, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, weights)
    return state.replace(
        step=state.step + 1,
        weights=weights,
        average=average,
        opt_state=opt_state,
        sums=Sums(
            loss=state.sums.loss + loss,
            error=state.sums.error + error,
            count=state.sums.count + count,
            bad_step=jnp.where(is_bad & (state.sums.bad_step < 0), state.step, state.sums.bad_step),
        ),
    )


class Compiled(NamedTuple):
    """The compiled functions of a run.

    Attributes:
      train: (state, data, plan, start, stop, seed) -> state; takes rows start .. stop - 1 of the plan, one step each.
        The state is donated. One compilation serves every stretch and epoch.
      predict: (weights, data, plan, n_row) -> outputs [n_graph in data, n_output], zero for crystals not planned.
    """

    train: Callable[..., TrainState]
    predict: Callable[[Weights, DeviceData, Array, int], Array]


def compile_steps(
    model: CGCNN,
    optimizer: optax.GradientTransformation,
    task: Task,
    train_budget: PadBudget,
    eval_budget: PadBudget,
    average_decay: float,
) -> Compiled:
    """Closes the step over a model and its shapes; compilation happens at the first call."""

    def train(state: TrainState, data: DeviceData, plan: Array, start: Array, stop: Array, seed: Array) -> TrainState:
        def body(row: Array, state: TrainState) -> TrainState:
            return train_step(
                state,
                take_batch(data, plan[row], train_budget),
                seed,
                model=model,
                optimizer=optimizer,
                task=task,
                average_decay=average_decay,
            )

        return jax.lax.fori_loop(start, stop, body, state)

    def predict(weights: Weights, data: DeviceData, plan: Array, n_row: Array) -> Array:
        n_graph = data.graphs.n_node.shape[0]

        def body(row: Array, outputs: Array) -> Array:
            index = plan[row]
            values = predict_batch(model, weights, select(data.graphs, index, eval_budget))[: index.shape[0]]
            # An empty place writes past the end, which "drop" ignores.
            return outputs.at[jnp.where(index < 0, n_graph, index)].set(values, mode="drop")

        return jax.lax.fori_loop(0, n_row, body, jnp.zeros((n_graph, model.n_output)))

    return Compiled(jax.jit(train, donate_argnums=0), jax.jit(predict))


def predict_batch(model: CGCNN, weights: Weights, graphs: CrystalGraphs) -> Array:
    """Outputs of one padded batch, [n_graph, n_output]."""
    outputs = model.apply(weights.variables(), graphs)
    assert isinstance(outputs, jax.Array)
    return outputs
