"""Dataset: graphs with labels. The checks that every crystal passes on its way in."""

import hashlib
import sys
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from cgcnn_jax.data import duplicates, store
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.store import GraphStore
from cgcnn_jax.graph import CrystalGraphs

OnError = Literal["error", "skip"]


class DataError(ValueError):
    """Crystals that cannot be used, when data.on_error=error; the message counts and shows the first of them."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Crystals ready for training or prediction.

    Attributes:
      store: Graphs and ids.
      targets: Labels in their units, f64[n_graph, n_target]; NaN where unknown.
      source_split: The source's own split label of each crystal.
      rejected: Everything left out on the way, and why.
    """

    store: GraphStore
    targets: np.ndarray
    source_split: tuple[str | None, ...]
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        return len(self.store)

    @property
    def ids(self) -> tuple[str, ...]:
        return self.store.ids

    @property
    def graphs(self) -> CrystalGraphs:
        return self.store.graphs

    def digest(self, atom_table: np.ndarray) -> str:
        """Changes when an id, a label, a split mark, a graph or the element table does."""
        content = hashlib.sha256("\n".join(self.ids).encode())
        content.update(repr(self.source_split).encode())
        for values in (self.targets, atom_table, *self.graphs):
            content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()

    def places(self, ids: Sequence[str], what: str) -> np.ndarray:
        """Where the crystals `ids` stand, i64[len(ids)].

        Raises:
          DataError: If some are missing, with their number, `what` they are, and the first of them.
        """
        place = {id: index for index, id in enumerate(self.ids)}
        missing = [id for id in ids if id not in place]
        if missing:
            raise DataError(f"{len(missing)} of {len(ids)} {what} are not in the data: {', '.join(missing[:5])}")
        return np.array([place[id] for id in ids], np.int64)

    def formulas(self) -> list[str]:
        """Reduced formula of each crystal."""
        return self.store.formulas()

    @cached_property
    def fingerprints(self) -> duplicates.Fingerprints:
        """What twins are told by; seconds for a hundred thousand crystals, once."""
        return duplicates.fingerprints(self.graphs)

    def families(self) -> list[str]:
        """The smallest id among each crystal and its twins, and theirs."""
        lowest: dict[int, str] = {}
        number = duplicates.families(self.fingerprints).tolist()
        for id, family in zip(self.ids, number, strict=True):
            lowest[family] = min(id, lowest.get(family, id))
        return [lowest[family] for family in number]


def load(
    entries: Iterable[Entry | Rejected],
    featurizer: Featurizer,
    targets: Sequence[str],
    *,
    log10: bool = False,
    on_error: OnError = "error",
    cache: Path | None = None,
    executor: Executor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Checks the entries, builds their graphs and takes their labels.

    Args:
      entries: What a source yields. An iterable that starts anew each time it is gone through, unlike an iterator, is
        never in memory as a whole.
      featurizer: Graph settings.
      targets: Property names to take; empty for prediction. A crystal needs at least one of them.
      log10: Take the base-10 logarithm of every label.
      on_error: "error" stops at the end of a stage if anything was rejected; "skip" leaves it out and records it.
      cache: Folder of graph stores; None keeps nothing.
      executor: Builds the graphs; None does so in this process.
      on_progress: Called with the number of graphs done since the last call, and of all.

    Raises:
      DataError: If crystals were rejected and on_error is "error", or no crystal is left.
    """
    source = list(entries) if isinstance(entries, Iterator) else entries
    # A number a crystal and target, and a reference a crystal: of a million crystals the ids are the most of it.
    rows: dict[str, int] = {}
    labels = array("d")
    split: list[str | None] = []
    rejected: list[Rejected] = []
    available: set[str] = set()
    left_out: set[int] = set()
    n_seen = n_read = 0
    for entry in source:
        if isinstance(entry, Rejected):
            rejected.append(entry)
            left_out.add(n_seen)
        else:
            n_read += 1
            available.update(entry.targets.keys())
            problem = _problem(entry, rows, targets, log10)
            if problem:
                rejected.append(Rejected(entry.id, f"{entry.id}: {problem}"))
                left_out.add(n_seen)
            else:
                rows[entry.id] = len(rows)
                labels.extend(entry.targets.get(name, np.nan) for name in targets)
                split.append(None if entry.split is None else sys.intern(entry.split))
        n_seen += 1
    unknown = [name for name in targets if name not in available]
    if unknown and n_read:
        raise DataError(
            f"no crystal has the target {unknown[0]!r}; the data have {', '.join(sorted(available)) or 'no labels (is there an id_prop.csv?)'} "
            "(data.target)"
        )
    settle(rejected, n_seen, on_error, " (then their structures are checked)")

    built = store.build(
        _Without(source, left_out),
        featurizer,
        cache=cache,
        executor=executor,
        on_progress=(lambda done: on_progress(done, len(rows))) if on_progress else None,
    )
    rejected += built.rejected
    settle(rejected, n_seen, on_error)
    if not len(built):
        raise DataError(f"no crystal is left of {n_seen}{_first_few(rejected)}")
    kept = np.fromiter((rows.get(id, -1) for id in built.ids), np.int64, len(built))
    if len(built) + len(built.rejected) != len(rows) or (kept < 0).any():
        raise store.ChangedError
    values = np.array(labels).reshape(len(rows), len(targets))[kept]
    return Dataset(
        built,
        np.log10(values) if log10 else values,
        tuple(split[row] for row in kept),
        tuple(rejected),
    )


class _Without:
    """Entries but for those at some places, as often as they are asked for."""

    def __init__(self, entries: Iterable[Entry | Rejected], left_out: Container[int]) -> None:
        self._entries = entries
        self._left_out = left_out

    def __iter__(self) -> Iterator[Entry]:
        for place, entry in enumerate(self._entries):
            if place not in self._left_out and not isinstance(entry, Rejected):
                yield entry


def settle(rejected: Sequence[Rejected], n_seen: int, on_error: OnError, next: str = "") -> None:
    """Raises DataError with the count and the first few, and what comes `next`, unless rejected ones are skipped."""
    if rejected and on_error == "error":
        raise DataError(
            f"{len(rejected)} of {n_seen} crystals cannot be used{_first_few(rejected)}\n"
            f"Mend them{next}, or leave them out with --config.data.on_error=skip (each is then listed in rejected.csv)"
        )


def _first_few(rejected: Sequence[Rejected]) -> str:
    """The reasons of the first five, a line each; empty if there are none."""
    lines = [f"  {one.reason}" for one in rejected[:5]]
    lines += [f"  and {len(rejected) - 5} more"] * (len(rejected) > 5)
    return ":\n" + "\n".join(lines) if lines else ""


def _problem(entry: Entry, kept: Container[str], targets: Sequence[str], log10: bool) -> str | None:
    """Why an entry cannot be used, as far as its id and labels tell."""
    if entry.id in kept:
        return "the id stands twice; ids must be unique, and the one before is taken"
    if not targets:
        return None
    values = [entry.targets.get(name, np.nan) for name in targets]
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return f"no value for {', '.join(targets)}"
    if not np.isfinite(known).all():
        return f"{', '.join(targets)} holds an infinite value"
    if log10 and min(known) <= 0:
        return f"{', '.join(targets)} is {min(known):g}, which has no logarithm (data.log10)"
    return None
