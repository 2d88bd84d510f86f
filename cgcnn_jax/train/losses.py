"""Losses as sums over known labels and their number, so that any grouping of crystals gives the same total."""

import jax
import jax.numpy as jnp
from jax import Array

from cgcnn_jax.graph import Batch
from cgcnn_jax.scaling import Task


def loss_sums(task: Task, outputs: Array, batch: Batch) -> tuple[Array, Array, Array]:
    """Loss, error and number of labels of a batch.

    Regression: sum (o - t)^2 of scaled targets; the error is sum |o - t|.
    Classification: cross entropy, sum -ln softmax(o)_t; the error is the number of wrong classes.

    Args:
      task: regression or classification.
      outputs: Network outputs, [n_graph, n_output].
      batch: Graphs with labels.

    Returns:
      The summed loss (scalar), the summed error per target [n_target] and the number of known labels [n_target].
    """
    known = batch.target_mask
    if task == "classification":
        label = batch.targets[:, 0].astype(jnp.int32)
        log_probability = jax.nn.log_softmax(outputs)
        loss = -jnp.take_along_axis(log_probability, label[:, None], axis=1)
        error = (outputs.argmax(axis=1) != label)[:, None].astype(outputs.dtype)
    else:
        difference = outputs - batch.targets
        loss, error = jnp.square(difference), jnp.abs(difference)
    return (
        jnp.where(known, loss, 0.0).sum(),
        jnp.where(known, error, 0.0).sum(axis=0),
        known.sum(axis=0).astype(outputs.dtype),
    )
