"""SIGTERM and SIGUSR1, as schedulers send them: the command saves, leaves with status 75, and goes on when it is repeated."""

import functools
import itertools
import json
import random
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.data.sources.jsonl import line_of
from experiments import cli
from tests.faults.lives import Tally, life, undisturbed
from tests.faults.processes import Process, mark, marking
from tests.faults.work import Screening, settle

COMMANDS = ("train", "sweep", "screen")
_SWEEP = """
from cgcnn_jax import sweep
from configs import formation_energy
get_config = formation_energy.get_config
def get_trials(preset=None):
    return sweep.grid({"model.num_convs": [1, 2], "optimizer.learning_rate": [1e-3, 1e-2]})
"""
_SMALL = (
    *("--config.train.epochs=6", "--config.train.batch_size=16", "--config.model.features=4"),
    *("--config.model.num_convs=1", "--config.data.workers=1", "--config.data.source=jsonl"),
    "--config.data.target=energy",
)


class Command:
    """An entry point with its arguments, where {folder} and {scratch} stand for folders."""

    def __init__(self, name: str, scratch: Path, *arguments: str) -> None:
        self._name, self._scratch, self._arguments = name, scratch, arguments

    def start(self, folder: Path) -> None:
        settle(self._scratch / "compiled")
        mark("before it listens")
        marking(cli, "run", "at work")
        sys.argv = [self._name, *(one.format(folder=folder, scratch=self._scratch) for one in self._arguments)]
        runpy.run_module(f"experiments.{self._name}", run_name="__main__", alter_sys=True)

    def result(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if not path.is_file() or "checkpoints" in path.parts:
                continue
            match path.name:
                case "metrics.jsonl":
                    rows = [json.loads(line) for line in path.read_text().splitlines()]
                    found[name] = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
                case "results.csv":  # the last column is the time
                    found[name] = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
                case "summary.json":
                    content = json.loads(path.read_text())
                    found[name] = content.get("metrics", content)
                case _ if path.suffix == ".csv":
                    found[name] = path.read_text()
                case _:
                    found[name] = "is there"
        return found


@contextmanager
def made(name: str, scratch: Path) -> Iterator[Command]:
    """The command, with what it reads."""
    (scratch / "sweep.py").write_text(_SWEEP)
    lines = []
    for crystal in itertools.islice(read_demo(), 60):
        record = json.loads(line_of(crystal))
        lines.append(json.dumps(record | {"properties": {"energy": float(len(crystal.species))}}) + "\n")
    (scratch / "crystals.jsonl").write_text("".join(lines))
    data = "--config.data.path={scratch}/crystals.jsonl"
    match name:
        case "train":
            config = "--config=configs/formation_energy.py"
            yield Command(name, scratch, config, *_SMALL, data, "--workdir={folder}/run", "--noreport")
        case "sweep":
            yield Command(name, scratch, "--config={scratch}/sweep.py", *_SMALL, data, "--workdir={folder}/run")
        case _:
            model = Screening(scratch).model
            yield Command(
                name,
                scratch,
                f"--workdir={model}",
                *("--input={scratch}/crystals.jsonl", "--output={folder}/out", "--format=csv"),
                *("--shard_size=2", "--top=3", "--workers=1"),
            )


def stop(work: Command, scratch: Path, count: int, seed: int) -> Tally:
    """Sends `count` signals, SIGTERM and SIGUSR1 in turn, at random moments."""
    chance, tally = random.Random(seed), Tally()
    expected, span = undisturbed(work, scratch)
    numbers = itertools.cycle((signal.SIGTERM, signal.SIGUSR1))
    while tally.count < count and len(tally.wrong) < 5:
        with life(work, scratch, tally, expected) as folder:
            for _ in range(60):
                tally.starts += 1
                process = Process(functools.partial(work.start, folder), scratch)
                if process.wait(chance.uniform(0, span)):
                    end = process.end()
                else:
                    number = next(numbers)
                    process.send(number)
                    end = process.end()
                    if end.status == -number and end.stage in ("starting", "before it listens"):
                        tally.stages["ended at once, before it listened"] += 1
                    elif end.status == cli.STOPPED:
                        tally.stages["left with status 75"] += 1
                    elif not end.status:
                        tally.stages["finished first"] += 1
                if end.status not in (0, cli.STOPPED) and end.stage == "at work":
                    tally.wrong.append(f"{folder}: {end.status} {end.error[-1500:]}")
                    break
                if not end.status:
                    break
    return tally
