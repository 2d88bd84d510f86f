"""Torch files without torch: what is written reads back, what is dangerous or damaged is refused."""

import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax import torchfile
from cgcnn_jax.torchfile import TorchFileError

CONTENT = {
    "epoch": 3,
    "state_dict": {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([7.5])},
    "normalizer": {"mean": np.array(0.25, np.float32)},
    "args": {"task": "regression"},
}


class Runs:
    """Unpickled by pickle, this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def legacy(*parts: object) -> bytes:
    return b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, *parts))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    torchfile.write(tmp_path / "x.pth.tar", CONTENT)
    found = torchfile.read(tmp_path / "x.pth.tar")
    assert found["epoch"] == 3
    assert found["args"] == CONTENT["args"]
    for name, array in CONTENT["state_dict"].items():  # type: ignore[attr-defined]
        np.testing.assert_array_equal(found["state_dict"][name], array)
    assert found["normalizer"]["mean"].shape == ()
    assert found["normalizer"]["mean"] == 0.25


def test_torch_itself_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not a dependency; with it, files are compared with its own")
    torchfile.write(tmp_path / "x.pth.tar", CONTENT)
    found = torch.load(tmp_path / "x.pth.tar")
    np.testing.assert_array_equal(found["state_dict"]["a.weight"].numpy(), CONTENT["state_dict"]["a.weight"])  # type: ignore[index]
    for is_zip in (True, False):
        torch.save(
            {"w": torch.ones(2, 3).T, "s": np.float64(0.5)}, tmp_path / "y", _use_new_zipfile_serialization=is_zip
        )
        again = torchfile.read(tmp_path / "y")
        np.testing.assert_array_equal(again["w"], np.ones((3, 2)))
        assert again["s"] == 0.5


def test_a_malicious_file_is_refused_by_name_and_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "made"
    # The payload is real: pickle itself runs it.
    pickle.loads(pickle.dumps(Runs(tmp_path / "proof"), protocol=2))
    assert (tmp_path / "proof").exists()
    in_legacy = tmp_path / "legacy.pth.tar"
    in_legacy.write_bytes(legacy({"state_dict": Runs(target)}, []))
    in_header = tmp_path / "header.pth.tar"
    in_header.write_bytes(pickle.dumps(Runs(target), protocol=2))
    in_zip = tmp_path / "zip.pth.tar"
    with zipfile.ZipFile(in_zip, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Runs(target), protocol=2))
    for file in (in_legacy, in_header, in_zip):
        with pytest.raises(
            TorchFileError, match=rf"{file.name}: names posix\.mkdir, which a checkpoint has no need of"
        ):
            torchfile.read(file)
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    torchfile.write(tmp_path / "x", CONTENT)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TorchFileError, match=r"cut short|not a whole torch checkpoint"):
        torchfile.read(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data_NaCl\n_cell_length_a 5.64\n", "not a whole torch checkpoint"),
        (pickle.dumps({"a": 1}, protocol=2), "not a torch checkpoint"),
        (b"PK\x03\x04 broken", "not a whole torch checkpoint"),
    ],
    ids=["a CIF", "another pickle", "a broken zip"],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TorchFileError, match=message):
        torchfile.read(tmp_path / "x")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(TorchFileError, match="a zip archive, but not a torch checkpoint"):
        torchfile.read(tmp_path / "x")


def test_an_oversized_file_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchfile.write(tmp_path / "x", CONTENT)
    monkeypatch.setattr(torchfile, "MAX_BYTES", 100)
    with pytest.raises(TorchFileError, match="checkpoints above 0 MB are not read"):
        torchfile.read(tmp_path / "x")


def test_a_tensor_cannot_reach_outside_its_storage_nor_ask_for_more_than_it_holds() -> None:
    storage = torchfile._Storage("<f4", 4)
    storage.fill(struct.pack("<4f", 0, 1, 2, 3))
    np.testing.assert_array_equal(torchfile._Tensor(storage, 1, (3,), (1,)).array(), [1, 2, 3])
    for offset, shape, stride in ((2, (3,), (1,)), (0, (10**9,), (0,)), (-1, (2,), (1,)), (0, (2, 2), (3, 1))):
        with pytest.raises(TorchFileError, match="reaches outside its storage"):
            torchfile._Tensor(storage, offset, shape, stride).array()


def test_a_memo_index_of_billions_reserves_no_memory(tmp_path: Path) -> None:
    # PROTO 2, EMPTY_DICT, LONG_BINPUT 2^31 - 1, STOP: pickle in C would reserve tens of gigabytes.
    (tmp_path / "x").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(TorchFileError, match="not a torch checkpoint"):
        torchfile.read(tmp_path / "x")


def test_ordered_dictionaries_survive(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(legacy(collections.OrderedDict(b=1, a=2), []))
    assert list(torchfile.read(tmp_path / "x").items()) == [("b", 1), ("a", 2)]


def test_no_such_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth\.tar: no such file"):
        torchfile.read("nowhere.pth.tar")
