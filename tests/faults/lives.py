"""Lives of work: started, disturbed, started again until it ends, and compared with work that nobody disturbed."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.processes import Process, ask
from tests.faults.work import Work

_MOST_STARTS = 60  # of a life; more means that it does not come to an end


@dataclass
class Tally:
    """What happened to work of a kind.

    Attributes:
      lives: Folders in which it was begun, killed, and brought to an end.
      starts: Processes.
      stages: What was counted, by what the process was at: kills, errors, ends.
      wrong: What must not be: how a life ended that did not end as the undisturbed one.
    """

    lives: int = 0
    starts: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.stages.total()


def torment(
    work: Work,
    scratch: Path,
    kills: int,
    seed: int,
    kill: Callable[[Process], Any] = Process.kill,
    on_life: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Lives of the work until so many kills have hit it.

    Args:
      work: What to start.
      scratch: A folder for all of them.
      kills: At least so many; the life under way is brought to its end.
      seed: Of the moments.
      kill: Ends a process.
      on_life: Told of each.
    """
    chance, tally = random.Random(seed), Tally()
    expected, span = undisturbed(work, scratch)
    while tally.count < kills and len(tally.wrong) < 5:
        with life(work, scratch, tally, expected) as folder:
            _live(work, folder, scratch, chance, span, tally, kill)
        on_life(tally)
    return tally


@contextmanager
def life(work: Work, scratch: Path, tally: Tally, expected: dict[str, Any]) -> Iterator[Path]:
    """A folder for a life. Once that has ended, notes what is wrong with its result, and keeps the folder if anything is."""
    folder, before = _folder(scratch, f"life{tally.lives}"), len(tally.wrong)
    tally.lives += 1
    yield folder
    if len(tally.wrong) == before and (wrong := differences(work, folder, scratch, expected)):
        tally.wrong.append(f"{folder}: {wrong}")
    if len(tally.wrong) == before:
        shutil.rmtree(folder)


def undisturbed(work: Work, scratch: Path) -> tuple[dict[str, Any], float]:
    """What work that nobody disturbs comes to, and the seconds it takes."""
    whole = _folder(scratch, "undisturbed")
    # Twice: the first one compiles, which the others find done.
    ask(partial(work.start, whole), scratch)
    shutil.rmtree(whole)
    whole.mkdir()
    began = time.monotonic()
    ask(partial(work.start, whole), scratch)
    span = time.monotonic() - began
    return ask(partial(work.result, whole), scratch), span


def _live(
    work: Work,
    folder: Path,
    scratch: Path,
    chance: random.Random,
    span: float,
    tally: Tally,
    kill: Callable[[Process], Any],
) -> None:
    """Starts and kills until the work has ended, or something is wrong."""
    for start in range(_MOST_STARTS):
        tally.starts += 1
        before = _saves(folder)
        process = Process(partial(work.start, folder), scratch)
        # A moment anywhere in an undisturbed life: later starts have less to do, so that the last ones are spared. Lives
        # grow where the machine has become slower since.
        if not process.wait(chance.uniform(0, span * (1 + start // 20))):
            kill(process)
        end = process.end()
        if end.status == -9:
            half = ", a checkpoint half written" * bool(_saves(folder) - before)
            tally.stages[end.stage + half] += 1
        elif end.status:
            tally.wrong.append(f"{folder}: {end.status} while {end.stage}: {end.error[-1500:]}")
            return
        else:
            return
    tally.wrong.append(f"{folder}: not finished after {_MOST_STARTS} starts")


def differences(work: Work, folder: Path, scratch: Path, expected: dict[str, Any]) -> str:
    """In what the result in a folder differs from what was expected; empty if in nothing."""
    try:
        found = ask(partial(work.result, folder), scratch)
    except RuntimeError as error:
        return f"its result cannot be read: {error}"
    return "; ".join(
        f"{key}: {str(found.get(key))[:600]} instead of {str(expected.get(key))[:600]}"
        for key in expected.keys() | found.keys()
        if found.get(key) != expected.get(key)
    )


def _saves(folder: Path) -> set[Path]:
    """Checkpoints that are being written, or never were to their end."""
    return set(folder.rglob("*.orbax-checkpoint-tmp*"))


def _folder(scratch: Path, name: str) -> Path:
    folder = scratch / name
    folder.mkdir(parents=True)
    return folder
