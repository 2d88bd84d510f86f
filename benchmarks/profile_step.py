"""Where the time of a training step and of a prediction goes, and how far it is from what the machine could do.

python benchmarks/profile_step.py [--data=FOLDER | --data=demo] [--crystals=256] [--quick] [--longest=10]

Prints Markdown tables for quotient and full graphs: the share of every kind of operation, in the step as it is and in
the plain one, which writes Eq. 5 as printed (z concatenated, jax.nn.softplus, sums by reduction) and leaves all
derivatives to JAX. A part's milliseconds are its share of the time of all threads times the time of the step.

The limits: flops and bytes as XLA counts them for the compiled step, at the rates of a large matrix product and of a
large copy measured here. The bytes count every operation's operands as read from memory; caches can do better.
"""

import argparse
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import workload
from cgcnn_jax.data import batching, store
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.graph import CrystalGraphs

# The first that matches "name origin" of an operation is the part of the step it belongs to; see origins.
PARTS = {
    "batch assembly": r"/graph\.py:|:take_batch\b|reduce_window_sum",
    "optimiser": r"\boptimizer/|/optax/",
    # The derivative of the gate sums over bonds by a product with ones, which has the convolution's own path.
    "statistics and other sums over rows": r"/norm\.py:|_norm/|/reduce_sum$|conv_\d+/dot_general$",
    "bond features": r"/basis\.py:|\bbasis/",
    "matrix products, backward": r"^\S*(dot|gemm).* \S*transpose\(|transpose\(.*dot_general",
    "matrix products, forward": r"^\S*(dot|gemm)|dot_general",
    "sums over bonds and atoms (scatter)": r"scatter",
    "gathers": r"gather|concatenate|/(gate|core)/",
    "gate and activation": r"conv_\d",
    "embedding, pooling, head, loss": r"CGCNN|jvp\(",
    "copies": r"^\S+ $",
    "other": r"",
}


def part_of(name: str, origin: str) -> str:
    """The part of the step that an operation belongs to; see origins."""
    return next(part for part, pattern in PARTS.items() if re.search(pattern, f"{name} {origin}"))


class Measured(NamedTuple):
    """A compiled program, run.

    Attributes:
      seconds: Of one batch.
      parts: Share of the time, by part.
      longest: Share of the time of single operations, by name and origin, the longest first.
      flops: Counted by XLA, one batch.
      bytes: The same.
      memory: Bytes that the program allocates for itself.
    """

    seconds: float
    parts: Mapping[str, float]
    longest: Sequence[tuple[str, float]]
    flops: float
    bytes: float
    memory: float


# ---- the plain convolution


def register_plain_convolution() -> None:
    """Adds the convolution "plain": gated_norm's mathematics and parameters without its shortcuts."""
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    from cgcnn_jax.nn.conv import CONVOLUTIONS, Convolution
    from cgcnn_jax.nn.dense import Dense

    class PlainNorm(nn.Module):
        """Batch normalisation over weighted rows; statistics by reduction."""

        @nn.compact
        def __call__(self, x: Any, weight: Any, *, training: bool) -> Any:
            scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
            running_mean = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:])
            running_var = self.variable("batch_stats", "var", jnp.ones, x.shape[-1:])
            mean, var = running_mean.value, running_var.value
            if training and not self.is_initializing():
                number = jnp.maximum(weight.sum(), 1.0)
                mean = (weight[:, None] * x).sum(axis=0) / number
                var = (weight[:, None] * jnp.square(x - mean[None, :])).sum(axis=0) / number
                unbiased = var * number / jnp.maximum(number - 1, 1.0)
                running_mean.value = 0.9 * running_mean.value + 0.1 * mean
                running_var.value = 0.9 * running_var.value + 0.1 * unbiased
            return (x - mean[None, :]) / jnp.sqrt(var + 1e-5)[None, :] * scale[None, :] + bias[None, :]

    class PlainConv(Convolution):
        """softplus(v_i + BN(sum_jk sigmoid(BN(z W_f + b_f)) * softplus(BN(z W_s + b_s)))), z = v_i + v_j + u_ij,k."""

        @nn.compact
        def __call__(self, v: Any, u: Any, graphs: CrystalGraphs, *, training: bool) -> Any:
            bonds = graphs.edge_weight * graphs.node_weight[graphs.receivers]
            z = jnp.concatenate([v[graphs.receivers], v[graphs.senders], u], axis=-1)
            gate = Dense(v.shape[-1], self.init_scale, self.precision, name="gate")(z)
            core = Dense(v.shape[-1], self.init_scale, self.precision, name="core")(z)
            gate = jax.nn.sigmoid(PlainNorm(name="gate_norm")(gate, bonds, training=training))
            core = jax.nn.softplus(PlainNorm(name="core_norm")(core, bonds, training=training))
            messages = graphs.edge_weight[:, None] * gate * core
            total = jax.ops.segment_sum(messages, graphs.receivers, num_segments=v.shape[0])
            return jax.nn.softplus(v + PlainNorm(name="sum_norm")(total, graphs.node_weight, training=training))

    CONVOLUTIONS["plain"] = PlainConv


