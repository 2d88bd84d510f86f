"""How time and memory grow with atoms, crystals, neighbours, features and layers.

python benchmarks/growth.py [--data=FOLDER | --data=demo] [--quick] [--figure=growth.png] [--workdir=runs/growth]

Prints a Markdown table for each quantity, with the exponents between neighbouring values (time ~ value^exponent) and
where the growth is not linear; docs/performance.md shows the figure. Every value is measured in a process of its own
and kept in the work folder, so that the same command goes on after a stop. 8 minutes on two cores, 1 minute with
--quick. On a GPU, memory is the device's.

Cells are supercells of real crystals of 5 atoms. "unequal atoms": displaced by 0.02 Å at random, so that no two atoms
are equivalent; "equal atoms": as they are, which the quotient graph folds back to one cell. Times are the shortest of
several runs. A step takes CELLS crystals; the set of crystals is real, trained on in batches of 64.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from cgcnn_jax.data import batching, store
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.files import write_text
from cgcnn_jax.graph import concatenate

ATOMS_PER_CELL = 5
CELLS = 16
BATCH_SIZE = 64
DISPLACEMENT = 0.02  # Å; twenty times the quotient's tolerance
SAMPLE = 8000  # real crystals; larger sets repeat them, strained
TIMEOUT = 300  # seconds that one value may take

LINEAR = (0.85, 1.15)
CONSTANT = 0.2


@dataclass(frozen=True)
class Case:
    """What is measured, for `seconds` each: CELLS supercells, or a set of real crystals where `crystals` is not 0."""

    atoms: int = 30
    is_displaced: bool = True
    neighbors: int = 12
    features: int = 64
    layers: int = 4
    crystals: int = 0
    seconds: float = 1.0


@dataclass(frozen=True)
class Axis:
    """A quantity that grows.

    Attributes:
      field: Of Case.
      label: For the figure's axis and the table.
      full: Its values.
      quick: Its values with --quick.
      measures: Keys of the measurements shown, with what they are and their unit.
    """

    field: str
    label: str
    full: tuple[int, ...]
    quick: tuple[int, ...]
    measures: dict[str, tuple[str, str]]


_STEP = {"train_ms": ("training step", "ms/crystal"), "predict_ms": ("prediction", "ms/crystal")}
_BUILD = {"build_ms": ("graph building", "ms/crystal")}
_STEP_MEMORY = {"step_mb": ("memory of a step", "MB"), "predict_mb": ("memory of a prediction", "MB")}
AXES = (
    Axis("atoms", "atoms in the cell", (10, 30, 100, 300, 1000), (30, 300), {**_BUILD, **_STEP, **_STEP_MEMORY}),
    Axis(
        "crystals",
        "crystals in the set",
        (100, 1000, 10_000, 100_000),
        (100, 1000),
        {
            "build_s": ("graph building", "s"),
            "load_s": ("loading built graphs", "s"),
            "train_s": ("training epoch", "s"),
            "predict_s": ("prediction", "s"),
            "load_mb": ("peak memory of building and loading", "MB"),
            "peak_mb": ("peak memory of training", "MB"),
        },
    ),
    Axis("neighbors", "neighbours of an atom", (6, 12, 24, 48, 96), (12, 48), {**_BUILD, **_STEP, **_STEP_MEMORY}),
    Axis("features", "features", (16, 32, 64, 128, 256, 512), (64, 256), {**_STEP, **_STEP_MEMORY}),
    Axis("layers", "convolutions", (1, 2, 4, 10), (1, 3), {**_STEP, **_STEP_MEMORY}),
)


def cases(axis: Axis, *, is_quick: bool) -> dict[str, list[Case]]:
    """The cases of an axis, by the name of the series."""
    base = Case(layers=1, seconds=0.2) if is_quick else Case()
    series = [replace(base, **{axis.field: value}) for value in (axis.quick if is_quick else axis.full)]
    if axis.field != "atoms":
        return {"": series}
    return {"unequal atoms": series, "equal atoms": [replace(case, is_displaced=False) for case in series]}


# ---- exponents


def exponents(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Slopes of log y against log x between neighbouring points: k where y ~ x^k."""
    return (np.diff(np.log(y)) / np.diff(np.log(x))).tolist()


def kind(exponent: float) -> str:
    """How a growth with this exponent is called."""
    if abs(exponent) <= CONSTANT:
        return "constant"
    if exponent < 0:
        return "falling"
    return "below linear" if exponent < LINEAR[0] else "above linear" if exponent > LINEAR[1] else "linear"


