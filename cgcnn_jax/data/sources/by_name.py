"""Input to predict for, whose kind its name tells."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.sources import ase, cdvae, files, jsonl, matbench
from cgcnn_jax.data.sources.directory import TABLE
from cgcnn_jax.data.sources.jsonl import CrystalLine

_ASE = (".db", ".traj", ".extxyz", ".xyz")
_WILD = re.compile(r"[*?[]")


def read_input(path: str | Path) -> Iterator[Entry | Rejected]:
    """The structures of a file or folder.

    JSON lines (.jsonl, .jsonl.gz) or a folder of them; a task of Matbench (matbench_TASK.json.gz); a table of CDVAE
    (.csv); what ase reads (.db, .traj, .extxyz, .xyz); else structure files (CIF, POSCAR, pymatgen's JSON)
    and folders of them, whose JSON is left alone. A pattern (folder/N*.cif, runs/*/CONTCAR, sets/**/*.cif) stands for all
    that it matches, in the order of their paths; the ids of structure files are led by the folders that it leaves open, and
    a folder that matches is read as one, whatever in it matches too. What is not there is Rejected.

    Raises:
      ValueError: If the file cannot be read as what its name says, or a folder holds JSON lines and structure files.
    """
    for entry in read_unparsed(path):
        yield entry.parse() if isinstance(entry, CrystalLine) else entry


def read_inputs(paths: Iterable[str | Path]) -> Iterator[Entry | Rejected]:
    """The structures of several, one after the other; see read_input."""
    for path in paths:
        yield from read_input(path)


def read_unparsed(path: str | Path) -> Iterator[Entry | Rejected | CrystalLine]:
    """As read_input, but JSON lines are left to be parsed."""
    path = Path(path).expanduser()
    base, pattern = _parted(path)
    if not pattern:
        return _read(path)
    found = _matching(base, pattern)
    if not found:
        return iter([Rejected(str(path), f"{path}: no file matches")])
    return itertools.chain.from_iterable(_read(one, base) for one in found)


def unread(path: str | Path) -> Counter[str]:
    """Endings of the files in a folder of structure files that read_input leaves alone, and how many have each.

    Hidden files do not count, and neither do the tables of the published layout.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() or jsonl.names_in(folder):
        return Counter()
    names = (name for _, _, files_in in os.walk(folder) for name in files_in if not name.startswith("."))
    known = (TABLE, "atom_init.json")
    return Counter(Path(name).suffix or name for name in names if name not in known and not files.is_structure(name))


def is_there(path: str | Path) -> bool:
    """Whether there is such a file or folder, or one that matches the pattern."""
    path = Path(path).expanduser()
    base, pattern = _parted(path)
    return next(_matches(base, pattern), None) is not None if pattern else path.exists()


def _parted(path: Path) -> tuple[Path, str]:
    """The folder in which a pattern begins, and the pattern from there on; "" if it is none."""
    base = Path(path.anchor)
    rest = list(path.relative_to(base).parts)
    # A file may well be called Fe[111].cif, and a folder, too.
    while rest and (base / rest[0]).exists():
        base /= rest.pop(0)
    # Within a name ** is *; before Python 3.13 pathlib refuses it.
    pattern = "/".join(part if part == "**" else re.sub(r"\*+", "*", part) for part in rest)
    return (base, pattern) if _WILD.search(pattern) else (path, "")


def _matching(base: Path, pattern: str) -> list[Path]:
    """What matches, in order, but what lies in a folder that does: it is read with that."""
    found = set(_matches(base, pattern))
    return sorted(path for path in found if not any(parent in found for parent in path.parents))


def _matches(base: Path, pattern: str) -> Iterator[Path]:
    """As of a shell: what is hidden matches only where the pattern says so."""
    is_asked = any(part.startswith(".") for part in pattern.split("/"))
    for path in base.glob(pattern):
        if is_asked or not any(part.startswith(".") for part in path.relative_to(base).parts):
            yield path


def _read(path: Path, base: Path | None = None) -> Iterator[Entry | Rejected | CrystalLine]:
    task = path.name.removesuffix(".gz").removesuffix(".json")
    if not path.exists():
        return files.read_files([path])
    if path.is_dir() and (lines := jsonl.names_in(path)):
        if files.holds_structures(path):
            raise ValueError(
                f"{path}: holds structure files and JSON lines ({', '.join(lines[:3])}), of which one kind alone would be "
                "read; name the files, or move one kind to another folder"
            )
        return jsonl.read_lines(path)
    if path.name.endswith(jsonl.SUFFIXES):
        return jsonl.read_lines(path)
    if path.name.endswith((".json", ".json.gz")) and task in matbench.TASKS:
        return matbench.read_matbench(path, task)
    if path.suffix == ".csv":
        return cdvae.read_cdvae(path)
    if path.suffix in _ASE:
        return ase.read_ase(path)
    return files.read_files([path], base=base)
