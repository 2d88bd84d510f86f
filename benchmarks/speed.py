"""Measures this library against the published PyTorch code, side by side in one run on real crystals.

python -m benchmarks.speed --reference=CHECKOUT [--reference-python=PYTHON] [--data=FOLDER] [--only=train,inference]

Rounds of both sides alternate, so that whatever else the machine does meets both; each side keeps its data in memory
between its rounds. Prints a Markdown table and what it was measured on. Without --reference it measures this library
alone. It runs from the project's folder, on a CPU or a GPU; leave the machine alone meanwhile.

Rows that --only chooses among:
  graphs      structure to graph, one core: neighbours, quotient and all here, neighbour search and sort alone there
  train       training steps on quotient graphs, settings of the published formation-energy model
  train_full  the same on full graphs
  stream      training streamed to the device, against all crystals lying there (this library alone)
  inference   predictions from stored graphs with the published weights, batches put together on both sides
  cifs        CIF files to predictions by the command lines of both, from a cold start
  run         experiments.train: memory, padding and compilations (this library alone)
"""

import argparse
import contextlib
import csv
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.processes import Published, checked, our_environment
from experiments import allocator

ROOT = Path(__file__).parents[1]
ROWS = ("graphs", "train", "train_full", "stream", "inference", "cifs", "run")
MISSING = """\
without --reference only this library is measured. To compare, check out the published code and name an interpreter that
has torch, scikit-learn, pymatgen and numpy (this one, if it has):
  git clone https://github.com/txie-93/cgcnn
  python -m benchmarks.speed --reference=cgcnn --reference-python=PYTHON
"""
WEIGHTS = Path("pre-trained") / "formation-energy-per-atom.pth.tar"
EPOCH = 55_650  # crystals of the full training split that the last line extrapolates to
GRAPHS = 256  # crystals in a round of the graphs row
# TFLOP/s by kind of arithmetic, and TB/s of the memory, by jax's name of the device. NVIDIA's H200 data sheet: float32 is
# without tensor cores; its 989 for TF32 are with sparsity, twice the dense rate.
PEAKS = {"NVIDIA H200": ({"float32": 67.0, "dense TF32": 494.5}, 4.8)}