def describe(x: Sequence[float], y: Sequence[float]) -> str:
    """Where y grows linearly with x and where not, such as "below linear to 100 (0.52), linear from there"."""
    kinds = [kind(exponent) for exponent in exponents(x, y)]
    # Stretches of one kind, as the indices of their ends.
    bounds = [0, *(i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]), len(kinds)]
    parts = []
    for first, last in pairwise(bounds):
        mean = exponents([x[first], x[last]], [y[first], y[last]])[0]
        where = "" if len(bounds) == 2 else " from there" if last == len(kinds) else f" to {x[last]:,}"
        parts.append(kinds[first] + where + ("" if kinds[first] in ("constant", "linear") else f" ({mean:.2f})"))
    return ", ".join(parts)


# ---- measurements, each in its own process


def supercell(crystal: Crystal, multiple: int, displacement: float, rng: np.random.Generator) -> Crystal:
    """A cell of `multiple` times the atoms, as compact as can be, every atom moved by so many Å along each axis."""
    repeats = np.ones(3, int)
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    for factor in _prime_factors(multiple):
        repeats[np.argmin(repeats * lengths)] *= factor
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    lattice = crystal.lattice * repeats[:, None]
    coords = ((crystal.frac_coords + shifts) / repeats).reshape(-1, 3)
    coords = coords + displacement * rng.normal(size=coords.shape) @ np.linalg.inv(lattice)
    return Crystal(f"{crystal.id} x {multiple}", lattice, np.tile(crystal.species, multiple), coords)


def _prime_factors(number: int) -> list[int]:
    """Largest first."""
    factors = []
    for divisor in range(2, number + 1):
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
    return factors[::-1]


def measure(case: Case, data: str, folder: Path) -> dict[str, Any]:
    """Measurements of a case, and the machine."""
    return (_measure_set(case, data, folder) if case.crystals else _measure_cells(case, data)) | {
        "machine": workload.machine()
    }


