"""JSON lines: one crystal a line, with lattice, species, frac_coords and optional id, properties, split."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, parse_json

SUFFIXES = (".jsonl", ".jsonl.gz")


def read_jsonl(path: str | Path) -> Iterator[Crystal | Rejected]:
    """Streams a .jsonl or .jsonl.gz file, or all of a folder in the order of their names.

    Raises:
      FileNotFoundError: If there is no such file, or none in the folder.
      ValueError: If a compressed file is damaged.
    """
    path = Path(path)
    files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(f"{path}: no such file, or a folder without .jsonl or .jsonl.gz files")
    for file in files:
        yield from _read_file(file)


def _read_file(file: Path) -> Iterator[Crystal | Rejected]:
    opened = gzip.open(file, "rt", encoding="utf-8-sig") if file.suffix == ".gz" else file.open(encoding="utf-8-sig")
    number = 0
    with opened as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_line(line, f"{file.name}:{number}")
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: damaged after line {number} ({error}); fetch or make it again") from error


def _read_line(line: str, where: str) -> Crystal | Rejected:
    id = where
    try:
        record = parse_json(line, where)
        if isinstance(record, dict) and record.get("id") is not None:
            id = str(record["id"])
        if not isinstance(record, dict):
            raise CrystalError(f"{where}: a line must hold one JSON object, got {type(record).__name__}")
        return Crystal.from_record(record, default_id=where)
    except CrystalError as error:
        return Rejected(id, str(error))
