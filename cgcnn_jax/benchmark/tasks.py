"""What is predicted from which crystals, and which of them train, choose the weights and judge.

Matbench v0.1: five folds, KFold(n_splits=5, shuffle=True, random_state=18012019) over the entries of a task in their
order, StratifiedKFold with the same arguments in classification; fold k is the test split of round k.
Source: A. Dunn et al., npj Comput. Mater. 6, 138 (2020), doi:10.1038/s41524-020-00406-3.
MP-2018.6.1 and JARVIS-DFT: one published split into train, val and test. Sources: C. Chen et al., Chem. Mater. 31, 3564
(2019), doi:10.1021/acs.chemmater.9b01294; K. Choudhary et al., npj Comput. Mater. 10, 93 (2024).
"""

import contextlib
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cgcnn_jax.data import splits
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.sources import read_jsonl
from cgcnn_jax.data.sources.jsonl import SUFFIXES
from cgcnn_jax.data.splits import Split
from cgcnn_jax.scaling import Task as Kind

# Share of the training crystals that choose the weights where nothing is held out for that.
_SHARE_OF_TRAIN = 0.1


@dataclass(frozen=True)
class Task:
    """One property of one benchmark.

    Attributes:
      suite: Its benchmark.
      name: Its name there.
      folder: Folder of its crystals in the data.
      target: Name of the property in the crystals' records.
      unit: Its unit.
      n_official: Crystals that the benchmark has.
      kind: regression or classification.
      num_folds: 5 in Matbench, 1 where there is one published split.
      n_test: Crystals of the published test split, where there is one and its size is known.
      config: Name of the configuration that is taken if none is given.
      published: Its name in tables of published errors: that of the property for MP-2018.6.1 and JARVIS.
      leaderboard: Its name on the JARVIS leaderboard.
    """

    suite: str
    name: str
    folder: str
    target: str
    unit: str
    n_official: int
    kind: Kind = "regression"
    num_folds: int = 1
    n_test: int | None = None
    config: str = "base"
    published: str = ""
    leaderboard: str = ""

    @property
    def metric(self) -> str:
        """The score that ranks: mae, or rocauc in classification."""
        return "rocauc" if self.kind == "classification" else "mae"

    def n_official_test(self, fold: int) -> int | None:
        """Crystals that the benchmark has in a test fold; None if that is not known."""
        if self.num_folds == 1:
            return self.n_test
        # The first folds take what is left over, in KFold and in StratifiedKFold.
        return self.n_official // self.num_folds + (fold < self.n_official % self.num_folds)


def _suites() -> dict[str, dict[str, Task]]:
    five: dict[str, Any] = {"suite": "matbench", "num_folds": 5}
    mp: dict[str, Any] = {"suite": "mp_2018_6_1", "folder": "mp_2018_6_1", "n_official": 69239, "n_test": 4239}
    jarvis: dict[str, Any] = {"suite": "jarvis_dft3d", "folder": "jarvis_dft3d"}
    gpa = "log10(GPa)"
    tasks = [
        Task(name="matbench_dielectric", folder="matbench_dielectric", target="refractive_index_n", unit="",
             n_official=4764, **five),
        Task(name="matbench_log_gvrh", folder="matbench_log_vrh", target="log10_G_vrh_GPa", unit=gpa,
             n_official=10987, config="shear_modulus", **five),
        Task(name="matbench_log_kvrh", folder="matbench_log_vrh", target="log10_K_vrh_GPa", unit=gpa,
             n_official=10987, config="bulk_modulus", **five),
        Task(name="matbench_mp_e_form", folder="matbench_mp", target="formation_energy_eV_per_atom", unit="eV/atom",
             n_official=132752, config="formation_energy", **five),
        Task(name="matbench_mp_gap", folder="matbench_mp", target="gap_pbe_eV", unit="eV",
             n_official=106113, config="band_gap", **five),
        Task(name="matbench_mp_is_metal", folder="matbench_mp", target="is_metal", unit="", kind="classification",
             n_official=106113, config="metal_classification", **five),
        Task(name="matbench_perovskites", folder="matbench_perovskites", target="e_form_eV_per_cell", unit="eV/cell",
             n_official=18928, config="perovskite", **five),
        Task(name="matbench_phonons", folder="matbench_phonons", target="last_phdos_peak_cm-1", unit="1/cm",
             n_official=1265, **five),
        Task(name="formation_energy", target="formation_energy_eV_per_atom", unit="eV/atom", config="formation_energy",
             published="formation_energy", leaderboard="megnet_e_form", **mp),
        Task(name="band_gap", target="gap_pbe_eV", unit="eV", config="band_gap",
             published="band_gap", leaderboard="megnet_gappbe", **mp),
        Task(name="dft_3d_formation_energy_peratom", target="formation_energy_eV_per_atom", unit="eV/atom",
             n_official=55713, config="formation_energy", published="formation_energy",
             leaderboard="dft_3d_formation_energy_peratom", **jarvis),
        Task(name="dft_3d_optb88vdw_total_energy", target="total_energy_eV_per_atom", unit="eV/atom",
             n_official=55713, config="absolute_energy", published="total_energy",
             leaderboard="dft_3d_optb88vdw_total_energy", **jarvis),
        Task(name="dft_3d_optb88vdw_bandgap", target="gap_optb88vdw_eV", unit="eV", n_official=55713, config="band_gap",
             published="band_gap_optb88vdw", leaderboard="dft_3d_optb88vdw_bandgap", **jarvis),
        Task(name="dft_3d_mbj_bandgap", target="gap_mbj_eV", unit="eV", n_official=18167, config="band_gap",
             published="band_gap_mbj", leaderboard="dft_3d_mbj_bandgap", **jarvis),
        Task(name="dft_3d_ehull", target="e_above_hull_eV_per_atom", unit="eV/atom", n_official=55364,
             published="e_above_hull", leaderboard="dft_3d_ehull", **jarvis),
        Task(name="dft_3d_bulk_modulus_kv", target="K_voigt_GPa", unit="GPa", n_official=19680,
             leaderboard="dft_3d_bulk_modulus_kv", **jarvis),
        Task(name="dft_3d_shear_modulus_gv", target="G_voigt_GPa", unit="GPa", n_official=19680,
             leaderboard="dft_3d_shear_modulus_gv", **jarvis),
    ]  # fmt: skip
    return {suite: {task.name: task for task in tasks if task.suite == suite} for suite in (t.suite for t in tasks)}