def _measure_cells(case: Case, data: str) -> dict[str, float]:
    rng = np.random.default_rng(0)
    found = (one for one in workload.read(data) if len(one.species) == ATOMS_PER_CELL)
    displacement = DISPLACEMENT if case.is_displaced else 0.0
    cells = [supercell(one, case.atoms // ATOMS_PER_CELL, displacement, rng) for one in islice(found, CELLS)]
    if len(cells) < CELLS:
        raise ValueError(f"{data} has {len(cells)} crystals of {ATOMS_PER_CELL} atoms; the benchmark needs {CELLS}")
    # The cutoff reaches far enough for a hundred neighbours everywhere, and costs nothing before they are needed.
    featurizer = Featurizer(WholeShells(case.neighbors, cutoff=14.0))
    built = [featurizer(cell) for cell in cells]
    seconds = {"build": workload.best_seconds(lambda: [featurizer(cell) for cell in cells], case.seconds)}

    graphs = concatenate([one.graphs for one in built])
    n_row = 64
    work = workload.prepare(graphs, CELLS, features=case.features, num_convs=case.layers, n_row=n_row)
    members = np.arange(CELLS)
    row = batching.epoch_plan(graphs, members, work.train_budget, 1, (0,))
    packed = batching.packed_plan(graphs, members, work.eval_budget)
    plan, rows = np.repeat(row, n_row, axis=0), np.repeat(packed, n_row, axis=0)[:n_row]
    state, predict = work.state, work.predict
    weights = jax_copy(state.best)

    def train(n_step: int) -> None:
        nonlocal state
        state = wait(work.train(state, plan, n_step))

    n_step = _steps_in(case.seconds / 5, lambda: train(1), n_row)
    seconds["train"] = workload.best_seconds(lambda: train(n_step), case.seconds) / n_step
    # Several rows where the packing needs them, each as often as the others.
    n_pass = _steps_in(case.seconds / 5, lambda: wait(predict(weights, rows, len(packed))), n_row // len(packed))
    seconds["predict"] = (
        workload.best_seconds(lambda: wait(predict(weights, rows, n_pass * len(packed))), case.seconds) / n_pass
    )
    memory = [program.memory_analysis().temp_size_in_bytes / 1e6 for program in work.compiled]
    return {f"{name}_ms": 1e3 * taken / CELLS for name, taken in seconds.items()} | {
        "step_mb": memory[0],
        "predict_mb": memory[1],
        "bonds": float(graphs.n_edge.sum()) / float(graphs.n_node.sum()),
        "nodes": float(graphs.n_node.mean()),
    }


def _measure_set(case: Case, data: str, folder: Path) -> dict[str, float]:
    crystals = workload.sample(data, min(case.crystals, SAMPLE))
    source = workload.Repeated(crystals, case.crystals)

    def build() -> store.GraphStore:
        return store.build(source, Featurizer(), cache=Path(cache))

    # Beside the results rather than in /tmp, which is often memory.
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        seconds, built = {}, None
        for name in ("build", "load"):
            began = time.perf_counter()
            built = build()
            seconds[name] = time.perf_counter() - began
        assert built is not None
        memory = {"load_mb": _peak_mb()}
        graphs = built.graphs
        members = np.arange(len(built))
        work = workload.prepare(graphs, BATCH_SIZE, num_convs=case.layers)
        weights, state = jax_copy(work.state.best), work.state

        def epoch() -> None:
            nonlocal state
            n_step = max(1, round(len(members) / BATCH_SIZE))
            plan = batching.epoch_plan(graphs, members, work.train_budget, n_step, (0,))
            state = wait(work.train(state, plan, n_step))

        def predict() -> None:
            plan = batching.packed_plan(graphs, members, work.eval_budget)
            wait(work.predict(weights, plan, len(plan)))

        # Once where that takes long enough for a good figure.
        for name, run in (("train", epoch), ("predict", predict)):
            began = time.perf_counter()
            run()
            taken = time.perf_counter() - began
            seconds[name] = taken if taken > 2 else workload.best_seconds(run, case.seconds)
        memory["peak_mb"] = _device_peak_mb() or _peak_mb()
    return {f"{name}_s": taken for name, taken in seconds.items()} | memory


def wait(tree: Any) -> Any:
    import jax

    return jax.block_until_ready(tree)


def jax_copy(tree: Any) -> Any:
    """A copy that survives the donation of its original."""
    import jax

    return jax.tree.map(jax.numpy.array, tree)


def _steps_in(seconds: float, once: Any, most: int) -> int:
    """How many steps take about so long."""
    return int(np.clip(seconds / workload.best_seconds(once, 0.0), 1, most))


def _peak_mb() -> float:
    """The largest memory this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage, which a process starts with its parent's figure.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _device_peak_mb() -> float | None:
    """The largest memory the accelerator has had; None on a CPU."""
    import jax

    statistics = jax.devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] / 1e6 if statistics else None


# ---- all values, kept


class Record:
    """Finished measurements in a file: of one state of the code and one machine, others are not shown."""

    def __init__(self, folder: Path, data: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "growth.json"
        self._all = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._context = f"{_code_digest()} {platform.node()} {os.environ.get('JAX_PLATFORMS', '')} {data}"
        self._folder, self._data = folder, data

    def get(self, case: Case) -> dict[str, Any]:
        """The measurements of a case; {"problem": ...} where there are none."""
        key = f"{self._context} {json.dumps(asdict(case))}"
        if key not in self._all:
            found = _in_a_process(case, self._data, self._folder)
            if "problem" in found:  # the next call may have more time or memory
                return found
            self._all[key] = found
            write_text(self._path, json.dumps(self._all, indent=1))
        return self._all[key]


def _code_digest() -> str:
    root = Path(__file__).parents[1]
    files = sorted(
        [*(root / "cgcnn_jax").rglob("*.py"), *(root / "benchmarks" / name for name in ("growth.py", "workload.py"))]
    )
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _in_a_process(case: Case, data: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, f"--case={json.dumps(asdict(case))}", f"--data={data}", f"--workdir={folder}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"problem": f"more than {TIMEOUT} s"}
    if done.returncode:
        # A message for the table; the whole of it for whoever runs this.
        print(done.stderr, file=sys.stderr)
        return {"problem": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("CGCNN_DATA", "../shared/data")
    parser.add_argument("--data", default=f"{shared}/mp_2018_6_1", help="JSON-lines folder, or demo")
    parser.add_argument("--quick", action="store_true", help="fewer values and one convolution, one minute")
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    parser.add_argument("--workdir", type=Path, default=Path("runs/growth"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        from experiments.allocator import keep_freed_memory

        keep_freed_memory()
        print(json.dumps(measure(Case(**json.loads(arguments.case)), arguments.data, arguments.workdir)))
        return

    record = Record(arguments.workdir, arguments.data)
    results: dict[str, dict[str, list[tuple[Case, dict[str, Any]]]]] = {}
    machine = ""
    for axis in AXES:
        results[axis.field] = {}
        for series, wanted in cases(axis, is_quick=arguments.quick).items():
            points = results[axis.field][series] = []
            for case in wanted:
                print(f"{axis.label}: {getattr(case, axis.field):,} {series}", file=sys.stderr, flush=True)
                points.append((case, record.get(case)))
                machine = points[-1][1].get("machine", machine)
        print("\n".join(table(axis, results[axis.field])), flush=True)
    print(f"\n{machine}")
    if arguments.figure:
        draw(results, arguments.figure)


# ---- table and figure


def values(axis: Axis, points: Sequence[tuple[Case, dict[str, Any]]], key: str) -> tuple[list[int], list[float]]:
    """The measured points of one line."""
    found = [(getattr(case, axis.field), result[key]) for case, result in points if result.get(key)]
    return [x for x, _ in found], [y for _, y in found]


def table(axis: Axis, results: dict[str, list[tuple[Case, dict[str, Any]]]]) -> Iterator[str]:
    """Markdown lines: a row for each measurement, a column for each value."""
    all_x = [getattr(case, axis.field) for case, _ in next(iter(results.values()))]
    yield f"\n| {axis.label} | {' | '.join(f'{x:,}' for x in all_x)} | exponents | growth |"
    yield "|---" * (len(all_x) + 3) + "|"
    for series, points in results.items():
        for key, (name, unit) in axis.measures.items():
            x, y = values(axis, points, key)
            cells = [_short(result[key]) if result.get(key) else "–" for _, result in points]
            # Adding zero turns -0.00 to 0.00.
            steps = " ".join(f"{round(exponent, 2) + 0:.2f}" for exponent in exponents(x, y))
            growth = describe(x, y) if len(x) > 1 else "–"
            title = f"{name}, {unit}{f' ({series})' if series else ''}"
            yield f"| {title} | {' | '.join(cells)} | {steps} | {growth} |"
        for case, result in points:
            if "problem" in result:
                yield f"\n{axis.label} {getattr(case, axis.field):,} {series}: {result['problem']}"


def _short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,g}" if value < 1e5 else f"{value:,.0f}"


def draw(results: dict[str, dict[str, list[tuple[Case, dict[str, Any]]]]], path: Path) -> None:
    """A column for each quantity: times above, memory below, both axes logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    from cgcnn_jax.report import figures

    looks = {
        "graph building": (figures.GREEN, "s"),
        "loading built graphs": (figures.PURPLE, "D"),
        "training": (figures.BLUE, "o"),
        "prediction": (figures.VERMILLION, "^"),
    }
    short = {"build": "graph building", "load": "loading built graphs", "train": "training", "predict": "prediction"}
    short |= {"step": "training", "peak": "training"}

    figure = Figure(figsize=(15, 5.6), layout="constrained")
    panels = figure.subplots(2, len(AXES), height_ratios=(3, 2), sharex="col")
    for column, axis in enumerate(AXES):
        for panel, is_memory in zip(panels[:, column], (False, True), strict=True):
            shown = [key for key in axis.measures if key.endswith("_mb") == is_memory]
            units = {axis.measures[key][1] for key in shown}
            for series, points in results[axis.field].items():
                for key in shown:
                    name = short[key.rpartition("_")[0]]
                    x, y = values(axis, points, key)
                    color, marker = looks[name]
                    line = "--" if series == "equal atoms" else "-"
                    panel.plot(x, y, line, color=color, marker=marker, ms=5, lw=1.6, mfc="w" if line == "--" else color)
            panel.set(xscale="log", yscale="log")
            panel.set_ylabel(
                f"{'memory' if is_memory else 'time'} ({units.pop().replace('ms/crystal', 'ms per crystal')})"
            )
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(color="0.9", lw=0.7)
            _guide(panel)
            low, high = panel.get_ylim()
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        ticks = [getattr(case, axis.field) for case, _ in next(iter(results[axis.field].values()))]
        lower = panels[1, column]
        lower.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        lower.xaxis.set_minor_locator(NullLocator())
        lower.set_xlabel(axis.label)

    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    handles += [
        Line2D([], [], color="0.3", ls="--", marker="o", mfc="w", label="equal atoms, folded by the quotient"),
        Line2D([], [], color="0.6", ls=":", label="linear"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figures.save(figure, path)


def _guide(panel: Any) -> None:
    """A dotted line of slope 1 through the lower left corner of the points."""
    lines = [line.get_xydata() for line in panel.lines if len(line.get_xydata())]
    points = np.concatenate(lines)
    x = np.array([points[:, 0].min(), points[:, 0].max()])
    start = np.median([line[0, 1] for line in lines])
    limits = panel.get_ylim()
    if limits[1] / limits[0] < (x[1] / x[0]) ** 0.5:
        return  # it would leave the panel at once
    panel.plot(x, start * x / x[0], ":", color="0.6", lw=1.2, zorder=0)
    panel.set_ylim(limits)


if __name__ == "__main__":
    main()
