"""Matbench in both its forms, and its official folds against those that were published."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.sources import matbench, read_jsonl, read_matbench
from cgcnn_jax.data.sources.matbench import TASKS, Task, official_folds


def official(path: Path, column: str, rows: list) -> Path:
    """A file as Matbench writes it."""
    content = {"index": list(range(len(rows))), "columns": ["structure", column], "data": rows}
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task of 20 entries."""
    task = Task("matbench_small", "y", "target", "eV", 20, power=("power", "GPa"))
    monkeypatch.setitem(matbench.TASKS, task.name, task)
    return task


def structure(length: float = 4.0) -> dict:
    return {
        "lattice": {"matrix": (length * np.eye(3)).tolist()},
        "sites": [
            {"species": [{"element": "Cs", "occu": 1}], "abc": [0, 0, 0]},
            {"species": [{"element": "Cl", "occu": 1.0}], "abc": [0.5, 0.5, 0.5]},
        ],
    }


def test_computed_folds_are_the_published_ones(shared_data):
    """All entries of all tasks that the JSON lines hold; their folds come from a published submission."""
    stored: dict[str, dict[int, int]] = defaultdict(dict)
    metal = {}
    for path in sorted(shared_data.glob("matbench_*/*.jsonl.gz")):
        for line in gzip.open(path):
            # meta comes last; parsing it alone takes a tenth of the time.
            for short, (id, fold) in (
                json.loads(b"{" + line[line.rindex(b'"meta"') :])["meta"].get("matbench", {}).items()
            ):
                task = TASKS[f"matbench_{short}"]
                position = int(id.rsplit("-", 1)[1]) - 1
                assert task.id_of(position) == id
                stored[task.name][position] = fold
                if short == "mp_is_metal":
                    metal[position] = b'"is_metal":1' in line
    # Matminer's jarvis_dft 2D set is the only task that the JSON lines lack.
    assert stored.keys() == TASKS.keys() - {"matbench_jdft2d"}
    assert sum(map(len, stored.values())) == 10850 + 10850 + 18584 + 1265 + 4434 + 106113 + 106113 + 111365
    for name, known in stored.items():
        task = TASKS[name]
        labels = [metal[position] for position in range(task.size)] if task.kind == "classification" else None
        folds = official_folds(task, labels)
        assert {position: int(folds[position]) for position in known} == known, name


def test_both_forms_give_the_same_crystals(tmp_path, shared_data):
    lines = list(read_matbench(shared_data / "matbench_phonons", "matbench_phonons"))
    rows = [[crystal.to_structure().as_dict(), crystal.targets["last_phdos_peak_cm-1"]] for crystal in lines]
    official(tmp_path / "matbench_phonons.json.gz", "last phdos peak", rows)
    crystals = list(read_matbench(tmp_path, "matbench_phonons"))
    assert len(crystals) == 1265
    for crystal, line in zip(crystals, lines, strict=True):
        assert (crystal.id, crystal.split, crystal.targets) == (line.id, line.split, line.targets)
        np.testing.assert_array_equal(crystal.species, line.species)
        np.testing.assert_allclose(crystal.lattice, line.lattice, atol=1e-12)
        np.testing.assert_allclose(crystal.frac_coords, line.frac_coords, atol=1e-12)
    # As the README of the set says.
    assert (crystals[0].id, crystals[0].split) == ("mb-phonons-0001", "4")


def test_a_task_takes_its_own_records_of_shared_lines(shared_data):
    bulk = {crystal.id: crystal for crystal in read_matbench(shared_data / "matbench_log_vrh", "matbench_log_kvrh")}
    shear = {crystal.id: crystal for crystal in read_matbench(shared_data / "matbench_log_vrh", "matbench_log_gvrh")}
    first = bulk["mb-log-kvrh-00001"]
    assert (first.split, first.targets["log10_K_vrh_GPa"], first.targets["K_vrh_GPa"]) == ("4", 1.7075702, 51.0)
    assert len(bulk) == len(shear) == 10850 and shear["mb-log-gvrh-00001"].split == "4"
    perovskites = list(read_matbench(shared_data / "matbench_perovskites", "matbench_perovskites"))
    # 344 of 18,928 records have no entry in the task.
    assert len(perovskites) == 18584 and perovskites[0].id == "mb-perovskites-00179"