SUITES = _suites()


def find_tasks(suite: str, names: str) -> list[Task]:
    """Tasks of a suite by their names, separated by commas; all of them for "all".

    Raises:
      ValueError: Listing what there is, if there is no such suite or task.
    """
    if suite not in SUITES:
        raise ValueError(f"--suite must be one of {', '.join(SUITES)}; got {suite!r}")
    known = SUITES[suite]
    wanted = list(known) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ValueError(f"--tasks: {suite} has no task {name!r}; it has {', '.join(known)} (or all)")
    if not wanted:
        raise ValueError(f"--tasks must name tasks of {suite}: {', '.join(known)} (or all)")
    return [known[name] for name in wanted]


def entries(task: Task, path: Path) -> Iterator[Crystal | Rejected]:
    """The crystals of a task, `split` being the number of the test fold they belong to, or train, val or test.

    Crystals of the file that the task does not have are left out; a line that cannot be read may be any.
    """
    marks = _marks(task, path)
    for entry in read_jsonl(path):
        if isinstance(entry, Rejected):
            yield entry
        elif entry.id in marks:
            yield replace(entry, split=marks[entry.id])


def _marks(task: Task, path: Path) -> dict[str, str]:
    """Id -> fold or split of the crystals that the task has."""
    found = {}
    for record in _records(path):
        meta = record.get("meta") or {}
        if task.suite == "matbench":
            of_task = (meta.get("matbench") or {}).get(task.name.removeprefix("matbench_"))
            mark = None if of_task is None else str(of_task[1])
        else:
            mark = (meta.get("split_other") or {}).get(task.target, record.get("split"))
        if mark is not None and record["properties"].get(task.target) is not None:
            found[record["id"]] = mark
    return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """JSON objects of the lines; what cannot be read is told by `read_jsonl`."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.name.endswith(SUFFIXES):
            with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
                for line in lines:
                    with contextlib.suppress(ValueError):
                        yield json.loads(line)


def fold_split(task: Task, crystals: Dataset, fold: int, val_ratio: float, seed: int) -> Split:
    """Train, val and test of one fold.

    Test is the fold. Of the others val_ratio is val, by a shuffle of the ids that the seed names. With val_ratio 0 all
    of them train, and val is a tenth of them, drawn from those that train. A published split stays as it is.

    Raises:
      ValueError: If the crystals are not marked with the folds or splits of the task, or one is empty.
    """
    labels = np.array([str(label) for label in crystals.source_split])
    wanted = {str(number) for number in range(task.num_folds)} if task.num_folds > 1 else set(splits.NAMES)
    if set(labels) != wanted:
        raise ValueError(
            f"{task.name}: the crystals must be marked {', '.join(sorted(wanted))}; they are marked "
            f"{', '.join(sorted(set(labels)))}"
        )
    if task.num_folds == 1:
        return splits.from_source(crystals.source_split)
    rest = np.flatnonzero(labels != str(fold))
    share = val_ratio or _SHARE_OF_TRAIN
    inner = splits.by_ratio([crystals.ids[i] for i in rest.tolist()], (1 - share, share, 0.0), seed)
    return {
        "train": rest[inner["train"]] if val_ratio else rest,
        "val": rest[inner["val"]],
        "test": np.flatnonzero(labels == str(fold)),
    }
