"""Structure files of any kind, alone or in folders."""

import bz2
import errno
import gzip
import json
import lzma
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax.data import store
from cgcnn_jax.data.crystal import Crystal, CrystalError, CrystalFile, Rejected
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import read_files


@pytest.fixture
def structure(cesium_chloride):
    return cesium_chloride.to_structure()


@pytest.fixture
def texts(structure) -> dict[str, str]:
    return {kind: structure.to(fmt=kind) for kind in ("cif", "poscar", "xsf")}


@pytest.mark.parametrize(
    ("name", "kind", "id"),
    [
        ("a.cif", "cif", "a"),
        ("A.CIF", "cif", "A"),
        ("mp-1.v2.cif", "cif", "mp-1.v2"),
        ("a.mcif", "cif", "a"),
        ("POSCAR", "poscar", "POSCAR"),
        ("CONTCAR", "poscar", "CONTCAR"),
        ("POSCAR.mp-1", "poscar", "POSCAR.mp-1"),
        ("a.vasp", "poscar", "a"),
        ("a.poscar", "poscar", "a"),
        ("a.xsf", "xsf", "a"),
    ],
)
def test_formats_and_ids(tmp_path, texts, cesium_chloride, name, kind, id):
    (tmp_path / name).write_text(texts[kind])
    (from_folder,) = read_files([tmp_path])
    (alone,) = read_files([tmp_path / name])
    assert from_folder == alone and alone.id == id
    crystal = alone.read()
    np.testing.assert_array_equal(np.sort(crystal.species), [17, 55])
    np.testing.assert_allclose(crystal.lattice, cesium_chloride.lattice, atol=1e-5)