# ---- reading a program and a trace


def origins(hlo: str) -> dict[str, str]:
    """For every operation of a compiled program: the functions that made it and its path in the model.

    What XLA adds has the origin of the operation that it is for, such as the pieces of a long sum; its copies have none.

    Args:
      hlo: `compiled.as_text()`.
    """
    frames = _frames(hlo)
    found: dict[str, str] = {}
    user: dict[str, str] = {}
    for line in hlo.splitlines():
        operation = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line)
        if not operation:
            continue
        name, text = operation.groups()
        path = re.search(r'op_name="([^"]*)"', text)
        frame = re.search(r"stack_frame_id=(\d+)", text)
        made_by = frames.get(int(frame[1]), "") if frame else ""
        found[name] = f"{made_by} {path[1] if path else ''}".strip()
        for operand in re.findall(r"%([\w.\-]+)", text.partition("metadata=")[0]):
            user.setdefault(operand, name)
    # From the end, so that a chain of pieces takes the origin of its last.
    for name in reversed(found):
        if not found[name] and not name.startswith("copy"):
            found[name] = found.get(user.get(name, ""), "")
    return found


def _frames(hlo: str) -> dict[int, str]:
    """Stack frames of a program's header: "file:function file:function ...", outermost first."""
    tables: dict[str, dict[int, str]] = defaultdict(dict)
    title = ""
    for line in hlo.splitlines():
        entry = re.match(r"(\d+) (.*)", line)
        if entry:
            tables[title][int(entry[1])] = entry[2].strip('"')
        elif line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            title = line
        elif line:
            title = ""

    def field(text: str, name: str) -> int:
        found = re.search(rf"{name}=(\d+)", text)
        return int(found[1]) if found else 0

    frames: dict[int, str] = {}
    for number, text in sorted(tables["StackFrames"].items()):
        location = tables["FileLocations"].get(field(text, "file_location_id"), "")
        file = tables["FileNames"].get(field(location, "file_name_id"), "")
        function = tables["FunctionNames"].get(field(location, "function_name_id"), "")
        # XLA writes the parent's number plus one, 1 for none; a parent stands before its children.
        parent = frames.get(field(text, "parent_frame_id") - 1, "")
        frames[number] = f"{parent} {file}:{function}".strip()
    return frames


