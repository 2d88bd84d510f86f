"""TrainState: everything that training changes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

Tree = Any


class Sums(struct.PyTreeNode):
    """What a stretch of training adds up.

    Attributes:
      loss: Summed loss.
      error: Summed error per target, [n_target]; see losses.loss_sums.
      count: Known labels per target, [n_target].
      bad_step: First step whose loss or gradient was not finite, -1 if none.
    """

    loss: Array
    error: Array
    count: Array
    bad_step: Array

    @classmethod
    def zero(cls, n_target: int) -> "Sums":
        return cls(jnp.zeros(()), jnp.zeros(n_target), jnp.zeros(n_target), jnp.full((), -1, jnp.int32))


class Weights(struct.PyTreeNode):
    """What prediction needs: parameters, running statistics, and the element table."""

    params: Tree
    batch_stats: Tree
    constants: Tree

    def variables(self) -> dict[str, Tree]:
        return {"params": self.params, "batch_stats": self.batch_stats, "constants": self.constants}


class TrainState(struct.PyTreeNode):
    """State of a run; one pytree, saved and restored whole.

    Attributes:
      step: Steps taken.
      weights: Weights that the optimiser moves.
      average: Exponential average of the weights, which then predicts; None without averaging.
      opt_state: The optimiser's.
      sums: Of the epoch so far.
      best: The weights with the lowest validation error so far; without validation, those after the latest epoch.
      best_error: That error; infinite before the first validation, and without.
      best_epoch: Its epoch, -1 before.
    """

    step: Array
    weights: Weights
    average: Weights | None
    opt_state: optax.OptState
    sums: Sums
    best: Weights
    best_error: Array
    best_epoch: Array

    @property
    def predicting(self) -> Weights:
        """The weights that predict now."""
        return self.weights if self.average is None else self.average


def init_state(
    variables: dict[str, Tree], optimizer: optax.GradientTransformation, n_target: int, *, averages: bool
) -> TrainState:
    """A fresh state around a model's variables."""
    weights = Weights(variables["params"], variables["batch_stats"], variables["constants"])

    def copy() -> Weights:
        # Training donates the state: no two of its leaves may share a buffer.
        return jax.tree.map(jnp.array, weights)

    return TrainState(
        step=jnp.zeros((), jnp.int32),
        weights=copy(),
        average=copy() if averages else None,
        opt_state=optimizer.init(weights.params),
        sums=Sums.zero(n_target),
        best=copy(),
        best_error=jnp.asarray(np.inf, jnp.float32),
        best_epoch=jnp.asarray(-1, jnp.int32),
    )
