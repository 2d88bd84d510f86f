"""Files written whole or not at all, and names of files that texts of the data become."""

import errno
import os

import pytest

from cgcnn_jax.files import file_name, lock_if_free, locked, write_text

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
    # As long as the endings that are put behind it, and the temporary file of written_whole.
    write_text(folder / f"{file_name(text)}_12.json", "written")
    (written,) = tmp_path.rglob("*.json")
    assert written.parent == folder and written.read_text() == "written"
    assert written.name.isprintable() and not written.name.startswith(".")


@pytest.mark.parametrize("text", ["mp-149", "POSCAR.mp-1", "NaCl 2 (a)", "a\u0308-LiFePO\u2084", "-x", "x.."])
def test_usual_ids_are_their_own_names(text):
    assert file_name(text) == text


def test_long_texts_that_begin_alike_keep_apart():
    assert file_name("x" * 300 + "a") != file_name("x" * 300 + "b")


def test_a_killed_write_leaves_nothing_once_the_folder_is_held_again(tmp_path, monkeypatch):
    write_text(tmp_path / "kept.json", "old")
    monkeypatch.setattr("os.replace", lambda *paths: os._exit(9))  # at the last moment before the file is there
    child = os.fork()
    if not child:
        write_text(tmp_path / "kept.json", "new")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(tmp_path.iterdir())) == 2
    for other in (".hidden", "mine.tmp", ".mine.tmp"):
        (tmp_path / other).touch()
    with locked(tmp_path / ".lock", "held"):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "kept.json", ".hidden", "mine.tmp", ".mine.tmp"}
    assert (tmp_path / "kept.json").read_text() == "old"


def test_a_file_gets_its_name_when_its_content_is_on_the_disk(tmp_path, monkeypatch):
    happened = []

    def told(name, function):
        def wrapper(*arguments):
            happened.append(
                (name, (tmp_path / "a").exists(), [os.path.getsize(path) for path in tmp_path.glob(".a.*")])
            )
            return function(*arguments)

        return wrapper

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, told(name, getattr(os, name)))
    write_text(tmp_path / "a", "12345")
    assert happened == [("fsync", False, [5]), ("replace", False, [5])]
    assert (tmp_path / "a").read_text() == "12345"


@pytest.mark.parametrize("waits", [False, True])
def test_a_file_system_without_locks_is_not_taken_for_another_process(tmp_path, monkeypatch, waits):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(OSError, match=r"this file system has no locks, .*\.lock"),
        lock_if_free(tmp_path / ".lock", waits=waits),
    ):
        pass