Measure = Callable[[], tuple[float, int]]  # -> seconds, crystals


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      what: Was measured.
      ours: Seconds a crystal, by round.
      theirs: Likewise; empty if not measured.
      show: Seconds a crystal as text.
      goal: Least ratio of medians.
    """

    what: str
    ours: Sequence[float]
    theirs: Sequence[float]
    show: Callable[[float], str]
    goal: float

    def __str__(self) -> str:
        ratio = "–"
        if self.theirs:
            rounds = [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]
            median = statistics.median(self.theirs) / statistics.median(self.ours)
            ratio = f"{median:.1f} ({min(rounds):.1f} to {max(rounds):.1f})"
        return f"| {self.what} | {self._cell(self.ours)} | {self._cell(self.theirs)} | {ratio} | at least {self.goal} |"

    def _cell(self, values: Sequence[float]) -> str:
        if not values:
            return "–"
        return f"{self.show(statistics.median(values))} (best {self.show(min(values))})"


class Benchmark:
    """One run of the script: its crystals, the other side, and the rows and notes gathered so far."""

    def __init__(self, arguments: argparse.Namespace, temporary: Path, stack: contextlib.ExitStack) -> None:
        import jax

        from benchmarks.crystal_folder import write_crystals

        self.arguments, self.temporary = arguments, temporary
        self.rows: list[str] = []
        self.notes: list[str] = []
        self.device = jax.devices()[0]
        self.folder = temporary / "crystals"
        say(f"writing {arguments.crystals} CIFs")
        self.ids = write_crystals(
            arguments.data / "mp_2018_6_1",
            self.folder,
            number=arguments.crystals,
            seed=arguments.seed,
            reference=arguments.reference,
        )
        self.published: Published | None = None
        # Whether both sides compute on the same kind of device.
        self.is_fair = False
        if arguments.reference and set(arguments.only) - {"run"}:
            on_gpu = self.device.platform != "cpu"
            checkout = arguments.reference.absolute()
            self.published = Published(
                arguments.reference_python, checkout, self.folder, on_gpu, temporary / "published.log"
            )
            stack.callback(self.published.close)
            self.is_fair = not on_gpu or self.published.about["device"] != "cpu"
            if not self.is_fair:
                self.notes.append("the published code's torch finds no GPU here; what would run there is not compared")
        if self.published and {"train", "train_full", "inference"} & set(arguments.only) and self.is_fair:
            say(f"the published code builds its graphs of {len(self.ids)} crystals")
            loaded = self.published.ask("load")
            self.notes.append(size_note("published code", loaded["crystals"], loaded["nodes"], loaded["edges"]))

    def alternate(self, sides: Mapping[str, Measure], *, warm_up: bool = True) -> dict[str, list[float]]:
        """Seconds a crystal of every side, round by round, after a round that does not count."""
        found: dict[str, list[float]] = {name: [] for name in sides}
        if warm_up:
            for measure in sides.values():
                measure()
        for number in range(self.arguments.rounds):
            for name, measure in sides.items():
                seconds, crystals = measure()
                found[name].append(seconds / crystals)
                say(f"round {number + 1} of {self.arguments.rounds}, {name}: {seconds:.2f} s for {crystals} crystals")
        return found

    def graphs(self) -> None:
        from benchmarks.this_library import GraphBuilding
        from cgcnn_jax.data.featurize import Featurizer

        ids = self.ids[:GRAPHS]
        sides: dict[str, Measure] = {"graphs": GraphBuilding(self.folder, Featurizer(), ids)}
        if published := self.published:
            sides["published neighbours"] = lambda: published.measure("neighbors", ids=ids)
        found = self.alternate(sides)
        theirs = found.get("published neighbours", [])
        self.rows.append(
            str(Row("structure to graph, one core", found["graphs"], theirs, lambda s: f"{1e3 * s:.2f} ms", 30))
        )

    def training(self) -> None:
        from benchmarks.this_library import Training

        titles = {
            "train": ("training, quotient graphs", True, 12),
            "train_full": ("training, full graphs", False, 3),
        }
        ours = {}
        for name in [name for name in titles if name in self.arguments.only]:
            say(f"compiling {name}")
            ours[name] = Training(self.folder, quotient=titles[name][1])
        sides: dict[str, Measure] = dict(ours)
        if (published := self.published) and self.is_fair:
            sides["published training"] = lambda: published.measure("train", epochs=1)
        found = self.alternate(sides)
        for name in ours:
            title, _, goal = titles[name]
            self.rows.append(str(Row(title, found[name], found.get("published training", []), show_rate, goal)))
            graphs = ours[name].dataset.graphs
            self.notes.append(
                size_note(title, len(graphs.n_node), int(graphs.n_node.sum()), int(graphs.n_edge.sum()))
                + "; padding of these batches {:.1%} of nodes, {:.1%} of edges".format(*ours[name].padding)
            )
            self.notes.append(
                f"{title}: " + self._reached(ours[name].count(), ours[name].crystals_per_step, found[name])
            )

    def stream(self) -> None:
        from benchmarks.this_library import StreamedTraining, Training

        resident = Training(self.folder, quotient=True)
        found = self.alternate({"streamed": StreamedTraining(resident), "on the device": resident})
        title = "training, streamed (right: this library, all crystals on the device)"
        self.rows.append(str(Row(title, found["streamed"], found["on the device"], show_rate, 0.8)))

    def _reached(self, counted: tuple[float, float], crystals: float, seconds: Sequence[float]) -> str:
        """What a step takes of the device's peaks, and 1,000 epochs of time."""
        step = statistics.median(seconds) * crystals
        tflops, tbs = (count / step / 1e12 for count in counted)
        known = PEAKS.get(self.device.device_kind, ({}, 0.0))
        rates = {"peak": self.arguments.peak_tflops} if self.arguments.peak_tflops else known[0]
        bandwidth = self.arguments.peak_tbs or known[1]
        of_rate = ", ".join(f"{tflops / peak:.1%} of {peak:g} {kind}" for kind, peak in rates.items())
        of_bandwidth = f"{tbs / bandwidth:.1%} of {bandwidth:g}" if bandwidth else ""
        return (
            f"a step of {crystals:.0f} crystals takes {1e3 * step:.2f} ms, {counted[0] / 1e9:.2f} GFLOP and "
            f"{counted[1] / 1e9:.3f} GB by XLA's count: {tflops:.3g} TFLOP/s{of_rate and f' ({of_rate})'}, "
            f"{tbs:.3g} TB/s{of_bandwidth and f' ({of_bandwidth})'}. 1,000 epochs of {EPOCH:,} crystals would take "
            f"{EPOCH * 1000 * statistics.median(seconds) / 3600:.2f} h"
        )

    def inference(self) -> None:
        from benchmarks.this_library import Inference

        weights = self._weights("inference")
        if weights is None:
            return
        ours = Inference(self.folder, weights, self.temporary / "stored")
        sides: dict[str, Measure] = {"inference": ours}
        if (published := self.published) and self.is_fair:
            sides["published inference"] = lambda: published.measure("predict")
        found = self.alternate(sides)
        theirs = found.get("published inference", [])
        self.rows.append(str(Row("inference from stored graphs", found["inference"], theirs, show_rate, 10)))
        graphs = ours.store.graphs
        self.notes.append(size_note("inference", len(ours.store), int(graphs.n_node.sum()), int(graphs.n_edge.sum())))

    def cifs(self) -> None:
        from benchmarks.crystal_folder import copy_crystals

        weights = self._weights("cifs")
        if weights is None:
            return
        chosen, folder = self.ids[: self.arguments.cifs], self.temporary / "cifs"
        copy_crystals(self.folder, folder, chosen)
        model, predictions = self.temporary / "published_model", self.temporary / "predictions.csv"
        python = [sys.executable, "-m"]
        checked([*python, "experiments.import_reference", f"--checkpoint={weights}", f"--workdir={model}"], ROOT)

        def ours() -> tuple[float, int]:
            options = [f"--workdir={model}", f"--input={folder}", f"--output={predictions}"]
            return checked([*python, "experiments.predict", *options], ROOT), len(chosen)

        sides: dict[str, Measure] = {"CIFs": ours}
        if self.published and self.is_fair:
            script = self.arguments.reference.absolute() / "predict.py"
            command = [self.arguments.reference_python, str(script), str(weights), str(folder)]
            command += ["--disable-cuda"] * (self.device.platform == "cpu")
            # It writes test_results.csv where it is started.
            sides["published CIFs"] = lambda: (checked(command, self.temporary, foreign=True), len(chosen))
        found = self.alternate(sides, warm_up=False)
        theirs = found.get("published CIFs", [])
        title = f"{len(chosen):,} CIFs to predictions, cold start"
        self.rows.append(str(Row(title, found["CIFs"], theirs, lambda s: f"{s * len(chosen):.1f} s", 10)))
        if theirs:
            self.notes.append(agreement(predictions, self.temporary / "test_results.csv"))

    def run(self) -> None:
        from benchmarks.observed_run import observe
        from benchmarks.this_library import PUBLISHED_RECIPE

        everything = self.arguments.run_on == "all"
        fields = PUBLISHED_RECIPE | {
            "train.epochs": 2,  # the second would compile anew what depends on the first
            "data.source": "jsonl" if everything else "directory",
            "data.path": (self.arguments.data / "mp_2018_6_1").absolute() if everything else self.folder,
            "data.on_error": "skip",
            "data.cache": self.temporary / "graphs",
            "split.kind": "source" if everything else "ratio",
            "atoms.table": "released",
        }
        flags = ["--config=configs/formation_energy.py", *(f"--config.{key}={value}" for key, value in fields.items())]
        # A few crystals are for trying this script; of many it matters whether their graphs are built or there.
        for case in ("graphs built", "graphs stored") if everything else ("graphs built",):
            say(f"training run, {case}")
            seen = observe(self.temporary / case.replace(" ", "_"), flags, our_environment())
            memory, crystals = seen.memory, sum(seen.summary["crystals"][name] for name in ("train", "val", "test"))
            self.rows.append(
                f"| memory of a training run on {crystals:,} crystals, {case} | {memory.shared_once / 1e9:.2f} GB "
                "| – | – | below 2 GB |"
            )
            self.notes.append(
                f"training run, {case}: resident memory of the process tree every 50 ms at its peak, pages that "
                f"processes share counted once; counted in each of up to {memory.processes} processes it is "
                f"{memory.resident / 1e9:.2f} GB, in the main one alone {memory.main / 1e9:.2f} GB; "
                f"{seen.summary['train_crystals_per_second'] or 0:,.0f} crystals/s in training"
            )
        padding = seen.summary["padding"]
        self.rows.append(
            f"| padding in an epoch, nodes and edges | {padding['nodes']:.2%} and {padding['edges']:.2%} "
            "| – | – | below 4 % |"
        )
        compiled = ", ".join(f"{name} {times}" for name, times in seen.compilations.items())
        self.rows.append(f"| compilations in a run of 2 epochs | {compiled} | – | – | train 1, predict 1 |")
        self.notes.append(
            "compilations are those that jax logs (JAX_LOG_COMPILES) of functions that take the network's weights; beside "
            f"them {seen.small_compilations}, nearly all of single operations"
        )

    def _weights(self, row: str) -> Path | None:
        """The published formation-energy weights; None, and a note, where there are none."""
        folders = [self.arguments.reference, self.arguments.data / "cgcnn_reference"]
        for folder in folders:
            if folder and (folder / WEIGHTS).exists():
                return (folder / WEIGHTS).absolute()
        self.notes.append(f"{row} is left out: it needs {WEIGHTS} of the published code (--reference)")
        return None


