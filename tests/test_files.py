"""Files written whole or not at all, and names of files that texts of the data become."""

import pytest

from cgcnn_jax.files import file_name, write_text

HOSTILE = [
    "../../x",
    "/etc/x",
    "a/b",
    "..",
    ".",
    "",
    ".hidden",
    "..\\x",
    "C:\\x",
    "a\0b",
    "a\nb",
    "\u202egnp.exe",
    "x" * 5000,
    "\u00e9" * 5000,
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_whatever_a_text_says_its_file_lies_in_the_folder(tmp_path, text):
    folder = tmp_path / "folder"
    folder.mkdir()
    # As long as the endings that are put behind it, and the temporary file of write_bytes.
    write_text(folder / f"{file_name(text)}_12.json", "written")
    (written,) = tmp_path.rglob("*.json")
    assert written.parent == folder and written.read_text() == "written"
    assert written.name.isprintable() and not written.name.startswith(".")


@pytest.mark.parametrize("text", ["mp-149", "POSCAR.mp-1", "NaCl 2 (a)", "a\u0308-LiFePO\u2084", "-x", "x.."])
def test_usual_ids_are_their_own_names(text):
    assert file_name(text) == text


def test_long_texts_that_begin_alike_keep_apart():
    assert file_name("x" * 300 + "a") != file_name("x" * 300 + "b")
