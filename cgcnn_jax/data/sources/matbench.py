"""Matbench v0.1: the tasks that learn from a structure, with their official test folds.

Two forms are read. The official file of a task is JSON as pandas splits it, gzipped:
  {"index": [0, 1, ...], "columns": ["structure", TARGET], "data": [[pymatgen's structure, value], ...]}
The other is JSON lines (read_jsonl's) whose records carry meta.matbench[TASK] = [matbench id, fold], where one record may
serve several tasks and some entries of a task may be absent.

A. Dunn et al., npj Comput. Mater. 6, 138 (2020), doi:10.1038/s41524-020-00406-3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgcnn_jax.data import sets, tasks
from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, as_number, is_full
from cgcnn_jax.data.sources import jsonl
from cgcnn_jax.data.sources.stream import read_member, stream_items

NUM_FOLDS = 5
_SEED = 18012019


@dataclass(frozen=True)
class Task(tasks.Task):
    """A Matbench task.

    Attributes:
      power: Name of 10 to the power of the target, for a target that is a logarithm, and its unit.
    """

    suite: str = "matbench"
    source: str = "matbench"
    num_folds: int = NUM_FOLDS
    power: tuple[str, str] | None = None

    @property
    def short(self) -> str:
        """Name in ids and in JSON lines."""
        return self.name.removeprefix("matbench_")

    @property
    def names(self) -> tuple[str, ...]:
        return self.target, *(self.power[:1] if self.power else ())

    def id_of(self, position: int) -> str:
        """Matbench's id of the entry at a position of the official file, such as mb-log-kvrh-00001 for the first."""
        return f"mb-{self.short.replace('_', '-')}-{position + 1:0{len(str(self.size))}d}"


def _task(short: str, column: str, target: str, unit: str, **more: Any) -> Task:
    name = f"matbench_{short}"
    return Task(name, column, target, unit, sets.SETS[name].records, **more)


# Columns and units: matbench/matbench_v0.1_dataset_metadata.json of materialsproject/matbench.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("log_kvrh", "log10(K_VRH)", "log10_K_vrh_GPa", "log10(GPa)", power=("K_vrh_GPa", "GPa")),
        _task("log_gvrh", "log10(G_VRH)", "log10_G_vrh_GPa", "log10(GPa)", power=("G_vrh_GPa", "GPa")),
        _task("perovskites", "e_form", "e_form_eV_per_cell", "eV/cell"),
        _task("phonons", "last phdos peak", "last_phdos_peak_cm-1", "1/cm"),
        _task("dielectric", "n", "refractive_index_n", ""),
        _task("jdft2d", "exfoliation_en", "exfoliation_energy_meV_per_atom", "meV/atom"),
        _task("mp_gap", "gap pbe", "gap_pbe_eV", "eV"),
        _task("mp_e_form", "e_form", "formation_energy_eV_per_atom", "eV/atom"),
        _task("mp_is_metal", "is_metal", "is_metal", "", kind="classification"),
    )
}
UNITS = {task.target: task.unit for task in TASKS.values()} | {
    task.power[0]: task.power[1] for task in TASKS.values() if task.power
}


def read_matbench(path: str | Path, task: str) -> Iterator[Crystal | Rejected]:
    """The crystals of a task, each with its id, its target, and the number of its test fold as split.

    From JSON lines only records of the task are taken, all their properties with them.

    Args:
      path: The official matbench_*.json.gz (or .json), a folder with it, or JSON lines, a file or a folder of parts.
      task: Such as matbench_log_kvrh.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the task is unknown, or the file is damaged, of another task, or incomplete: official folds are
        defined over all entries.
    """
    chosen = task_of(task)
    path = Path(path)
    if path.is_dir():
        official = path / f"{chosen.name}.json.gz"
        path = official if official.exists() else path
    if path.is_dir() or path.name.endswith(jsonl.SUFFIXES):
        yield from _read_lines(path, chosen)
    else:
        yield from _read_official(path, chosen)


