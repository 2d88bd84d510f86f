"""Reads bad structure files and counts what becomes of them.

python -m tests.fuzz.campaign --count=3000 --seed=0
"""

import argparse
import contextlib
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgcnn_jax.data.crystal import Crystal, CrystalError, CrystalFile
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import cif
from cgcnn_jax.data.sources.files import read_structure
from tests.fuzz import mutations
from tests.fuzz.mutations import Case, Source

OUTCOMES = ("the same crystal", "other numbers", "other atoms", "refused", "disagreement", "error", "hang")
BAD = ("disagreement", "error", "hang")
SECONDS = 60  # for one file, on a busy machine
_FEATURIZER = Featurizer()


class Result(NamedTuple):
    """What became of a file, and what it says."""

    outcome: str
    message: str = ""


class TooLongError(BaseException):
    """No Exception, so that nothing below takes it for a fault of the file."""


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Campaign:
    """Reads files as a user's are read, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._good: dict[Source, Crystal] = {}

    def read(self, case: Case, *, compare: bool = True) -> Result:
        """Reads a file and builds its graph; with `compare`, holds the fast reader against pymatgen."""
        path = self.folder / case.name
        path.write_bytes(case.data)
        try:
            with limit(SECONDS):
                crystal = self._read(path)
                if compare:
                    _check_readers(path)
        except TooLongError:
            return Result("hang", f"more than {SECONDS} s")
        except CrystalError as error:
            text = str(error)
            return Result("refused", text) if _is_clear(text, path) else Result("error", f"unclear: {text!r}")
        except AssertionError as error:
            return Result("disagreement", str(error))
        except Exception:
            return Result("error", traceback.format_exc())
        if case.source is None:
            return Result("other atoms", f"read as {crystal.formula}")
        good = self._original(case.source)
        if not np.array_equal(np.sort(crystal.species), np.sort(good.species)):
            return Result("other atoms", f"{crystal.formula} ({len(crystal.species)}) of {len(good.species)}")
        same = all(
            one.shape == other.shape and np.allclose(one, other, rtol=0, atol=1e-6)
            for one, other in zip((crystal.lattice, crystal.frac_coords), (good.lattice, good.frac_coords), strict=True)
        )
        return Result("the same crystal" if same else "other numbers")

    def _read(self, path: Path) -> Crystal:
        entry = CrystalFile(path.stem, path)
        entry.digest()
        crystal = entry.read()
        graphs = _FEATURIZER(crystal).graphs
        assert all(np.isfinite(array).all() for array in graphs), f"{path}: a graph that is not finite"
        return crystal

    def _original(self, source: Source) -> Crystal:
        if source not in self._good:
            path = self.folder / f"good_{source.name}"
            path.write_text(source.text)
            self._good[source] = CrystalFile("good", path).read()
        return self._good[source]


def _check_readers(path: Path) -> None:
    """The fast reader and pymatgen agree, or the fast one declines."""
    sites = cif.read_plain(path)
    if sites is None or len(sites.species) > 1000:
        return
    try:
        judged = Crystal.from_structure("a", read_structure(path))
    except CrystalError as error:
        raise AssertionError(f"pymatgen refuses what the fast reader reads: {error}") from error
    np.testing.assert_array_equal(sites.species, judged.species)
    np.testing.assert_allclose(sites.lattice, judged.lattice, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(sites.frac_coords, judged.frac_coords, rtol=0, atol=1e-12)


def _is_clear(text: str, path: Path) -> bool:
    """A sentence that names the file, is no page, and holds no traceback."""
    return path.stem in text and len(text) > len(path.stem) + 8 and len(text) < 2000 and "Traceback" not in text


def run(cases: Iterable[Case], folder: Path) -> tuple[dict[str, Counter[str]], list[tuple[Case, Result]]]:
    """Outcomes by kind, and the cases that must not be."""
    campaign = Campaign(folder)
    table: dict[str, Counter[str]] = {}
    wrong = []
    for case in cases:
        result = campaign.read(case)
        table.setdefault(case.kind, Counter())[result.outcome] += 1
        if result.outcome in BAD or is_silently_wrong(case, result):
            wrong.append((case, result))
    return table, wrong


def is_silently_wrong(case: Case, result: Result) -> bool:
    """Other atoms than in the good file, although the file tells how many there are."""
    # A file that was overwritten may say anything; one that lost something must not pass for whole.
    lost = ("truncated", "cut between two lines", "a line lost", "lines lost", "operations lost")
    return result.outcome == "other atoms" and case.source is not None and case.source.is_complete and case.kind in lost


def as_text(table: dict[str, Counter[str]]) -> str:
    """A Markdown table, with the outcomes that occurred and those that must not."""
    lines = ["| bad input | files | " + " | ".join(OUTCOMES) + " |", "|---|" + "---|" * (len(OUTCOMES) + 1)]
    total: Counter[str] = Counter()
    for kind, counts in table.items():
        total += counts
        lines.append(f"| {kind} | {counts.total():,} | " + " | ".join(f"{counts[one]:,}" for one in OUTCOMES) + " |")
    lines.append(f"| all | {total.total():,} | " + " | ".join(f"{total[one]:,}" for one in OUTCOMES) + " |")
    return "\n".join(lines)


def all_cases(seed: int, count: int) -> Iterator[Case]:
    """Truncations of one file of each kind at every position, then `count` mutations and the oddities."""
    good = {source.name: source for source in mutations.sources()}
    for name in ("p1_0.cif", "0.vasp", "0.xsf", "0.cssr"):
        yield from mutations.truncations(good[name])
    yield from mutations.cases(seed, count)


def _few_of_each(wrong: list[tuple[Case, Result]]) -> Iterator[tuple[Case, Result]]:
    seen: Counter[tuple[str, ...]] = Counter()
    for case, result in wrong:
        what = (case.kind, case.name.split(".")[-1], result.outcome)
        seen[what] += 1
        if seen[what] <= 2:
            yield case, result


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        table, wrong = run(all_cases(arguments.seed, arguments.count), Path(folder))
    for case, result in _few_of_each(wrong):
        print(f"--- {case.kind}: {case.name}: {result.outcome}\n{result.message[-1500:]}\n{case.data[-300:]!r}")
    print(as_text(table))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(wrong)} that must not be; {time.monotonic() - start:.0f} s; at most {memory:.1f} GB of memory")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
