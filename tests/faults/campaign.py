"""Disturbs long work in many ways, and holds what becomes of it against work that nobody disturbed.

python -m tests.faults.campaign --fault=kills --kind=all --count=200 --seed=0
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import disk, pairs, signals, workers
from tests.faults.lives import Tally, torment
from tests.faults.work import KINDS, Graphs, Screening, made


def _kills(kind: str, scratch: Path, count: int, seed: int) -> Tally:
    began = time.monotonic()

    def tell(tally: Tally) -> None:
        took = time.monotonic() - began
        print(f"{kind}: {tally.lives} lives, {tally.count} kills, {len(tally.wrong)} wrong, {took:.0f} s", flush=True)

    with made(kind, scratch) as work:
        return torment(work, scratch, count, seed, on_life=tell)


def _pairs(kind: str, scratch: Path, count: int, seed: int) -> Tally:
    with made(kind, scratch) as work:
        return pairs.pair(work, scratch, count, seed)


def _disk(kind: str, scratch: Path, count: int, seed: int) -> Tally:
    with made(kind, scratch) as work:
        return disk.fill(work, scratch, count)


def _signals(kind: str, scratch: Path, count: int, seed: int) -> Tally:
    with signals.made(kind, scratch) as work:
        return signals.stop(work, scratch, count, seed)


def _workers(kind: str, scratch: Path, count: int, seed: int) -> Tally:
    work = Graphs(scratch, workers=True) if kind == "graphs" else Screening(scratch, workers=2)
    return workers.strike(work, scratch, count, seed)


def _memory(kind: str, scratch: Path, count: int, seed: int) -> Tally:
    return workers.starve(Screening(scratch, workers=2), scratch, count)


FAULTS: dict[str, tuple[Callable[[str, Path, int, int], Tally], tuple[str, ...]]] = {
    "kills": (_kills, KINDS),
    "pairs": (_pairs, KINDS),
    "disk": (_disk, KINDS),
    "signals": (_signals, signals.COMMANDS),
    "workers": (_workers, ("graphs", "screening")),
    "memory": (_memory, ("screening",)),
}


def as_text(tallies: dict[str, Tally], what: str) -> str:
    """A Markdown table: how often the work was disturbed, and at which stages."""
    lines = [f"| work | lives | starts | {what} | of which | another result, or another error |", "|---" * 6 + "|"]
    for kind, one in tallies.items():
        stages = ", ".join(f"{stage} {count}" for stage, count in one.stages.most_common())
        lines.append(f"| {kind} | {one.lives} | {one.starts} | {one.count} | {stages} | {len(one.wrong)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", default="kills", choices=FAULTS)
    parser.add_argument("--kind", default="all", help="of work, several separated by commas")
    parser.add_argument("--count", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keeps what went wrong")
    arguments = parser.parse_args()
    began = time.monotonic()
    function, known = FAULTS[arguments.fault]
    kinds = known if arguments.kind == "all" else arguments.kind.split(",")
    tallies = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in kinds:
            scratch = (arguments.folder or Path(temporary)) / kind.replace(" ", "_")
            scratch.mkdir(parents=True)
            tallies[kind] = function(kind, scratch, arguments.count, arguments.seed)
    for kind, tally in tallies.items():
        for wrong in tally.wrong:
            print(f"--- {kind}: {wrong}")
    print(as_text(tallies, arguments.fault))
    print(f"{sum(tally.count for tally in tallies.values())} {arguments.fault}, {time.monotonic() - began:.0f} s")
    return any(tally.wrong for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
