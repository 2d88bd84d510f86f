import gzip
import importlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold

from cgcnn_jax.benchmark.tasks import SUITES, Task, entries, find_tasks, fold_split
from cgcnn_jax.data import dataset
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells

MATBENCH = list(SUITES["matbench"].values())
ALL = [task for suite in SUITES.values() for task in suite.values()]


def stored_folds(task: Task, data: Path) -> dict[int, tuple[int, int | None]]:
    """Place in the task's order (from the Matbench id) -> fold and metal flag; by text, independent of the reader."""
    wanted = re.compile(rf'"{task.name.removeprefix("matbench_")}":\["mb-[a-z-]+-(\d+)",(\d)\]')
    found = {}
    for file in sorted((data / task.folder).glob("*.jsonl.gz")):
        with gzip.open(file, "rt") as lines:
            for line in lines:
                if place := wanted.search(line):
                    is_metal = re.search(r'"is_metal":(\d)', line)
                    found[int(place[1]) - 1] = (int(place[2]), int(is_metal[1]) if is_metal else None)
    return found


@pytest.mark.parametrize("task", MATBENCH, ids=lambda task: task.name)
def test_the_folds_in_the_data_are_those_of_the_recipe(task: Task, shared_data: Path) -> None:
    stored = stored_folds(task, shared_data)
    assert len(stored) > 0.8 * task.n_official
    labels = np.zeros(task.n_official)
    recipe: KFold | StratifiedKFold = KFold(n_splits=5, shuffle=True, random_state=18012019)
    if task.kind == "classification":
        recipe = StratifiedKFold(n_splits=5, shuffle=True, random_state=18012019)
        # Known for every entry, or the strata would be others.
        labels = np.array([stored[place][1] for place in range(task.n_official)])
    for fold, (_, test) in enumerate(recipe.split(np.zeros(task.n_official), labels)):
        assert len(test) == task.n_official_test(fold)
        assert {place for place, (of, _) in stored.items() if of == fold} == set(test.tolist()) & stored.keys()


def test_phonons_are_all_there_and_marked_by_the_reader(shared_data: Path) -> None:
    (task,) = find_tasks("matbench", "matbench_phonons")
    crystals = list(entries(task, shared_data / task.folder))
    assert len(crystals) == task.n_official
    expected = {place: str(fold) for place, (fold, _) in stored_folds(task, shared_data).items()}
    assert {int(crystal.id.rsplit("-", 1)[1]) - 1: crystal.split for crystal in crystals} == expected


def test_a_file_of_several_tasks_gives_each_its_own_crystals_and_folds(tmp_path: Path) -> None:
    def line(id: str, folds: dict[str, int], **properties: float | None) -> str:
        matbench = {task: [f"mb-{id}", fold] for task, fold in folds.items()}
        record = {"id": id, "lattice": (3 * np.eye(3)).tolist(), "species": ["Na"], "frac_coords": [[0, 0, 0]]}
        return json.dumps({**record, "properties": properties, "meta": {"matbench": matbench}})

    file = tmp_path / "x.jsonl"
    lines = [
        line("a", {"mp_gap": 4, "mp_e_form": 1}, gap_pbe_eV=1.0, formation_energy_eV_per_atom=-1.0),
        line("b", {"mp_gap": 0}, gap_pbe_eV=0.0),
        line("c", {"mp_e_form": 2}, formation_energy_eV_per_atom=-2.0),
        "not JSON",
    ]
    file.write_text("\n".join(lines) + "\n")
    gap, e_form = find_tasks("matbench", "matbench_mp_gap,matbench_mp_e_form")
    for task, expected in ((gap, {"a": "4", "b": "0"}), (e_form, {"a": "1", "c": "2"})):
        found = list(entries(task, tmp_path))
        assert {one.id: one.split for one in found if not isinstance(one, Rejected)} == expected
        # What cannot be read is told, for it might be of the task.
        assert [one.id for one in found if isinstance(one, Rejected)] == ["x.jsonl:4"]