def test_files_that_differ_in_their_endings_keep_them(tmp_path, texts):
    for name in ("Si.cif", "Si.vasp", "MgO.cif", "MgO.CIF", "deep/Si.cif", "deep/Ge.cif.gz", "Ge.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(texts["cif"])
    ids = [entry.id for entry in read_files([tmp_path])]
    assert ids == ["MgO.CIF", "MgO.cif", "Si.cif", "Si.vasp", "deep/Ge", "deep/Si"]


def test_links_are_followed_and_those_that_lead_nowhere_told(tmp_path, texts):
    for name in ("in/a.cif", "elsewhere/b.cif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(texts["cif"])
    for link, target in (
        ("in/linked", "elsewhere"),
        ("in/c.cif", "elsewhere/b.cif"),
        ("elsewhere/up", "in"),
        ("in/d.cif", "gone"),
    ):
        (tmp_path / link).symlink_to(tmp_path / target)
    *found, lost = sorted(read_files([tmp_path / "in"]), key=lambda entry: isinstance(entry, Rejected))
    assert [entry.id for entry in found] == ["a", "c", "linked/b"]
    assert lost.reason == f"{tmp_path}/in/d.cif: a link that leads nowhere"


def test_folders_are_read_with_subfolders_in_the_order_of_names(tmp_path, texts):
    for name in ("b.cif", "a/POSCAR", "a/x.cif", "c/d/y.vasp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(texts["cif"])
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder.cif").mkdir()
    assert [entry.id for entry in read_files([tmp_path])] == ["a/POSCAR", "a/x", "b", "c/d/y"]


@pytest.mark.parametrize(("ending", "package"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_compressed_files_of_folders_are_read(tmp_path, texts, cesium_chloride, ending, package):
    (tmp_path / f"a.cif{ending}").write_bytes(package.compress(texts["cif"].encode()))
    (tmp_path / f"notes{ending}").write_bytes(package.compress(b""))
    (found,) = read_files([tmp_path])
    assert found.id == "a"
    np.testing.assert_allclose(found.read().lattice, cesium_chloride.lattice, atol=1e-5)


def test_paths_are_read_in_their_order(tmp_path, texts):
    for name in ("b.cif", "a.cif"):
        (tmp_path / name).write_text(texts["cif"])
    assert [entry.id for entry in read_files([str(tmp_path / "b.cif"), tmp_path / "a.cif"])] == ["b", "a"]


def test_what_is_not_there_is_rejected(tmp_path):
    (tmp_path / "empty").mkdir()
    missing, empty = read_files([tmp_path / "no.cif", tmp_path / "empty"])
    assert isinstance(missing, Rejected) and missing.reason.endswith("no.cif: no such file")
    assert isinstance(empty, Rejected) and "a folder without structure files (.cif" in empty.reason


@pytest.mark.parametrize("text", ["", "no crystal", "data_x\n_cell_length_a 4\n"])
def test_unreadable_files_name_themselves_and_the_reason_in_one_line(tmp_path, text):
    (tmp_path / "a.cif").write_text(text)
    with pytest.raises(CrystalError, match=r"^a\.cif: cannot be read \(.+\)$"):
        CrystalFile("a", tmp_path / "a.cif").read()


def test_a_file_cut_short_anywhere_has_no_structure_and_is_told_apart_from_what_the_library_found(tmp_path, texts):
    lines = texts["cif"].rstrip().splitlines()
    for n in range(len(lines)):
        (tmp_path / "a.cif").write_text("\n".join(lines[:n]))
        with pytest.raises(CrystalError) as told:
            CrystalFile("a", tmp_path / "a.cif").read()
        is_ours = "its sites make" in str(told.value)
        assert is_ours or re.search(r"\(pymatgen: .+; is the file whole\?\)$", str(told.value)), str(told.value)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_an_error_of_the_file(tmp_path, texts, suffix):
    (tmp_path / f"a.cif.{suffix}").write_text(texts["cif"])
    with pytest.raises(
        CrystalError, match=rf"^a\.cif\.{suffix}: cannot be read \(it is not compressed as \.{suffix} says\)$"
    ):
        CrystalFile("a", tmp_path / f"a.cif.{suffix}").read()


@pytest.mark.parametrize(
    ("name", "package"), [("a.cif.gz", gzip), ("a.cif.bz2", bz2), ("a.json.gz", gzip), ("a.cif.xz", lzma)]
)
def test_a_compressed_file_that_is_damaged_is_an_error_of_the_file(tmp_path, texts, structure, name, package):
    content = bytearray(package.compress((texts["cif"] if "cif" in name else structure.to_json()).encode()))
    content[-6 if package is gzip else len(content) // 2] ^= 0xFF  # in the checksum of gzip
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CrystalError, match=rf"^{re.escape(name)}: cannot be read \(.+; is the file whole\?\)$"):
        CrystalFile("a", tmp_path / name).read()


@pytest.mark.parametrize("name", ["POSCAR", "a.vasp", "CONTCAR.relax", "a.xsf", "a.cssr"])
def test_a_compressed_file_is_read_and_checked_as_it_is_without_compression(tmp_path, structure, name):
    text = structure.to(fmt=name[2:] if name[2:] in ("xsf", "cssr") else "poscar")
    cut = text[: text.rstrip().rindex("\n")]  # the last atom
    unnamed = re.sub(r"^Cs Cl\n| C[sl]$", "", text, flags=re.MULTILINE)  # as VASP 4 wrote it
    for number, content in enumerate((text, cut, *([unnamed] if unnamed != text else []))):
        told = []
        for ending in ("", ".gz"):
            path = tmp_path / f"{number}" / f"{name}{ending}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(content.encode()) if ending else content.encode())
            (entry,) = [one for one in read_files([path.parent]) if one.path == path]
            try:
                told.append(Crystal.to_structure(entry.read()))
            except CrystalError as error:
                told.append(str(error).replace(".gz", ""))
        assert told[0] == told[1]
        assert isinstance(told[0], str) == (number > 0), told[0]


def test_a_compressed_file_of_millions_of_lines_is_refused(tmp_path):
    for package, ending in ((gzip, "gz"), (lzma, "xz")):
        path = tmp_path / f"POSCAR.{ending}"
        path.write_bytes(package.compress(b"0.1 0.2 0.3\n" * 10**6))
        with pytest.raises(
            CrystalError, match=rf"^POSCAR\.{ending}: cannot be read .1,000,000 lines; files of more than"
        ):
            CrystalFile("a", path).read()
    path.write_bytes(lzma.compress(bytes(65 << 20)))
    with pytest.raises(CrystalError, match="it unpacks to more than 64 MB"):
        CrystalFile("a", path).read()


def test_hidden_files_and_folders_are_no_crystals(tmp_path, texts):
    for name in ("a.cif", "._a.cif", ".ipynb_checkpoints/a-checkpoint.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(texts["cif"])
    assert [entry.id for entry in read_files([tmp_path])] == ["a"]
    assert [entry.id for entry in read_files([tmp_path / "._a.cif"])] == ["._a"]


def test_a_file_that_vanished_is_unreadable(tmp_path):
    with pytest.raises(CrystalError, match=r"a\.cif: cannot be read"):
        CrystalFile("a", tmp_path / "a.cif").read()


@pytest.mark.parametrize("has_cache", [False, True])
def test_a_file_of_someone_else_is_unreadable_and_the_others_are_read(tmp_path, texts, monkeypatch, has_cache):
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name in ("a.cif", "POSCAR", "c.cif"):
        (folder / name).write_text(texts["poscar" if name == "POSCAR" else "cif"])
    opened = Path.open

    def refuse(path, *arguments, **options):  # root may read all
        if path.name in ("a.cif", "POSCAR"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    def build():
        return store.build(list(read_files([folder])), Featurizer(), cache=tmp_path / "cache" if has_cache else None)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        for _ in range(2):
            built = build()
            assert built.ids == ("c",)
            assert [one.reason for one in built.rejected] == [
                f"{name}: cannot be read (Permission denied)" for name in ("POSCAR", "a.cif")
            ]
    assert build().ids == ("POSCAR", "a", "c")


def test_a_folder_that_may_not_be_entered_costs_its_own_files_alone(tmp_path, texts, monkeypatch):
    for name in ("a/x.cif", "b.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(texts["cif"])
    is_file = Path.is_file

    def refuse(path, **options):
        if path.parent.name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path, **options)

    monkeypatch.setattr(Path, "is_file", refuse)
    inside, beside = read_files([tmp_path])
    assert isinstance(inside, Rejected) and inside.reason.endswith("x.cif: cannot be read (Permission denied)")
    assert len(beside.read().species) == 2


def test_a_machine_without_room_for_temporary_files_is_no_fault_of_the_file(tmp_path, structure, monkeypatch):
    (tmp_path / "POSCAR.gz").write_bytes(gzip.compress(structure.to(fmt="poscar").encode()))

    def fail():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    with pytest.raises(FileNotFoundError, match="No usable temporary directory"):
        CrystalFile("a", tmp_path / "POSCAR.gz").read()


def test_digest_follows_content_and_name(tmp_path, texts):
    for name, text in (("a.cif", texts["cif"]), ("b.cif", texts["cif"]), ("c.cif", texts["cif"] + " ")):
        (tmp_path / name).write_text(text)
    digests = {name: CrystalFile("same", tmp_path / name).digest() for name in ("a.cif", "b.cif", "c.cif")}
    assert len(set(digests.values())) == 3
    assert CrystalFile("other", tmp_path / "a.cif", {"gap": 1.0}).digest() == digests["a.cif"]


def test_reading_is_silent(tmp_path, texts):
    (tmp_path / "a.cif").write_text(texts["cif"].replace("0.5", "0.3333", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CrystalFile("a", tmp_path / "a.cif").read()


@pytest.mark.parametrize(
    "name", ["a.json", "a.JSON", "a.mson", "a.json.gz", "POSCAR.json", "a.yaml", "a.yml.gz", "a.json.xsf"]
)
def test_a_document_of_pymatgen_is_read_and_imports_no_module_that_it_names(
    tmp_path, monkeypatch, structure, cesium_chloride, name
):
    # pymatgen's own reader imports module_of_data here, and runs what stands in it.
    (tmp_path / "module_of_data.py").write_text("raise SystemExit('code from the data ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    document = structure.as_dict()
    named = {"@module": "module_of_data", "@class": "Any", "@callable": "any"}
    document |= {"properties": {"x": named}}
    document["sites"][0] |= {"properties": {"magmom": named}}
    text = json.dumps(document).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    crystal = CrystalFile("a", tmp_path / name).read()
    assert "module_of_data" not in sys.modules
    np.testing.assert_array_equal(np.sort(crystal.species), [17, 55])
    np.testing.assert_array_equal(crystal.lattice, cesium_chloride.lattice)


def test_a_document_cut_short_is_an_error_of_the_file_in_one_line(tmp_path, structure):
    whole = {"JSON": structure.to(fmt="json"), "YAML": structure.to(fmt="yaml")}
    for kind, text in whole.items():
        name = f"a.{kind.lower()}"
        (tmp_path / name).write_text(text[: len(text) // 2] + "\n  - {")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode())[:-20])
        for file in (name, f"{name}.gz"):
            with pytest.raises(CrystalError) as told:
                CrystalFile("a", tmp_path / file).read()
            start = f"{file}: cannot be read ({'Compressed file ended' if file.endswith('gz') else f'not {kind}: '}"
            assert str(told.value).startswith(start) and str(told.value).endswith("; is the file whole?)")
            assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["[]", "{}", '{"sites": 3}', '{"sites": [{}], "lattice": {}}', "{"])
def test_a_document_that_is_no_structure_is_an_error_of_the_file(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CrystalError, match=r"^a\.json: cannot be read \(.+\)$"):
        CrystalFile("a", tmp_path / "a.json").read()
