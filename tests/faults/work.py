"""The five kinds of long work, each tiny: how it is started and gone on with, and what must be the same in the end."""

import functools
import gzip
import hashlib
import itertools
import json
import pickle
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import evaluation, preparation, together
from cgcnn_jax import run as runs
from cgcnn_jax.benchmark import folds
from cgcnn_jax.benchmark.protocol import run_task
from cgcnn_jax.data import sets, store
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import matbench, read_demo
from cgcnn_jax.files import write_bytes
from cgcnn_jax.predict import Predictor
from cgcnn_jax.run import Watcher, run
from cgcnn_jax.screen.output import Output
from cgcnn_jax.screen.screening import Top, screen
from cgcnn_jax.sweep.folder import SweepFolder
from cgcnn_jax.sweep.runner import SweepWatcher, run_sweep
from cgcnn_jax.train.checkpoint import Checkpoints
from cgcnn_jax.workdir import Workdir
from experiments import cli, download, install
from tests.benchmark.toys import TOY, write
from tests.experiments.server import Server, serve
from tests.faults.processes import ask, mark, marking
from tests.screen.models import save_model
from tests.sweep import problem


class Work(Protocol):
    """Something long that is started in a folder, and started again when it was killed."""

    def start(self, folder: Path) -> Any:
        """Does it, or the rest of it. Runs in a process of its own."""

    def result(self, folder: Path) -> dict[str, Any]:
        """What must not depend on how often it was killed; for `==`. Runs in a process of its own."""


