"""JSON lines: one crystal a line, with lattice, species, frac_coords and optional id, properties, split."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, parse_json

SUFFIXES = (".jsonl", ".jsonl.gz")


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
    path = Path(path)
    files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(f"{path}: no such file, or a folder without .jsonl or .jsonl.gz files")
    for file in files:
        yield from _read_file(file)


def crystal_of(record: dict[str, Any], where: str) -> Crystal | Rejected:
    """The crystal of a record, named by its place where it has no id."""
    try:
        return Crystal.from_record(record, default_id=where)
    except CrystalError as error:
        return Rejected(str(record["id"]) if record.get("id") is not None else where, str(error))


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


def _read_file(file: Path) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    opened = gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig")
    number = 0
    with opened as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{file.name}:{number}"
                    yield where, _read_line(line, where)
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: damaged after line {number} ({error}); fetch or make it again") from error


def _read_line(line: str, where: str) -> dict[str, Any] | Rejected:
    try:
        record = parse_json(line, where)
    except CrystalError as error:
        return Rejected(where, str(error))
    if not isinstance(record, dict):
        return Rejected(where, f"{where}: a line must hold one JSON object, got {type(record).__name__}")
    return record