def agreement(ours: Path, theirs: Path) -> str:
    """How far the predictions of both command lines are apart."""
    with ours.open(newline="") as lines:
        mine = {row["id"]: float(row["prediction"]) for row in csv.DictReader(lines) if row["prediction"]}
    with theirs.open(newline="") as lines:
        difference = np.array([abs(mine[id] - float(value)) for id, _, value in csv.reader(lines) if id in mine])
    return (
        f"predictions of both for {len(difference)} CIFs differ by {np.median(difference):.1e} eV/atom in the median, "
        f"{difference.max():.1e} at most"
    )


def size_note(what: str, crystals: int, nodes: int, edges: int) -> str:
    return f"{what}: {crystals:,} crystals, {nodes / crystals:.1f} nodes and {edges / crystals:.0f} edges each"


def show_rate(seconds: float) -> str:
    return f"{1 / seconds:,.0f} crystals/s"


def measured_on(benchmark: Benchmark) -> Iterator[str]:
    """Hardware, versions, commit, date and settings."""
    from cgcnn_jax.workdir import environment

    found, arguments = environment(), benchmark.arguments
    hardware = found["hardware"]
    yield (
        f"{date.today()}, commit {found['commit']}: {hardware['processor']}, {hardware['cores']} cores, "
        f"jax on {', '.join(hardware['devices'])} ({hardware['platform']}), {hardware['system']}"
    )
    yield "this library: " + ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    if published := benchmark.published:
        about = published.about
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        yield f"published code: {versions}, on {about['device']}, {about['threads']} threads"
    yield (
        f"{arguments.rounds} rounds, {len(benchmark.ids):,} crystals of MP-2018.6.1 drawn with seed {arguments.seed}; "
        "medians of the rounds, ratio of the medians and in brackets the least and the largest ratio of a round"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def chosen_rows(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(ROWS):
        raise argparse.ArgumentTypeError(f"no row is called {sorted(unknown)[0]!r}; there are {', '.join(ROWS)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of https://github.com/txie-93/cgcnn")
    parser.add_argument("--reference-python", default=sys.executable, help="interpreter with torch (this one)")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CGCNN_DATA", "../shared/data")))
    parser.add_argument("--only", type=chosen_rows, default=ROWS, metavar="ROW,ROW", help="rows to measure (all)")
    parser.add_argument("--crystals", type=int, default=2048, help="how many are drawn (2048)")
    parser.add_argument("--cifs", type=int, default=1000, help="files in the row cifs (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="of each side (5)")
    parser.add_argument("--run-on", choices=("all", "drawn"), default="all", help="crystals of the row run (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--peak-tflops", type=float, help="the device's peak rate in TFLOP/s, for its share")
    parser.add_argument("--peak-tbs", type=float, help="the device's peak memory bandwidth in TB/s, for its share")
    arguments = parser.parse_args()
    if not (arguments.data / "mp_2018_6_1").is_dir():
        parser.error(f"no crystals at {arguments.data / 'mp_2018_6_1'} (--data or CGCNN_DATA; docs/data.md)")
    if arguments.reference is None:
        say(MISSING)
    elif not (arguments.reference / "cgcnn" / "data.py").exists():
        parser.error(f"{arguments.reference} is no checkout of https://github.com/txie-93/cgcnn (--reference)")
    elif (python := shutil.which(arguments.reference_python)) is None:
        parser.error(f"there is no interpreter {arguments.reference_python} (--reference-python)")
    else:
        arguments.reference_python = os.path.abspath(python)  # it is started elsewhere

    allocator.keep_freed_memory()
    # This process, its children and torch share the device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.3")
    with tempfile.TemporaryDirectory(prefix="cgcnn_jax_speed_") as temporary, contextlib.ExitStack() as stack:
        benchmark = Benchmark(arguments, Path(temporary), stack)
        if "graphs" in arguments.only:
            benchmark.graphs()
        if {"train", "train_full"} & set(arguments.only):
            benchmark.training()
        for name in ("stream", "inference", "cifs", "run"):
            if name in arguments.only:
                getattr(benchmark, name)()
        print("| what | this library | published code | ratio | goal |\n|---|---|---|---|---|")
        print("\n".join(benchmark.rows) + "\n")
        for note in (*measured_on(benchmark), *benchmark.notes):
            print(f"- {note}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
