import csv
import gzip
import importlib
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold

from cgcnn_jax import config as configs
from cgcnn_jax.benchmark.protocol import _fold_config
from cgcnn_jax.benchmark.tasks import SUITES, check_marks, config_name, find_data, find_tasks
from cgcnn_jax.data import dataset, elements
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.data.sources import read_matbench
from cgcnn_jax.data.tasks import Task
from configs import base

MATBENCH = list(SUITES["matbench"].values())
ALL = [task for suite in SUITES.values() for task in suite.values()]


def entries(task: Task, data: Path | None) -> list[Any]:
    """The crystals that a fold of the benchmark asks its source for."""
    return list(configs.build_entries(_fold_config(base.get_config(), task, find_data(task, data), 0)))


def test_one_number_says_how_many_crystals_a_task_has() -> None:
    # As the publications have them; of JARVIS, ids in the leaderboard's files, some of which stand there twice.
    sizes = {task.name: task.size for task in ALL}
    assert sizes["matbench_mp_e_form"] == 132752 and sizes["matbench_phonons"] == 1265
    assert sizes["megnet_e_form"] == 60000 + 5000 + 4239
    assert sizes["dft_3d_mbj_bandgap"] == 18166
    assert [task.test_size(0) for task in ALL if task.suite == "mp_2018_6_1"] == [4239, 4239]
    assert all(sizes.values())
    # The leaderboard's splits are 80, 10 and 10 %, of Tc 90, 5 and 5; a crystal or two stand in two of them.
    jarvis = dict(SUITES["jarvis_dft3d"])
    assert jarvis.pop("dft_3d_Tc_supercon").test_size(0) == 30
    assert all(task.test_size(0) == pytest.approx(task.size / 10, abs=2) for task in jarvis.values())


def test_every_property_of_the_leaderboard_at_hand_is_a_task(shared_data: Path) -> None:
    found: Counter[str] = Counter()
    for file in (shared_data / "jarvis_dft3d").glob("*.jsonl.gz"):
        with gzip.open(file, "rt") as lines:
            for line in lines:
                found.update(name for name, value in json.loads(line)["properties"].items() if value is not None)
    # The table of the data's README.
    assert found["epsx"] == 13733 and found["slme_percent"] == 4294 and found["dfpt_piezo_max_dij"] == 1349
    assert {task.target for task in SUITES["jarvis_dft3d"].values()} == found.keys()
    # And those whose published errors are collected, but for settings, hydrides, surfaces and a set of experiments.
    with (shared_data / "leaderboards" / "jarvis_leaderboard.csv").open(newline="") as lines:
        published = {row["benchmark"] for row in csv.DictReader(lines)}
    others = re.compile(r"dft_3d_(encut|kpoint_length_unit|bandgap|chipsff_.*|Tc_supercon_hydride.*)")
    tasks = {task.name for suite in SUITES.values() for task in suite.values()}
    assert {name for name in published if not others.fullmatch(name)} <= tasks


@pytest.mark.parametrize("task", MATBENCH, ids=lambda task: task.name)
def test_official_test_folds_are_as_large_as_those_of_the_recipe(task: Task) -> None:
    sizes = [len(test) for _, test in KFold(5).split(np.zeros(task.size))]
    assert [task.test_size(fold) for fold in range(5)] == sizes


def test_the_crystals_of_a_task_are_those_of_its_source(shared_data: Path) -> None:
    (task,) = find_tasks("matbench", "matbench_phonons")
    found = entries(task, shared_data)
    expected = list(read_matbench(shared_data / "matbench_phonons", "matbench_phonons"))
    assert [(one.id, one.split) for one in found] == [(one.id, one.split) for one in expected]
    assert len(found) == task.size


def test_a_file_of_several_tasks_gives_each_its_own_crystals_and_folds(tmp_path: Path) -> None:
    def line(id: str, folds: dict[str, int], **properties: float | None) -> str:
        matbench = {task: [f"mb-{id}", fold] for task, fold in folds.items()}
        record = {"id": id, "lattice": (3 * np.eye(3)).tolist(), "species": ["Na"], "frac_coords": [[0, 0, 0]]}
        return json.dumps({**record, "properties": properties, "meta": {"matbench": matbench}})

    lines = [
        line("a", {"mp_gap": 4, "mp_e_form": 1}, gap_pbe_eV=1.0, formation_energy_eV_per_atom=-1.0),
        line("b", {"mp_gap": 0}, gap_pbe_eV=0.0),
        line("c", {"mp_e_form": 2}, formation_energy_eV_per_atom=-2.0),
        "not JSON",
    ]
    (tmp_path / "matbench_mp").mkdir()
    (tmp_path / "matbench_mp" / "x.jsonl").write_text("\n".join(lines) + "\n")
    gap, e_form = find_tasks("matbench", "matbench_mp_gap,matbench_mp_e_form")
    for task, expected in ((gap, {"mb-a": "4", "mb-b": "0"}), (e_form, {"mb-a": "1", "mb-c": "2"})):
        found = entries(task, tmp_path)
        assert {one.id: one.split for one in found if not isinstance(one, Rejected)} == expected
        # What cannot be read is told, for it might be of the task.
        assert [one.id for one in found if isinstance(one, Rejected)] == ["x.jsonl:4"]


