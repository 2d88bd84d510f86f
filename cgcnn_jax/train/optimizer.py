"""Optimisers and learning-rate schedules of optax, with L2 as torch couples it."""

from dataclasses import dataclass

import optax
from jax import Array
from optax.contrib import muon

OPTIMIZERS = ("adam", "sgd", "adamw", "muon")
SCHEDULES = ("constant", "milestones", "cosine", "one_cycle")


@dataclass(frozen=True)
class OptimizerSettings:
    """How parameters move.

    Attributes:
      name: adam, sgd, adamw (decoupled decay), or muon: the momentum of every matrix with its singular values made
        alike (0.7 to 1.2, by five steps of Newton and Schulz), times sqrt(columns / rows) where those are more; whatever
        is no matrix by Nesterov's Adam. Source: Jordan et al., Muon (2024), as optax has it.
      learning_rate: Step size; the peak of cosine and one_cycle.
      momentum: Of sgd.
      l2: Factor of the parameters added to their gradient before the optimiser sees it, biases and normalisations
        included, which is torch's weight_decay; in adamw the decoupled decay, by l2 times the learning rate in a step.
        That spares no parameter either, as torch's default. In muon that decoupled decay is of matrices alone, as in
        optax. An array in populations alone, whose members differ in it.
      clip_norm: Largest global norm of the gradient; 0 leaves it alone.
      schedule: constant; milestones (times `factor` at each of `milestones`); cosine (to 0); one_cycle.
      milestones: Epochs.
      factor: See milestones.
      warmup_epochs: Epochs of linear rise, of cosine.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    l2: float | Array = 0.0
    clip_norm: float = 0.0
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    warmup_epochs: float = 0.0


def learning_rate_schedule(settings: OptimizerSettings, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate as a function of the step, counted from 0.

    Raises:
      ValueError: If the schedule is unknown.
    """
    total = max(epochs * steps_per_epoch, 1)
    rate = settings.learning_rate
    if settings.schedule == "constant":
        return optax.constant_schedule(rate)
    if settings.schedule == "milestones":
        return optax.piecewise_constant_schedule(
            rate, {epoch * steps_per_epoch: settings.factor for epoch in settings.milestones}
        )
    if settings.schedule == "cosine":
        warmup = round(settings.warmup_epochs * steps_per_epoch)
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else rate, rate, warmup, max(total, warmup + 1))
    if settings.schedule == "one_cycle":
        # Cosine from rate/25 up over 30 % of the steps, then down to rate/25e4: the factors of torch's OneCycleLR.
        return optax.cosine_onecycle_schedule(total, rate, pct_start=0.3, div_factor=25.0, final_div_factor=1e4)
    raise ValueError(f"unknown optimizer.schedule {settings.schedule!r}; choose one of {list(SCHEDULES)}")


def build_optimizer(settings: OptimizerSettings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The gradient transformation.

    Raises:
      ValueError: If the optimiser is unknown.
    """
    clip = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
    # Added to the gradient, not to the update: Adam rescales it, as in torch. Decoupled decay is something else.
    decays = not _is_zero(settings.l2) and settings.name in ("adam", "sgd")
    decay = [optax.add_decayed_weights(settings.l2)] if decays else []
    if settings.name == "adam":
        return optax.chain(*clip, *decay, optax.adam(schedule))
    if settings.name == "sgd":
        return optax.chain(*clip, *decay, optax.sgd(schedule, momentum=settings.momentum or None))
    if settings.name == "adamw":
        return optax.chain(*clip, optax.adamw(schedule, weight_decay=settings.l2))
    if settings.name == "muon":
        return optax.chain(*clip, muon(schedule, weight_decay=settings.l2))
    raise ValueError(f"unknown optimizer.name {settings.name!r}; choose one of {list(OPTIMIZERS)}")


def _is_zero(factor: float | Array) -> bool:
    """Whether it is the number 0; a traced value is not known to be."""
    return isinstance(factor, int | float) and factor == 0
