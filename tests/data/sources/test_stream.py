"""Large JSON files are read item by item."""

import gzip
import json
import tracemalloc
import zipfile

import pytest

from cgcnn_jax.data.sources.stream import stream_items


def write(path, text: str):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("set.json", text)
            archive.writestr("__MACOSX/._set.json", "rubbish")
    else:
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["set.json", "set.json.gz", "set.json.zip"])
def test_memory_stays_flat(tmp_path, name):
    record = {"values": [0.123456789] * 100, "text": "x" * 100}
    path = write(tmp_path / name, json.dumps([record] * 8000))
    tracemalloc.start()
    assert sum(item == record for item in stream_items(path, "item")) == 8000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 11 MB of text, more as objects.
    assert peak < 1e6


def test_a_zip_must_hold_one_document(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.json.zip", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(ValueError, match=r"must hold one \.json file, holds a\.json, b\.json"):
        list(stream_items(tmp_path / "set.json.zip", "item"))


@pytest.mark.parametrize("name", ["set.json", "set.json.gz", "set.json.zip"])
def test_damage_is_told_after_what_was_whole(tmp_path, name):
    path = write(tmp_path / name, json.dumps(list(range(200_000))))
    whole = path.read_bytes()
    # A zip that is cut short has lost its table of contents; one with a changed byte has not.
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=rf"{name}: damaged after record \d+ \("):
        list(stream_items(path, "item"))
    path.write_bytes(whole[:middle])
    with pytest.raises(ValueError, match=rf"{name}: damaged.*fetch or make it again"):
        list(stream_items(path, "item"))
