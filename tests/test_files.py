"""Files written whole or not at all, and names of files that texts of the data become."""

import errno
import os
from pathlib import Path

import platformdirs
import pytest

from cgcnn_jax.files import file_name, lock_if_free, locked, user_cache, write_text

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


def test_links_stay_and_rights_are_the_users(tmp_path):
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o640)
    (tmp_path / "link").symlink_to("kept")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "kept").read_text() == "new"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o640
    before = os.umask(0o077)
    try:
        write_text(tmp_path / "own", "")
    finally:
        os.umask(before)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_written_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "rows")
    assert os.read(reader, 100) == b"rows" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


@pytest.mark.parametrize(("given", "folder"), [("", None), ("~/cache", "cache"), ("/x", "/x")])
def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch, given, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CGCNN_JAX_CACHE", given)
    assert user_cache() == (tmp_path / folder if folder else Path(platformdirs.user_cache_path("cgcnn_jax")))


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
