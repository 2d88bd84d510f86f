"""Input to predict for, whose kind its name tells."""

import glob
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.sources import ase, cdvae, files, jsonl, matbench
from cgcnn_jax.data.sources.jsonl import CrystalLine

_ASE = (".db", ".traj", ".extxyz", ".xyz")
_WILD = re.compile(r"[*?[]")


def read_input(path: str | Path) -> Iterator[Entry | Rejected]:
    """The structures of a file or folder.

    JSON lines (.jsonl, .jsonl.gz) or a folder of them; a task of Matbench (matbench_TASK.json.gz); a table of CDVAE
    (.csv); what ase reads (.db, .traj, .extxyz, .xyz); else structure files (CIF, POSCAR, pymatgen's JSON)
    and folders of them, whose JSON is left alone. A pattern (folder/N*.cif, runs/*/CONTCAR, sets/**/*.cif) stands for all
    that it matches, in the order of their paths; the ids of structure files are led by the folders that it leaves open.

    Raises:
      FileNotFoundError: If there is no such file.
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
    if not _is_pattern(path):
        return _read(path)
    found = sorted(map(Path, glob.iglob(str(path), recursive=True)))
    if not found:
        return iter([Rejected(str(path), f"{path}: no file matches")])
    base = Path(*itertools.takewhile(lambda part: not _WILD.search(part), path.parts))
    return itertools.chain.from_iterable(_read(one, base) for one in found)


def is_there(path: str | Path) -> bool:
    """Whether there is such a file or folder, or one that matches the pattern."""
    path = Path(path).expanduser()
    return path.exists() or (_is_pattern(path) and next(glob.iglob(str(path), recursive=True), None) is not None)


def _is_pattern(path: Path) -> bool:
    # A file may well be called Fe[111].cif.
    return _WILD.search(str(path)) is not None and not path.exists()


def _read(path: Path, base: Path | None = None) -> Iterator[Entry | Rejected | CrystalLine]:
    task = path.name.removesuffix(".gz").removesuffix(".json")
    if path.is_dir() and (lines := _lines_in(path)):
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


def _lines_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(jsonl.SUFFIXES))