def task_of(name: str) -> Task:
    """Raises ValueError for an unknown name."""
    if name not in TASKS:
        raise ValueError(f"unknown Matbench task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]


def official_folds(task: Task, labels: Sequence[float] | None = None) -> np.ndarray:
    """The test fold of each entry, i[size]: folds of a shuffle with Matbench's seed.

    Args:
      task: The task.
      labels: Of all entries in order; only a classification needs them, whose folds hold equal shares of each class.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    folds = np.empty(task.size, dtype=int)
    kind = StratifiedKFold if task.kind == "classification" else KFold
    cut = kind(n_splits=task.num_folds, shuffle=True, random_state=_SEED).split(np.zeros(task.size), labels)
    for number, (_, test) in enumerate(cut):
        folds[test] = number
    return folds


def _read_lines(path: Path, task: Task) -> Iterator[Crystal | Rejected]:
    found = False
    for where, record in jsonl.read_records(path):
        if isinstance(record, Rejected):
            yield record
            continue
        meta = record.get("meta")
        marks = meta.get("matbench") if isinstance(meta, Mapping) else None
        known = marks.get(task.short) if isinstance(marks, Mapping) else None
        if known is not None:
            found = True
            if not isinstance(known, list) or len(known) < 2:
                yield Rejected(where, f"{where}: meta.matbench.{task.short} must be an id and a fold, got {known!r}")
                continue
            yield jsonl.crystal_of({**record, "id": known[0], "split": str(known[1])}, where)
    if not found:
        raise ValueError(f"{path}: no record carries meta.matbench.{task.short}; is it data of {task.name}?")


def _read_official(path: Path, task: Task) -> Iterator[Crystal | Rejected]:
    columns = read_member(path, "columns")
    if columns != ["structure", task.column]:
        raise ValueError(
            f"{path}: the official file of {task.name} has columns structure and {task.column!r}; this has {columns}"
        )
    index = read_member(path, "index")
    n_entry = len(index) if isinstance(index, list) else 0
    if n_entry != task.size:
        raise ValueError(f"{path}: {n_entry} entries; {task.name} has {task.size}, and its folds need all of them")
    # Values before structures, a pass more, where the folds depend on them.
    labels = [value for _, value in _rows(path)] if task.kind == "classification" else None
    if labels is not None and len(labels) != task.size:
        raise ValueError(f"{path}: {len(labels)} rows of data for {task.size} entries; fetch or make it again")
    folds = official_folds(task, labels)
    n_row = 0
    for n_row, (structure, value) in enumerate(_rows(path), start=1):
        if n_row > task.size:
            break
        id = task.id_of(n_row - 1)
        targets = {task.target: as_number(value)}
        if task.power:
            with np.errstate(over="ignore"):  # infinite, and refused as such
                targets[task.power[0]] = float(np.float_power(10.0, targets[task.target]))
        try:
            yield crystal_of_dict(id, structure, targets, str(folds[n_row - 1]))
        except CrystalError as error:
            yield Rejected(id, str(error))
    if n_row != task.size:
        raise ValueError(f"{path}: {n_row} rows of data for {task.size} entries; fetch or make it again")


def _rows(path: Path) -> Iterator[tuple[Any, Any]]:
    for row in stream_items(path, "data"):
        if not isinstance(row, list) or len(row) != 2:
            raise ValueError(f"{path}: a row of data must be a structure and a value, got {str(row)[:80]}")
        yield row[0], row[1]


def crystal_of_dict(id: str, structure: Any, targets: Mapping[str, float], split: str | None = None) -> Crystal:
    """From what pymatgen's Structure.as_dict gives, without building the Structure. Raises CrystalError."""
    try:
        lattice = structure["lattice"]["matrix"]
        sites = structure["sites"]
        coords = [site["abc"] for site in sites]
        species = []
        for number, site in enumerate(sites):
            if len(site["species"]) != 1 or not is_full(site["species"][0]["occu"]):
                raise CrystalError(f"{id}: site {number} is partially occupied; only ordered crystals have a graph")
            species.append(site["species"][0]["element"])
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise CrystalError(f"{id}: not a structure as pymatgen writes it ({type(error).__name__}: {error})") from error
    return Crystal.from_arrays(id, lattice, species, coords, targets, split)
