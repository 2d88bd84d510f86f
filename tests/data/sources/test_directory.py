"""id_prop.csv as people write it."""

import re
import unicodedata

import numpy as np
import pytest

from cgcnn_jax.data.crystal import CrystalFile, Rejected
from cgcnn_jax.data.sources import read_directory


def make(folder, table: str | bytes | None, files=("a", "b")):
    for name in files:
        (folder / f"{name}.cif").write_text("")
    if table is not None:
        (folder / "id_prop.csv").write_bytes(table.encode() if isinstance(table, str) else table)
    return folder


def labels(entries) -> dict[str, dict[str, float]]:
    return {entry.id: dict(entry.targets) for entry in entries}


@pytest.mark.parametrize(
    "table",
    [
        "a,1.5\nb,-2\n",
        "id,gap\na,1.5\nb,-2\n",
        "a,1.5\r\n\r\nb,-2",
        "\n a , 1.5 \n,\nb,-2\n\n",
        b"\xef\xbb\xbfa,1.5\nb,-2\n",
        b"\xef\xbb\xbfid,gap\na,1.5\nb,-2\n",
        '"a","1.5"\n"b",-2\n',
        "a,1.5,,\nb,-2, ,\n",
        "id,gap,\na,1.5,\nb,-2,\n",
    ],
    ids=[
        "plain",
        "header",
        "crlf",
        "blanks",
        "bom",
        "bom and header",
        "quoted",
        "empty columns",
        "header, empty column",
    ],
)
def test_tables_that_say_the_same(tmp_path, table):
    assert labels(read_directory(make(tmp_path, table), ["gap"])) == {"a": {"gap": 1.5}, "b": {"gap": -2}}


def test_a_header_names_several_columns_whatever_the_targets(tmp_path):
    make(tmp_path, "id,gap,k\na,1,2\nb,,4\n")
    np.testing.assert_equal(
        labels(read_directory(tmp_path, ["k"])), {"a": {"gap": 1, "k": 2}, "b": {"gap": np.nan, "k": 4}}
    )


def test_targets_name_several_columns_without_a_header(tmp_path):
    make(tmp_path, "a,1,nan\nb,3,4\n")
    np.testing.assert_equal(
        labels(read_directory(tmp_path, ["gap", "k"])), {"a": {"gap": 1, "k": np.nan}, "b": {"gap": 3, "k": 4}}
    )


def test_a_named_column_without_any_value_is_one(tmp_path):
    make(tmp_path, "a,1.5,,\nb,-2,,\n")
    np.testing.assert_equal(
        labels(read_directory(tmp_path, ["gap", "k"])), {"a": {"gap": 1.5, "k": np.nan}, "b": {"gap": -2, "k": np.nan}}
    )


@pytest.mark.parametrize("table", ["a,nan\nb,1\n", "a,\nb,1\n"])
def test_a_first_row_without_a_value_is_no_header(tmp_path, table):
    assert list(labels(read_directory(make(tmp_path, table), ["gap"]))) == ["a", "b"]


def test_a_row_of_a_file_that_is_missing_is_no_header_for_want_of_a_value(tmp_path):
    missing, *found = read_directory(make(tmp_path, "z,NA\na,1\nb,2\n"), ["gap"])
    assert missing.id == "z" and "there is no z.cif" in missing.reason
    assert labels(found) == {"a": {"gap": 1}, "b": {"gap": 2}}


def test_texts_in_columns_that_nobody_asked_for_are_no_labels(tmp_path):
    make(tmp_path, "id,formula,gap\na,NaCl,1\nb,?,wide\n")
    first, bad = read_directory(tmp_path, ["gap"], ["gap"])
    np.testing.assert_equal(first.targets, {"formula": np.nan, "gap": 1})
    assert isinstance(bad, Rejected) and "'wide' in id_prop.csv is not a number" in bad.reason
    assert all(isinstance(one, Rejected) for one in read_directory(tmp_path, ["gap"]))


def test_endings_may_be_capitals_and_are_no_part_of_an_id(tmp_path):
    (tmp_path / "c.CIF").write_text("")
    (tmp_path / "d.CIF").write_text("")
    make(tmp_path, "a.cif,1\nc,2\n")
    bad, good, *unused = read_directory(tmp_path, ["gap"])
    assert bad.reason.endswith(
        f"there is no a.cif.cif in {tmp_path}; an id is the name of a file of this folder itself, without .cif, and folders below it are not read"
    )
    assert good == CrystalFile("c", tmp_path / "c.CIF", {"gap": 2})
    assert [one.id for one in unused] == ["a", "b", "d"]


def test_hidden_copies_of_files_want_no_row(tmp_path):
    make(tmp_path, "a,1\n", files=("a", "._a"))
    assert labels(read_directory(tmp_path, ["gap"])) == {"a": {"gap": 1}}


def test_ids_alone_and_no_table_give_crystals_without_labels(tmp_path):
    assert labels(read_directory(make(tmp_path, None))) == {"a": {}, "b": {}}
    assert labels(read_directory(make(tmp_path, "b\na\n"))) == {"b": {}, "a": {}}


