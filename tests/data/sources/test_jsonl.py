"""JSON lines, whole and damaged."""

import gzip
import json

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.sources import read_jsonl


def line(id: str | None = "a", **more) -> str:
    record = {"lattice": (4 * np.eye(3)).tolist(), "species": ["Na"], "frac_coords": [[0, 0, 0]], **more}
    return json.dumps(record if id is None else {"id": id, **record}) + "\n"


def write(path, text: str):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_records_come_in_order_with_labels_and_split(tmp_path, name, bom):
    text = bom + line("a", properties={"gap": 1, "k": None}, split="val") + "\n  \n" + line(None)
    first, second = read_jsonl(write(tmp_path / name, text))
    assert (first.id, first.split, second.id, second.split) == ("a", "val", f"{name}:4", None)
    np.testing.assert_equal(dict(first.targets), {"gap": 1.0, "k": np.nan})


def test_a_folder_of_parts_is_read_in_the_order_of_their_names(tmp_path):
    for name, id in (("x.part2of2.jsonl.gz", "c"), ("x.part1of2.jsonl.gz", "b"), ("a.jsonl", "a")):
        write(tmp_path / name, line(id))
    write(tmp_path / "README.md", "not a crystal")
    assert [crystal.id for crystal in read_jsonl(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"id": "b", "lattice": [[4, 0', r"set.jsonl:2: not JSON \("),
        ("[1, 2]", "set.jsonl:2: a line must hold one JSON object, got list"),
        ('"text"', "got str"),
        ('{"id": "b"}', "b: the record has no lattice, species, frac_coords; it has id"),
        ("{}", "set.jsonl:2: the record has no lattice"),
        (line("b", species=["Na", "Xx"])[:-1], "b: unknown element 'Xx'"),
        (line("b", species=[1e300])[:-1], "b: "),
        (line("b", lattice=None)[:-1], "b: "),
        (line("b", frac_coords={"x": 1})[:-1], "b: "),
        (line("b", properties=[1])[:-1], "b: properties must be an object"),
    ],
)
def test_a_broken_line_is_rejected_and_the_others_are_read(tmp_path, bad, message):
    path = write(tmp_path / "set.jsonl", f"{line('a')}{bad}\n{line('c')}")
    a, rejected, c = read_jsonl(path)
    # By the id where the line has one, by its place otherwise.
    assert (a.id, rejected.id, c.id) == ("a", "b" if message.startswith("b: ") else "set.jsonl:2", "c")
    assert isinstance(rejected, Rejected) and message.replace("\\", "") in rejected.reason


def test_a_truncated_file_is_an_error_after_what_was_whole(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "set.jsonl.gz"
    whole = gzip.compress("".join(line(str(n), note=rng.bytes(40).hex()) for n in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    seen: list = []
    with pytest.raises(ValueError, match=r"set\.jsonl\.gz: damaged after line \d+ \(.*fetch or make it again"):
        seen.extend(read_jsonl(path))
    assert len(seen) > 1000 and all(isinstance(crystal, Crystal) for crystal in seen)


@pytest.mark.parametrize(
    "content", [b"", b"not gzip at all", gzip.compress(b"\xff\xfe\xfa")], ids=["emptied", "no gzip", "no utf-8"]
)
def test_other_damage_is_an_error_too(tmp_path, content):
    (tmp_path / "set.jsonl.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"set\.jsonl\.gz: damaged"):
        list(read_jsonl(tmp_path / "set.jsonl.gz"))


def test_nothing_to_read_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "no.jsonl"):
        with pytest.raises(FileNotFoundError, match=r"no such file, or a folder without \.jsonl or \.jsonl\.gz files"):
            list(read_jsonl(path))


def test_real_set_is_read_whole(shared_data):
    crystals = list(read_jsonl(shared_data / "matbench_phonons"))
    # As its README says: 1265 records, 2 to 48 atoms, mean label 581.35.
    assert len(crystals) == 1265 and all(isinstance(crystal, Crystal) for crystal in crystals)
    assert {min(len(c.species) for c in crystals), max(len(c.species) for c in crystals)} == {2, 48}
    assert np.mean([c.targets["last_phdos_peak_cm-1"] for c in crystals]) == pytest.approx(581.35, abs=0.005)