def test_a_logarithm_comes_with_its_power_and_a_disordered_site_is_rejected(tmp_path, small):
    rows = [[structure(), 2.0] for _ in range(20)]
    rows[3][0]["sites"][1]["species"] = [{"element": "Cl", "occu": 0.5}, {"element": "Br", "occu": 0.5}]
    rows[4] = [{"lattice": {}}, 1.0]
    rows[5][1] = None
    entries = list(read_matbench(official(tmp_path / "f.json.gz", "y", rows), "matbench_small"))
    assert [isinstance(entry, Rejected) for entry in entries] == [number in (3, 4) for number in range(20)]
    assert "mb-small-04: site 1 is partially occupied" in entries[3].reason
    assert "mb-small-05: not a structure as pymatgen writes it (KeyError: 'matrix')" in entries[4].reason
    assert entries[0].targets == {"target": 2.0, "power": 100.0}
    assert np.isnan(list(entries[5].targets.values())).all()
    assert sorted(entry.split for entry in entries if isinstance(entry, Crystal) and entry.split == "0") != []


def test_folds_of_classes_are_stratified(tmp_path, monkeypatch):
    task = Task("matbench_classes", "y", "y", "", 50, "classification")
    monkeypatch.setitem(matbench.TASKS, task.name, task)
    labels = [number % 5 == 0 for number in range(50)]
    path = official(tmp_path / "f.json.gz", "y", [[structure(), label] for label in labels])
    crystals = list(read_matbench(path, task.name))
    for fold, (_, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=18012019).split(labels, labels)):
        assert [i for i, crystal in enumerate(crystals) if crystal.split == str(fold)] == test.tolist()
        assert sum(crystals[i].targets["y"] for i in test) == 2  # of 10 in all


@pytest.mark.parametrize(
    ("column", "rows", "message"),
    [
        ("z", 20, r"columns structure and 'y'; this has \['structure', 'z'\]"),
        ("y", 19, r"19 entries; matbench_small has 20, and its folds need all of them"),
    ],
)
def test_another_file_or_a_part_is_refused(tmp_path, small, column, rows, message):
    path = official(tmp_path / "f.json.gz", column, [[structure(), 1.0]] * rows)
    with pytest.raises(ValueError, match=message):
        list(read_matbench(path, "matbench_small"))


def test_damage_is_told(tmp_path, small):
    whole = official(tmp_path / "f.json.gz", "y", [[structure(4 + 0.1 * n), n] for n in range(20)]).read_bytes()
    (tmp_path / "f.json.gz").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"f\.json\.gz: damaged .*fetch or make it again"):
        list(read_matbench(tmp_path / "f.json.gz", "matbench_small"))
    plain = tmp_path / "f.json"
    content = json.loads(gzip.decompress(whole))
    plain.write_text(json.dumps(content | {"data": content["data"][:-1]}))
    with pytest.raises(ValueError, match="19 rows of data for 20 entries"):
        list(read_matbench(plain, "matbench_small"))
    plain.write_text("<html>moved</html>")
    with pytest.raises(ValueError, match=r"f\.json: damaged before columns \("):
        list(read_matbench(plain, "matbench_small"))


def test_unknown_tasks_files_and_lines_are_told(tmp_path):
    with pytest.raises(ValueError, match="unknown Matbench task 'log_kvrh'; choose one of matbench_log_kvrh, "):
        list(read_matbench(tmp_path, "log_kvrh"))
    with pytest.raises(FileNotFoundError, match=r"no\.json\.gz: no such file"):
        list(read_matbench(tmp_path / "no.json.gz", "matbench_phonons"))
    record = {"lattice": np.eye(3).tolist(), "species": ["Cs"], "frac_coords": [[0, 0, 0]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n{\n")
    with pytest.raises(ValueError, match=r"no record carries meta\.matbench\.phonons"):
        list(read_matbench(tmp_path, "matbench_phonons"))
    assert len(list(read_jsonl(tmp_path))) == 2