@pytest.mark.slow
def test_jarvis_has_a_split_for_each_property(shared_data: Path) -> None:
    energy, gap = find_tasks("jarvis_dft3d", "dft_3d_formation_energy_peratom,dft_3d_mbj_bandgap")
    # The README of the data: the file's split is that of the formation energy, and 5,862 have a TBmBJ gap.
    counts = Counter(crystal.split for crystal in entries(energy, shared_data))
    assert counts == {"train": 14390, "val": 1844, "test": 1806}
    of_gap = {crystal.id: crystal.split for crystal in entries(gap, shared_data)}
    assert len(of_gap) == 5862
    assert of_gap["JVASP-5"] == "train"  # whose formation energy is in the test split


@pytest.mark.slow
def test_mp_2018_6_1_has_the_published_split(shared_data: Path) -> None:
    (task,) = find_tasks("mp_2018_6_1", "megnet_gappbe")
    # The README of the data.
    counts = Counter(crystal.split for crystal in entries(task, shared_data))
    assert counts == {"train": 55650, "val": 4631, "test": 3931}


def test_fetched_files_serve_as_well_as_json_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    """The leaderboard's two files, made of some crystals of the JSON lines, give the same crystals, labels and split."""
    (task,) = find_tasks("jarvis_dft3d", "dft_3d_mbj_bandgap")
    lines = entries(task, shared_data)[:50]
    atoms = {
        one.id: {
            "lattice_mat": one.lattice.tolist(),
            "coords": one.frac_coords.tolist(),
            "elements": [elements.symbol(int(z)) for z in one.species],
            "cartesian": False,
        }
        for one in lines
    }
    labels: dict[str, dict[str, float]] = {"train": {}, "val": {}, "test": {}}
    for one in lines:
        labels[one.split][one.id] = one.targets["gap_mbj_eV"]
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"experiments\.fetch jarvis_dft_3d_2021(.|\n)*--data=FOLDER"):
        find_data(task, None)
    for folder, name, content in (
        ("jarvis_dft_3d_2021", "jdft_3d-8-18-2021.json", [{"jid": id, "atoms": of} for id, of in atoms.items()]),
        ("dft_3d_mbj_bandgap", "dft_3d_mbj_bandgap.json", labels),
    ):
        if folder == task.name:
            with pytest.raises(FileNotFoundError, match=r"experiments\.fetch dft_3d_mbj_bandgap"):
                find_data(task, None)
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / f"{name}.zip", "w") as archive:
            archive.writestr(name, json.dumps(content))
    assert find_data(task, None) == ""
    found = entries(task, None)
    of_both = [[(one.id, one.split, one.targets[task.target], one.digest()) for one in them] for them in (lines, found)]
    assert of_both[0] == of_both[1]


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
def test_every_task_has_its_configuration_and_an_unambiguous_name(task: Task) -> None:
    assert [other.name for other in ALL].count(task.name) == 1
    config = importlib.import_module(f"configs.{config_name(task)}").get_config()
    assert config.model.task == task.kind


@pytest.mark.parametrize(
    ("suite", "names", "message"),
    [
        ("matbnch", "all", "--suite must be one of matbench, mp_2018_6_1, jarvis_dft3d; got 'matbnch'"),
        ("mp_2018_6_1", "gap", r"mp_2018_6_1 has no task 'gap'; it has megnet_e_form, megnet_gappbe \(or all\)"),
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


def test_crystals_without_the_marks_of_the_task_are_refused() -> None:
    with pytest.raises(ValueError, match="must be marked 0, 1, 2, 3, 4; they are marked 0, 1"):
        check_marks(SUITES["matbench"]["matbench_phonons"], toy(["0", "1"]))
    with pytest.raises(ValueError, match="must be marked test, train, val; they are marked train, val"):
        check_marks(SUITES["mp_2018_6_1"]["megnet_gappbe"], toy(["train", "val"]))
