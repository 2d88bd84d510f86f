"""The tasks of the field's benchmarks by suite, and where each finds its crystals and its configuration.

Matbench v0.1: five folds; fold k is the test split of round k (cgcnn_jax.data.sources.matbench has the rule).
Source: A. Dunn et al., npj Comput. Mater. 6, 138 (2020), doi:10.1038/s41524-020-00406-3.
MP-2018.6.1 and JARVIS-DFT: one published split into train, val and test. Sources: C. Chen et al., Chem. Mater. 31, 3564
(2019), doi:10.1021/acs.chemmater.9b01294; K. Choudhary et al., npj Comput. Mater. 10, 93 (2024).
"""

from pathlib import Path

from cgcnn_jax.data import sets, splits
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.sources import SOURCES, Request, jarvis, matbench
from cgcnn_jax.data.tasks import Task

# Of the leaderboard of JARVIS, what is no property of a crystal: the settings at which its energy has converged.
_SETTINGS = ("dft_3d_encut", "dft_3d_kpoint_length_unit")
_JARVIS = [one.name for one in sets.SETS.values() if one.benchmark and one.name not in _SETTINGS]
_ALL = [*matbench.TASKS.values(), *(jarvis.task_of(name) for name in _JARVIS)]
SUITES: dict[str, dict[str, Task]] = {
    suite: {task.name: task for task in _ALL if task.suite == suite}
    for suite in ("matbench", "mp_2018_6_1", "jarvis_dft3d")
}

# Configuration of a task, where none is given and it is not base.
_CONFIGS = {
    "matbench_log_gvrh": "shear_modulus",
    "matbench_log_kvrh": "bulk_modulus",
    "matbench_mp_e_form": "formation_energy",
    "matbench_mp_gap": "band_gap",
    "matbench_mp_is_metal": "metal_classification",
    "matbench_perovskites": "perovskite",
    "megnet_e_form": "formation_energy",
    "megnet_gappbe": "band_gap",
    "dft_3d_formation_energy_peratom": "formation_energy",
    "dft_3d_optb88vdw_total_energy": "absolute_energy",
    "dft_3d_optb88vdw_bandgap": "band_gap",
    "dft_3d_mbj_bandgap": "band_gap",
}
# Folders of JSON lines that several tasks share.
_FOLDERS = {
    "matbench_log_gvrh": "matbench_log_vrh",
    "matbench_log_kvrh": "matbench_log_vrh",
    "matbench_mp_e_form": "matbench_mp",
    "matbench_mp_gap": "matbench_mp",
    "matbench_mp_is_metal": "matbench_mp",
}


def config_name(task: Task) -> str:
    """Name of the configuration that a task takes if none is given."""
    return _CONFIGS.get(task.name, "base")


def folder_name(task: Task) -> str:
    """Name of the folder with the crystals of a task among data sets of JSON lines."""
    return _FOLDERS.get(task.name, task.name if task.source == "matbench" else task.suite)


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


def find_data(task: Task, data: Path | None) -> str:
    """`data.path` of a task: its folder in `data`; empty for the official files that experiments.fetch has brought.

    Raises:
      FileNotFoundError: If the crystals or their official split are not there, saying what to do.
    """
    if data is None:
        crystals = SOURCES[task.source].fetched(Request(task=task.name))
        assert crystals is not None
        # The leaderboard's values and splits are a set of their own, which has the task's name.
        for name in (crystals, task.name):
            sets.locate(
                name, otherwise=f"name with --data=FOLDER one that has {folder_name(task)}/ in it (docs/data.md)"
            )
        return ""
    path = data / folder_name(task)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder; {task.name} has its crystals there (--data)")
    return str(path)


def check_marks(task: Task, crystals: Dataset) -> None:
    """Raises ValueError if the crystals are not marked with all folds, or all splits, of the task and no others."""
    labels = {str(label) for label in crystals.source_split}
    wanted = {str(number) for number in range(task.num_folds)} if task.num_folds > 1 else set(splits.NAMES)
    if labels != wanted:
        raise ValueError(
            f"{task.name}: the crystals must be marked {', '.join(sorted(wanted))}; they are marked "
            f"{', '.join(sorted(labels))}"
        )
