"""Feeds: how crystals get to the devices, all at once or as a stream of batches."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import jax
import numpy as np

from cgcnn_jax.graph import CrystalGraphs, PadBudget, select
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.parallel import Devices
from cgcnn_jax.train.state import TrainState, Weights
from cgcnn_jax.train.step import Compiled, on_host, take_batch, to_device

FEEDS: tuple[str, ...] = ("auto", "device", "stream")
# Batches that go to the device together: enough to hide the way there, few enough to be small.
_BLOCK = 8
# Share of the device's memory that a data set may take.
_SHARE = 0.25

T = TypeVar("T")


class Feed(Protocol):
    """Carries out plans (data.batching) over one data set.

    Plans to train have the devices' shares, [n_batch, n_device, n_place], those to predict have none.
    """

    def train(self, state: TrainState, plan: np.ndarray, start: int, stop: int, seed: int) -> TrainState:
        """Takes a step for each of the rows start .. stop - 1; the state is donated."""
        ...

    def predict(self, weights: Weights, plan: np.ndarray) -> np.ndarray:
        """Outputs [n_graph in the set, n_output], zero for crystals not planned."""
        ...


class DeviceFeed:
    """The whole set lies on every device, and an epoch is one compiled loop over a plan: no host work between steps."""

    def __init__(
        self,
        compiled: Compiled,
        graphs: CrystalGraphs,
        targets: np.ndarray,
        scaler: TargetScaler,
        n_row: int,
        devices: Devices | None = None,
    ) -> None:
        """n_row: Rows of the longest plan to predict; one shape for all of them compiles once."""
        self._compiled = compiled
        self._devices = devices or Devices()
        self._data = to_device(graphs, targets, scaler, self._devices)
        self._n_row = n_row
        self._plan: tuple[np.ndarray, jax.Array] | None = None

    def train(self, state: TrainState, plan: np.ndarray, start: int, stop: int, seed: int) -> TrainState:
        if self._plan is None or self._plan[0] is not plan:
            self._plan = plan, self._devices.deal(plan[:, self._devices.own])
        return self._compiled.train(state, self._data, self._plan[1], start, stop, seed)

    def predict(self, weights: Weights, plan: np.ndarray) -> np.ndarray:
        n_device = self._devices.count
        rows = np.full((-(-self._n_row // n_device) * n_device, plan.shape[1]), -1, np.int32)
        rows[: len(plan)] = plan
        dealt = self._devices.deal(rows.reshape(-1, n_device, plan.shape[1])[:, self._devices.own])
        return np.asarray(self._compiled.predict(weights, self._data, dealt, -(-len(plan) // n_device)))


class StreamFeed:
    """The set stays on the host, memory-mapped perhaps; a thread pads batches while the device works on earlier ones."""

    def __init__(
        self,
        compiled: Compiled,
        graphs: CrystalGraphs,
        targets: np.ndarray,
        scaler: TargetScaler,
        train_budget: PadBudget,
        eval_budget: PadBudget,
        devices: Devices | None = None,
    ) -> None:
        self._compiled = compiled
        self._devices = devices or Devices()
        self._data = on_host(graphs, targets, scaler)
        self._train_budget = train_budget
        self._eval_budget = eval_budget
        self._n_output = scaler.n_output
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="padding")

    def train(self, state: TrainState, plan: np.ndarray, start: int, stop: int, seed: int) -> TrainState:
        def batch(index: np.ndarray):  # type: ignore[no-untyped-def]
            return take_batch(self._data, index, self._train_budget)

        for rows, batches in self._blocks(plan[start:stop], batch):
            state = self._compiled.train_batches(state, batches, len(rows), seed)
        return state

    def predict(self, weights: Weights, plan: np.ndarray) -> np.ndarray:
        def batch(index: np.ndarray) -> CrystalGraphs:
            return select(self._data.graphs, index, self._eval_budget, self._data.starts)

        n_device = self._devices.count
        full = np.full((-(-len(plan) // n_device) * n_device, plan.shape[1]), -1, np.int32)
        full[: len(plan)] = plan
        outputs = np.zeros((len(self._data.graphs.n_node), self._n_output), np.float32)
        for rows, graphs in self._blocks(full.reshape(-1, n_device, plan.shape[1]), batch):
            found = np.asarray(self._compiled.predict_batches(weights, graphs, len(rows)))
            values = found[: len(rows), :, : plan.shape[1]]
            outputs[rows[rows >= 0]] = values[rows >= 0]
        return outputs

    def _blocks(self, plan: np.ndarray, batch: Callable[[np.ndarray], T]) -> Iterator[tuple[np.ndarray, T]]:
        """Blocks of the plan's rows with their batches stacked, the next one prepared while one is in use."""

        def stacked(rows: np.ndarray) -> T:
            # Of the shares of each row, this process pads those of its own devices.
            own = rows[:, self._devices.own]
            n_own = own.shape[1]
            parts = [batch(index) for index in own.reshape(-1, own.shape[2])]
            # Blocks of one shape compile once; a short one is filled up with what is not looked at.
            parts += [parts[-1]] * (_BLOCK * n_own - len(parts))

            def block(*arrays: np.ndarray) -> np.ndarray:
                return np.stack(arrays).reshape(_BLOCK, n_own, *arrays[0].shape)

            return self._devices.deal(jax.tree.map(block, *parts))

        blocks = [plan[first : first + _BLOCK] for first in range(0, len(plan), _BLOCK)]
        ahead = self._thread.submit(stacked, blocks[0]) if blocks else None
        for number, rows in enumerate(blocks):
            assert ahead is not None
            ready = ahead.result()
            if number + 1 < len(blocks):
                ahead = self._thread.submit(stacked, blocks[number + 1])
            yield rows, ready


def fits_device(graphs: CrystalGraphs) -> bool:
    """Whether a set is small against the memory of this process's first device, a CPU's being the machine's.

    One of 2^31 edges is not, whatever the memory: devices count in 32 bits.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    is_counted = max(len(graphs.species), len(graphs.distances)) < 2**31
    return is_counted and sum(array.nbytes for array in graphs) < _SHARE * limit
