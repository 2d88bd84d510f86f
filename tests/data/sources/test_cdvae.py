"""The tables of CDVAE."""

import csv

import numpy as np
import pytest

from cgcnn_jax.data.crystal import CrystalError, Rejected
from cgcnn_jax.data.sources import read_cdvae, read_jsonl


def write(path, rows: list[dict]):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path, shared_data):
    """Real perovskites of each split in the columns of Perov-5, and what pymatgen makes of them as a CIF."""
    of: dict[str, list] = {"train": [], "val": [], "test": []}
    for crystal in read_jsonl(shared_data / "matbench_perovskites"):
        if len(of[crystal.split]) < 5 and "heat_all_eV_per_cell" in crystal.targets:
            of[crystal.split].append(crystal)
        if min(map(len, of.values())) == 5:
            break
    for name, crystals in of.items():
        rows = [
            {
                "": number,
                "material_id": crystal.id,
                "cif": crystal.to_structure().to(fmt="cif"),
                "formula": crystal.formula,
                "heat_all": crystal.targets["heat_all_eV_per_cell"],
                "dir_gap": "",
            }
            for number, crystal in enumerate(crystals)
        ]
        write(tmp_path / f"{name}.csv", rows)
    return tmp_path, of


def test_real_crystals_come_back_with_labels_and_split(folder):
    path, of = folder
    entries = {entry.id: entry for entry in read_cdvae(path)}
    assert [entry.split for entry in entries.values()] == ["train"] * 5 + ["val"] * 5 + ["test"] * 5
    for name, crystals in of.items():
        for crystal in crystals:
            entry = entries[crystal.id]
            assert dict(entry.targets) == {"heat_all": crystal.targets["heat_all_eV_per_cell"]}
            read = entry.read()
            assert (read.id, read.split, read.formula) == (crystal.id, name, crystal.formula)
            assert sorted(read.species) == sorted(crystal.species)
            # A CIF gives lengths and angles, so the cell may be turned; its shape is the same.
            np.testing.assert_allclose(abs(np.linalg.det(read.lattice)), abs(np.linalg.det(crystal.lattice)), rtol=1e-6)
    digests = {entry.digest() for entry in entries.values()}
    assert len(digests) == 15


def test_one_file_of_another_name_has_no_split(folder):
    path, _ = folder
    (path / "train.csv").rename(path / "mine.csv")
    assert [entry.split for entry in read_cdvae(path / "mine.csv")] == [None] * 5
    assert len(list(read_cdvae(path))) == 10


def test_long_and_broken_cells_are_met(tmp_path):
    # csv by itself refuses cells of more than 131,072 letters.
    write(tmp_path / "val.csv", [{"material_id": "a", "cif": "x" * 200_000, "e": 1}])
    with (tmp_path / "val.csv").open("a") as file:
        file.write("b,text\n")
    entry, short = read_cdvae(tmp_path)
    with pytest.raises(CrystalError, match=r"a: its CIF cannot be read \("):
        entry.read()
    assert isinstance(short, Rejected) and "b: a row of val.csv has not as many cells as the first" in short.reason


def test_other_tables_and_places_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"without train\.csv, val\.csv and test\.csv"):
        list(read_cdvae(tmp_path))
    write(tmp_path / "test.csv", [{"id": "a", "cif": ""}])
    with pytest.raises(ValueError, match="needs columns material_id and cif; it has id, cif"):
        list(read_cdvae(tmp_path))
    (tmp_path / "test.csv").write_bytes(b"material_id,cif\n\xff,\n")
    with pytest.raises(ValueError, match="not a CSV table in UTF-8"):
        list(read_cdvae(tmp_path))
