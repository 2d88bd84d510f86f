"""Every reader of ours on damaged and arbitrary input: a crystal, a recorded reason, or an error of one sentence."""

import csv
import gzip
import json
import pickle
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgcnn_jax import config as configs
from cgcnn_jax import torchfile
from cgcnn_jax.data import store
from cgcnn_jax.data.crystal import Crystal, CrystalError, Rejected
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.sources import jarvis, jsonl, read_directory, read_files, read_input
from cgcnn_jax.data.sources.directory import TABLE
from cgcnn_jax.workdir import Workdir
from configs import base
from tests.fuzz import documents, mutations
from tests.fuzz.documents import DOCUMENTS, SALT, outcomes, small_checkpoint

# Hypothesis looks for a small example in each failure; the folders and fixtures it shares are written anew each time.
quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Na", "D", "X", 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    place = rng.randrange(len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return mutations._scrambled(data.decode("latin1"), rng) if data.isascii() else data[:place] + data[place + 3 :]
    if kind == 2:
        return data[:place] + rng.randbytes(rng.choice([1, 5])) + data[place:]
    if kind == 3:
        token = rng.choice(
            [b"NaN", b"1e999", b"null", b"[" * 30_000, b'"', b"{}", b"\\ud800", b"-", b"true", b"9" * 5000]
        )
        return data[:place] + token + data[place + len(token) :]
    flipped = bytearray(data)
    flipped[place] ^= 1 << rng.randrange(8)
    return bytes(flipped)


@pytest.fixture
def fuzz_task() -> Iterator[None]:
    with documents.task():
        yield


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_damaged_document_gives_crystals_reasons_or_an_error(tmp_path, fuzz_task, kind):
    name, write, read = DOCUMENTS[kind]
    good = write(tmp_path)
    path = tmp_path / name
    path.write_bytes(good)
    whole = outcomes(lambda: read(path))
    assert whole and not any(isinstance(one, Rejected) for one in whole), whole
    rng = random.Random(kind)
    for _ in range(60):
        path.write_bytes(damaged(good, rng))
        outcomes(lambda: read(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": "HO"}, "species must be a list"),
        ({"species": [True, 8]}, "True is no atomic number"),
        ({"split": {"a": 1}}, "split must be a text or the number of a fold"),
        ({"frac_coords": [[1e9, 0, 0], [0, 0, 0]]}, "out of all measure"),
        ({"lattice": np.diag([1e7, 4, 4]).tolist()}, "out of all measure"),
        ({"lattice": np.diag([1e3, 1e3, 1e-3]).tolist()}, "a cell 0.001 Å thick"),
        ({"species": [1] * 100_001}, "100,001 atoms; cells of more than 100,000 have no graph"),
        ({"id": "\ud800", "species": []}, r"^\\ud800: no atoms"),
    ],
)
def test_a_record_that_is_odd_is_refused_by_name(change, message):
    with pytest.raises(CrystalError, match=message):
        Crystal.from_record(SALT | change, "a.jsonl:1")


def test_a_fold_may_be_a_number():
    assert Crystal.from_record(SALT | {"split": 3}, "x").split == "3"


@quick
@given(key=st.sampled_from(sorted(SALT)), value=anything)
def test_any_value_in_a_json_line_gives_a_crystal_or_a_reason(key, value):
    line = json.dumps(SALT | {key: value})
    entry = jsonl.CrystalLine("a.jsonl:1", line).parse()
    assert isinstance(entry, Crystal | Rejected)
    assert entry.id.encode()
    if isinstance(entry, Crystal):
        # What was read can be written, and is then the same.
        again = jsonl.CrystalLine("a.jsonl:1", jsonl.line_of(entry)).parse()
        assert isinstance(again, Crystal) and again.digest() == entry.digest() and again.split == entry.split


@quick
@given(text=st.text(max_size=200))
def test_any_text_as_a_json_line_gives_a_crystal_or_a_reason(text):
    assert isinstance(jsonl.CrystalLine("a.jsonl:1", text).parse(), Crystal | Rejected)


def test_brackets_without_end_are_no_traceback(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 200_000 + "\n" + json.dumps(SALT))
    first, second = read_input(tmp_path / "a.jsonl")
    assert isinstance(first, Rejected) and "not JSON" in first.reason and isinstance(second, Crystal)
    (tmp_path / "b.json").write_text('[{"a": ' + "[" * 200_000)
    with pytest.raises(ValueError, match=r"b\.json: damaged after record 0"):
        list(jarvis.read_jarvis(tmp_path / "b.json"))
    (tmp_path / "c.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"c\.json: damaged"):
        jarvis.read_benchmark(tmp_path / "c.json")


def test_a_file_without_line_ends_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "_LONGEST", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"0" * 100_000))
    with pytest.raises(ValueError, match="line 1 has more than 1,000 letters; one crystal a line"):
        list(read_input(tmp_path / "a.jsonl.gz"))


