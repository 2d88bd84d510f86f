"""Portion: structures on their way to a prediction, with the graphs of those that have one."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from cgcnn_jax.data import store
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.featurize import Featurize
from cgcnn_jax.data.store import GraphStore


class Portion(NamedTuple):
    """Some structures.

    Attributes:
      ids: Of all, in order; they need not be unique.
      store: Graphs of those that have one, named there by their places in `ids`.
      reasons: Place -> why the structure has no graph.
    """

    ids: tuple[str, ...]
    store: GraphStore
    reasons: dict[int, str]

    def rows(self) -> list[int | None]:
        """Where in the store the graph of each structure is, None where it has none."""
        row_of = {int(place): row for row, place in enumerate(self.store.ids)}
        return [row_of.get(place) for place in range(len(self.ids))]


def build(entries: Sequence[Entry | Rejected], featurize: Featurize, executor: Executor | None = None) -> Portion:
    """Reads structures and builds their graphs.

    Args:
      entries: The structures.
      featurize: Makes the graph of a crystal.
      executor: Builds the graphs; None does so in this process.
    """
    given = [_Numbered(place, entry) for place, entry in enumerate(entries) if not isinstance(entry, Rejected)]
    built = store.build(given, featurize, executor=executor)
    reasons = {place: entry.reason for place, entry in enumerate(entries) if isinstance(entry, Rejected)}
    reasons |= {int(one.id): one.reason for one in built.rejected}
    return Portion(tuple(entry.id for entry in entries), built, reasons)


class _Numbered:
    """An entry under its number."""

    def __init__(self, number: int, entry: Entry) -> None:
        self.id = str(number)
        self._entry = entry
        self.targets = entry.targets
        self.split = entry.split

    def digest(self) -> str:
        return self._entry.digest()

    def read(self) -> Any:
        return self._entry.read()