def self_times(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Time of each operation of a thread without that of operations inside it (a loop's, for one).

    Args:
      events: (start, duration, name) of one thread; an event lies inside another or beside it.
    """
    total: dict[str, float] = defaultdict(float)
    open_events: list[tuple[float, str]] = []
    for start, duration, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_events and open_events[-1][0] <= start:
            open_events.pop()
        total[name] += duration
        if open_events:
            total[open_events[-1][1]] -= duration
        open_events.append((start + duration, name))
    return dict(total)


def traced(run: Callable[[], Any], known: Iterable[str]) -> dict[str, float]:
    """Nanoseconds of all threads, or of the accelerator's streams, in each of the known operations during a run."""
    import jax
    from jax.profiler import ProfileData

    names = set(known)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        data = ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
        by_plane: dict[bool, dict[str, float]] = {True: defaultdict(float), False: defaultdict(float)}
        for plane in data.planes:
            for line in plane.lines:
                events = []
                for event in line.events:
                    name = dict(event.stats).get("hlo_op", event.name)
                    if name in names:
                        events.append((event.start_ns, event.duration_ns, name))
                for name, taken in self_times(events).items():
                    by_plane["/device:" in plane.name][name] += taken
    # An accelerator's own clock where there is one; the host then only starts operations.
    return dict(by_plane[True] or by_plane[False])


# ---- measurements


def measure(program: Any, run: Callable[[int], Any], n_batch: int, seconds: float) -> Measured:
    """Times, traces and counts a program.

    Args:
      program: The compiled program.
      run: Runs it on so many batches.
      n_batch: How many.
      seconds: To measure for.
    """
    taken = workload.best_seconds(lambda: run(n_batch), seconds) / n_batch
    origin = origins(program.as_text())
    times = traced(lambda: run(n_batch), origin)
    # The loop over batches itself is no operation: what is left of it is waiting.
    times = {name: time for name, time in times.items() if not name.startswith(("while", "call", "conditional"))}
    whole = sum(times.values())
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for name, time in times.items():
        parts[part_of(name, origin[name])] += time / whole
    ranked = sorted(times.items(), key=lambda item: -item[1])
    longest = [(f"`{name}` {origin[name].split(' ')[-1]}", time / whole) for name, time in ranked]
    cost = program.cost_analysis()
    memory = program.memory_analysis().temp_size_in_bytes
    return Measured(taken, parts, longest, cost["flops"], cost["bytes accessed"], memory)


def measure_both(
    graphs: CrystalGraphs, conv: str, n_batch: int, seconds: float
) -> tuple[dict[str, Measured], np.ndarray]:
    """Training and prediction of a convolution, and its first predictions."""
    import jax

    n_graph = len(graphs.n_node)
    work = workload.prepare(graphs, n_graph, conv=conv, n_row=n_batch)
    row = batching.epoch_plan(graphs, np.arange(n_graph), work.train_budget, 1, (0,))
    packed = batching.packed_plan(graphs, np.arange(n_graph), work.eval_budget)
    weights = jax.tree.map(jax.numpy.array, work.state.best)
    plan, rows = np.repeat(row, n_batch, axis=0), np.repeat(packed[:1], n_batch, axis=0)
    state = work.state

    def train(n: int) -> None:
        nonlocal state
        state = jax.block_until_ready(work.train(state, plan, n))

    def predict(n: int) -> None:
        jax.block_until_ready(work.predict(weights, rows, n))

    values = np.asarray(work.predict(weights, rows, 1))
    measured = {
        name: measure(program, run, n_batch, seconds)
        for name, program, run in zip(("training", "prediction"), work.compiled, (train, predict), strict=True)
    }
    return measured, values


def machine_rates() -> tuple[float, float]:
    """Flops a second of a large float32 matrix product, and bytes a second of a large copy."""
    import jax
    import jax.numpy as jnp

    is_cpu = jax.default_backend() == "cpu"
    size = 2048 if is_cpu else 8192
    x = jnp.ones((size, size))
    multiply = jax.jit(lambda x: x @ x)
    flops = 2 * size**3 / workload.best_seconds(lambda: jax.block_until_ready(multiply(x)), 1.0)
    # Beyond any cache.
    numbers = jnp.ones(2**26 if is_cpu else 2**30)
    copy = jax.jit(lambda x: x + 1)
    taken = workload.best_seconds(lambda: jax.block_until_ready(copy(numbers)), 1.0)
    return flops, 2 * numbers.nbytes / taken


# ---- tables


def part_table(measured: Mapping[str, Measured]) -> list[str]:
    """Markdown: a row for each part, milliseconds and share for each program."""
    lines = [f"| part | {' | '.join(f'{name}, ms (share)' for name in measured)} |", "|---" * (1 + len(measured)) + "|"]
    for part in PARTS:
        if any(one.parts[part] > 0 for one in measured.values()):
            cells = [f"{1e3 * one.parts[part] * one.seconds:.2f} ({one.parts[part]:.0%})" for one in measured.values()]
            lines.append(f"| {part} | {' | '.join(cells)} |")
    whole = " | ".join(f"{1e3 * one.seconds:.2f}" for one in measured.values())
    return [*lines, f"| **one batch** | {whole} |"]


def limit_table(measured: Mapping[str, Measured], n_graph: int, rates: tuple[float, float]) -> list[str]:
    """Markdown: what was counted, and the time that it needs at least."""
    rows: dict[str, Callable[[Measured], str]] = {
        "crystals/s": lambda one: f"{n_graph / one.seconds:,.0f}",
        "GFLOP": lambda one: f"{one.flops / 1e9:.2f}",
        "GB read and written": lambda one: f"{one.bytes / 1e9:.2f}",
        "memory, MB": lambda one: f"{one.memory / 1e6:.0f}",
        "ms for the flops": lambda one: f"{1e3 * one.flops / rates[0]:.2f}",
        "ms for the bytes": lambda one: f"{1e3 * one.bytes / rates[1]:.2f}",
        "time over the larger of these": lambda one: (
            f"{one.seconds / max(one.flops / rates[0], one.bytes / rates[1]):.1f} x"
        ),
    }
    lines = [f"| | {' | '.join(measured)} |", "|---" * (1 + len(measured)) + "|"]
    return lines + [f"| {name} | {' | '.join(map(show, measured.values()))} |" for name, show in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("CGCNN_DATA", "../shared/data")
    parser.add_argument("--data", default=f"{shared}/mp_2018_6_1", help="JSON-lines folder, or demo")
    parser.add_argument("--crystals", type=int, default=256, help="in the batch")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--longest", type=int, default=0, help="list so many single operations")
    arguments = parser.parse_args()

    from experiments.allocator import keep_freed_memory

    keep_freed_memory()
    register_plain_convolution()
    n_batch, seconds = (3, 0.5) if arguments.quick else (10, 3.0)
    rates = machine_rates()
    crystals = workload.sample(arguments.data, arguments.crystals)
    for title, use_quotient in (("Quotient graphs", True), ("Full graphs", False)):
        graphs = store.build(crystals, Featurizer(use_quotient=use_quotient)).graphs
        n_graph = len(graphs.n_node)
        plain, expected = measure_both(graphs, "plain", n_batch, seconds)
        now, values = measure_both(graphs, "gated_norm", n_batch, seconds)
        measured = {}
        for name in now:
            measured |= {f"{name}, plain": plain[name], name: now[name]}
        print(f"\n{title}: {n_graph} crystals, {graphs.n_node.sum():,} nodes, {graphs.n_edge.sum():,} edges a batch\n")
        print("\n".join(part_table(measured)), end="\n\n")
        print("\n".join(limit_table(measured, n_graph, rates)), flush=True)
        print(f"\nLargest difference of a prediction from the plain network's: {np.abs(values - expected).max():.1g}")
        for name, one in measured.items():
            if arguments.longest:
                print(f"\n{name}\n\n| operation | share |\n|---|---|")
            for operation, share in one.longest[: arguments.longest]:
                print(f"| {operation} | {share:.1%} |")
    print(f"\nMatrix products {rates[0] / 1e9:,.0f} GFLOP/s, copies {rates[1] / 1e9:,.1f} GB/s")
    print(workload.machine())


if __name__ == "__main__":
    main()
