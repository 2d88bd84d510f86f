"""Large JSON files are read item by item."""

import gzip
import json
import tracemalloc
import zipfile

import pytest

from cgcnn_jax.data.sources import stream
from cgcnn_jax.data.sources.stream import read_member, stream_items


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
    assert sum(item == record for item in stream_items(path)) == 8000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 11 MB of text, 30 as objects; a few pieces of 0.26 MB are held.
    assert peak < 2e6


def test_a_zip_must_hold_one_document(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.json.zip", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(ValueError, match=r"must hold one \.json file, holds a\.json, b\.json"):
        list(stream_items(tmp_path / "set.json.zip"))


@pytest.mark.parametrize("name", ["set.json", "set.json.gz", "set.json.zip"])
def test_damage_is_told_after_what_was_whole(tmp_path, name):
    path = write(tmp_path / name, json.dumps(list(range(200_000))))
    whole = path.read_bytes()
    # A zip that is cut short has lost its table of contents; one with a changed byte has not.
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=rf"{name}: damaged after record \d+ \("):
        list(stream_items(path))
    path.write_bytes(whole[:middle])
    with pytest.raises(ValueError, match=rf"{name}: damaged.*fetch or make it again"):
        list(stream_items(path))


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 1])
def test_pieces_may_end_anywhere(tmp_path, monkeypatch, block, indent):
    monkeypatch.setattr(stream, "_BLOCK", block)
    items = [12, 3.25, -1e-7, float("inf"), "NaN, ]} Å \\", None, True, [], {}, {"a": [1, {"b": [2]}]}, 7]
    content = {"index": [1, 2], 'a "name': {"data": [9]}, "data": items, "after": 0}
    path = write(tmp_path / "set.json", json.dumps(content, indent=indent, ensure_ascii=False))
    assert list(stream_items(path, "data")) == items
    assert read_member(path, "index") == [1, 2] and read_member(path, "nothing") is None
    assert list(stream_items(path, "nothing")) == [] == list(stream_items(path))
    path = write(tmp_path / "list.json", json.dumps(items, indent=indent))
    assert list(stream_items(path)) == items


def test_nan_is_read_as_python_writes_it(tmp_path):
    path = write(tmp_path / "set.json", json.dumps([{"value": float("nan")}]))
    assert "NaN" in path.read_text()
    (item,) = stream_items(path)
    assert item["value"] != item["value"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "record 0"),
        ("[1, 2", r"record 1 \(the end follows a value\)"),
        ("[1, 2 3]", r"record 2 \(, or \] should stand where 3\)"),
        ("[1, {'a': 2}]", r"record 1 \(Expecting property name"),
        ("[1, 2]\n[3]", r"record 2 \(\[ follows the list"),
        ("[] 1", r"record 0 \(1 follows the list"),
        ("<html>moved</html>", "record 0"),
    ],
)
def test_what_is_not_json_is_told(tmp_path, text, message):
    path = write(tmp_path / "set.json", text)
    if text.startswith("["):
        with pytest.raises(ValueError, match=rf"set\.json: damaged after {message}"):
            list(stream_items(path))
    else:
        assert list(stream_items(path)) == []
        with pytest.raises(ValueError, match=r"damaged before columns \(\{ should stand where"):
            read_member(path, "columns")


def test_a_record_without_end_does_not_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_BLOCK", 10)
    monkeypatch.setattr(stream, "_LONGEST", 1000)
    path = write(tmp_path / "set.json", '[1, "' + "x" * 1_000_000 + '"]')
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"damaged after record 1 \(Unterminated string"):
        list(stream_items(path))
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("place", "byte", "message"),
    [
        (8, 1, "that compression method is not supported|is encrypted"),
        (10, 99, "compression method is not supported|is encrypted"),
        (6, 140, "zip file version 14.0"),
        (8, 0, None),
    ],
    ids=["encrypted", "unknown method", "unknown version", "as it was"],
)
def test_a_zip_that_cannot_be_unpacked_is_told(tmp_path, place, byte, message):
    path = tmp_path / "set.json.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set.json", "[1]")
    content = bytearray(path.read_bytes())
    # Flags and method of the directory's entry, and those of the file itself, which must agree.
    directory = content.index(b"PK\x01\x02")
    content[directory + place] = content[place - 2] = byte
    path.write_bytes(content)
    if message is None:
        assert list(stream_items(path)) == [1]
    else:
        with pytest.raises(ValueError, match=rf"set\.json\.zip: cannot be unpacked \(.*({message})"):
            list(stream_items(path))


@pytest.mark.parametrize("offset", [46, 42], ids=["a name that is no text", "a place beyond the file"])
def test_a_damaged_directory_of_a_zip_is_told(tmp_path, offset):
    path = tmp_path / "set.json.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sét.json", "[1]")
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + offset : directory + offset + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"set\.json\.zip: damaged \("):
        list(stream_items(path))
