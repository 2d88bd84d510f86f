"""Shard: structures that are predicted for together, and whose rows are one file."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cgcnn_jax.data.crystal import CrystalFile, Entry, Rejected
from cgcnn_jax.data.sources import CrystalLine

# What a source yields; lines of JSON travel as text and are parsed by a worker.
Item = Entry | Rejected | CrystalLine


@dataclass(frozen=True)
class Shard:
    """Some structures in a row.

    Attributes:
      number: From 0, in the order of the input.
      items: The structures.
    """

    number: int
    items: tuple[Item, ...]

    def digest(self) -> str:
        """Changes when a structure of the input does."""
        content = hashlib.sha256()
        for item in self.items:
            content.update(f"{_identity(item)}\n".encode(errors="surrogateescape"))
        return content.hexdigest()


def cut(items: Iterable[Item], size: int) -> Iterator[Shard]:
    """Shards of `size` structures, the last one smaller."""
    iterator = iter(items)
    for number in itertools.count():
        taken = tuple(itertools.islice(iterator, size))
        if not taken:
            return
        yield Shard(number, taken)


def _identity(item: Item) -> str:
    match item:
        case Rejected():
            return f"{item.id}\0{item.reason}"
        case CrystalLine():
            return f"{item.where}\0{item.text}"
        case CrystalFile():
            # Its size and time, not its content: millions of files are not read twice.
            try:
                about = os.stat(item.path)
            except OSError as error:
                return f"{item.id}\0{error.strerror}"
            return f"{item.id}\0{about.st_size}\0{about.st_mtime_ns}"
        case _:
            return f"{item.id}\0{item.digest()}"
