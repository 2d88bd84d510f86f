"""Two processes in one folder: both come to the same result, or one is told that the other is at it."""

import random
import time
from functools import partial
from pathlib import Path

from tests.faults.lives import Tally, life, undisturbed
from tests.faults.processes import Process
from tests.faults.work import Work


def pair(work: Work, scratch: Path, count: int, seed: int) -> Tally:
    """Starts two at a time, `count` times, the second at a random moment of the first."""
    chance, tally = random.Random(seed), Tally()
    expected, span = undisturbed(work, scratch)
    for _ in range(count):
        with life(work, scratch, tally, expected) as folder:
            tally.starts += 2
            first = Process(partial(work.start, folder), scratch)
            # Often near the beginning, where both look whether anybody is there.
            time.sleep(chance.choice((0.0, chance.uniform(0, 0.2), chance.uniform(0, span))))
            second = Process(partial(work.start, folder), scratch)
            ends = [first.end(), second.end()]
            for end in ends:
                if not end.status:
                    tally.stages["finished"] += 1
                elif end.error.startswith("ValueError: another process is "):
                    tally.stages["told that another process is at it"] += 1
                else:
                    tally.wrong.append(f"{folder}, {end.stage}: {end.status} {end.error[-1500:]}")
            if all(end.status for end in ends):
                tally.wrong.append(f"{folder}: neither finished")
            # Where they shared the work, the one that ended first may have left some to the other.
            last = Process(partial(work.start, folder), scratch).end()
            if last.status:
                tally.wrong.append(f"{folder}: {last.error[-1500:]}")
    return tally
