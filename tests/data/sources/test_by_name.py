"""The name of an input tells its kind: the structures are those that the kind's own reader gives."""

import gzip
import json
from pathlib import Path

import pytest

from cgcnn_jax.data.crystal import Crystal, CrystalFile, Rejected
from cgcnn_jax.data.sources import CrystalLine, is_there, read_input, read_unparsed, unread
from cgcnn_jax.data.sources.jsonl import line_of, read_jsonl


@pytest.fixture
def lines(rock_salt: Crystal, tmp_path: Path) -> Path:
    """Two crystals, one of them without an id, and two lines that hold none."""
    folder = tmp_path / "lines"
    folder.mkdir()
    nameless = json.loads(line_of(rock_salt))
    del nameless["id"]
    text = line_of(rock_salt) + json.dumps(nameless) + '\n{"id": "x"}\n\n{"id": \n'
    (folder / "a.jsonl").write_text(text)
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write(line_of(rock_salt))
    return folder


def test_json_lines_are_read_by_themselves_and_in_folders(lines: Path) -> None:
    for path in (lines / "a.jsonl", lines / "b.jsonl.gz", lines):
        assert [repr(entry) for entry in read_input(path)] == [repr(entry) for entry in read_jsonl(path)]


def test_unparsed_lines_know_their_ids_and_parse_to_the_same(lines: Path) -> None:
    unparsed = list(read_unparsed(lines))
    assert all(isinstance(line, CrystalLine) for line in unparsed)
    parsed = [line.parse() for line in unparsed if isinstance(line, CrystalLine)]
    assert [one.id for one in parsed] == ["NaCl", "a.jsonl:2", "x", "a.jsonl:5", "NaCl"]
    assert [line.id for line in unparsed] == [one.id for one in parsed]
    assert [isinstance(one, Rejected) for one in parsed] == [False, False, True, True, False]


def test_a_folder_of_structure_files_and_one_of_them(rock_salt: Crystal, tmp_path: Path) -> None:
    for name in ("b.cif", "a/z.cif", "a.cif", "c/POSCAR"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rock_salt.to_structure().to(str(tmp_path / name), fmt="poscar" if name.endswith("POSCAR") else "cif")
    (tmp_path / "notes.txt").write_text("")
    # As sorted paths: a folder before the file that has its name and an ending.
    assert [entry.id for entry in read_input(tmp_path)] == ["a/z", "a", "b", "c/POSCAR"]
    (one,) = read_input(tmp_path / "b.cif")
    assert isinstance(one, CrystalFile)


def test_a_pattern_is_all_that_it_matches_with_the_open_folders_in_the_ids(rock_salt: Crystal, tmp_path: Path) -> None:
    structure = rock_salt.to_structure()
    for name in ("b/POSCAR", "a/POSCAR", "a/N2.cif", "a/N1.cif", "a/O1.cif", "Fe[1].cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        structure.to(str(tmp_path / name), fmt="poscar" if name.endswith("POSCAR") else "cif")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/lines.jsonl").write_text(line_of(rock_salt))

    def ids(pattern: str) -> list[str]:
        return [entry.id for entry in read_input(tmp_path / pattern)]

    assert ids("a/N*.cif") == ["N1", "N2"]
    assert ids("*/POSCAR") == ["a/POSCAR", "b/POSCAR"]
    assert ids("**/?1.cif") == ids("**/**1.cif") == ["a/N1", "a/O1"]
    assert ids("[ab]") == ["a/N1", "a/N2", "a/O1", "a/POSCAR", "b/POSCAR"]
    # A folder that matches is read whole, and once.
    assert ids("**") == ["Fe[1]", *ids("[ab]")] == ids("[!l]*")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert ids("**/?1.cif") == ["a/N1", "a/O1"]
    (tmp_path / "[ab]").mkdir()
    structure.to(str(tmp_path / "[ab]/N3.cif"))
    assert ids("[ab]/N*.cif") == ["N3"]
    assert ids("lines/*.jsonl") == [rock_salt.id]
    assert ids("Fe[1].cif") == ["Fe[1]"]
    (missing,) = read_input(tmp_path / "a/P*.cif")
    assert isinstance(missing, Rejected) and missing.reason == f"{tmp_path}/a/P*.cif: no file matches"
    assert is_there(tmp_path / "a/N*.cif") and is_there(tmp_path / "Fe[1].cif")
    assert not is_there(tmp_path / "a/P*.cif") and not is_there(tmp_path / "N1.cif")


def test_patterns_match_hidden_files_only_where_they_say_so(rock_salt: Crystal, tmp_path: Path) -> None:
    text = rock_salt.to_structure().to(fmt="poscar")
    for name in ("x.vasp", "._x.vasp", ".checkpoints/x-1.vasp", "deep/.y.vasp", "deep/y.vasp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def ids(pattern: str) -> list[str]:
        return [one.id for one in read_input(tmp_path / pattern)]

    assert ids("*.vasp") == ["x"] and ids("**/*.vasp") == ["deep/y", "x"] and ids("d*/*") == ["deep/y"]
    assert ids(".checkpoints/*.vasp") == ["x-1"] and ids(".*/*.vasp") == [".checkpoints/x-1"]
    assert is_there(tmp_path / ".*/x-*.vasp") and not is_there(tmp_path / "**/x-1.vasp")


def test_files_that_a_folder_holds_besides_are_counted(rock_salt: Crystal, tmp_path: Path) -> None:
    for name in ("a.cif", "b/POSCAR", "id_prop.csv", "x.xyz", "b/y.xyz", "c.json", ".hidden", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert unread(tmp_path) == {".xyz": 2, ".json": 1, "README": 1}
    assert not unread(tmp_path / "a.cif") and not unread(tmp_path / "absent")
    (tmp_path / "lines.jsonl").write_text("")
    assert not unread(tmp_path)  # read as JSON lines


def test_a_task_of_matbench_by_the_name_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "matbench_log_kvrh.json.gz"
    with gzip.open(file, "wt") as opened:
        json.dump({"index": [0], "columns": ["structure", "log10(K_VRH)"], "data": [[{}, 1]]}, opened)
    with pytest.raises(ValueError, match="1 entries; matbench_log_kvrh has 10987"):
        next(read_input(file))


def test_what_ase_reads(rock_salt: Crystal, tmp_path: Path) -> None:
    pytest.importorskip("ase.io").write(tmp_path / "two.extxyz", rock_salt.to_structure().to_ase_atoms())
    (found,) = read_input(tmp_path / "two.extxyz")
    assert isinstance(found, Crystal)
    assert found.formula == "NaCl"


def test_a_table_of_cdvae(rock_salt: Crystal, tmp_path: Path) -> None:
    cif = rock_salt.to_structure().to(fmt="cif").replace('"', "")
    (tmp_path / "val.csv").write_text(f'material_id,cif\nx,"{cif}"\n')
    (found,) = read_input(tmp_path / "val.csv")
    assert not isinstance(found, Rejected | CrystalLine)
    assert found.read().formula == "NaCl"


def test_a_folder_of_both_kinds_is_refused(lines: Path, rock_salt: Crystal) -> None:
    (lines / "deep").mkdir()
    rock_salt.to_structure().to(str(lines / "deep" / "x.cif"))
    with pytest.raises(ValueError, match=r"holds structure files and JSON lines \(a\.jsonl, b\.jsonl\.gz\), .*; name"):
        read_unparsed(lines)
    assert len(list(read_unparsed(lines / "a.jsonl"))) == 4
