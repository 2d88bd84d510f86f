"""Losses as sums over known labels and their number, so that any grouping of crystals gives the same total."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cgcnn_jax.graph import Batch
from cgcnn_jax.scaling import Task

# By task, the first of which "auto" means.
LOSSES: dict[Task, tuple[str, ...]] = {"regression": ("mse", "mae", "huber"), "classification": ("cross_entropy",)}


def loss_sums(task: Task, outputs: Array, batch: Batch, name: str = "auto") -> tuple[Array, Array, Array]:
    """Loss, error and number of labels of a batch.

    Regression, with x = o - t of scaled targets: mse, sum x^2; mae, sum |x|, which weighs the few crystals far off no
    more than the many near; huber, sum x^2/2 within one standard deviation of the training labels and |x| - 1/2 beyond.
    The error is sum |x|.
    Classification: cross_entropy, sum -ln softmax(o)_t; the error is the number of wrong classes.

    Args:
      task: regression or classification.
      outputs: Network outputs, [n_graph, n_output].
      batch: Graphs with labels.
      name: The loss, one of the task's; "auto" is mse or cross_entropy.

    Returns:
      The summed loss (scalar), the summed error per target [n_target] and the number of known labels [n_target].

    Raises:
      ValueError: If the task has no such loss.
    """
    if name not in ("auto", *LOSSES[task]):
        raise ValueError(f"{task} has no loss {name!r}; choose one of {['auto', *LOSSES[task]]}")
    known = batch.target_mask
    if task == "classification":
        label = batch.targets[:, 0].astype(jnp.int32)
        log_probability = jax.nn.log_softmax(outputs)
        loss = -jnp.take_along_axis(log_probability, label[:, None], axis=1)
        error = (outputs.argmax(axis=1) != label)[:, None].astype(outputs.dtype)
    else:
        difference = outputs - batch.targets
        error = jnp.abs(difference)
        if name == "mae":
            loss = error
        elif name == "huber":
            loss = optax.losses.huber_loss(difference, delta=1.0)
        else:
            loss = jnp.square(difference)
    return (
        jnp.where(known, loss, 0.0).sum(),
        jnp.where(known, error, 0.0).sum(axis=0),
        known.sum(axis=0).astype(outputs.dtype),
    )
