"""Nothing that is read is a pickle or brings code, whatever it says."""

import contextlib
import dataclasses
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data import sets
from cgcnn_jax.data.sources import read_input, stream
from cgcnn_jax.data.sources.jsonl import line_of
from tests.pickles import unpickled
from tests.predictors import make_predictor


class Code:
    """Its pickle writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_the_listener_hears_a_pickle(tmp_path):
    with unpickled() as names:
        pickle.loads(pickle.dumps(Code(tmp_path / "ran")))
    assert any(name.endswith("Path.touch") for name in names) and (tmp_path / "ran").exists()


def test_arrays_of_objects_are_refused(tmp_path, rock_salt):
    ran = tmp_path / "ran"
    np.savez(tmp_path / "applicability.npz", ids=np.array([Code(ran)], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Applicability.load(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "name", ["a.cif", "POSCAR", "a.jsonl", "a.jsonl.gz", "a.json", "a.xyz", "a.traj", "a.db", "a.csv"]
)
def test_a_pickle_under_any_name_is_not_opened(tmp_path, name):
    pytest.importorskip("ase")
    ran = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(Code(ran)))
    with unpickled() as names, contextlib.suppress(ValueError):
        for entry in read_input(tmp_path / name):
            with contextlib.suppress(ValueError):
                entry.read()
    assert names == [] and not ran.exists()


def test_members_of_an_archive_are_streamed_whatever_path_they_name(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a/../../outside.json", json.dumps([{"a": 1}]))
    before = sorted(tmp_path.rglob("*"))
    assert list(stream.stream_items(folder / "a.zip")) == [{"a": 1}]
    assert sorted(tmp_path.rglob("*")) == before


def test_downloads_are_encrypted_or_have_a_checksum_and_stay_in_their_folder():
    for one in sets.SETS.values():
        for file in one.files:
            assert file.url.startswith("https://")
            assert Path(file.name).name == file.name and not file.name.startswith(".")
            # Figshare publishes none; what came is printed, and the records are counted.
            assert file.sha256 or file.git_blob or "figshare.com" in file.url


def test_hostile_ids_come_back_as_they_are_and_are_no_paths(tmp_path, rock_salt):
    ids = ["../../x", "/etc/passwd", "a/b", "x" * 5000, "a\0b", "=cmd|' /C calc'!A0", "<script>alert(1)</script>"]
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [line_of(dataclasses.replace(rock_salt, id=id)) for id in ids]
    (folder / "a.jsonl").write_text("".join(lines))
    table = make_predictor().predict_entries(read_input(folder / "a.jsonl"))
    assert list(table["id"]) == ids and set(table["reason"]) == {""}
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.jsonl"]
