"""A training run in a process of its own: its memory, its compilations, its padding. Linux, for it reads /proc."""

import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import footprint
from cgcnn_jax.workdir import Workdir

ROOT = Path(__file__).parents[1]
_PERIOD = 0.05  # seconds between looks
# A network's weights are dozens of arrays; operations outside of compiled functions take one to three.
_MANY_ARRAYS = 10


@dataclass
class Memory:
    """Peaks in bytes.

    Attributes:
      shared_once: Of the process tree: private pages of all, and the shared ones of the process that has most of them.
        (PSS would be too small: it divides by all processes of the machine, this benchmark's among them.)
      resident: Of the same with shared pages counted in every process (RSS), which is too large.
      main: Of the first process alone (VmHWM, kept by the kernel).
      processes: Most at one time.
    """

    shared_once: int = 0
    resident: int = 0
    main: int = 0
    processes: int = 0


@dataclass(frozen=True)
class Observed:
    """What was seen of a finished run.

    Attributes:
      memory: Peaks.
      compilations: How often each function that takes the network's weights was compiled, by its name.
      small_compilations: Compilations of anything else, single operations mostly.
      summary: Its summary.json.
    """

    memory: Memory
    compilations: Counter[str]
    small_compilations: int
    summary: dict[str, Any]


def observe(workdir: Path, flags: Sequence[str], environment: dict[str, str]) -> Observed:
    """Runs experiments.train with these flags to its end.

    Raises:
      RuntimeError: If it fails, with the end of what it said.
    """
    # The report compiles a program of its own, for the vectors of crystals.
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}", "--noreport", *flags]
    # stderr to a file: a pipe that nobody reads while the run is watched would stop it.
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment | {"JAX_LOG_COMPILES": "1"}, stdout=said, stderr=subprocess.STDOUT
        )
        memory, is_over = Memory(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(process.pid, memory, is_over))
        watcher.start()
        try:
            status = process.wait()
        finally:
            process.kill()
            is_over.set()
            watcher.join()
        said.seek(0)
        text = said.read()
    if status:
        raise RuntimeError(f"{' '.join(command)}\nended with status {status}:\n{text[-2000:]}")
    found = re.findall(r"Compiling jit\(([^)]+)\) with global shapes and types (.*)", text)
    large = [name for name, arrays in found if arrays.count("ShapedArray") > _MANY_ARRAYS]
    return Observed(memory, Counter(large), len(found) - len(large), Workdir(workdir).summary())


def _watch(pid: int, memory: Memory, is_over: threading.Event) -> None:
    while not is_over.wait(_PERIOD):
        tree = footprint.tree(pid)
        resident = [footprint.resident(one) for one in tree]
        memory.resident = max(memory.resident, sum(resident))
        # Asking for private pages walks through all of them and holds the run up: not where the bound from above says
        # that the peak found would grow by less than 2 %.
        if sum(resident) > 1.02 * memory.shared_once:
            private = [footprint.private(one) for one in tree]
            shared = max(rss - mine for rss, mine in zip(resident, private, strict=True))
            memory.shared_once = max(memory.shared_once, sum(private) + shared)
        memory.main = max(memory.main, footprint.peak(pid))
        memory.processes = max(memory.processes, len(tree))
