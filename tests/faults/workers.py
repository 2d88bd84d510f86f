"""Worker processes that are killed or have no memory; the process that hired them is not, and has."""

import contextlib
import os
import random
import signal
from functools import partial
from pathlib import Path

import numpy as np

from tests.faults.lives import Tally, life, undisturbed
from tests.faults.processes import Process
from tests.faults.work import Screening, Work

_LEAST, _ENOUGH = 300 << 20, 3 << 30
# What a lack of memory is called; experiments.cli tells all of them in a line.
_SHORTAGES = {
    "the workers die": "have they enough memory?",
    "no more threads": "can't start new thread",
    "Python has no memory": "MemoryError",
    "XLA has no memory": "RESOURCE_EXHAUSTED",
}
_TOLD = "RuntimeError: a process that builds graphs was killed"


def strike(work: Work, scratch: Path, count: int, seed: int) -> Tally:
    """Kills `count` workers at random moments; the work goes on without them, or says so and goes on when repeated."""
    chance, tally = random.Random(seed), Tally()
    expected, span = undisturbed(work, scratch)
    while tally.count < count and len(tally.wrong) < 5:
        with life(work, scratch, tally, expected) as folder:
            while True:
                tally.starts += 1
                process, killed = Process(partial(work.start, folder), scratch), 0
                # Screening takes a structure to be deadly if it kills again and again, and what is killed here is none.
                while not process.wait(chance.uniform(0, span)) and not killed:
                    killed += _kill_one(process.pid, chance)
                end = process.end()
                went_on = "the same process went on" if not end.status else "told, and the next start went on"
                tally.stages[went_on] += killed
                if not end.status:
                    break
                if not end.error.startswith(_TOLD):
                    tally.wrong.append(f"{folder}: {end.status} while {end.stage}: {end.error[-1500:]}")
                    break
    return tally


def starve(work: Screening, scratch: Path, count: int) -> Tally:
    """Gives the workers `count` sizes of memory, from next to none to enough; what was told each time, and the rest."""
    tally = Tally()
    expected, _ = undisturbed(work, scratch)
    for size in np.linspace(_LEAST, _ENOUGH, count, dtype=int).tolist():
        with life(work, scratch, tally, expected) as folder:
            ends = []
            for work.memory in (size, 0):
                tally.starts += 1
                ends.append(Process(partial(work.start, folder), scratch).end())
            starved, fed = ends
            told = next((stage for stage, words in _SHORTAGES.items() if words in starved.error), "")
            tally.stages[told or "enough"] += 1
            if (starved.status and not told) or fed.status:
                tally.wrong.append(f"{folder}, with {size} bytes: {[end.error[-1500:] for end in ends]}")
    return tally


def _kill_one(pid: int, chance: random.Random) -> int:
    """Kills a child of a process; how many it found to kill."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        workers = [int(one) for one in children if b"resource_tracker" not in Path(f"/proc/{one}/cmdline").read_bytes()]
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            return 1
    return 0