@quick
@given(
    rows=st.lists(
        st.lists(
            st.sampled_from(["a", "b", "", "1", "nan", "x/../a", "1_0", "-1e999", "\u00e9", "n" * 300, "gap"])
            | st.text(max_size=5),
            max_size=3,
        ),
        max_size=5,
    )
)
def test_any_table_accounts_for_every_row_and_file_or_is_refused(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("table")
    for id in "ab":
        (folder / f"{id}.cif").write_text(mutations.calcite())
    with (folder / TABLE).open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows(rows)
    found = outcomes(lambda: read_directory(folder, ["gap"]))
    if found is not None:
        listed = [row for row in rows if any(cell.strip() for cell in row)]
        assert len(found) >= max(len(listed) - 1, 2)
        assert {"a", "b"} <= {entry.id for entry in found}


@pytest.mark.parametrize(
    ("text", "message"),
    [("id,gap,gap\na,1,2\n", "the column 'gap' stands twice"), ("a,1_0\nb,2\n", None), ("n" * 300 + ",1\nb,2\n", None)],
)
def test_tables_that_were_read_otherwise_than_they_stand(tmp_path, text, message):
    for id in "ab":
        (tmp_path / f"{id}.cif").write_text(mutations.calcite())
    (tmp_path / TABLE).write_text(text)
    if message:
        with pytest.raises(ValueError, match=message):
            list(read_directory(tmp_path, ["gap"]))
    else:
        assert sum(isinstance(entry, Rejected) for entry in read_directory(tmp_path, ["gap"])) >= 1


def test_pipes_and_names_that_are_no_text_are_no_hang_and_no_traceback(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.cif")
    (entry,) = read_files([tmp_path / "pipe.cif"])
    assert isinstance(entry, Rejected) and "neither a file nor a folder" in entry.reason
    with open(os.fsencode(tmp_path) + b"/\xff.cif", "w") as file:
        file.write(mutations.calcite())
    pipe, entry = read_files([tmp_path])
    assert isinstance(pipe, Rejected) and pipe.reason.endswith("pipe.cif: no file")
    assert entry.id == "\\udcff" and len(entry.digest()) == 64 and len(entry.read().species) == 30


def test_a_million_lines_are_refused_at_once(tmp_path):
    (tmp_path / "POSCAR").write_text("0.1 0.2 0.3\n" * 10**6)
    (entry,) = read_files([tmp_path])
    with pytest.raises(
        CrystalError, match=r"POSCAR: cannot be read .1,000,000 lines; files of more than 201,000 are not read"
    ):
        entry.read()


def test_a_damaged_torch_file_is_refused_or_read(tmp_path):
    path = tmp_path / "a.pth.tar"
    good, rng = small_checkpoint(path), random.Random(0)
    refused = 0
    for number in range(500):
        path.write_bytes(good[: number * len(good) // 200] if number < 200 else damaged(good, rng))
        try:
            torchfile.read(path)
        except torchfile.TorchFileError:
            refused += 1
    assert refused >= 200  # whatever is cut short


def legacy(body: bytes) -> bytes:
    return b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {})) + body


def test_a_small_torch_file_cannot_stand_for_more_than_any_memory(tmp_path):
    nested: list = []
    for _ in range(60):
        nested = [nested, nested]  # 2^60 lists by name
    path = tmp_path / "a.pth.tar"
    path.write_bytes(legacy(pickle.dumps(nested, protocol=2) + pickle.dumps([], protocol=2)))
    with pytest.raises(torchfile.TorchFileError, match="unpacks to more than a checkpoint holds"):
        torchfile.read(path)


def test_a_torch_file_cannot_set_attributes(tmp_path):
    # GLOBAL a function, and BUILD: new defaults for a function of this process.
    path = tmp_path / "a.pth.tar"
    body = b"\x80\x02c_codecs\nencode\n(N}U\x0c__defaults__(U\x05utf-8tsub." + pickle.dumps([], protocol=2)
    path.write_bytes(legacy(body))
    before = torchfile._encode.__defaults__
    with pytest.raises(torchfile.TorchFileError):
        torchfile.read(path)
    assert torchfile._encode.__defaults__ == before


@pytest.fixture
def crystals(rock_salt) -> list[Crystal]:
    copper = Crystal.from_arrays("Cu", 3.6 * np.eye(3), ["Cu"], [[0, 0, 0]])
    return [rock_salt, copper, Crystal.from_arrays("lonely", 20 * np.eye(3), ["Ar"], [[0, 0, 0]])]


def test_a_damaged_store_is_built_anew(tmp_path, crystals):
    good = store.build(crystals, Featurizer(), cache=tmp_path)
    expected = {name: np.array(array) for name, array in store._arrays(good).items()}
    (folder,) = tmp_path.iterdir()
    rng = random.Random(0)
    files = sorted(folder.iterdir())
    for number in range(3 * len(files)):
        file = files[number % len(files)]
        data = bytearray(file.read_bytes())
        if number < len(files):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data if number < len(files) else data[: rng.randrange(len(data))])
        if number >= 2 * len(files) and file.name != "index.json":
            file.unlink()
        again = store.build(crystals, Featurizer(), cache=tmp_path)
        assert again.ids == good.ids and again.rejected == good.rejected
        for name, array in store._arrays(again).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=file.name)


