"""Crystal: what every source yields. CrystalFile: a crystal that is still a file. Rejected: one that cannot be used."""

import contextlib
import hashlib
import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cgcnn_jax.data import elements

if TYPE_CHECKING:
    from pymatgen.core import PeriodicSite, Structure

# No bond is shorter: H2's is 0.74 Å. Closer atoms are a split site or a broken file.
MIN_DISTANCE = 0.5
# Far more than any set of crystals has; the graph of so many atoms takes about a gigabyte.
MAX_ATOMS = 100_000
# Of a structure file: so many atoms need a tenth of it.
MAX_BYTES = 64 << 20
# Whole cells away from the origin. The digits of a larger fractional coordinate do not say where the atom is.
_MAX_COORD = 1e6
_LONGEST_REASON = 5000
# Å. No crystal repeats in so much, or in so little.
_MAX_LENGTH, _MIN_THICKNESS = 1e5, 0.1


class CrystalError(ValueError):
    """A crystal that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Rejected:
    """A crystal left out, and why; texts that any file can hold, cut at some thousand letters."""

    id: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", printable(self.id))
        object.__setattr__(self, "reason", printable(self.reason)[:_LONGEST_REASON])


class Entry(Protocol):
    """What a source yields: something with an id and labels that can be read into a Crystal."""

    @property
    def id(self) -> str: ...
    @property
    def targets(self) -> Mapping[str, float]: ...
    @property
    def split(self) -> str | None: ...

    def digest(self) -> str:
        """Changes when the structure does; names it in the graph store."""
        ...

    def read(self) -> "Crystal":
        """The crystal. Raises CrystalError."""
        ...


@dataclass(frozen=True, eq=False)
class Crystal:
    """An ordered crystal.

    Attributes:
      id: Name, unique within a data set.
      lattice: Rows are the lattice vectors in Å, f64[3, 3].
      species: Atomic numbers, i32[n_atom].
      frac_coords: Fractional coordinates, f64[n_atom, 3].
      targets: Property name -> value; NaN or absent where unknown.
      split: "train", "val" or "test", or the number of a fold, where the source says so.
    """

    id: str
    lattice: np.ndarray
    species: np.ndarray
    frac_coords: np.ndarray
    targets: Mapping[str, float] = field(default_factory=dict)
    split: str | None = None

    @classmethod
    def from_arrays(
        cls,
        id: str,
        lattice: Any,
        species: Sequence[str | int],
        frac_coords: Any,
        targets: Mapping[str, float] | None = None,
        split: str | None = None,
    ) -> "Crystal":
        """Checks and converts; species are symbols or atomic numbers. Raises CrystalError."""
        if isinstance(species, str | bytes):
            raise CrystalError(f"{id}: species must be a list of symbols or atomic numbers, got {species[:40]!r}")
        try:
            # The neighbour search wants rows one after another in memory, also of a transposed lattice.
            cell = np.array(lattice, dtype=np.float64, order="C").reshape(3, 3)
            coords = np.array(frac_coords, dtype=np.float64, order="C")
            numbers = np.array(
                [elements.atomic_number(s) if isinstance(s, str) else _index(s) for s in species], np.int32
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise CrystalError(f"{id}: {error}") from error
        if len(numbers) == 0:
            raise CrystalError(f"{id}: no atoms")
        if len(numbers) > MAX_ATOMS:
            raise CrystalError(f"{id}: {len(numbers):,} atoms; cells of more than {MAX_ATOMS:,} have no graph")
        if coords.shape != (len(numbers), 3):
            raise CrystalError(
                f"{id}: {len(numbers)} species need coordinates of shape ({len(numbers)}, 3), got {coords.shape}"
            )
        if numbers.min() < 1 or numbers.max() > len(elements.SYMBOLS):
            raise CrystalError(
                f"{id}: atomic numbers must be 1 to {len(elements.SYMBOLS)}, got {numbers.min()} to {numbers.max()}"
            )
        if not (np.isfinite(cell).all() and np.isfinite(coords).all()):
            raise CrystalError(f"{id}: lattice or coordinates hold a value that is not finite")
        if np.abs(coords).max() > _MAX_COORD:
            raise CrystalError(f"{id}: a fractional coordinate of {np.abs(coords).max():.3g} is out of all measure")
        if np.abs(cell).max() > _MAX_LENGTH:
            raise CrystalError(f"{id}: a lattice vector of {np.abs(cell).max():.3g} Å is out of all measure")
        volume = abs(np.linalg.det(cell))
        if volume < 1e-3 * len(numbers):
            raise CrystalError(f"{id}: cell of {volume:.3g} Å³ for {len(numbers)} atoms; the lattice is degenerate")
        # The search for neighbours goes through the images of a cell that lie in a sphere of some Å.
        # Columns of the inverse are normals of the faces, as long as one over the distance of two opposite ones.
        thickness = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0).max()
        if thickness < _MIN_THICKNESS:
            raise CrystalError(f"{id}: a cell {thickness:.3g} Å thick; the lattice is degenerate")
        return cls(id, cell, numbers, coords, {key: as_number(value) for key, value in (targets or {}).items()}, split)

    @classmethod
    def from_structure(
        cls,
        id: str,
        structure: "Structure",
        targets: Mapping[str, float] | None = None,
        split: str | None = None,
    ) -> "Crystal":
        """From a pymatgen Structure.

        Raises:
          CrystalError: If a site is partially occupied or shared, or holds an element without features.
        """
        if problem := not_periodic(structure.lattice.pbc):
            raise CrystalError(f"{id}: {problem}")
        species = []
        for number, site in enumerate(structure):
            symbol = only_element(site)
            if symbol is None:
                raise CrystalError(
                    f"{id}: site {number} ({site.species_string}) is partially occupied; only ordered crystals have a "
                    "graph. Order it first (pymatgen, as docs/data.md shows) or leave it out"
                )
            species.append(symbol)
        return cls.from_arrays(id, structure.lattice.matrix, species, structure.frac_coords, targets, split)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], default_id: str) -> "Crystal":
        """From a JSON record with lattice, species, frac_coords and optional id, properties, split."""
        id = printable(default_id if record.get("id") is None else str(record["id"]))
        missing = [key for key in ("lattice", "species", "frac_coords") if key not in record]
        if missing:
            raise CrystalError(f"{id}: the record has no {', '.join(missing)}; it has {', '.join(record)}")
        targets = record.get("properties") or {}
        if not isinstance(targets, Mapping):
            raise CrystalError(f"{id}: properties must be an object of names and values, got {str(targets)[:80]}")
        split = record.get("split")
        if isinstance(split, bool) or not (split is None or isinstance(split, str | int)):
            raise CrystalError(f"{id}: split must be a text or the number of a fold, got {str(split)[:80]}")
        return cls.from_arrays(
            id,
            record["lattice"],
            record["species"],
            record["frac_coords"],
            targets,
            str(split) if isinstance(split, int) else split,
        )

    def read(self) -> "Crystal":
        return self

    def digest(self) -> str:
        content = hashlib.sha256(self.lattice.tobytes())
        content.update(self.species.tobytes())
        content.update(self.frac_coords.tobytes())
        return content.hexdigest()

    def to_structure(self) -> "Structure":
        from pymatgen.core import Structure

        return Structure(self.lattice, [elements.symbol(int(z)) for z in self.species], self.frac_coords)

    @property
    def formula(self) -> str:
        """Reduced formula, elements by increasing electronegativity."""
        return reduced_formula(self.species, np.ones(len(self.species)))


@dataclass(frozen=True)
class CrystalFile:
    """A structure file (CIF, POSCAR, or any other that pymatgen reads), parsed when its graph is built."""

    id: str
    path: Path
    targets: Mapping[str, float] = field(default_factory=dict)
    split: str | None = None

    def read(self) -> Crystal:
        from cgcnn_jax.data.sources import cif, files

        # Not of pathlib, whose is_file raises in a folder that may not be entered.
        size = os.path.getsize(self.path) if os.path.isfile(self.path) else 0
        if size > MAX_BYTES:
            raise CrystalError(f"{self.id}: a file of {size >> 20} MB; above {MAX_BYTES >> 20} MB none is read")
        sites = cif.read_plain(self.path)
        if sites is None:
            return Crystal.from_structure(self.id, files.read_structure(self.path), self.targets, self.split)
        lattice, species, frac_coords = sites
        return Crystal.from_arrays(self.id, lattice, species.tolist(), frac_coords, self.targets, self.split)

    def digest(self) -> str:
        from cgcnn_jax.data.sources import cif, stated

        # pymatgen reads the file, and how is decided by its name. Not gemmi's version: what it reads, it reads as
        # pymatgen does, to the order of sites and the last bit, so graphs are the same with it and without.
        reader = f"{self.path.name}\0{pymatgen_version()}\0"
        content, size = hashlib.sha256(reader.encode(errors="surrogateescape")), 0
        try:
            with self.path.open("rb") as file:
                while piece := file.read(1 << 20):
                    content.update(piece)
                    size += len(piece)
        except PermissionError as error:
            content.update(f"\0{error.strerror}".encode())  # until that is mended, and there is a content
        # But for those that are refused for want of it.
        if size >= stated.SHORTEST_LONG and self.path.suffix.lower() == ".cif" and not cif.has_gemmi():
            content.update(b"\0without gemmi")
        return content.hexdigest()


@cache
def pymatgen_version() -> str:
    """Part of the digest of what pymatgen parses."""
    # Reading it takes as long as reading a CIF, and the import is for those that need it.
    from importlib import metadata

    # What parses is in pymatgen-core, which other versions do not have apart.
    found = [metadata.version("pymatgen")]
    with contextlib.suppress(metadata.PackageNotFoundError):
        found.append(metadata.version("pymatgen-core"))
    return " ".join(found)


def not_periodic(pbc: Sequence[bool]) -> str:
    """Why a structure that repeats along these axes is no crystal; empty if it is one."""
    axes = [name for name, periodic in zip("abc", pbc, strict=True) if periodic]
    if len(axes) == 3:
        return ""
    reason = f"periodic along {' and '.join(axes)} only" if axes else "not periodic"
    return f"{reason}; a crystal repeats in all three directions (pbc)"


def as_number(value: Any) -> float:
    """A float; NaN for what is not a number (None, text), so that it counts as unknown."""
    try:
        # Python takes 1_5 for 15.
        return float("nan") if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def only_element(site: "PeriodicSite") -> str | None:
    """Symbol of the element at a pymatgen site; None where it is partially occupied or shared."""
    if len(site.species) != 1 or not is_full(sum(site.species.values())):
        return None
    return next(iter(site.species)).symbol


def is_full(occupancy: float) -> bool:
    """Whether an occupancy is that of an ordered crystal, 1 but for its rounding to three digits."""
    return abs(occupancy - 1) <= 1e-3 + 1e-9  # 1 - 0.999 is more than 0.001; NaN is partial, too


def printable(text: str) -> str:
    """The text, with what no UTF-8 file can hold (half characters of JSON, bytes of a file's name) written out.

    A carriage return, which a table cut at line feeds leaves behind and csv does not quote, is written out, too.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\r", "\\r")


def parse_json(text: str, where: str) -> Any:
    """JSON with the place of the error in the message."""
    try:
        return json.loads(text)
    # A JSONDecodeError, a number of thousands of digits, or thousands of open brackets.
    except (ValueError, RecursionError) as error:
        raise CrystalError(f"{where}: not JSON ({error})") from error


def _index(number: Any) -> int:
    """An atomic number; True is none, and neither is a mixture such as {"Na": 0.5, "K": 0.5}."""
    if isinstance(number, Mapping):
        raise TypeError(
            f"a site of {str(number)[:80]} is partially occupied or shared; only ordered crystals have a graph"
        )
    if isinstance(number, bool):
        raise TypeError(f"{number} is no atomic number")
    return operator.index(number)


def reduced_formula(species: np.ndarray, counts: np.ndarray) -> str:
    """Formula with the smallest whole numbers, elements by increasing electronegativity (H2O, NaCl)."""
    numbers, index = np.unique(species, return_inverse=True)
    totals = np.bincount(index, weights=counts).round().astype(int)
    divisor = reduce(gcd, totals.tolist())
    order = sorted(range(len(numbers)), key=lambda i: elements.electronegativity_key(int(numbers[i])))
    return "".join(
        elements.symbol(int(numbers[i])) + (str(totals[i] // divisor) if totals[i] != divisor else "") for i in order
    )
