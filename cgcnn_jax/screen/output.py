"""Output: the folder of a screening.

manifest.json      what is screened: models, input, columns
parts/000000.*     the rows of each shard, in the order of the input
shards.jsonl       a line per finished shard: number, counts, digest of its input, checksum of all that and of the part
summary.json       counts, once all shards are finished
top.csv            the best structures, if asked for
"""

import contextlib
import csv
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from cgcnn_jax.files import locked, remove_unfinished, write_bytes, write_text
from cgcnn_jax.workdir import Workdir

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")
# What may differ between two calls that go on with the same screening.
_WITHOUT_EFFECT = ("workdirs", "versions")

_UNCHECKED = {"shard", "rows", "failed", "digest"}


class Output:
    """Every file is written whole or not at all; a line of shards.jsonl follows its part.

    A shard whose part is gone, or is not what was written, is not finished: it is done again.

    Attributes:
      path: The folder.
      finished: Number -> line of the finished shards.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.finished: dict[int, dict[str, Any]] = {}
        self._manifest: dict[str, Any] = {}

    @classmethod
    def restore(cls, path: str | Path) -> "Output":
        """A screening made earlier, or still being made, to be read.

        Raises:
          FileNotFoundError: If there is none.
          ValueError: If what tells of it is damaged.
        """
        found = cls(path)
        found._manifest = Workdir(found.path).read_json("manifest.json")
        found._find_finished()
        return found

    @contextlib.contextmanager
    def open(self, manifest: Mapping[str, Any]) -> Iterator[None]:
        """Begins a screening or goes on with it; keeps other processes out.

        Args:
          manifest: format, columns (name -> "text" or "number"), and what else must be the same in every call.

        Raises:
          ValueError: If the folder holds a screening of something else, or another process is at it.
          OSError: If it cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--output={self.path} is a file; name a folder")
        if not (self.path / "manifest.json").exists():
            for name in ("config.json", "summary.json"):
                if (self.path / name).exists():
                    raise ValueError(
                        f"--output={self.path} holds {name}, which is of no screening; name another folder"
                    )
        (self.path / "parts").mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock", f"another process is screening in {self.path}; choose another --output"):
            remove_unfinished(self.path / "parts")
            self._begin(manifest)
            yield

    def write(self, number: int, table: pd.DataFrame, digest: str) -> None:
        """Writes the rows of a shard. Raises OSError that says how to go on."""
        # Of several models one may predict what another cannot.
        numbers = [name for name, kind in self._columns.items() if kind == "number"]
        failed = int(((table["reason"] != "") & table[numbers].isna().all(axis=1)).sum())
        line = {"shard": number, "rows": len(table), "failed": failed, "digest": digest}
        content = self._encode(table)
        line["checksum"] = _checksum(line, content)
        try:
            write_bytes(self._part(number), content)
            with (self.path / "shards.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror}; mend that, and the same command goes on", str(self.path)
            ) from error
        self.finished[number] = line

    def parts(self) -> Iterator[pd.DataFrame]:
        """The rows of the finished shards, one shard at a time, in the order of the input."""
        for number in sorted(self.finished):
            yield self._decode(self._part(number))

    @property
    def total(self) -> int | None:
        """Shards of the whole input; None until all were finished once."""
        file = self.path / "summary.json"
        return Workdir(self.path).read_json(file.name)["shards"] if file.exists() else None

    def count(self) -> dict[str, int]:
        """Of shards, rows, and rows without a prediction."""
        lines = self.finished.values()
        rows, failed = sum(line["rows"] for line in lines), sum(line["failed"] for line in lines)
        return {"shards": len(lines), "rows": rows, "predicted": rows - failed, "failed": failed}

    def best(self, column: str, k: int, *, highest: bool = False) -> pd.DataFrame:
        """The k rows with the lowest or highest value of a column, best first; of equal ones the earlier."""
        kept: pd.DataFrame | None = None
        for part in self.parts():
            known = part[part[column].notna()]
            kept = known if kept is None else pd.concat([kept, known], ignore_index=True)
            kept = kept.sort_values(column, ascending=not highest, kind="stable").head(k)
        return pd.DataFrame(columns=list(self._columns)) if kept is None else kept.reset_index(drop=True)

    def write_best(self, column: str, k: int, *, highest: bool = False) -> Path:
        """Writes top.csv."""
        table = self.best(column, k, highest=highest)
        write_text(self.path / "top.csv", table.to_csv(index=False, lineterminator="\n"))
        return self.path / "top.csv"

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def _begin(self, manifest: Mapping[str, Any]) -> None:
        file, self._manifest = self.path / "manifest.json", dict(manifest)
        if file.exists():
            old = Workdir(self.path).read_json(file.name)
            changed = [
                f"  {key}: {old.get(key)} -> {manifest.get(key)}"
                for key in sorted(old.keys() | manifest.keys())
                if old.get(key) != manifest.get(key) and key not in _WITHOUT_EFFECT
            ]
            if changed:
                listed = "\n".join(changed)
                raise ValueError(
                    f"{self.path} holds another screening:\n{listed}\nChoose another --output, or remove this one"
                )
            self._find_finished()
        else:
            # Parts without it are of nobody knows which models.
            write_text(file, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            self.finished = {}
        # A line that a kill cut short must not be continued.
        kept = "".join(json.dumps(line) + "\n" for line in self.finished.values())
        write_text(self.path / "shards.jsonl", kept)

    def _find_finished(self) -> None:
        self.finished = {line["shard"]: line for line in self._lines()}

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Those of shards that are there as they were written."""
        file = self.path / "shards.jsonl"
        for text in file.read_text(errors="replace").splitlines() if file.exists() else []:
            try:
                line = json.loads(text)
                content = self._part(line["shard"]).read_bytes()
                # Before there were checksums, a part that was there was taken for good.
                is_good = line.keys() == _UNCHECKED or line.pop("checksum") == _checksum(line, content)
            except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if is_good:
                yield line | {"checksum": _checksum(line, content)}

    @property
    def _columns(self) -> dict[str, str]:
        return self._manifest["columns"]

    def _part(self, number: int) -> Path:
        return self.path / "parts" / f"{number:06d}.{self._manifest['format']}"

    def _encode(self, table: pd.DataFrame) -> bytes:
        if self._manifest["format"] == "csv":
            # All digits, so that both formats hold the same numbers.
            return table.to_csv(index=False, lineterminator="\n").encode()
        pa = pyarrow()
        types = {"text": pa.string(), "number": pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, kind in self._columns.items()])
        content = io.BytesIO()
        pa.parquet.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False), content)
        return content.getvalue()

    def _decode(self, path: Path) -> pd.DataFrame:
        if self._manifest["format"] == "parquet":
            return pyarrow().parquet.read_table(path).to_pandas()
        # Not pandas' reader: sodium nitride is NaN, an id may be called null, and all digits of numbers count.
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        return pd.DataFrame(
            {name: self._column(name, cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}
        )

    def _column(self, name: str, cells: Sequence[str]) -> list[Any]:
        if self._columns[name] == "number":
            return [float(cell) if cell else None for cell in cells]
        return list(cells) if is_told(name) else [cell or None for cell in cells]


def is_told(column: str) -> bool:
    """Whether a column of text is empty, and not missing, where there is nothing to say; of NAME:COLUMN the column."""
    return column.rpartition(":")[2] in ("id", "reason", "outside")


def _checksum(line: Mapping[str, Any], part: bytes) -> int:
    return zlib.crc32(json.dumps(line, sort_keys=True).encode(), zlib.crc32(part))


def pyarrow() -> "pa":
    """The package. Raises ValueError if it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            "Parquet needs the package pyarrow: pip install 'cgcnn-jax[parquet]', or take --format=csv"
        ) from error
    return pyarrow
