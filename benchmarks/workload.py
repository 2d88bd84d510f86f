"""What growth.py and profile_step.py share: a network with its compiled step around a set of graphs, and the clock."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgcnn_jax.data import batching, elements
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_demo, read_jsonl
from cgcnn_jax.graph import CrystalGraphs, PadBudget

# About as many as MP-2018.6.1 has; a smaller sample is taken from all of it.
_AVAILABLE = 64_000


def read(data: str, stride: int = 1) -> Iterator[Crystal]:
    """Every stride-th crystal of a JSON-lines folder, or of the embedded set for "demo"."""
    found = read_demo() if data == "demo" else read_jsonl(Path(data))
    return (crystal for crystal in islice(found, 0, None, stride) if isinstance(crystal, Crystal))


def sample(data: str, number: int) -> list[Crystal]:
    """So many crystals, evenly from all, or all if there are fewer."""
    stride = 1 if data == "demo" else max(1, _AVAILABLE // number)
    return list(islice(read(data, stride), number))


@dataclass(frozen=True)
class Repeated:
    """So many crystals; each time the given ones are gone through under new ids and strained by 0.1 % more.

    Made anew whenever it is iterated over, so that a large set need not be in memory.
    """

    crystals: Sequence[Crystal]
    number: int

    def __iter__(self) -> Iterator[Crystal]:
        for place in range(self.number):
            copy, which = divmod(place, len(self.crystals))
            one = self.crystals[which]
            yield replace(one, id=f"{one.id}.{copy}", lattice=one.lattice * (1 + 1e-3 * copy))


class Workload(NamedTuple):
    """A set on the device with compiled training and prediction.

    Attributes:
      state: TrainState; donated by every training.
      train: (state, plan, n_step) -> state.
      predict: (weights, plan, n_row) -> outputs.
      compiled: The two compiled programs, which know their flops and their memory.
      train_budget: Shape of a training batch.
      eval_budget: Shape of a prediction batch.
    """

    state: Any
    train: Callable[..., Any]
    predict: Callable[..., Any]
    compiled: tuple[Any, Any]
    train_budget: PadBudget
    eval_budget: PadBudget


def prepare(
    graphs: CrystalGraphs,
    batch_size: int,
    *,
    conv: str = "gated_norm",
    features: int = 64,
    num_convs: int = 4,
    n_row: int | None = None,
) -> Workload:
    """Compiles the `reference` network, Adam and the mean squared error for a set.

    Args:
      graphs: The set, unpadded.
      batch_size: Crystals a step, on average.
      conv: Convolution.
      features: Width of the atom vectors.
      num_convs: Convolutions.
      n_row: Rows of the plans that will be given; by default those of an epoch.
    """
    import jax
    import optax

    from cgcnn_jax.nn.basis import GaussianBasis
    from cgcnn_jax.nn.model import CGCNN, init_variables
    from cgcnn_jax.scaling import TargetScaler
    from cgcnn_jax.train.optimizer import OptimizerSettings, build_optimizer
    from cgcnn_jax.train.state import init_state
    from cgcnn_jax.train.step import compile_steps, to_device

    n_graph = len(graphs.n_node)
    members = np.arange(n_graph)
    n_step = max(1, round(n_graph / batch_size))
    # Labels only have to be there: their values do not change the time.
    targets = np.random.default_rng(0).normal(size=(n_graph, 1))
    scaler = TargetScaler.fit(targets, ("label",), ("",))
    table = elements.atom_features("released")
    model = CGCNN(
        n_output=1,
        table_shape=table.shape,
        features=features,
        conv=conv,
        num_convs=num_convs,
        basis=GaussianBasis(),
        pool="mean",
        activate_pooled=True,
        atom_layers=0,
        crystal_layers=1,
        crystal_features=32,
        dropout=0.0,
    )
    plain = build_optimizer(OptimizerSettings("adam", 1e-3), 1e-3)
    # Named, so that a profile can tell its operations from others.
    optimizer = optax.GradientTransformation(plain.init, jax.named_scope("optimizer")(plain.update))
    train_budget = batching.training_budget(graphs, members, n_step, 0)
    eval_budget = batching.packing_budget(graphs, batch_size)
    steps = compile_steps(model, optimizer, "regression", train_budget, eval_budget, 0.0)
    data = to_device(graphs, targets, scaler)
    state = init_state(init_variables(model, 0, table), optimizer, 1, averages=False)
    n_packed = len(batching.packed_plan(graphs, members, eval_budget))
    train_plan = np.zeros((n_row or n_step, train_budget.n_graph - 1), np.int32)
    eval_plan = np.zeros((n_row or n_packed, eval_budget.n_graph - 1), np.int32)
    # Ahead of time: a program that jit compiles on its first call does not give its figures away.
    train = steps.train.lower(state, data, train_plan, 0, 0, 0).compile()
    predict = steps.predict.lower(state.best, data, eval_plan, 0).compile()
    return Workload(
        state,
        lambda state, plan, n_step: train(state, data, plan, 0, n_step, 0),
        lambda weights, plan, n_row: predict(weights, data, plan, n_row),
        (train, predict),
        train_budget,
        eval_budget,
    )


def best_seconds(run: Callable[[], Any], budget: float, least: int = 3) -> float:
    """Shortest of the runs that fill a time, the first of all left out; other programs only ever make a run longer."""
    run()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < least or time.perf_counter() - began < budget:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def machine() -> str:
    """Device, cores, versions, commit and date, for the line under a table."""
    import jax

    device = jax.devices()[0]
    name = _processor() if device.platform == "cpu" else device.device_kind
    return f"{name}, {cores()} cores, jax {jax.__version__}, commit {_commit()}, {date.today()}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
