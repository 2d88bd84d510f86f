"""Puts a public data set in its place: downloaded or brought by hand, checked against what its publisher writes down."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cgcnn_jax.data import sources
from cgcnn_jax.data.sets import DataSet, File
from cgcnn_jax.data.sources import jarvis
from cgcnn_jax.files import locked
from experiments import cli, download


def install(chosen: DataSet, folder: Path, say: Callable[[str], None] = print) -> int:
    """Downloads what FOLDER/NAME lacks of a set and checks all of it; files appear there when they are right.

    Returns:
      The number of records.

    Raises:
      OSError: If it cannot be downloaded or written; what has come is kept for the next start.
      ValueError: If a file is not the published one, cannot be read, or the records are not as many. A download is
        removed then, so that the next start begins anew; a file that somebody put there is not. Also if another
        process is fetching the set.
    """
    place = folder / chosen.name
    # Files have their names here too, for readers go by them.
    staging = place / ".part"
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; --folder, or CGCNN_JAX_DATA, must name a folder that can be made",
            str(place),
        ) from error
    with locked(staging / ".lock", f"another process is fetching {chosen.name}; wait for it"):
        n_record = _check_all(chosen, place, staging, say)
        for path in _staged(chosen, staging):
            os.replace(path, place / path.name)
        # It may be gone: of two processes, the one that waited for no lock finds all done by the other.
        shutil.rmtree(staging, ignore_errors=True)
    return n_record


def _check_all(chosen: DataSet, place: Path, staging: Path, say: Callable[[str], None]) -> int:
    """Brings every file to `staging` that is not in `place`, and checks all; the number of records."""
    n_record = 0
    for file in chosen.files:
        given = (place / file.name).is_file()
        path = place / file.name if given else staging / file.name
        published = file.sha256 or file.git_blob
        found = _digest(file, path)
        if not given and not (published and found == published):
            _download(file, path, place)
            found = _digest(file, path)
        if published and found != published:
            _reject(file, path, place, given, f"is not the published file: its checksum is {found}, not {published}")
        if not published:
            say(f"{file.name} has SHA-256 {found}; none is published to compare it with")
        try:
            n_record += _count(chosen, path)
        except ValueError as error:
            _reject(file, path, place, given, f"cannot be read ({error})")
    if n_record != chosen.records:
        staged = _staged(chosen, staging)
        for path in staged:
            path.unlink()
        removed = f"; removed {', '.join(path.name for path in staged)}" if staged else ""
        raise ValueError(f"{chosen.name} has {n_record} records in {place}, should have {chosen.records}{removed}")
    return n_record


def _staged(chosen: DataSet, staging: Path) -> list[Path]:
    return [staging / file.name for file in chosen.files if (staging / file.name).exists()]


def _download(file: File, part: Path, place: Path) -> None:
    try:
        with cli.bar(desc=file.name, unit="B", unit_scale=True, leave=False) as bar:

            def advance(done: int, total: int | None) -> None:
                bar.total, bar.n = total, done
                bar.refresh()

            download.download(file.url, part, checked=bool(file.sha256 or file.git_blob), on_progress=advance)
    except download.NotServedError as error:
        raise OSError(f"{error}. {_by_hand(file, place)}") from error


def _by_hand(file: File, place: Path) -> str:
    return (
        f"If this machine cannot have it: bring\n  {file.url}\nby other means, put it at\n  {place / file.name}\n"
        "and start the same command again, which then checks it"
    )


def _digest(file: File, path: Path) -> str:
    return download.digest(path, git_blob=bool(file.git_blob)) if path.is_file() else ""


def _reject(file: File, path: Path, place: Path, given: bool, reason: str) -> None:
    if given:
        raise ValueError(f"{path} {reason}. Remove it, and start again to download it")
    path.unlink()
    raise ValueError(
        f"{path} {reason}. It is removed; start again, and if this comes again the publisher's file changed, or what was "
        f"served in its place is a page to log in, say. {_by_hand(file, place)}"
    )


def _count(chosen: DataSet, path: Path) -> int:
    """Reads the records as training will. Raises ValueError if the file is damaged."""
    if chosen.benchmark:
        return len(jarvis.read_benchmark(path))
    task = chosen.name if chosen.source == "matbench" else ""
    entries = sources.read(chosen.source, sources.Request(str(path), task=task))
    return sum(1 for _ in cli.bar(entries, desc="checking", unit="crystal", leave=False))
