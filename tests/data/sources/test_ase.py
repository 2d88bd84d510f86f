"""ASE databases and trajectories, written by ASE itself."""

import contextlib
import sqlite3
import sys

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.data.sources import read_ase


@pytest.fixture
def atoms(rock_salt):
    """Rock salt in ASE, with an energy of -27.25 eV."""
    pytest.importorskip("ase")
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    made = Atoms(rock_salt.species, scaled_positions=rock_salt.frac_coords, cell=rock_salt.lattice, pbc=True)
    made.calc = SinglePointCalculator(made, energy=-27.25)
    return made


@pytest.mark.parametrize("name", ["set.db", "set.json"])
def test_a_database_gives_key_value_pairs_and_energy(tmp_path, atoms, rock_salt, name):
    from ase.db import connect

    slab = atoms.copy()
    slab.pbc = (True, True, False)
    with connect(tmp_path / name) as database:
        database.write(atoms, band_gap=5.0, is_metal=False, method="PBE")
        database.write(atoms, key_value_pairs={"band_gap": 5.5})
        database.write(slab)
    first, second, rejected = read_ase(tmp_path / name)
    assert (first.id, second.id) == (f"{name}:1", f"{name}:2")
    # Of eight atoms.
    per_atom = -27.25 / 8
    assert dict(first.targets) == {"energy": -27.25, "energy_per_atom": per_atom, "band_gap": 5.0, "is_metal": 0.0}
    np.testing.assert_allclose(first.lattice, rock_salt.lattice)
    np.testing.assert_array_equal(first.species, rock_salt.species)
    np.testing.assert_allclose(first.frac_coords, rock_salt.frac_coords, atol=1e-12)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == f"{name}:3: periodic along a and b only; a crystal repeats in all three directions (pbc)"


@pytest.mark.parametrize("name", ["set.traj", "set.extxyz", "set.xyz"])
def test_frames_give_info_and_energy(tmp_path, atoms, name):
    import ase.io

    molecule = atoms.copy()
    molecule.pbc = False
    atoms.info |= {"id": "mine", "volume": 179.4, "note": "text"}
    ase.io.write(tmp_path / name, [atoms, molecule], format="extxyz" if name.endswith("xyz") else None)
    crystal, rejected = read_ase(tmp_path / name)
    assert crystal.id == "mine" and crystal.targets["energy"] == -27.25
    assert crystal.targets["volume"] == 179.4 and "note" not in crystal.targets
    if name.endswith("xyz"):
        text = (tmp_path / name).read_text().replace("volume=179.4", "volume=179.4 magmom=3.5 free_energy=-27.5")
        (tmp_path / name).write_text(text)
        targets = next(read_ase(tmp_path / name)).targets
        assert (targets["magmom"], targets["free_energy"], targets["energy"]) == (3.5, -27.5, -27.25)
    assert rejected == Rejected(f"{name}:1", f"{name}:1: not periodic; a crystal repeats in all three directions (pbc)")


@pytest.mark.parametrize("name", ["mixed.cif", "mixed.traj", "mixed.extxyz"])
def test_a_crystal_that_ase_takes_for_an_ordered_one_is_refused(tmp_path, name):
    pytest.importorskip("ase")
    import ase.io

    cif = tmp_path / "mixed.cif"
    cif.write_text(
        "data_x\n"
        + "".join(f"_cell_length_{axis} 4\n" for axis in "abc")
        + "".join(f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma"))
        + "_symmetry_space_group_name_H-M 'P 1'\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\nloop_\n"
        + "".join(f"_atom_site_{column}\n" for column in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))
        + "_atom_site_occupancy\nNa1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1\n"
    )
    atoms = ase.io.read(cif)
    assert sorted(atoms.get_chemical_symbols()) == ["Cl", "K"], "ase takes one element for the whole site"
    if name != cif.name:
        ase.io.write(tmp_path / name, atoms)
    (rejected,) = read_ase(tmp_path / name)
    assert isinstance(rejected, Rejected)
    assert "'Na': 0.5" in rejected.reason and "partially occupied or shared" in rejected.reason
    # One whose sites are whole has occupancies, too.
    cif.write_text(cif.read_text().replace("Na1 Na 0 0 0 0.5\n", "").replace("K1 K 0 0 0 0.5", "K1 K 0 0 0 1"))
    assert ase.io.read(cif).info["occupancy"]
    (crystal,) = read_ase(cif)
    np.testing.assert_array_equal(crystal.species, [19, 17])


def test_what_ase_cannot_read_is_told(tmp_path, atoms, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no\.db: no such file"):
        list(read_ase(tmp_path / "no.db"))
    (tmp_path / "bad.db").write_text("not a database " * 100)
    with pytest.raises(ValueError, match=r"bad\.db: ase cannot read it after 0 \("):
        list(read_ase(tmp_path / "bad.db"))
    (tmp_path / "bad.extxyz").write_text("2\npbc\nNa\n")
    with pytest.raises(ValueError, match=r"bad\.extxyz: ase cannot read it"):
        list(read_ase(tmp_path / "bad.extxyz"))
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(ValueError, match=r"pip install 'cgcnn-jax\[ase\]'"):
        list(read_ase(tmp_path / "bad.db"))


@pytest.mark.parametrize("count", ["100000000", "9" * 5000])
def test_an_xyz_of_a_hundred_million_columns_takes_no_memory(tmp_path, atoms, count):
    path = tmp_path / "a.extxyz"
    atoms.write(path)
    text = path.read_text()
    assert "Properties=species:S:1:" in text and len(list(read_ase(path))) == 1
    path.write_text(text + text.replace("species:S:1:", f"species:S:{count}:"))
    with pytest.raises(
        ValueError, match=r"a\.extxyz: line \d+ states 1?[09,]+\d columns; more than 1,000 are not read"
    ):
        list(read_ase(path))


def test_frames_behind_an_empty_line_are_not_lost(tmp_path, atoms):
    path = tmp_path / "joined.extxyz"
    atoms.write(path)
    frame = path.read_text()
    lines = frame.splitlines(keepends=True)
    path.write_text(frame + "\n \n")
    assert len(list(read_ase(path))) == 1
    molecule = tmp_path / "molecule.xyz"
    molecule.write_text("1\n\nNa 0 0 0\n" * 2)  # an empty comment
    assert len(list(read_ase(molecule))) == 2
    path.write_text(frame + "\n" + frame)
    with pytest.raises(
        ValueError, match=rf"joined\.extxyz: line {len(lines) + 1} is empty where a frame begins.*remove"
    ):
        list(read_ase(path))


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
def test_a_name_with_an_at_sign_is_a_name(tmp_path, atoms, suffix):
    other = atoms.copy()
    other.info["id"], atoms.info["id"] = "other", "mine"
    atoms.write(tmp_path / f"set@1{suffix}")
    other.write(tmp_path / "set", format=suffix[1:])
    assert [crystal.id for crystal in read_ase(tmp_path / f"set@1{suffix}")] == ["mine"]


def test_a_database_of_another_program_is_refused_and_stays_as_it_is(tmp_path):
    pytest.importorskip("ase")
    path = tmp_path / "mine.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE results (formula TEXT)")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"^\S*mine\.db: no database of ase, .* this has \['results'\]"):
        list(read_ase(path))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["mine.db"]
