"""Our side of speed.py: the same crystals, in this process."""

import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import reference
from cgcnn_jax.data import batching, dataset, store
from cgcnn_jax.data.crystal import Crystal, CrystalError
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import Entries, read_directory
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.train.feed import StreamFeed
from cgcnn_jax.train.optimizer import build_optimizer, learning_rate_schedule
from cgcnn_jax.train.state import init_state
from cgcnn_jax.train.step import compile_steps, to_device
from configs import formation_energy

Measured = tuple[float, int]  # seconds, crystals

# The settings stored in the published formation-energy model, as configs/base.py gives them.
PUBLISHED_RECIPE = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.02,
    "optimizer.schedule": "milestones",
    "optimizer.milestones": (800,),
    "train.epochs": 1000,
    "train.batch_size": 256,
}
# On fast devices a call takes many epochs at once, as a run's stretches of a second do.
_LEAST_SECONDS = 0.5
_STEPS = 4096  # as many can be asked for in one call


def published_config(folder: Path, *, quotient: bool = True) -> ConfigDict:
    """The `reference` preset with the published recipe, for a folder of CIFs."""
    config = formation_energy.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(PUBLISHED_RECIPE)
        config.data.source, config.data.path, config.data.on_error = "directory", str(folder), "skip"
        config.atoms.table = "released"
        config.graph.quotient = quotient
    return config


class GraphBuilding:
    """Crystals to graphs, one by one in this thread."""

    def __init__(self, folder: Path, featurizer: Featurizer, ids: list[str]) -> None:
        entries = {entry.id: entry for entry in _entries(folder)}
        self._crystals: list[Crystal] = [entries[id].read() for id in ids]
        self._featurizer = featurizer

    def __call__(self) -> Measured:
        began = time.perf_counter()
        for crystal in self._crystals:
            try:
                self._featurizer(crystal)
            except CrystalError:  # has cost its time all the same
                continue
        return time.perf_counter() - began, len(self._crystals)


class Training:
    """Whole epochs of the compiled training loop, data on the device, as `fit` runs them.

    Attributes:
      dataset: The crystals.
      epoch: The plan of an epoch.
      new_state: Makes the state that training begins with.
      new_stream: Makes the feed that streams the same crystals.
      padding: Shares of nodes and edges that are padding.
    """

    def __init__(self, folder: Path, *, quotient: bool) -> None:
        config = published_config(folder, quotient=quotient)
        table = configs.build_atom_table(config)
        self.dataset = _load(config, configs.build_featurizer(config, table))
        graphs, targets = self.dataset.graphs, self.dataset.targets
        every = np.arange(len(self.dataset))
        scaler = configs.build_scaler(config, targets, every)
        model = configs.build_model(config, table.shape, scaler.n_output)
        settings, chosen = configs.build_train_settings(config), configs.build_optimizer_settings(config)
        self._n_step = settings.steps_per_epoch(len(every))
        optimizer = build_optimizer(chosen, learning_rate_schedule(chosen, settings.epochs, self._n_step))
        budget = batching.training_budget(graphs, every, self._n_step, settings.seed)
        packing = batching.packing_budget(graphs, settings.batch_size)
        steps = compile_steps(model, optimizer, scaler.task, budget, packing, 0.0)
        self.new_state = lambda: init_state(init_variables(model, 0, table), optimizer, 1, averages=False)
        self.new_stream = lambda: StreamFeed(steps, graphs, targets, scaler, budget, packing)
        self._data = to_device(graphs, targets, scaler)
        self._state = self.new_state()
        self.epoch = epoch = batching.epoch_plan(graphs, every, budget, self._n_step, (0, 0))
        self.padding = batching.padding_share(graphs, epoch, budget)
        self._plan = jnp.tile(jnp.asarray(epoch), (max(1, _STEPS // self._n_step), 1))
        self._lowered = steps.train.lower(self._state, self._data, self._plan, 0, self._n_step, 0)
        self._train = self._lowered.compile()
        self._n_epoch = 1
        self()
        seconds, _ = self()
        self._n_epoch = min(max(1, round(_LEAST_SECONDS / seconds)), len(self._plan) // self._n_step)

    def __call__(self) -> Measured:
        began = time.perf_counter()
        stop = self._n_epoch * self._n_step
        self._state = jax.block_until_ready(self._train(self._state, self._data, self._plan, 0, stop, 0))
        return time.perf_counter() - began, self._n_epoch * len(self.dataset)

    @property
    def crystals_per_step(self) -> float:
        return len(self.dataset) / self._n_step

    def count(self) -> tuple[float, float]:
        """Operations and bytes of one step, as XLA counts them.

        Operations are counted before optimisation, bytes in the compiled program. Both count the body of the loop over
        steps once. On GPUs matrix products that XLA leaves to a library have no bytes, so that the bytes are a lower
        bound there.
        """
        before, after = self._lowered.cost_analysis(), self._train.cost_analysis()
        return (before or {}).get("flops", math.nan), (after or {}).get("bytes accessed", math.nan)


class StreamedTraining:
    """The same epochs with the crystals left on the host and their batches streamed to the device."""

    def __init__(self, resident: Training) -> None:
        self._state, self._feed = resident.new_state(), resident.new_stream()
        self._plan = np.tile(resident.epoch[:, None], (4, 1, 1))
        self._n_crystal = 4 * len(resident.dataset)

    def __call__(self) -> Measured:
        began = time.perf_counter()
        self._state = jax.block_until_ready(self._feed.train(self._state, self._plan, 0, len(self._plan), 0))
        return time.perf_counter() - began, self._n_crystal


class Inference:
    """`Predictor.predict_graphs` with the published weights on graphs that lie on disk, memory-mapped.

    Attributes:
      store: The graphs, whose neighbours are those of the published code.
    """

    def __init__(self, folder: Path, weights: Path, cache: Path) -> None:
        self._predictor = reference.load(weights)
        self.store = store.build(_entries(folder), self._predictor.featurizer, cache=cache)
        self()  # compiles

    def __call__(self) -> Measured:
        began = time.perf_counter()
        n_done = 0
        while (seconds := time.perf_counter() - began) < _LEAST_SECONDS:
            self._predictor.predict_graphs(self.store.graphs)
            n_done += len(self.store)
        return seconds, n_done


def _load(config: ConfigDict, featurizer: Featurizer) -> Dataset:
    return dataset.load(configs.build_entries(config), featurizer, configs.target_names(config), on_error="skip")


def _entries(folder: Path) -> Entries:
    return Entries(lambda: read_directory(folder, ["label"]))
