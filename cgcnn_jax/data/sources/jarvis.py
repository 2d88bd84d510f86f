"""JARVIS-DFT: a JSON list of records, as jarvis-tools names them on figshare, and the leaderboard's splits.

A record has jid, atoms {lattice_mat, coords, elements, cartesian} and properties; the text "na" is an unknown value.
A benchmark of the leaderboard is {"train": {jid: value}, "val": {...}, "test": {...}}, zipped.

K. Choudhary et al., npj Comput. Mater. 6, 173 (2020), doi:10.1038/s41524-020-00440-1, and 10, 93 (2024).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cgcnn_jax.data import sets
from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected, as_number, printable
from cgcnn_jax.data.sources import jsonl
from cgcnn_jax.data.sources.stream import DAMAGE, open_json, stream_items
from cgcnn_jax.data.splits import NAMES
from cgcnn_jax.data.tasks import Task

# Of official columns, as data/jarvis_dft3d and the documentation of jarvis-tools (docs/databases.md) give them.
_UNITS = {
    "formation_energy_peratom": "eV/atom",
    "optb88vdw_total_energy": "eV/atom",
    "ehull": "eV/atom",
    "optb88vdw_bandgap": "eV",
    "mbj_bandgap": "eV",
    "bulk_modulus_kv": "GPa",
    "shear_modulus_gv": "GPa",
    "magmom_oszicar": "µB/cell",
    "slme": "%",
    "exfoliation_energy": "meV/atom",
    "max_efg": "10²¹ V/m²",
    "avg_elec_mass": "mₑ",
    "avg_hole_mass": "mₑ",
    "n_Seebeck": "µV/K",
    "n_powerfact": "µW/(m K²)",
    "Tc_supercon": "K",
    "e_form": "eV/atom",
    "gappbe": "eV",
}
# Names here of those that JSON lines and property configurations have; the others keep theirs.
_NAMES = {
    "formation_energy_peratom": "formation_energy_eV_per_atom",
    "optb88vdw_total_energy": "total_energy_eV_per_atom",
    "ehull": "e_above_hull_eV_per_atom",
    "optb88vdw_bandgap": "gap_optb88vdw_eV",
    "mbj_bandgap": "gap_mbj_eV",
    "bulk_modulus_kv": "K_voigt_GPa",
    "shear_modulus_gv": "G_voigt_GPa",
    "magmom_oszicar": "total_magnetization_muB_per_cell",
    "slme": "slme_percent",
    "spillage": "spin_orbit_spillage",
    "exfoliation_energy": "exfoliation_energy_meV_per_atom",
    "max_efg": "max_efg_1e21_V_per_m2",
    "avg_elec_mass": "avg_electron_mass_me",
    "avg_hole_mass": "avg_hole_mass_me",
    "n_Seebeck": "n_seebeck_uV_per_K",
    "n_powerfact": "n_powerfactor_uW_per_mK2",
    "Tc_supercon": "Tc_supercon_K",
    "e_form": "formation_energy_eV_per_atom",
    "gappbe": "gap_pbe_eV",
}
UNITS = _UNITS | {name: _UNITS[column] for column, name in _NAMES.items() if column in _UNITS}
# Of the leaderboard's benchmarks, and the suite that they stand for; MEGNet's is MP-2018.6.1.
_SUITES = {"dft_3d_": "jarvis_dft3d", "megnet_": "mp_2018_6_1"}
# Crystals of the test splits: C. Chen et al., Chem. Mater. 31, 3564 (2019), doi:10.1021/acs.chemmater.9b01294, and those
# of the leaderboard's files, commit 57afc55f94c8.
_TEST_SIZES = {
    "e_form": 4239,
    "gappbe": 4239,
    "formation_energy_peratom": 5572,
    "optb88vdw_total_energy": 5572,
    "optb88vdw_bandgap": 5572,
    "mbj_bandgap": 1815,
    "ehull": 5537,
    "bulk_modulus_kv": 1968,
    "shear_modulus_gv": 1968,
    "magmom_oszicar": 5222,
    "epsx": 4449,
    "epsy": 4449,
    "epsz": 4449,
    "mepsx": 1681,
    "mepsy": 1681,
    "mepsz": 1681,
    "n_Seebeck": 2321,
    "n_powerfact": 2321,
    "avg_elec_mass": 1764,
    "avg_hole_mass": 1764,
    "ph_heat_capacity": 1205,
    "max_efg": 1186,
    "spillage": 1137,
    "slme": 906,
    "dfpt_piezo_max_dielectric": 470,
    "dfpt_piezo_max_dij": 334,
    "exfoliation_energy": 81,
    "Tc_supercon": 30,
}


def read_jarvis(
    path: str | Path, benchmark: str | Path | None = None, targets: Sequence[str] = ()
) -> Iterator[Crystal | Rejected]:
    """The crystals of a JARVIS file, with every property that is a number.

    Args:
      path: A .json, .json.zip or .json.gz list, or JSON lines (read_jsonl's), a file or a folder.
      benchmark: A leaderboard's .json.zip: its crystals alone are taken, each with its split and, under both names of
        the benchmark's property, its value. Those that the file lacks are rejected.
      targets: What is to be learned; for JSON lines whose splits differ from property to property
        (meta.split_other[PROPERTY]).

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If one is damaged, or the benchmark has none of the crystals.
    """
    path = Path(path)
    wanted = read_benchmark(benchmark) if benchmark else None
    names = (task_of(benchmark).column, task_of(benchmark).target) if benchmark else ()
    # Splits of the lines matter where there are no others.
    entries = _read_lines(path, targets if wanted is None else ()) if is_lines(path) else _read_list(path)
    if wanted is None:
        yield from entries
        return
    seen: set[str] = set()
    for entry in entries:
        # A record that cannot be read matters only if the benchmark has it.
        if entry.id not in wanted:
            continue
        seen.add(entry.id)
        if isinstance(entry, Rejected):
            yield entry
        else:
            split, value = wanted[entry.id]
            yield replace(entry, targets={**entry.targets, **dict.fromkeys(names, value)}, split=split)
    if not seen:
        raise ValueError(f"{path}: holds none of the {len(wanted)} crystals of {benchmark}")
    for id in wanted:
        if id not in seen:
            yield Rejected(id, f"{id}: a crystal of {benchmark} that {path} does not hold")


def read_task_lines(path: str | Path, task: Task, targets: Sequence[str] = ()) -> Iterator[Crystal | Rejected]:
    """The crystals of a benchmark from JSON lines, which carry its values and its split themselves.

    They are those that have the task's target and a split; a line that cannot be read may be one. Other `targets` are
    learned beside it.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If one is damaged, or there is none of these crystals.
    """
    found = False
    for entry in _read_lines(Path(path), tuple(dict.fromkeys((task.target, *targets)))):
        if isinstance(entry, Rejected):
            yield entry
        elif entry.split is not None and not math.isnan(entry.targets.get(task.target, math.nan)):
            found = True
            yield entry
    if not found:
        raise ValueError(f"{path}: no record has {task.target} and a split; is it data of {task.name}?")


def is_lines(path: Path) -> bool:
    """Whether a path is read as JSON lines: a folder, or a file so named."""
    return path.is_dir() or path.name.endswith(jsonl.SUFFIXES)


def read_benchmark(path: str | Path) -> dict[str, tuple[str, float]]:
    """Split and value of each crystal of a leaderboard's benchmark.

    Some published benchmarks have a few crystals in two splits. Such a crystal belongs to test rather than val, and to
    either rather than train, so that nothing that is judged was learned from.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is damaged or of another form.
    """
    path = Path(path)
    with open_json(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError, *DAMAGE) as error:
            raise ValueError(f"{path}: damaged ({error}); fetch or make it again") from error
    if (
        not isinstance(content, Mapping)
        or not {"train", "test"} <= content.keys() <= set(NAMES)
        or not all(isinstance(part, Mapping) for part in content.values())
    ):
        raise ValueError(f'{path}: a benchmark is {{"train": {{id: value}}, "val": ..., "test": ...}}; this is not')
    found: dict[str, tuple[str, float]] = {}
    for split in NAMES:
        found |= {id: (split, as_number(value)) for id, value in content.get(split, {}).items()}
    return found


def task_of(benchmark: str | Path) -> Task:
    """The task of a benchmark: the name of one of the leaderboard, or the .json.zip of any."""
    name = str(benchmark)
    stem = Path(name).name.split(".json")[0]
    prefix = next((prefix for prefix in _SUITES if stem.startswith(prefix)), "")
    column = stem.removeprefix(prefix)
    known = sets.SETS.get(name)
    return Task(
        name,
        column,
        _NAMES.get(column, column),
        _UNITS.get(column, ""),
        known.records if known else 0,
        kind="regression" if known else None,
        suite=_SUITES.get(prefix, ""),
        source="jarvis",
        n_test=_TEST_SIZES.get(column) if known else None,
    )


def _read_lines(path: Path, targets: Sequence[str]) -> Iterator[Crystal | Rejected]:
    for where, record in jsonl.read_records(path):
        if isinstance(record, Rejected):
            yield record
            continue
        meta = record.get("meta")
        other = meta.get("split_other") if isinstance(meta, Mapping) else None
        own, properties = record.get("split"), record.get("properties")
        # A property that split_other does not name has the record's own; one that the record lacks has none.
        known = [target for target in targets if isinstance(properties, Mapping) and properties.get(target) is not None]
        given = [other.get(target, own) for target in known] if isinstance(other, Mapping) else []
        splits = [split for split in given if split is not None]
        if any(split != splits[0] for split in splits):
            yield Rejected(str(record.get("id", where)), f"{where}: {', '.join(known)} have different splits")
        else:
            yield jsonl.crystal_of({**record, "split": splits[0]} if splits else record, where)


def _read_list(path: Path) -> Iterator[Crystal | Rejected]:
    number = 0
    for number, record in enumerate(stream_items(path), start=1):
        where = f"{path.name}:{number}"
        try:
            yield _crystal(record, where)
        except CrystalError as error:
            yield Rejected(_id_of(record, where), str(error))
    if not number:
        raise ValueError(f"{path}: a JARVIS file is a JSON list of records; this holds none")


def _crystal(record: Any, where: str) -> Crystal:
    if not isinstance(record, Mapping) or "atoms" not in record:
        raise CrystalError(f"{where}: a JARVIS record has jid and atoms, got {str(record)[:80]}")
    id = _id_of(record, where)
    atoms = record["atoms"]
    try:
        lattice, coords = np.array(atoms["lattice_mat"], dtype=float), np.array(atoms["coords"], dtype=float)
        # Older files pad symbols with spaces.
        species = [symbol.strip() for symbol in atoms["elements"]]
        if isinstance(atoms["elements"], str):
            raise TypeError("elements must be a list")
        if atoms.get("cartesian"):
            coords = coords @ np.linalg.inv(lattice)
    except (KeyError, TypeError, ValueError, AttributeError, np.linalg.LinAlgError) as error:
        raise CrystalError(f"{id}: not atoms as JARVIS writes them ({type(error).__name__}: {error})") from error
    numbers = {
        key: as_number(value)
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Crystal.from_arrays(id, lattice, species, coords, numbers)


def _id_of(record: Any, where: str) -> str:
    # The Materials Project's crystals among the JARVIS files (megnet) have an id instead.
    return printable(str(record.get("jid", record.get("id", where)))) if isinstance(record, Mapping) else where
