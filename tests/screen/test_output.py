import errno
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.screen import output as module
from cgcnn_jax.screen.output import FORMATS, Output

COLUMNS = {"id": "text", "formula": "text", "energy": "number", "unit": "text", "reason": "text"}


def manifest(format: str = "csv", **more: object) -> dict[str, object]:
    return {"format": format, "columns": COLUMNS, "input": ["a.jsonl"], **more}


def table(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS))


# NaN is a formula (sodium nitride), and ids may look like what is missing.
ODD = table(
    ("null", "NaN", 1 / 3, "eV", ""),
    ("NA", None, None, None, 'a,"b"\nc'),
    ("", "O2", -0.0, "eV", ""),
    ("1e5", "H2O", 2.5e-300, "eV", ""),
)


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_is_read_as_it_was_written(format: str, tmp_path: Path) -> None:
    folder = Output(tmp_path / "out")
    with folder.open(manifest(format)):
        folder.write(0, ODD, "digest")
    (found,) = folder.parts()
    pd.testing.assert_frame_equal(found, ODD, check_exact=True)
    assert folder.count() == {"shards": 1, "rows": 4, "predicted": 3, "failed": 1}
    # As another process finds it.
    later = Output.restore(tmp_path / "out")
    pd.testing.assert_frame_equal(next(later.parts()), ODD, check_exact=True)
    assert later.count() == folder.count() and later.best("energy", 1)["id"].tolist() == [""]
    with pytest.raises(FileNotFoundError):
        Output.restore(tmp_path / "nowhere")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("highest", [False, True])
def test_the_best_of_all_parts_are_those_of_one_table(format: str, highest: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # Few different values, so that some are equal at the edge of the best, and a part without any.
    values = [*rng.integers(0, 12, 60) / 4, *[None] * 20]
    rows = [(f"x{n}", "H", value, "eV", "" if value is not None else "bad") for n, value in enumerate(values)]
    folder = Output(tmp_path / "out")
    with folder.open(manifest(format)):
        for number in (3, 0, 2, 1):
            folder.write(number, table(*rows[20 * number : 20 * number + 20]), "")
    whole = table(*rows).dropna(subset=["energy"])
    for k in (1, 7, 25, 100):
        wanted = whole.sort_values("energy", ascending=not highest, kind="stable").head(k)
        assert folder.best("energy", k, highest=highest)["id"].tolist() == wanted["id"].tolist()
    folder.write_best("energy", 7, highest=highest)
    assert len(pd.read_csv(tmp_path / "out" / "top.csv")) == 7


def test_a_line_cut_short_is_a_shard_to_do_again_and_is_not_continued(tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest()):
        folder.write(0, ODD, "d0")
        folder.write(1, ODD, "d1")
    lines = (tmp_path / "shards.jsonl").read_text()
    (tmp_path / "shards.jsonl").write_text(lines[:-20])
    with folder.open(manifest()):
        assert list(folder.finished) == [0]
        folder.write(1, ODD, "d1")
    assert (tmp_path / "shards.jsonl").read_text() == lines


def test_a_part_that_was_removed_is_done_again(tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest()):
        folder.write(0, ODD, "d0")
        folder.write(1, ODD, "d1")
    (tmp_path / "parts" / "000000.csv").unlink()
    with folder.open(manifest()):
        assert list(folder.finished) == [1]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["part", "shards.jsonl"])
def test_a_flipped_byte_is_a_shard_to_do_again(format: str, name: str, tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest(format)):
        folder.write(0, ODD, "d0")
        folder.write(1, ODD, "d1")
    file = tmp_path / "parts" / f"000001.{format}" if name == "part" else tmp_path / name
    content = file.read_bytes()
    # Of shards.jsonl the second line, which is that of shard 1.
    for position in range(0 if name == "part" else content.index(b"\n") + 1, len(content) - 1, 7):
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with folder.open(manifest(format)):
            assert list(folder.finished) == [0], position
            folder.write(1, ODD, "d1")
        assert file.read_bytes() == content


def test_parts_from_before_there_were_checksums_are_taken_for_good(tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest()):
        folder.write(0, ODD, "d0")
    file = tmp_path / "shards.jsonl"
    new = file.read_text()
    old = {key: value for key, value in json.loads(new).items() if key != "checksum"}
    file.write_text(json.dumps(old) + "\n")
    with folder.open(manifest()):
        assert list(folder.finished) == [0]
    assert file.read_text() == new


@pytest.mark.parametrize("name", ["manifest.json", "summary.json"])
def test_a_damaged_file_of_the_folder_is_named(name: str, tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest()):
        folder.write_summary({"shards": 0})
    (tmp_path / name).write_text('{"format": ')
    with pytest.raises(ValueError, match=rf"{name}: damaged, not JSON"), folder.open(manifest()):
        assert folder.total == 0


def test_parts_without_a_manifest_are_of_nobody_knows_what(tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest()):
        folder.write(0, ODD, "digest")
    with Output(tmp_path).open(manifest()):
        pass
    (tmp_path / "manifest.json").unlink()
    again = Output(tmp_path)
    with again.open(manifest(input=["b.jsonl"])):
        assert not again.finished


def test_what_one_model_predicts_is_not_without_a_prediction(tmp_path: Path) -> None:
    columns = {"id": "text", "a:y": "number", "b:y": "number", "b:unit": "text", "reason": "text"}
    rows = [("x", 1.0, None, None, "b: no"), ("y", None, None, None, "no"), ("z", 1.0, 2.0, "eV", "")]
    folder = Output(tmp_path)
    with folder.open(manifest() | {"columns": columns}):
        folder.write(0, pd.DataFrame(rows, columns=list(columns)), "digest")
    assert folder.finished[0]["failed"] == 1


def test_another_screening_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest(versions={"jax": "1"})):
        pass
    with folder.open(manifest(versions={"jax": "2"})):  # has no effect
        pass
    with pytest.raises(ValueError, match=r"holds another screening:\n  input: \['a.jsonl'\] -> \['b.jsonl'\]"):
        folder.open(manifest(input=["b.jsonl"])).__enter__()
    with (
        folder.open(manifest()),
        pytest.raises(ValueError, match="another process is screening"),
        Output(tmp_path).open(manifest()),
    ):
        pass


def test_a_full_disk_leaves_a_folder_that_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Output(tmp_path)
    with folder.open(manifest()):
        folder.write(0, ODD, "d0")
        with monkeypatch.context() as patch:

            def full(path: Path, content: bytes) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr(module, "write_bytes", full)
            with pytest.raises(OSError, match="No space left on device; mend that, and the same command goes on"):
                folder.write(1, ODD, "d1")
        assert list(folder.finished) == [0]
        folder.write(1, ODD, "d1")
    assert [json.loads(line)["shard"] for line in (tmp_path / "shards.jsonl").read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_the_folder_of_a_run_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"holds {name}, which is of no screening; name another folder"):
        Output(tmp_path).open(manifest()).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_output_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        Output(tmp_path / "file").open(manifest()).__enter__()
    with pytest.raises(OSError, match="file"):
        Output(tmp_path / "file" / "below").open(manifest()).__enter__()


def test_parquet_without_pyarrow_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'cgcnn-jax\[parquet\]', or take --format=csv"):
        module.pyarrow()


def test_both_formats_hold_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [(f"x{n}", "H", value, "eV", "") for n, value in enumerate(rng.normal(size=100))]
    found = []
    for format in FORMATS:
        folder = Output(tmp_path / format)
        with folder.open(manifest(format)):
            folder.write(0, table(*rows), "")
        found.append(next(folder.parts()))
    for one, other in itertools.pairwise(found):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