def test_a_damaged_part_of_a_store_is_built_anew(tmp_path, crystals, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK", 1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.build(crystals, Featurizer(), cache=tmp_path)
    part = sorted(tmp_path.glob("*.parts/*.npz"))[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes(data[:-30])
    again = store.build(crystals, Featurizer(), cache=tmp_path)
    assert again.ids == ("NaCl", "Cu") and again.rejected[0].id == "lonely"


FIELDS = sorted(
    f"{group}.{field}"
    for group, fields in configs.to_dict(base.get_config()).items()
    if isinstance(fields, dict)
    for field in fields
)


@quick
@given(
    name=st.sampled_from(FIELDS),
    number=st.floats() | st.integers(-(10**9), 10**9),
    text=st.text(max_size=9),
    several=st.lists(st.floats() | st.integers(-9, 9) | st.text(max_size=3), max_size=4),
    patience=st.integers(0, 1),
    kind=st.sampled_from(["ratio", "size", "files", "k_fold"]),
)
def test_any_value_in_a_configuration_is_valid_or_an_error_that_names_a_field(
    name, number, text, several, patience, kind
):
    config = base.get_config()
    config.train.patience, config.split.kind = patience, kind
    group, field = name.split(".")
    old = config[group][field]
    with config.unlocked():
        try:
            config[group][field] = (
                text
                if isinstance(old, str)
                else tuple(several)
                if isinstance(old, tuple)
                else number
                if old is None
                else type(old)(number)
            )
        except (TypeError, ValueError, OverflowError):
            return  # config_flags says so
    reason = ""
    try:
        configs.validate(config)
    except ValueError as error:
        reason = str(error)
    if reason:
        assert "config." in reason or "unknown" in reason
    else:
        assert configs.to_dict(configs.from_dict(configs.to_dict(config))) == configs.to_dict(config)


@pytest.mark.parametrize(("field", "cause"), [("train.patience", "patience"), ("data.target", "target")])
def test_a_configuration_that_lacks_a_field_is_refused(field, cause):
    stored = configs.to_dict(base.get_config())
    group, name = field.split(".")
    del stored[group][name]
    with pytest.raises(ValueError, match=rf"config lacks a field, or one has a wrong type \({cause}"):
        configs.validate(configs.from_dict(stored))
    stored[group][name] = {}
    with pytest.raises(ValueError, match=r"config\.|config lacks a field, or one has a wrong type"):
        configs.validate(configs.from_dict(stored))


@pytest.mark.parametrize(
    "damage",
    [b"\xff" * 9, b"[1]\n", b'{"epoch": 1}\n', b'{"epoch": 1, "step": "20"}\n', b"[" * 100_000],
    ids=["bytes", "list", "no step", "text", "brackets"],
)
def test_records_of_a_run_end_at_the_first_that_is_damaged(tmp_path, damage):
    place = Workdir(tmp_path)
    for epoch in range(2):
        place.append_record({"epoch": epoch, "step": 10 * (epoch + 1), "train_loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(damage + b"\n")
    place.append_record({"epoch": 3, "step": 40})
    assert [record["epoch"] for record in place.records()] == [0, 1] and place.last_step() == 20
    assert place.keep_records(1) == [0] and place.last_step() == 10


@quick
@given(name=st.sampled_from(["data", "split", "graph", "model"]), value=anything)
def test_a_stored_configuration_without_its_groups_is_refused(name, value):
    stored = configs.to_dict(base.get_config())
    for damage in ({key: stored[key] for key in stored if key != name}, value):
        if not isinstance(damage, dict) or name not in damage:
            with pytest.raises(ValueError, match="not a configuration: it has no"):
                configs.from_dict(damage)
