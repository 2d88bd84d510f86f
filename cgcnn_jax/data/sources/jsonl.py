"""JSON lines: one crystal a line, with lattice, species, frac_coords and optional id, properties, split."""

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, parse_json, printable
from cgcnn_jax.data.sources.stream import DAMAGE

SUFFIXES = (".jsonl", ".jsonl.gz")
_LONGEST = 1 << 26


@dataclass(frozen=True)
class CrystalLine:
    """A crystal that is still a line of such a file, so that a worker can parse it.

    Attributes:
      where: file:line.
      text: The line.
    """

    where: str
    text: str

    @property
    def id(self) -> str:
        """The record's, its place if it has none that can be read."""
        record = _read_line(self.text, self.where)
        return self.where if isinstance(record, Rejected) else _id_of(record, self.where)

    def parse(self) -> Crystal | Rejected:
        """The crystal, or why there is none."""
        record = _read_line(self.text, self.where)
        return record if isinstance(record, Rejected) else crystal_of(record, self.where)


def read_jsonl(path: str | Path) -> Iterator[Crystal | Rejected]:
    """Streams a .jsonl or .jsonl.gz file, or all of a folder in the order of their names.

    Raises:
      FileNotFoundError: If there is no such file, or none in the folder.
      ValueError: If a compressed file is damaged.
    """
    for where, record in read_records(path):
        yield record if isinstance(record, Rejected) else crystal_of(record, where)


def read_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    """The lines of such files as (file:line, object); Rejected for a line that holds none. Raises as read_jsonl."""
    for line in read_lines(path):
        yield line.where, _read_line(line.text, line.where)


def read_lines(path: str | Path) -> Iterator[CrystalLine]:
    """The lines of such files, not parsed yet. Raises as read_jsonl."""
    path = Path(path)
    files = [path / name for name in names_in(path)] if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(f"{path}: no such file, or a folder without .jsonl or .jsonl.gz files")
    for file in files:
        yield from _lines_of(file)


def names_in(folder: Path) -> list[str]:
    """Names of such files in a folder, but for hidden ones, which are copies that editors and systems keep."""
    return sorted(one.name for one in folder.iterdir() if one.name.endswith(SUFFIXES) and not one.name.startswith("."))


def crystal_of(record: dict[str, Any], where: str) -> Crystal | Rejected:
    """The crystal of a record, named by its place where it has no id."""
    try:
        return Crystal.from_record(record, default_id=where)
    except CrystalError as error:
        return Rejected(_id_of(record, where), str(error))


def line_of(crystal: Crystal) -> str:
    """The line that read_jsonl reads as this crystal; targets that are not finite are left out."""
    record: dict[str, Any] = {
        "id": crystal.id,
        "lattice": crystal.lattice.tolist(),
        "species": [elements.symbol(int(number)) for number in crystal.species],
        "frac_coords": crystal.frac_coords.tolist(),
        "properties": {name: value for name, value in crystal.targets.items() if math.isfinite(value)},
    }
    if crystal.split is not None:
        record["split"] = crystal.split
    return json.dumps(record, separators=(",", ":")) + "\n"


def _lines_of(file: Path) -> Iterator[CrystalLine]:
    if file.suffix == ".gz" and not file.stat().st_size:
        # To gzip this is a file of nothing; what was to be written has been lost.
        raise ValueError(f"{file}: damaged (0 bytes, and an empty gzip file has more); fetch or make it again")
    opened = gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig")
    number = 0
    with opened as lines:
        try:
            # Not line by line: a file without line ends would be in memory as a whole.
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST), ""), start=1):
                if len(line) == _LONGEST:
                    raise ValueError(f"{file}: line {number} has more than {_LONGEST:,} letters; one crystal a line")
                if line.strip():
                    yield CrystalLine(f"{file.name}:{number}", line)
        except DAMAGE as error:
            raise ValueError(f"{file}: damaged after line {number} ({error}); fetch or make it again") from error


def _id_of(record: dict[str, Any], where: str) -> str:
    return printable(str(record["id"]) if record.get("id") is not None else where)


def _read_line(line: str, where: str) -> dict[str, Any] | Rejected:
    try:
        record = parse_json(line, where)
    except CrystalError as error:
        return Rejected(where, str(error))
    if not isinstance(record, dict):
        return Rejected(where, f"{where}: a line must hold one JSON object, got {type(record).__name__}")
    return record
