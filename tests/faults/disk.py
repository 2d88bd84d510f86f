"""A disk that is full: work on a file system that grows a little whenever the work says that it has no room."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.faults.lives import Tally, differences, undisturbed
from tests.faults.processes import Process
from tests.faults.work import Work

_MOST_STEPS = 400


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a small file system, as root may."""
    try:
        with _mounted(folder, 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def fill(work: Work, scratch: Path, count: int) -> Tally:
    """Has the work run out of room at about `count` sizes of its disk, from none to enough, in one life.

    The disk is filled at the first start and grows after every error, so that each start comes a little further.
    """
    expected, _ = undisturbed(work, scratch)
    size = sum(path.stat().st_blocks for path in (scratch / "undisturbed").rglob("*") if path.is_file()) // 2
    step, tally = max(4, 4 * round(1.3 * size / count / 4)), Tally(lives=1)
    with _mounted(scratch / "disk", step) as (disk, resize):
        folder = disk / "life"
        for number in range(1, _MOST_STEPS):
            resize(number * step)
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
            tally.starts += 1
            end = Process(partial(work.start, folder), scratch).end()
            if not end.status:
                break
            tally.stages[end.stage] += 1
            if end.status < 0 or not _says_so(end.error):
                tally.wrong.append(f"at {number * step} kB, {end.stage}: {end.status} {end.error[-1500:]}")
        resize(10 * size + 10_000)
        wrong = differences(work, folder, scratch, expected)
        if wrong:
            tally.wrong.append(wrong)
    return tally


def _says_so(error: str) -> bool:
    """Whether the error is one that entry points print in a line, and names the lack of room."""
    kind, _, message = error.partition(":")
    known = kind in ("OSError", "ValueError", "RuntimeError") or (kind.endswith("Error") and "[Errno 28]" in message)
    return known and "No space left" in error


@contextlib.contextmanager
def _mounted(place: Path, kilobytes: int) -> Iterator[tuple[Path, "partial[None]"]]:
    """A file system in memory, and what changes its size."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "faults", place], check=True, capture_output=True
    )
    try:
        yield place, partial(_resize, place)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        shutil.rmtree(place, ignore_errors=True)


def _resize(place: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", place], check=True)
