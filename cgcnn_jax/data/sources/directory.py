"""The layout of the published code: a folder with id_prop.csv and a file ID.cif for every row."""

import csv
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cgcnn_jax.data.crystal import CrystalFile, Rejected, as_number
from cgcnn_jax.data.sources.files import read_files

TABLE = "id_prop.csv"
_ENDINGS = (".cif", ".CIF")
UNKNOWN = ("", "nan", "none", "null", "na", "n/a", "-")


def read_directory(
    path: str | Path, targets: Sequence[str] = (), wanted: Sequence[str] | None = None
) -> Iterator[CrystalFile | Rejected]:
    """The CIFs of a folder with their labels.

    id_prop.csv holds an id and any number of values a row. A first row whose values are not numbers names the columns;
    otherwise they are named by `targets`, in order. Last columns without any content, beyond those of `targets`, are none.
    Without a table, or without values, the crystals have no labels, which is enough to predict.

    Args:
      path: The folder.
      targets: Names of the value columns of a table without a header.
      wanted: Columns in which a text is an error; in others it is no label. None for all.

    Yields:
      A CrystalFile for each row, and a Rejected for a row without a file and a file without a row.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If rows differ in length, or the number of columns is not that of `targets`.
    """
    path = Path(path)
    if not path.is_dir():
        what = "a file, not a folder" if path.exists() else "no such folder"
        raise FileNotFoundError(f"{path}: {what}; data.path must hold {TABLE} and a file ID.cif for every row")
    table = path / TABLE
    if not table.exists():
        yield from read_files([path])
        return
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: {not_csv(table, error)}") from error
    # Spreadsheets end every row with a comma where a column was once filled.
    while rows and all(len(row) > 1 + max(1, len(targets)) and not row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    n_row = len(rows)
    names = _column_names(table, rows, targets)
    unused = {one.stem: one for one in path.iterdir() if one.suffix in _ENDINGS and not one.name.startswith(".")}
    taken: dict[Path, str] = {}
    # Counted with the header, which is no longer among them, and without empty lines.
    for number, row in enumerate(rows, start=1 + n_row - len(rows)):
        if not row[0]:
            yield Rejected(f"row {number}", f"row {number} of {TABLE} has no id in its first cell: {','.join(row)!r}")
            continue
        file = _file_of(path, row[0])
        if file is None:
            rule = (
                "; an id is the name of a file of this folder itself, without .cif, and folders below it are not read"
            )
            hint = rule if row[0].endswith(_ENDINGS) or "/" in row[0] else ""
            yield Rejected(row[0], f"{row[0]}: stands in {TABLE} but there is no {row[0]}.cif in {path}{hint}")
            continue
        if taken.setdefault(file, row[0]) != row[0]:
            yield Rejected(row[0], f"{row[0]}: its file {file.name} is that of the row {taken[file]!r}")
            continue
        unused.pop(file.stem, None)
        cells = dict(zip(names, row[1:], strict=True))
        checked = (cell for name, cell in cells.items() if wanted is None or name in wanted)
        text = next((cell for cell in checked if cell.lower() not in UNKNOWN and np.isnan(as_number(cell))), None)
        if text is not None:
            rule = "write a decimal point" if _is_decimal_comma(text) else "leave the cell empty if it is unknown"
            yield Rejected(row[0], f"{row[0]}: {text!r} in {TABLE} is not a number; {rule}")
            continue
        yield CrystalFile(row[0], file, {name: as_number(cell) for name, cell in cells.items()})
    for id, file in sorted(unused.items()):
        yield Rejected(id, f"{id}: {file.name} has no row in {table}")


def _file_of(folder: Path, id: str) -> Path | None:
    """ID.cif in the folder; None if there is none, or the id names a path, which could reach outside of the folder."""
    # Names of files that come from a Mac hold accents as letters of their own, tables written by hand do not.
    names = dict.fromkeys([id, *(unicodedata.normalize(form, id) for form in ("NFC", "NFD"))])
    for name, ending in itertools.product(names, _ENDINGS):
        file = folder / f"{name}{ending}"
        try:
            if file.parent == folder and file.is_file():
                return file
        except (OSError, ValueError):  # what is no name of a file: too long, or a NUL in it
            return None
    return None


def not_csv(table: Path, error: Exception) -> str:
    """What is wrong with a file that is no CSV table in UTF-8, and what to do."""
    with table.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    kind = "a workbook of a spreadsheet" if is_zip else f"not a CSV table in UTF-8 ({error})"
    return f"{kind}; save it as CSV, with the encoding UTF-8"


def _is_decimal_comma(text: str) -> bool:
    return text.count(",") == 1 and not np.isnan(as_number(text.replace(",", ".")))


def _column_names(table: Path, rows: list[list[str]], targets: Sequence[str]) -> list[str]:
    """Names of the value columns; takes a header off `rows`."""
    if not rows:
        raise ValueError(f"{table}: no rows; it needs one a crystal, with its id and values")
    for name, letter in (("semicolons", ";"), ("tabs", "\t")):
        if all(letter in row[0] and not _file_of(table.parent, row[0]) for row in rows):
            raise ValueError(
                f"{table}: cells must be separated by commas and numbers have a decimal point; got {name}, as in "
                f"{','.join(rows[0])!r}. Save the table as comma-separated values (CSV)"
            )
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        number, odd = next((number, row) for number, row in enumerate(rows, 1) if len(row) != len(rows[0]))
        raise ValueError(
            f"{table}: rows must have equally many cells; {rows[0]} has {len(rows[0])}, row {number}, {odd}, has {len(odd)}. "
            "Leave the cell of an unknown value empty, and write numbers with a decimal point"
        )
    width = widths.pop() - 1
    # A first row that has a file is a crystal, whatever stands in its cells.
    is_text = all(cell.lower() not in UNKNOWN and np.isnan(as_number(cell)) for cell in rows[0][1:])
    if width and is_text and not _file_of(table.parent, rows[0][0]):
        names = rows.pop(0)[1:]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{table}: the column {twice!r} stands twice; give each a name of its own")
        return names
    if width and len(targets) != width:
        raise ValueError(
            f"{table}: {width} value columns without a header, but data.target names {len(targets)}: "
            f"{list(targets)}; name every column in data.columns, or give the table a first row of names"
        )
    return list(targets) if width else []