def test_jarvis_has_a_split_for_each_property(shared_data: Path) -> None:
    energy, gap = find_tasks("jarvis_dft3d", "dft_3d_formation_energy_peratom,dft_3d_mbj_bandgap")
    path = shared_data / energy.folder
    # The README of the data: the file's split is that of the formation energy, and 5,862 have a TBmBJ gap.
    counts = Counter(crystal.split for crystal in entries(energy, path))
    assert counts == {"train": 14390, "val": 1844, "test": 1806}
    of_gap = {crystal.id: crystal.split for crystal in entries(gap, path)}
    assert len(of_gap) == 5862
    assert of_gap["JVASP-5"] == "train"  # whose formation energy is in the test split


def test_mp_2018_6_1_has_the_published_split(shared_data: Path) -> None:
    (task,) = find_tasks("mp_2018_6_1", "band_gap")
    # The README of the data.
    counts = Counter(crystal.split for crystal in entries(task, shared_data / task.folder))
    assert counts == {"train": 55650, "val": 4631, "test": 3931}


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_every_task_has_its_configuration_and_an_unambiguous_name(task: Task) -> None:
    assert [other.name for other in ALL].count(task.name) == 1
    config = importlib.import_module(f"configs.{task.config}").get_config()
    assert config.model.task == task.kind


@pytest.mark.parametrize(
    ("suite", "names", "message"),
    [
        ("matbnch", "all", "--suite must be one of matbench, mp_2018_6_1, jarvis_dft3d; got 'matbnch'"),
        ("mp_2018_6_1", "gap", r"mp_2018_6_1 has no task 'gap'; it has formation_energy, band_gap \(or all\)"),
        ("mp_2018_6_1", "", "--tasks must name tasks of mp_2018_6_1"),
    ],
)
def test_an_unknown_task_lists_the_known_ones(suite: str, names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_tasks(suite, names)


def toy(marks: list[str]) -> Dataset:
    crystals = [
        Crystal.from_arrays(f"x{n}", (3 + 0.01 * n) * np.eye(3), ["Na"], [[0, 0, 0]], {"y": float(n)}, mark)
        for n, mark in enumerate(marks)
    ]
    return dataset.load(crystals, Featurizer(WholeShells()), ["y"])


PHONONS = SUITES["matbench"]["matbench_phonons"]


@pytest.mark.parametrize("fold", range(5))
def test_a_fold_judges_and_the_others_train_and_choose(fold: int) -> None:
    crystals = toy([str(n % 5) for n in range(50)])
    split = fold_split(PHONONS, crystals, fold, 0.1, seed=3)
    assert split["test"].tolist() == list(range(fold, 50, 5))
    assert len(split["val"]) == 4 and len(split["train"]) == 36
    everyone = np.concatenate([split[name] for name in ("train", "val", "test")])
    assert sorted(everyone.tolist()) == list(range(50))
    again, other = (fold_split(PHONONS, crystals, fold, 0.1, seed=seed)["val"].tolist() for seed in (3, 4))
    assert split["val"].tolist() == again != other


def test_with_nothing_held_out_all_other_folds_train() -> None:
    split = fold_split(PHONONS, toy([str(n % 5) for n in range(50)]), 2, 0.0, seed=0)
    assert len(split["train"]) == 40 and set(split["val"]) < set(split["train"])
    assert not set(split["train"]) & set(split["test"])


def test_crystals_without_the_marks_of_the_task_are_refused() -> None:
    with pytest.raises(ValueError, match="must be marked 0, 1, 2, 3, 4; they are marked 0, 1"):
        fold_split(PHONONS, toy(["0", "1"]), 0, 0.1, seed=0)
    with pytest.raises(ValueError, match="must be marked test, train, val; they are marked train, val"):
        fold_split(SUITES["mp_2018_6_1"]["band_gap"], toy(["train", "val"]), 0, 0.1, seed=0)