def test_rows_come_in_order_and_point_at_their_files(tmp_path):
    entries = list(read_directory(make(tmp_path, "b,1\na,2\n"), ["gap"]))
    assert entries == [
        CrystalFile("b", tmp_path / "b.cif", {"gap": 1}),
        CrystalFile("a", tmp_path / "a.cif", {"gap": 2}),
    ]


@pytest.mark.parametrize("id", ["../x", "sub/x", "..", "./../x", "c", "a\0", "a" * 5000])
def test_a_row_may_not_leave_its_folder(tmp_path, id):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "x.cif").write_text("")
    (tmp_path / "x.cif").write_text("")
    make(folder, f"{id},1\na,1\nb,1\n")
    bad, *_ = read_directory(folder, ["gap"])
    assert isinstance(bad, Rejected)
    # Of a long reason the beginning is kept.
    assert bad.reason.startswith(f"{id}: stands in id_prop.csv but there is no {id}.cif"[:200])


def test_a_row_that_names_a_path_is_told_what_an_id_is(tmp_path):
    (tmp_path / "sub").mkdir()
    (bad,) = read_directory(make(tmp_path, "sub/x,1\n", files=("sub/x",)), ["gap"])
    assert isinstance(bad, Rejected)
    assert bad.reason.endswith(
        "; an id is the name of a file of this folder itself, without .cif, and folders below it are not read"
    )


@pytest.mark.parametrize(("of_row", "of_file"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_match_however_they_are_written(tmp_path, of_row, of_file):
    row, file = (unicodedata.normalize(form, "Sm\N{LATIN SMALL LETTER A WITH DIAERESIS}") for form in (of_row, of_file))
    assert row != file
    (found,) = read_directory(make(tmp_path, f"{row},1\n", files=(file,)), ["gap"])
    assert found == CrystalFile(row, tmp_path / f"{file}.cif", {"gap": 1})
    _, twice = read_directory(make(tmp_path, f"{row},1\n{file},2\n", files=(file,)), ["gap"])
    assert isinstance(twice, Rejected) and twice.reason == f"{file}: its file {file}.cif is that of the row {row!r}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,K\na,1\n".encode("utf-16"), "not a CSV table in UTF-8 .*; save it as CSV, with the encoding UTF-8"),
        (b"PK\x03\x04\xff\xfe", "a workbook of a spreadsheet; save it as CSV, with the encoding UTF-8"),
    ],
)
def test_what_spreadsheets_write_otherwise_is_told_how_to_save(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"id_prop\.csv: {message}"):
        list(read_directory(make(tmp_path, content), ["K"]))


def test_a_decimal_comma_is_called_that(tmp_path):
    comma, text = read_directory(make(tmp_path, 'id,K\na,"111,5"\nb,hard\n'), ["K"])
    assert comma.reason == "a: '111,5' in id_prop.csv is not a number; write a decimal point"
    assert text.reason == "b: 'hard' in id_prop.csv is not a number; leave the cell empty if it is unknown"


def test_an_absolute_path_is_no_id(tmp_path):
    (tmp_path / "x.cif").write_text("")
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder, f"{tmp_path / 'x'},1\n", files=())
    (bad,) = read_directory(folder, ["gap"])
    assert isinstance(bad, Rejected)


def test_files_without_a_row_are_rejected_by_name(tmp_path):
    *_, one, two = read_directory(make(tmp_path, "a,1\n", files=("z", "a", "y")), ["gap"])
    assert [one.id, two.id] == ["y", "z"]
    assert re.search(r"y: y\.cif has no row in .*id_prop\.csv", one.reason)


@pytest.mark.parametrize(
    ("table", "targets", "message"),
    [
        (
            "a,1\nb,2,3\n",
            ["gap"],
            r"rows must have equally many cells; .*'a', '1'.* has 2, row 2, .*'b', '2', '3'.* has 3",
        ),
        ("", ["gap"], "no rows"),
        ("\n\n", ["gap"], "no rows"),
        ("a,1,2\nb,1,2\n", ["gap"], r"2 value columns without a header, but data\.target names 1: \['gap'\]"),
        ("a,1\nb,1\n", [], r"1 value columns without a header, but data\.target names 0"),
        ("a;1.5\nb;2.5\n", ["gap"], r"cells must be separated by commas.* got semicolons, as in 'a;1\.5'\. Save"),
        (
            "id;gap;k\na;1,5;2\nb;2;3,5\n",
            ["gap"],
            "cells must be separated by commas.* got semicolons, as in 'id;gap;k'",
        ),
        ("a\t1.5\nb\t2.5\n", ["gap"], "cells must be separated by commas.* got tabs"),
    ],
)
def test_a_table_that_cannot_be_understood_is_an_error(tmp_path, table, targets, message):
    with pytest.raises(ValueError, match=rf"id_prop\.csv: {message}"):
        list(read_directory(make(tmp_path, table), targets))


def test_a_missing_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder; data\.path must hold id_prop\.csv"):
        list(read_directory(tmp_path / "nowhere"))


def test_ids_may_hold_semicolons(tmp_path):
    make(tmp_path, "a;1,1.5\nb;2,2.5\n", files=("a;1", "b;2"))
    assert labels(read_directory(tmp_path, ["gap"])) == {"a;1": {"gap": 1.5}, "b;2": {"gap": 2.5}}