def settle(compiled: Path) -> None:
    """What a process sets before it computes: one thread, no picture on a screen, compiled programs kept."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)


def _remember_initial_variables(folder: Path) -> None:
    """Initial variables are the same in every start, and making them takes a third of a small run."""
    import jax
    import jax.numpy as jnp

    original = preparation.init_variables

    def remembered(model: Any, seed: int, table: np.ndarray) -> Any:
        file = folder / f"{hashlib.sha256(f'{model} {seed} {table.shape}'.encode()).hexdigest()}.pickle"
        if not file.exists():
            write_bytes(file, pickle.dumps(jax.device_get(original(model, seed, table))))
        return jax.tree.map(jnp.asarray, pickle.loads(file.read_bytes()))

    preparation.init_variables = remembered


def _bytes(tree: Any) -> str:
    """A digest of all numbers of a tree of arrays."""
    import jax

    content = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        content.update(np.ascontiguousarray(leaf))
    return content.hexdigest()


def small_config(epochs: int = 4) -> ConfigDict:
    config = problem.config()
    with config.unlocked():
        config.train.epochs, config.train.average_decay, config.model.dropout = epochs, 0.9, 0.2
        config.train.batch_size, config.optimizer.schedule = 9, "one_cycle"
    return config


class _Marking(SweepWatcher):
    """Marks stages."""

    def __init__(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        self.should_stop = should_stop  # type: ignore[method-assign]

    @contextmanager
    def training(self, *arguments: Any) -> Iterator[None]:
        mark("before the first checkpoint" if arguments[0] == 0 else "between checkpoints")
        yield
        mark("after training")

    def epoch(self, record: Any) -> None:
        mark("between checkpoints")


def _mark_runs() -> None:
    """Has the stages of `run` marked."""
    marking(runs, "prepare", "preparing")
    marking(Checkpoints, "save", "saving")
    marking(Checkpoints, "close", "saving")
    marking(runs, "judge", "judging")
    marking(together, "prepare", "preparing")
    marking(together, "judge", "judging")
    marking(evaluation, "pictures", "drawing")
    marking(evaluation, "learning_curves", "drawing")
    marking(runs, "_nearest", "distances to the training crystals")
    marking(runs, "_report", "report")


class Training:
    """experiments.train: a run that is saved after every stretch of steps, with or without its report."""

    def __init__(self, scratch: Path, *, report: bool = False, epochs: int = 4) -> None:
        self._compiled, self._report, self._epochs = scratch / "compiled", report, epochs

    def start(self, folder: Path, watcher: Watcher | None = None) -> bool:
        settle(self._compiled)
        _mark_runs()
        _remember_initial_variables(self._compiled.parent)
        if not self._report:
            evaluation.pictures = evaluation.learning_curves = lambda *arguments: {}  # half of the time
        config = small_config(self._epochs)
        done = run(config, folder / "run", data=problem.load, watcher=watcher or _Marking(), report=self._report)
        return done.is_finished

    def result(self, folder: Path) -> dict[str, Any]:
        settle(self._compiled)
        place = Workdir(folder / "run")
        summary = place.summary()
        predictor = Predictor.restore(place.path)
        crystals = problem.load(small_config(), configs.build_atom_table(small_config()))
        names = {path.name for path in place.path.iterdir()}
        return {
            "records": [{key: value for key, value in one.items() if key != "seconds"} for one in place.records()],
            "predictions": (place.path / "predictions.csv").read_text(),
            "split": place.read_json("split.json"),
            "metrics": [summary[key] for key in ("metrics", "intervals_95", "best_epoch", "crystals", "parameters")],
            "weights": _bytes(predictor.weights),
            "predicted again": _bytes(predictor.predict_graphs(crystals.graphs)),
            "files": names - {".lock"},
        }


class Graphs:
    """A store of graphs, in chunks of a few crystals."""

    def __init__(self, scratch: Path, *, workers: bool = False, count: int = 384) -> None:
        self._count, self._workers = count, workers
        # Workers are forked by their parent and read no module; they must not be more than the machine has room for.
        self._crystals = list(itertools.islice(read_demo(), count))

    def start(self, folder: Path) -> int:
        store._CHUNK = 16
        mark("key")
        marking(store, "_key", "key")
        marking(store, "_write_part", "writing a part")
        marking(store, "_build_chunk", "building a part")
        marking(store, "_join_files", "joining")
        marking(store, "_read", "checking the whole")
        marking(store.shutil, "rmtree", "removing the parts")
        executor: Executor | None = None
        if self._workers:
            executor = ProcessPoolExecutor(2, mp_context=get_context("fork"), initializer=cli._begin_worker)
        try:
            return len(store.build(self._crystals, Featurizer(), cache=folder / "cache", executor=executor))
        finally:
            if executor is not None:
                executor.shutdown(cancel_futures=True)

    def result(self, folder: Path) -> dict[str, Any]:
        (place,) = (path for path in (folder / "cache").iterdir() if (path / "index.json").exists())
        found = store._read(place)
        return {
            "ids": found.ids,
            "rejected": found.rejected,
            "arrays": {
                name: hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
                for name, array in store._arrays(found).items()
            },
            "leftovers": sorted(path.name for path in (folder / "cache").iterdir() if path != place),
        }


# Two programs: a population of three, of which one diverges, and one of two.
TRIALS = [
    {"optimizer.learning_rate": 1e-2, "model.features": 4, "train.seed": 0},
    {"optimizer.learning_rate": 3e-3, "model.features": 4, "train.seed": 1},
    {"optimizer.learning_rate": 1e12, "model.features": 4, "train.seed": 0},
    {"optimizer.learning_rate": 1e-2, "model.features": 3, "train.seed": 0},
    {"optimizer.learning_rate": 1e-3, "model.features": 3, "train.seed": 0},
]


class Sweep:
    """A sweep of five trials in two populations."""

    def __init__(self, scratch: Path, trials: list[dict[str, Any]] = TRIALS) -> None:
        self._compiled, self._trials = scratch / "compiled", trials

    def start(self, folder: Path, watcher: SweepWatcher | None = None) -> bool:
        settle(self._compiled)
        _mark_runs()
        _remember_initial_variables(self._compiled.parent)
        marking(SweepFolder, "draw", "drawing")
        marking(SweepFolder, "write_table", "table")
        marking(SweepFolder, "close_population", "closing a population")
        return run_sweep(
            problem.config(), self._trials, folder / "sweep", data=problem.load, watcher=watcher or _Marking()
        )

    def result(self, folder: Path) -> dict[str, Any]:
        settle(self._compiled)
        place = SweepFolder(folder / "sweep")
        lines = (place.path / "results.csv").read_text().splitlines()
        header = lines[0].split(",")
        kept = [at for at, name in enumerate(header) if name != "seconds"]
        trials = {}
        for number in range(len(self._trials)):
            trial = place.trial(number)
            records = [{key: value for key, value in one.items() if key != "seconds"} for one in trial.records()]
            trials[number] = [records, {path.name for path in trial.path.iterdir()}]
            if trial.is_finished:
                trials[number] += [
                    (trial.path / "predictions.csv").read_text(),
                    trial.summary()["metrics"],
                    _bytes(Predictor.restore(trial.path).weights),
                ]
        return {
            "table": [[line.split(",")[at] for at in kept] for line in lines],
            "trials": trials,
            "populations": sorted(path.name for path in (place.path / "populations").iterdir()),
            "files": {path.name for path in place.path.iterdir()},
        }


class Benchmark:
    """A benchmark of three folds with two networks each, of which four train together and then two."""

    def __init__(self, scratch: Path) -> None:
        self._compiled, self._crystals = scratch / "compiled", write(scratch / "toy.jsonl")

    def start(self, folder: Path, watcher: Watcher | None = None) -> bool:
        settle(self._compiled)
        _mark_runs()
        _remember_initial_variables(self._compiled.parent)
        marking(folds, "fold_record", "recording a fold")
        marking(folds.Folds, "_close", "closing a population")
        matbench.TASKS[TOY.name] = TOY
        config, place = small_config(), folder / "task"
        with config.unlocked():
            config.split.val_ratio, config.train.save_seconds = 0.2, 0.0
        watcher = watcher or _Marking()
        return run_task(config, TOY, self._crystals, place, networks=2, population=4, watcher=watcher) is not None

    def result(self, folder: Path) -> dict[str, Any]:
        settle(self._compiled)
        runs = {}
        for place in sorted((folder / "task").glob("fold_?*/")):
            one = Workdir(place)
            runs[place.name] = [
                [{key: value for key, value in record.items() if key != "seconds"} for record in one.records()],
                one.read_json("fold.json")["scores"],
                (place / "predictions.csv").read_text(),
                _bytes(Predictor.restore(place).weights),
                {path.name for path in place.iterdir()},
            ]
        record = Workdir(folder / "task").read_json("record.json")
        return {
            "scores": [
                record["scores"],
                record["scores_of_one"],
                [fold["ensemble"][0]["scores"] for fold in record["folds"]],
            ],
            "runs": runs,
            "files": {path.name for path in (folder / "task").iterdir()},
        }


def _bound_memory(size: int) -> None:
    """What a worker begins with: at most so many bytes of address space, if any."""
    if size:
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


class Screening:
    """experiments.screen: 120 structures in shards of 4, the best five, by a model of random weights."""

    def __init__(self, scratch: Path, *, workers: int = 0, format: str = "csv", count: int = 120) -> None:
        self._compiled, self._workers, self._format = scratch / "compiled", workers, format
        self.memory = 0  # bytes of address space that each worker may have; 0 for all
        self._crystals: list[Crystal] = list(itertools.islice(read_demo(), count))
        self.model = scratch / "model"
        if not self.model.exists():
            ask(functools.partial(self._save, self.model), scratch)

    def _save(self, folder: Path) -> None:
        settle(self._compiled)
        save_model(folder)

    def start(self, folder: Path, should_stop: Callable[[], bool] = lambda: False) -> bool:
        settle(self._compiled)
        mark("loading the model")
        marking(Output, "_begin", "opening the folder")
        marking(Output, "write", "writing a part")
        marking(Output, "write_summary", "summary")
        marking(Output, "write_best", "the best")
        return screen(
            self._crystals,
            [self.model],
            folder / "screened",
            hire=self._hire if self._workers else None,
            shard_size=4,
            format=self._format,  # type: ignore[arg-type]
            top=Top(5),
            on_progress=lambda done: mark("predicting"),
            should_stop=should_stop,
        ).is_finished

    def _hire(self) -> tuple[Executor, int]:
        context, bound = get_context("spawn"), functools.partial(_bound_memory, self.memory)
        return ProcessPoolExecutor(self._workers, mp_context=context, initializer=bound), self._workers

    def result(self, folder: Path) -> dict[str, Any]:
        place = folder / "screened"
        lines = [json.loads(line) for line in (place / "shards.jsonl").read_text().splitlines()]
        parts = sorted((place / "parts").iterdir())
        return {
            "parts": {path.name: path.read_bytes() for path in parts},
            "lines": sorted((one["shard"], one["rows"], one["failed"]) for one in lines),
            "summary": json.loads((place / "summary.json").read_text()),
            "best": (place / "top.csv").read_text(),
            "files": {path.name for path in place.iterdir()},
        }


class Download:
    """experiments.fetch: a set of two files from a server in the parent process."""

    def __init__(self, scratch: Path, server: Server, *, published: bool = True) -> None:
        rows = [
            {
                "jid": f"{crystal.id}{copy}",
                "atoms": {
                    "lattice_mat": crystal.lattice.tolist(),
                    "coords": crystal.frac_coords.tolist(),
                    "elements": [site.specie.symbol for site in crystal.to_structure()],
                    "cartesian": False,
                },
                "noise": np.random.default_rng(number).bytes(40_000).hex(),
            }
            for copy in range(2)
            for number, crystal in enumerate(itertools.islice(read_demo(), 20))
        ]
        files = []
        for name, some in (("one.json.gz", rows[:20]), ("two.json.gz", rows[20:])):
            content = gzip.compress(json.dumps(some).encode(), 1)
            server.files[name] = content
            files.append(sets.File(name, server.url(name), hashlib.sha256(content).hexdigest() if published else ""))
        self._set = sets.DataSet("a_set", "", tuple(files), 40, "jarvis", "free", "nobody", "")

    def start(self, folder: Path) -> int:
        download._BLOCK = 1 << 9  # many moments
        mark("looking")
        marking(download, "digest", "checksum")
        marking(download, "download", "downloading")
        marking(download, "_write_mark", "writing the mark")
        marking(install, "_count", "reading")
        marking(install.shutil, "rmtree", "tidying up")
        return install.install(self._set, folder / "data", lambda text: None)

    def result(self, folder: Path) -> dict[str, Any]:
        place = folder / "data" / "a_set"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(place.iterdir())}


KINDS = ("training", "training with report", "graphs", "sweep", "benchmark", "screening", "download")


@contextmanager
def made(kind: str, scratch: Path) -> Iterator[Work]:
    """The work of a kind."""
    scratch.mkdir(parents=True, exist_ok=True)
    match kind:
        case "training":
            yield Training(scratch)
        case "training with report":
            yield Training(scratch, report=True)
        case "graphs":
            yield Graphs(scratch)
        case "sweep":
            yield Sweep(scratch)
        case "benchmark":
            yield Benchmark(scratch)
        case "screening":
            yield Screening(scratch)
        case _:
            with serve() as server:
                yield Download(scratch, server)
