"""Losses, optimisers and the scaler against float64 numpy, in value and gradient."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cgcnn_jax.graph import Batch
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.losses import LOSSES, loss_sums
from cgcnn_jax.train.optimizer import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerSettings,
    build_optimizer,
    learning_rate_schedule,
)
from tests.numbers.cases import PADDED
from tests.numbers.float64 import ULP, check, errors

# Of one output and its label; unknown labels count nothing.
PLAIN_LOSSES = {
    "mse": lambda o, t: (o[0] - t) ** 2,
    "mae": lambda o, t: abs(o[0] - t),
    "huber": lambda o, t: (o[0] - t) ** 2 / 2 if abs(o[0] - t) <= 1 else abs(o[0] - t) - 0.5,
    "cross_entropy": lambda o, t: math.log(sum(math.exp(x - o[int(t)]) for x in o)),
}


@pytest.mark.parametrize(("task", "name"), [(task, name) for task in LOSSES for name in LOSSES[task]])
def test_a_loss(task, name):
    assert name in PLAIN_LOSSES, f"no float64 reference for the loss {name!r}: write it into PLAIN_LOSSES"
    random = np.random.default_rng(0)
    n_output = 3 if task == "classification" else 1
    outputs = random.normal(0, 2, (20, n_output)).astype(np.float32)
    targets = random.integers(0, 3, (20, 1)).astype(np.float32) + (0.25 if task == "regression" else 0)
    known = random.random((20, 1)) < 0.7
    batch = Batch(PADDED, targets, known)

    def reference(at):
        terms = [
            PLAIN_LOSSES[name](o, t)
            for o, t, is_known in zip(at["o"], targets[:, 0], known[:, 0], strict=True)
            if is_known
        ]
        return np.array([math.fsum(terms)])

    check(lambda at: loss_sums(task, at["o"], batch, name)[0][None], reference, {"o": outputs}, terms=20)
    assert 5 < known.sum() < 20


def plain_rate(schedule: str, step: int, steps: int) -> float:
    """Of steps counted from 0; the settings are those of the test below."""
    if schedule == "constant":
        return 0.1
    if schedule == "milestones":  # a tenth from the second epoch of 4 steps on
        return 0.1 if step < 4 else 0.01
    if schedule == "cosine":  # a linear rise over 2 steps, then half a cosine to 0
        return 0.1 * step / 2 if step < 2 else 0.05 * (1 + math.cos(math.pi * (step - 2) / (steps - 2)))
    if schedule == "one_cycle":  # half a cosine from 1/25 to the peak at 30 %, and one down to 1/25e4
        peak = int(0.3 * steps)
        low, high, part = (
            (0.1 / 25, 0.1, step / peak) if step < peak else (0.1, 0.1 / 25e4, (step - peak) / (steps - peak))
        )
        return low + (high - low) * (1 - math.cos(math.pi * part)) / 2
    raise AssertionError(f"no float64 reference for the schedule {schedule!r}: write it into plain_rate")


def plain_path(name: str, schedule: str, start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """torch's rules with weight decay 0.03 after clipping to the norm 0.8."""
    w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, raw in enumerate(gradients):
        g = raw * min(1.0, 0.8 / np.linalg.norm(raw))
        rate = plain_rate(schedule, t, len(gradients))
        if name == "sgd":
            m = 0.9 * m + (g + 0.03 * w)
            w = w - rate * m
        elif name in ("adam", "adamw", "muon"):  # muon leaves a vector to Nesterov's Adam, without decay
            g = g + 0.03 * w if name == "adam" else g
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            mean = m / (1 - 0.9 ** (t + 1))
            if name == "muon":
                mean = 0.9 * m / (1 - 0.9 ** (t + 2)) + 0.1 * g / (1 - 0.9 ** (t + 1))
            decay = rate * 0.03 * w if name == "adamw" else 0.0
            w = w - rate * mean / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8) - decay
        else:
            raise AssertionError(f"no float64 reference for the optimiser {name!r}: write it into plain_path")
    return w


@pytest.mark.parametrize(("name", "schedule"), list(itertools.product(OPTIMIZERS, SCHEDULES)))
def test_an_optimiser_under_a_schedule(name, schedule):
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=5), random.normal(size=(12, 5))
    settings = OptimizerSettings(
        name, 0.1, momentum=0.9, l2=0.03, clip_norm=0.8, schedule=schedule, milestones=(1,), warmup_epochs=0.5
    )
    optimizer = build_optimizer(settings, learning_rate_schedule(settings, 3, 4))

    @jax.jit
    def follow(w, gradients):
        def step(kept, g):
            w, state = kept
            updates, state = optimizer.update(g, state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, optimizer.init(w)), gradients)[0][0]

    found = follow(jnp.float32(start), jnp.float32(gradients))
    expected = plain_path(name, schedule, np.float64(np.float32(start)), np.float64(np.float32(gradients)))
    # Twelve updates, each right to some roundings of the weights; Adam's first divide by sqrt(1 - 0.999^t), which float32
    # knows to 1e-7 / 1e-3.
    assert errors(found, expected)[""] < 12 * (8 if name == "sgd" else 1000)
    assert np.abs(expected - start).max() > 0.1


def test_the_scaler():
    random = np.random.default_rng(0)
    labels = random.normal(-3.2, 0.7, (500, 2))
    labels[random.random((500, 2)) < 0.2] = np.nan
    scaler = TargetScaler.fit(labels, ("a", "b"), ("", ""))
    scaled, known = scaler.scale(labels)
    for column, mine in enumerate(labels.T):
        values = [x for x in mine if not math.isnan(x)]
        mean = math.fsum(values) / len(values)
        std = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / len(values))
        assert scaler.mean[column] == pytest.approx(mean, rel=1e-13)
        assert scaler.std[column] == pytest.approx(std, rel=1e-13)
        expected = (np.array(values) - mean) / std
        np.testing.assert_allclose(scaled[known[:, column], column], expected, rtol=2 * ULP, atol=1e-12)
        np.testing.assert_allclose(scaler.unscale(scaled)[known[:, column], column], values, atol=4 * std * ULP * 2)
