"""Screens 100,000 structures on a Dask cluster of two workers, kills one on the way, and accounts for every structure.

python -m benchmarks.screening --data=DATA --workdir=MODEL --folder=FOLDER

DATA holds matbench_perovskites and mp_2018_6_1 (docs/data.md), MODEL is the folder of a training run. The structures are
those of both sets and, up to the number wanted, strained copies; one in a hundred is damaged in one of eight ways. FOLDER
keeps the structures and the result. Prints Markdown. Needs cgcnn-jax[cluster,parquet] and psutil (distributed brings it).
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks import damage
from cgcnn_jax.data.sources import CrystalLine, read_input, read_unparsed
from cgcnn_jax.predict import Predictor
from cgcnn_jax.workdir import environment

ROOT = Path(__file__).parents[1]
SETS = ("matbench_perovskites", "mp_2018_6_1")
EVERY = 5.0  # seconds between two looks at the memory


def main() -> None:
    asked = _arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    structures = asked.folder / "structures.jsonl"
    damaged = make_structures(structures, asked.data, asked.structures)
    output = asked.folder / "screening"
    with cluster(asked.folder) as (address, workers):
        watched = screen_and_kill(asked, address, workers, structures, output)
    compared = check(output, structures, damaged, asked)
    print(_table(asked, damaged, watched, compared))


def make_structures(file: Path, data: Path, n: int) -> dict[str, str]:
    """Writes n structures, every hundredth damaged, in an order drawn once; returns id -> damage."""
    rng = np.random.default_rng(0)
    lines = [line.text for name in SETS for line in read_unparsed(data / name) if isinstance(line, CrystalLine)]
    lines = [lines[place] for place in rng.permutation(len(lines))]
    damaged: dict[str, str] = {}
    with file.open("w") as out:
        for number in range(n):
            record = json.loads(lines[number % len(lines)])
            copy = number // len(lines)
            record = {key: record[key] for key in ("id", "lattice", "species", "frac_coords")}
            if copy:
                record["id"] += f"-strained-{copy}"
                record["lattice"] = (
                    np.array(record["lattice"]) @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3)))
                ).tolist()
            if kind := damage.kind_of(number):
                damaged[damage.id_of(kind, record, file, number)] = kind
                out.write(damage.line_of(record, kind) + "\n")
            else:
                out.write(json.dumps(record) + "\n")
    return damaged


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """A scheduler and two workers with a nanny each; their address, and the nannies."""
    place = folder / "scheduler.json"
    place.unlink(missing_ok=True)
    log = (folder / "cluster.log").open("w")
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> psutil.Process:
        command = [sys.executable, "-m", *arguments]
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=folder))
        return psutil.Process(started[-1].pid)

    try:
        start("distributed.cli.dask_scheduler", f"--scheduler-file={place}", "--port=0", "--no-dashboard")
        for _ in itertools.takewhile(lambda _: not place.exists(), range(600)):
            time.sleep(0.1)
        one = (
            "distributed.cli.dask_worker",
            f"--scheduler-file={place}",
            "--nthreads=1",
            "--nworkers=1",
            "--no-dashboard",
        )
        nannies = [start(*one) for _ in range(2)]
        yield json.loads(place.read_text())["address"], nannies
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


class Watched:
    """What was seen of the run."""

    def __init__(self) -> None:
        self.memory: list[tuple[float, int, float, list[float]]] = []  # seconds, rows, MB of parent and of each worker
        self.cpu: dict[int, float] = {}  # process -> seconds of CPU
        self.seconds = 0.0
        self.killed_after = 0
        self.parent = 0

    def look(self, seconds: float, rows: int, parent: psutil.Process, workers: list[psutil.Process]) -> None:
        self.parent = parent.pid
        sizes = {}
        for process in (parent, *workers):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self.cpu[process.pid] = times.user + times.system
                sizes[process.pid] = process.memory_info().rss / 1e6
        if parent.pid in sizes:
            self.memory.append((seconds, rows, sizes.pop(parent.pid), list(sizes.values())))


def screen_and_kill(
    asked: argparse.Namespace, address: str, nannies: list[psutil.Process], structures: Path, output: Path
) -> Watched:
    """Runs the entry point, and ends one worker with SIGKILL when half of the structures are done."""
    command = [sys.executable, "-m", "experiments.screen", f"--workdir={asked.workdir}", f"--input={structures}"]
    command += [f"--output={output}", f"--scheduler={address}", "--top=100", "--predict=worker"]
    watched, began = Watched(), time.monotonic()
    with (asked.folder / "screen.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            workers = [child for nanny in nannies for child in _workers_of(nanny)]
            rows = _rows(output)
            watched.look(time.monotonic() - began, rows, parent, workers)
            if not watched.killed_after and rows >= asked.structures / 2:
                workers[0].kill()
                watched.killed_after = rows
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(EVERY)
    watched.seconds = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"the screening ended with status {process.returncode}; see {log.name}")
    return watched


def _workers_of(nanny: psutil.Process) -> list[psutil.Process]:
    """The processes that do a nanny's work, without multiprocessing's own."""
    try:
        return [child for child in nanny.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def _rows(output: Path) -> int:
    file = output / "shards.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    with contextlib.suppress(json.JSONDecodeError):
        return sum(json.loads(line)["rows"] for line in lines)
    return 0


def check(output: Path, structures: Path, damaged: dict[str, str], asked: argparse.Namespace) -> dict[str, Any]:
    """Raises AssertionError unless every structure has its one row, and every row is right."""
    wanted = [line.id for line in read_unparsed(structures) if isinstance(line, CrystalLine)]
    assert len(wanted) == asked.structures
    table = damage.check(sorted((output / "parts").iterdir()), wanted, damaged)
    failed = table[table["reason"] != ""].set_index("id")["reason"]
    others = failed[~failed.index.isin(damaged)]

    # The same structures in one process, uninterrupted.
    places = set(np.random.default_rng(1).choice(len(wanted), asked.sample, replace=False).tolist())
    sample = (entry for place, entry in enumerate(read_input(structures)) if place in places)
    reference = Predictor.restore(asked.workdir).predict_entries(sample)
    mine = table.iloc[sorted(places)].reset_index(drop=True)
    assert mine["id"].tolist() == reference["id"].tolist()
    assert mine["reason"].tolist() == reference["reason"].tolist()
    assert mine["formula"].fillna("").tolist() == reference["formula"].fillna("").tolist()
    difference = (mine["prediction"] - reference["prediction"]).abs().max()
    assert difference < 1e-4, difference
    best = table.sort_values("prediction", kind="stable").head(100)["id"].tolist()
    assert pd.read_csv(output / "top.csv")["id"].tolist() == best
    return {"difference": difference, "failed": len(failed), "others": Counter(_kind(one) for one in others)}


def _kind(reason: str) -> str:
    return re.sub(r"[\d.]+", "#", reason.split(": ", 1)[-1])[:80]


def _table(asked: argparse.Namespace, damaged: dict[str, str], watched: Watched, compared: dict[str, Any]) -> str:
    n, about = asked.structures, environment()
    parent = watched.cpu[watched.parent]
    workers = sum(watched.cpu.values()) - parent
    hours = (parent + workers) / n * 1e7 / 3600
    running = [one for one in watched.memory if one[1] > 0 and one[3]]
    moments = {"start": running[0], "middle": running[len(running) // 2], "end": running[-1]}
    rows = [
        ("structures", f"{n:,}, {len(damaged):,} of them damaged"),
        ("rows, each id once and in the order of the input", f"{n:,}"),
        ("damaged structures with the right reason", f"{len(damaged):,} of {len(damaged):,}"),
        ("other structures without prediction", f"{compared['failed'] - len(damaged):,}"),
        (
            f"largest difference of {asked.sample:,} predictions from an uninterrupted process",
            f"{compared['difference']:.1e}",
        ),
        ("a worker killed after", f"{watched.killed_after:,} structures"),
        ("time from start to end", f"{watched.seconds:,.0f} s, {n / watched.seconds:,.0f} structures/s"),
        ("CPU time of the workers", f"{workers:,.0f} s, {1e3 * workers / n:.2f} ms a structure"),
        ("CPU time of the parent", f"{parent:,.0f} s, {1e3 * parent / n:.2f} ms a structure"),
        ("so 10^7 structures take", f"{hours:.1f} core-hours"),
        *(
            (f"memory at the {name}: parent; workers", f"{mb:,.0f} MB; {', '.join(f'{one:,.0f} MB' for one in each)}")
            for name, (_, _, mb, each) in moments.items()
        ),
        (
            "memory at its peak: parent; a worker",
            f"{max(one[2] for one in running):,.0f} MB; {max(max(one[3]) for one in running):,.0f} MB",
        ),
    ]
    text = "\n".join(["| what | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])
    kinds = "".join(
        f"\n- without prediction: {count:,} with '{kind}'" for kind, count in compared["others"].most_common(5)
    )
    hardware = about["hardware"]
    return (
        f"{text}\n\n- {date.today()}, commit {about['commit']}: {hardware['processor']}, {hardware['cores']} cores, "
        f"two Dask workers of one thread each{kinds}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--folder", type=Path, required=True, help="where the structures and the result are kept")
    parser.add_argument("--structures", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=2_000, help="predictions to compare with one process")
    asked = parser.parse_args()
    for name in ("data", "workdir", "folder"):
        setattr(asked, name, getattr(asked, name).expanduser().absolute())
    return asked


if __name__ == "__main__":
    main()
