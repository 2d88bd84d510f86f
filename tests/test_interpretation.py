"""An interpretation that is stopped at any moment goes on, and ends with the files of one that was not."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax import interpret
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data.crystal import Crystal, Rejected
from cgcnn_jax.data.dataset import load
from cgcnn_jax.interpretation import Interpretation
from tests.predictors import make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")


class Stopped(BaseException):
    """As of a signal."""


@pytest.fixture(scope="module")
def items() -> list[Crystal | Rejected]:
    """Six structures, of which one cannot be read, and three have one id."""
    ends = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystals = [
        Crystal.from_arrays(id, a * np.eye(3), pair, ends)
        for id, a, pair in (
            *(("a", 3.4, ["Cs", "Cl"]), ("null", 3.6, ["Cs", "Br"])),
            *(("a", 3.2, ["Tl", "Cl"]), ("b/c", 3.3, ["Ni", "Al"]), ("A", 3.5, ["Cs", "I"])),
        )
    ]
    return [*crystals[:2], Rejected("bad", "bad: of no use"), *crystals[2:]]


@pytest.fixture(scope="module")
def known(items: list[Crystal | Rejected]) -> Applicability:
    predictor = make_predictor()
    crystals = [dataclasses.replace(items[place], id=id) for place, id in ((3, "x"), (4, "y"))]  # type: ignore[type-var]
    return Applicability.fit(predictor, load(crystals, predictor.featurizer, []))


def explaining(begun: list[str], stop_before: int) -> Callable[..., Iterator[Any]]:
    """interpret.explain that notes what it explains."""
    right = interpret.explain

    def explain(predictor: Any, entries: list[Any], **options: Any) -> Iterator[Any]:
        if len(begun) == stop_before:
            raise Stopped
        begun.append("+".join(one.id for one in entries))
        return right(predictor, entries, **options)

    return explain


def interpret_all(folder: Path, items: Any, known: Applicability | None, **network: str) -> None:
    output = Interpretation(folder)
    with output.open():
        output.make(make_predictor(**network), items, known=known, k=2, portion=2)
        output.finish()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["structures/mine.cif", "parts/000000.parquet"])
def test_folders_of_others_are_left_alone(items, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {Path(name).parent}, which is of no interpretation"):
        interpret_all(tmp_path, items, None, pool="site")
    assert files(tmp_path) == {name: b"mine"}


def test_an_output_within_the_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for place in ("in", "in/deep", "in/../in/new"):
        with pytest.raises(ValueError, match=r"lies in --input=.*in, so that structures written there would be read"):
            Interpretation(tmp_path / place).check([tmp_path / "in"])
    Interpretation(tmp_path / "in.out").check([tmp_path / "in", tmp_path / "absent"])


def test_what_was_explained_is_not_explained_again(items, known, tmp_path: Path, monkeypatch) -> None:
    interpret_all(tmp_path / "whole", items, known)
    begun: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(interpret, "explain", explaining(begun, 2))
        with pytest.raises(Stopped):
            interpret_all(tmp_path / "out", items, known)
    assert not (tmp_path / "out" / "embeddings.csv").exists()
    with monkeypatch.context() as patch:
        patch.setattr(interpret, "explain", explaining(begun, 99))
        interpret_all(tmp_path / "out", items, known)
    assert begun == ["a+null", "bad+a", "b/c+A"]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert {name for name in files(tmp_path / "out") if name.endswith(".cif")} == {
        f"structures/{name}.cif" for name in ("a", "null", "a_2", "b_c", "A_3")
    }
    table = pd.read_csv(tmp_path / "out" / "embeddings.csv", keep_default_na=False)
    assert table["id"].tolist() == ["a", "null", "bad", "a", "b/c", "A"]
    assert table["reason"].tolist() == ["", "", "bad: of no use", "", "", ""]


@pytest.mark.parametrize("moment", ["embeddings", "bonds", "structures", "parts"])
def test_a_stop_while_the_tables_are_joined_costs_nothing(
    items, known, tmp_path: Path, monkeypatch, moment: str
) -> None:
    interpret_all(tmp_path / "whole", items, known)
    moved = {"structures": "rename", "parts": "rename"}.get(moment, "replace")
    right = getattr(Path, moved)

    def stops(self: Path, target: Path) -> Path:
        done = right(self, target)
        if self.stem == moment:
            raise Stopped
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, moved, stops)
        with pytest.raises(Stopped):
            interpret_all(tmp_path / "out", items, known)
    begun: list[str] = []
    monkeypatch.setattr(interpret, "explain", explaining(begun, 99))
    interpret_all(tmp_path / "out", items, known)
    assert len(begun) == (3 if moment == "parts" else 0)  # all is in place by then, and the call is a new one
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_parts_of_another_input_or_model_are_no_use(items, known, tmp_path: Path, monkeypatch) -> None:
    begun: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(interpret, "explain", explaining(begun, 2))
        with pytest.raises(Stopped):
            interpret_all(tmp_path, items, known)
    monkeypatch.setattr(interpret, "explain", explaining(begun, 99))
    interpret_all(tmp_path, [items[1], items[0], *items[2:]], known)
    assert begun[2:] == ["null+a", "b/c+A"]
    interpret_all(tmp_path, items[:2], None, pool="mean", conv="sum")
    # What this call does not make is not left over from the last one.
    assert set(files(tmp_path)) == {"embeddings.csv"}


def test_of_a_call_that_was_stopped_nothing_is_left_in_that_on_other_input(
    items, known, tmp_path: Path, monkeypatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(interpret, "explain", explaining([], 1))
        with pytest.raises(Stopped):
            interpret_all(tmp_path / "out", items, known)
    assert list((tmp_path / "out").rglob("null.cif"))
    for name in ("out", "new"):
        interpret_all(tmp_path / name, items[3:], known)
    assert files(tmp_path / "out") == files(tmp_path / "new")
    assert {name for name in files(tmp_path / "out") if name.endswith(".cif")} == {
        f"structures/{name}.cif" for name in ("a", "b_c", "A_2")
    }


def test_two_at_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        Interpretation(tmp_path).open(),
        pytest.raises(ValueError, match="another process is writing"),
        Interpretation(tmp_path).open(),
    ):
        pass
