"""ASE: databases (.db, .json) and what ase.io reads frame by frame (.traj, .extxyz, .xyz and more)."""

import contextlib
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, not_periodic

if TYPE_CHECKING:
    from ase import Atoms

_DATABASES = (".db", ".json")
_XYZ = (".extxyz", ".xyz")
_MOST_COLUMNS = 1000


def read_ase(path: str | Path) -> Iterator[Crystal | Rejected]:
    """Structures with what is recorded of them: key_value_pairs or info, and a calculator's energy.

    That is `energy` (eV), and `energy_per_atom` (eV/atom), which alone a network can learn that takes means over atoms.

    The id is the value of `id` among those, or the place: file:row of a database, file:frame (from 0) of other files.
    A structure that is not periodic in all three directions is rejected.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If ase is not installed, or cannot read the file.
    """
    try:
        import ase  # noqa: F401
    except ImportError as error:
        raise ValueError("data.source=ase needs the package ase: pip install 'cgcnn-jax[ase]'") from error
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'a folder, not a file' if path.exists() else 'no such file'}")
    if path.suffix in _XYZ:
        _check_xyz(path)
    if path.suffix == ".db":
        _check_database(path)
    number = 0
    frames = _rows(path) if path.suffix in _DATABASES else _frames(path)
    try:
        for number, atoms, known in frames:
            yield _crystal(f"{path.name}:{number}", atoms, known)
    except MemoryError as error:
        raise ValueError(
            f"{path}: after {number} it asks for more memory than there is; it is damaged or large"
        ) from error
    except ImportError:
        raise
    except Exception as error:  # ase raises whatever its parsers run into
        raise ValueError(f"{path}: ase cannot read it after {number} ({type(error).__name__}: {error})") from error


def _check_xyz(path: Path) -> None:
    """Refuses an xyz of which ase would read a part, or for which it would ask for any amount of memory.

    A frame is a number of atoms, a comment, and a line for each atom, perhaps with lines VEC behind. At an empty line
    instead of a number ase ends, whatever follows. It makes room for all the columns that a comment states.

    Raises:
      ValueError: If frames follow such a line, or columns are very many.
    """
    left, empty = 0, 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            stated = re.search(r'Properties="?([^\s"]*)', line)
            # Python refuses to read a number of thousands of digits.
            counts = [int(part[:18]) for part in stated[1].split(":")[2::3] if part.isdecimal()] if stated else []
            if sum(counts) > _MOST_COLUMNS:
                raise ValueError(
                    f"{path}: line {number} states {sum(counts):,} columns; more than {_MOST_COLUMNS:,} are not read"
                )
            text = line.strip()
            if left:
                left -= 1
            elif not text:
                empty = empty or number
            elif empty:
                raise ValueError(
                    f"{path}: line {empty} is empty where a frame begins, and ase would read nothing behind it; remove "
                    "the empty lines between frames"
                )
            elif text.isdecimal():
                left = int(text[:18]) + 1


def _rows(path: Path) -> Iterator[tuple[int, "Atoms", Mapping[str, Any]]]:
    from ase.db import connect

    with connect(path) as database:
        for row in database.select():
            energy = _energies(row.energy, row.natoms) if "energy" in row else {}
            yield row.id, row.toatoms(), energy | row.key_value_pairs


def _check_database(path: Path) -> None:
    """Refuses another program's SQLite file, in which ase would make its tables, and find them empty.

    Raises:
      ValueError: If it is one.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return  # ase does not write into what it cannot open either, and says what is wrong
    if "systems" not in tables:
        raise ValueError(f"{path}: no database of ase, which has a table systems; this has {sorted(tables)}")


def _frames(path: Path) -> Iterator[tuple[int, "Atoms", Mapping[str, Any]]]:
    from ase.io import iread

    for number, atoms in enumerate(iread(path, index=":", do_not_split_by_at_sign=True)):
        results = atoms.calc.results if atoms.calc is not None else {}
        energy = _energies(results["energy"], len(atoms)) if "energy" in results else {}
        # ase takes what it knows of a configuration out of the file's comment: magmom, free_energy.
        yield number, atoms, results | energy | atoms.info


def _energies(energy: Any, n_atom: int) -> dict[str, Any]:
    number = _number(energy)
    return {"energy": energy} | ({"energy_per_atom": number / n_atom} if number is not None and n_atom else {})


def _crystal(where: str, atoms: "Atoms", known: Mapping[str, Any]) -> Crystal | Rejected:
    id = str(known.get("id", where))
    if problem := not_periodic(atoms.pbc):
        return Rejected(id, f"{id}: {problem}")
    targets = {key: number for key, value in known.items() if (number := _number(value)) is not None}
    # Sites of several elements go where others have one, for Crystal to refuse them.
    species: list[Any] = _shared_sites(known) or atoms.numbers.tolist()
    try:
        coords = atoms.get_scaled_positions(wrap=False)
        return Crystal.from_arrays(id, atoms.cell.array, species, coords, targets)
    except (CrystalError, ArithmeticError, ValueError) as error:
        return Rejected(id, str(error) if isinstance(error, CrystalError) else f"{id}: {error}")


def _shared_sites(known: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Occupancies of the sites that are not one element's alone; ase takes one element for the whole of each."""
    found = known.get("occupancy")
    sites = found.values() if isinstance(found, Mapping) else ()
    return [site for site in sites if isinstance(site, Mapping) and list(site.values()) != [1]]


def _number(value: Any) -> float | None:
    """The value of a number, truths included (0 and 1 are classes); None for texts and arrays."""
    if isinstance(value, str) or np.ndim(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
