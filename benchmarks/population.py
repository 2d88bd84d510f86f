"""What it costs to train many networks as one program, against one network alone.

python -m benchmarks.population [--data=FOLDER | --data=demo] [--crystals=2000] [--networks=1,8,40] [--rounds=3]
  [--preset=best] [--optimizer=adam] [--features=64] [--batch_size=32]

Prints a Markdown table: milliseconds of a step in which every network takes a batch of its own, and how many times the
crystals that one alone learns from in a second all learn from together. All are timed in one run, in turn; the median of
the rounds counts. FOLDER has JSON lines.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ml_collections import ConfigDict

import configs
from benchmarks import workload
from cgcnn_jax import config as reading
from cgcnn_jax.data import store
from cgcnn_jax.graph import CrystalGraphs
from cgcnn_jax.nn.model import init_variables
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.population import Member, fit_population

SECONDS = 6.0  # of training that is timed, for each number of networks


class Timed:
    """Stops a training after some seconds, the first epoch and what is compiled in it left out."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, int]] = []

    def step(self, epoch: int, done: int, of: int) -> None:
        if epoch:
            self._steps.append((time.perf_counter(), epoch * of + done))

    def should_stop(self) -> bool:
        return len(self._steps) > 1 and self._steps[-1][0] - self._steps[0][0] > SECONDS

    def seconds_a_step(self) -> float:
        (first, begun), (last, done) = self._steps[0], self._steps[-1]
        return (last - first) / (done - begun)


def seconds_a_step(config: ConfigDict, graphs: CrystalGraphs, n_network: int) -> float:
    """Of so many networks together."""
    labels = np.random.default_rng(0).normal(size=(len(graphs.n_node), 1))
    # All train, as an epoch's validation would be timed with its steps.
    split = {"train": np.arange(len(labels)), "val": np.arange(0)}
    scaler = TargetScaler.fit(labels, ("label",), ("",))
    table = reading.build_atom_table(config)
    model = reading.build_model(config, table.shape, 1)
    members = [
        Member(init_variables(model, seed, table), seed, 1e-4, 0.0, 0.0, split, scaler) for seed in range(n_network)
    ]
    timed = Timed()
    settings = replace(reading.build_train_settings(config), epochs=10**6)
    optimizer = replace(reading.build_optimizer_settings(config), l2=0.0)
    fit_population(
        model, members, graphs, labels, settings, optimizer, on_step=timed.step, should_stop=timed.should_stop
    )
    return timed.seconds_a_step()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--crystals", type=int, default=2000)
    parser.add_argument("--networks", default="1,8,40")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="best")
    parser.add_argument("--optimizer", default="", help="instead of the preset's")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    chosen = parser.parse_args(arguments)
    config = configs.named(f"formation_energy:{chosen.preset}")
    config.model.features, config.train.batch_size = chosen.features, chosen.batch_size
    config.optimizer.name = chosen.optimizer or config.optimizer.name
    crystals = workload.sample(chosen.data, chosen.crystals)
    graphs = store.build(crystals, reading.build_featurizer(config, reading.build_atom_table(config))).graphs
    counts = [int(number) for number in chosen.networks.split(",")]
    rounds = [[seconds_a_step(config, graphs, count) for count in counts] for _ in range(chosen.rounds)]
    steps = [statistics.median(of_count) for of_count in zip(*rounds, strict=True)]
    print("| networks | ms a step | crystals a second, times |\n|---|---|---|")
    for count, step in zip(counts, steps, strict=True):
        print(f"| {count} | {1e3 * step:.2f} | {count / step * steps[0] / counts[0]:.2f} |")
    print(f"\n{len(graphs.n_node)} crystals in batches of {chosen.batch_size}; {workload.machine()}")


if __name__ == "__main__":
    main()
