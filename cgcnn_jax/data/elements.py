"""The elements: their properties and the one-hot atom features made of them.

Two tables of features: "paper" is Table II of the supplement (9 properties, 93 columns), "released" the 92 columns of
the published atom_init.json. docs/atom_features.md describes both and how to add a property.
"""

import csv
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cgcnn_jax.files import write_text

Value = int | float | str | None
FLOAT32_MAX = float(np.finfo(np.float32).max)


def _read() -> Mapping[str, Mapping[str, Value]]:
    text = (resources.files("cgcnn_jax") / "assets" / "elements.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    names = [title.split(" ")[0] for title in header]  # "electron_affinity (eV)"
    records = [MappingProxyType(dict(zip(names, map(_parse, row), strict=True))) for row in rows]
    return MappingProxyType({str(record["symbol"]): record for record in records})


def _parse(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


ELEMENTS = _read()
"""Symbol -> column of assets/elements.csv -> value, None where unknown; in order of atomic number."""

SYMBOLS = tuple(ELEMENTS)


def symbol(atomic_number: int) -> str:
    """Symbol of an atomic number."""
    if not 1 <= atomic_number <= len(SYMBOLS):
        raise ValueError(f"unknown atomic number {atomic_number}; known are 1 (H) to {len(SYMBOLS)} ({SYMBOLS[-1]})")
    return SYMBOLS[atomic_number - 1]


def atomic_number(symbol: str) -> int:
    """Atomic number of a symbol.

    Raises:
      ValueError: For anything but the symbol of an element; deuterium and tritium are not elements here.
    """
    if symbol in ("D", "T"):
        raise ValueError(f"{symbol!r} is an isotope of hydrogen; replace it by 'H'")
    if symbol not in ELEMENTS:
        raise ValueError(f"unknown element {symbol!r}; known are the symbols from 'H' to {SYMBOLS[-1]!r}")
    return int(ELEMENTS[symbol]["atomic_number"])  # type: ignore[arg-type]


def column(name: str) -> dict[str, Value]:
    """One column of ELEMENTS by symbol."""
    if name not in ELEMENTS["H"]:
        raise ValueError(f"unknown element property {name!r}; choose one of {sorted(ELEMENTS['H'])}")
    return {symbol: record[name] for symbol, record in ELEMENTS.items()}


@functools.cache
def covalent_radii() -> np.ndarray:
    """Cordero's covalent radii in Å by atomic number, f64[n_species], read-only; NaN for row 0 and from Bk on.

    C is the sp2 value; Mn, Fe and Co are the means of low and high spin.
    """
    radii = np.array([None, *column("covalent_radius_cordero").values()], dtype=np.float64)
    radii.flags.writeable = False
    return radii


def electronegativity_key(atomic_number: int) -> tuple[float, int]:
    """Sort key: increasing Pauling electronegativity, the elements without one last."""
    value = ELEMENTS[symbol(atomic_number)]["electronegativity"]
    return math.inf if value is None else float(value), atomic_number


@dataclass(frozen=True)
class Property:
    """A property of the elements as a block of columns, one of which is 1.

    A category has one column per choice. A number v has `bins` columns of equal width over the bounds (low, high):

    column = floor((x - low) / (high - low) * bins),  x = v or, with `log`, ln v;  x = high is in the last column.

    The block is all zero where the value is missing or outside the bounds.

    Attributes:
      name: Name of the property; a column of ELEMENTS in the built-in tables.
      choices: Values of a category; None among them gives a missing value a column of its own.
      bounds: Low and high end of a number, after the logarithm.
      bins: Number of bins.
      log: Whether the natural logarithm is binned.
      unit: Unit of the value, for the reader.
    """

    name: str
    choices: tuple[Value, ...] = ()
    bounds: tuple[float, float] | None = None
    bins: int = 10
    log: bool = False
    unit: str = ""

    def __post_init__(self) -> None:
        if bool(self.choices) == (self.bounds is not None):
            raise ValueError(f"{self.name}: give either choices (a category) or bounds (a number)")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"{self.name}: a choice is listed twice in {self.choices}")
        if self.bounds and not (self.bounds[0] < self.bounds[1] and self.bins >= 1):
            raise ValueError(f"{self.name}: need low < high and bins >= 1, got {self.bounds} and bins={self.bins}")

    @property
    def n_column(self) -> int:
        return len(self.choices) or self.bins

    def column_of(self, value: Value) -> int | None:
        """Column of a value within the block; None where the block stays zero."""
        if self.bounds is None:
            return self.choices.index(value) if value in self.choices else None
        if value is None:
            return None
        low, high = self.bounds
        x = float(value)
        if self.log:
            x = math.log(x) if x > 0 else -math.inf
        if not low <= x <= high:
            return None
        # In this order of operations: Gd (1.2) and Bi (1.9) lie on an edge and the released table rounds them down.
        return min(math.floor((x - low) / (high - low) * self.bins), self.bins - 1)

    def encode(self, values: Mapping[str, Value], n_species: int = 1 + len(SYMBOLS)) -> np.ndarray:
        """One-hot block f32[n_species, n_column] by atomic number, zero for the elements not in `values`."""
        block = np.zeros((n_species, self.n_column), np.float32)
        for name, value in values.items():
            slot = self.column_of(value)
            if slot is not None:
                block[atomic_number(name), slot] = 1.0
        return block


_SHARED = (
    Property("electronegativity", bounds=(0.5, 4.0)),
    Property("covalent_radius", bounds=(25.0, 250.0), unit="pm"),
    Property("valence_electrons", choices=tuple(range(1, 13))),
    Property("ionization_energy", bounds=(1.3, 3.3), log=True, unit="eV"),
    Property("electron_affinity", bounds=(-3.0, 3.7), unit="eV"),
    Property("block", choices=("s", "p", "d", "f")),
    Property("atomic_volume", bounds=(1.5, 4.3), log=True, unit="cm^3/mol"),
)

PAPER = (
    Property("paper_group", choices=tuple(range(1, 19))),
    Property("paper_period", choices=tuple(range(1, 10))),  # 8: lanthanides, 9: actinides
    *_SHARED,
)
"""Table II of the supplement: 93 columns."""

RELEASED = (
    Property("group", choices=(None, *range(1, 19))),  # None: La-Yb and Ac-No
    Property("period", choices=tuple(range(1, 8))),
    *_SHARED,
)
"""The published atom_init.json: 92 columns."""

TABLES: dict[str, tuple[Property, ...]] = {"paper": PAPER, "released": RELEASED}


def atom_features(table: str = "paper", *, properties: int | None = None) -> np.ndarray:
    """One-hot features of the elements.

    Args:
      table: A name in TABLES.
      properties: How many properties of the table to take, from the first. The paper compares 2 (group, period),
        3 (and electronegativity) and 9; None takes all.

    Returns:
      Features f32[n_species, n_column] by atomic number; row 0 belongs to padding and is zero.

    Raises:
      ValueError: For an unknown table or more properties than it has.

    Source: Table II of the supplement of Xie & Grossman (2018), and the atom_init.json of the released code.
    """
    if table not in TABLES:
        raise ValueError(f"unknown table of atom features {table!r}; choose one of {sorted(TABLES)}")
    available = TABLES[table]
    count = len(available) if properties is None else properties
    if not 1 <= count <= len(available):
        raise ValueError(f"table {table!r} has {len(available)} properties, so properties={count} is not possible")
    return np.concatenate([chosen.encode(column(chosen.name)) for chosen in available[:count]], axis=1)


def with_property(features: np.ndarray, new: Property, values: Mapping[str, Value]) -> np.ndarray:
    """Features with the columns of one more property.

    Args:
      features: f32[n_species, n_column], from atom_features, read_atom_init or this function.
      new: How the values become columns.
      values: Value by symbol. Elements left out, None and NaN are missing: their columns are zero.

    Returns:
      Features f32[n_species, n_column + new.n_column].

    Raises:
      ValueError: For an unknown symbol, an element without a row in `features`, or a value that has no column.
    """
    for name, value in values.items():
        if atomic_number(name) >= len(features):
            raise ValueError(f"{new.name}: features end at {symbol(len(features) - 1)} and have no row for {name}")
        is_missing = value is None or (isinstance(value, float | np.floating) and math.isnan(value))
        if not is_missing and new.column_of(value) is None:
            rule = f"bounds {new.bounds}{' of the logarithm' if new.log else ''}" if new.bounds else new.choices
            raise ValueError(f"{new.name}: {value!r} of {name} is outside {rule}; widen the property or leave it out")
    return np.concatenate([features, new.encode(values, len(features))], axis=1)


def read_atom_init(path: str | Path) -> np.ndarray:
    """Features of an atom_init.json, the format of the released code: {"1": [0, 1, ...], "2": [...], ...}.

    Returns:
      Features f32[1 + largest atomic number, n_column]; zero for padding and for elements that the file lacks.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is not a JSON object of equally long lists of finite numbers by atomic number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; an atom_init.json maps atomic numbers to lists of numbers")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{path}: expected an object such as {{"1": [0, 1], "8": [1, 0]}}')
    rows: dict[int, list[float]] = {}
    for key, row in content.items():
        if not (key.isdecimal() and 1 <= int(key) <= 118):
            raise ValueError(f"{path}: key {key!r} is not an atomic number from 1 to 118")
        if not isinstance(row, list) or not row or not all(type(x) in (int, float) for x in row):
            raise ValueError(f"{path}: element {key} must have a list of numbers")
        if not all(abs(x) <= FLOAT32_MAX for x in row):
            raise ValueError(f"{path}: element {key} has a value that is not a finite 32-bit number")
        rows[int(key)] = row
    first = next(iter(rows))
    for z, row in rows.items():
        if len(row) != len(rows[first]):
            raise ValueError(f"{path}: element {z} has {len(row)} numbers and element {first} has {len(rows[first])}")
    features = np.zeros((1 + max(rows), len(rows[first])), np.float32)
    features[list(rows)] = list(rows.values())
    return features


def write_atom_init(path: str | Path, features: np.ndarray) -> None:
    """Writes features f32[n_species, n_column] as an atom_init.json, which `atoms.table` takes; rows of zeros are left out."""
    rows = {str(z): [float(x) for x in features[z]] for z in np.flatnonzero(features.any(axis=1))}
    write_text(Path(path), json.dumps(rows) + "\n")
