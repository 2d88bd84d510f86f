"""Screening with small networks: the rows are Predictor's, whatever happens on the way."""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data.crystal import Crystal, CrystalFile, Rejected
from cgcnn_jax.data.dataset import load
from cgcnn_jax.data.sources import CrystalLine
from cgcnn_jax.data.sources.jsonl import line_of
from cgcnn_jax.ensemble import Ensemble
from cgcnn_jax.judging import JudgingPredictor
from cgcnn_jax.predict import Predictor
from cgcnn_jax.screen import worker
from cgcnn_jax.screen.screening import Place, Screening, Top, screen
from cgcnn_jax.screen.shard import Item, Shard, cut
from tests.screen.items import Odd
from tests.screen.models import save_model

RTOL = 1e-5  # float32, in batches of another shape
ATOL = 1e-6  # a prediction near zero is the difference of two numbers near 1


def hire() -> tuple[Executor, int]:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn")), 1


@pytest.fixture(scope="module")
def items(crystals: list[Crystal]) -> list[Item]:
    """Crystals, some of them as lines, and what is none."""
    mixed: list[Item] = [CrystalLine(f"x:{n}", line_of(one)) if n % 2 else one for n, one in enumerate(crystals)]
    mixed.insert(3, Rejected("gone", "gone: no such file"))
    mixed.insert(17, CrystalLine("x:18", '{"id": "broken", "lattice": 3}'))
    mixed.insert(18, CrystalLine("x:19", "{"))
    mixed.insert(30, CrystalFile("absent", Path("absent.cif")))
    return mixed


def rows(done: Screening) -> pd.DataFrame:
    return pd.concat(list(done.output.parts()), ignore_index=True)


restored = functools.cache(Predictor.restore)


def expected(model: Path, items: Sequence[Item]) -> pd.DataFrame:
    parsed = [item.parse() if isinstance(item, CrystalLine) else item for item in items]
    return restored(model).predict_entries(parsed)


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_rows_are_those_of_predict_entries(format: Any, model: Path, items: list[Item], tmp_path: Path) -> None:
    told: list[int] = []
    before = dict(os.environ)
    done = screen(items, [model], tmp_path / "out", shard_size=7, format=format, on_progress=told.append)
    # What workers set for themselves would reach everything that this process starts later.
    assert dict(os.environ) == before
    pd.testing.assert_frame_equal(rows(done), expected(model, items), rtol=RTOL, atol=ATOL)
    assert (done.rows, done.predicted, done.failed, done.is_finished) == (44, 40, 4, True)
    assert sum(told) == 44
    assert len(list((tmp_path / "out" / "parts").iterdir())) == done.shards == 7
    bad = rows(done).query("reason != ''").set_index("id")["reason"]
    assert bad["gone"] == "gone: no such file"
    assert "the record has no species, frac_coords" in bad["broken"]
    assert "not JSON" in bad["x:19"]
    assert "no absent.cif any more" in bad["absent"]


@pytest.mark.parametrize(("format", "hired"), [("parquet", hire), ("csv", None)])
def test_what_is_unlike_the_training_crystals_is_told_if_asked(
    format: Any, hired: Any, crystals: list[Crystal], items: list[Item], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", train=[crystal.id for crystal in crystals[:10]])
    predictor = Predictor.restore(folder)
    Applicability.of_run(predictor, load(crystals, predictor.featurizer, [])).save(folder)
    parsed = [item.parse() if isinstance(item, CrystalLine) else item for item in items]
    wanted = JudgingPredictor.restore(folder).predict_entries(parsed)
    done = screen(items, [folder], tmp_path / "out", hire=hired, shard_size=22, format=format, judge=True, top=Top(40))
    found = rows(done)
    pd.testing.assert_frame_equal(found, wanted, rtol=RTOL, atol=ATOL)
    known = found["id"].isin([crystal.id for crystal in crystals[:10]])
    assert set(found["outside"][known]) == {""} and (found["outside"][~known] != "").any()
    best = pd.read_csv(tmp_path / "out" / "top.csv", keep_default_na=False)
    assert (
        dict(zip(best["id"], best["outside"], strict=True)).items()
        <= dict(zip(wanted["id"], wanted["outside"], strict=True)).items()
    )
    # Neither without the column nor by another judgement.
    with pytest.raises(ValueError, match="columns: "):
        screen(items, [folder], tmp_path / "out", shard_size=22, format=format)
    Applicability.load(folder).at(0.5).save(folder)
    with pytest.raises(ValueError, match="models: "):
        screen(items, [folder], tmp_path / "out", shard_size=22, format=format, judge=True)
    # With several models, each has its own.
    other = save_model(tmp_path / "other", seed=1, train=[crystal.id for crystal in crystals[10:]])
    predictor = Predictor.restore(other)
    Applicability.of_run(predictor, load(crystals, predictor.featurizer, [])).save(other)
    both = rows(screen(items, [folder, other], tmp_path / "both", shard_size=22, format=format, judge=True))
    for model in (folder, other):
        assert list(both[f"{model.name}:outside"]) == list(
            JudgingPredictor.restore(model).predict_entries(parsed)["outside"]
        )


@pytest.mark.parametrize("hired", [hire, None])
def test_several_networks_predict_as_one_if_asked(
    hired: Any, crystals: list[Crystal], items: list[Item], tmp_path: Path
) -> None:
    train = [crystal.id for crystal in crystals[:10]]
    folders = [save_model(tmp_path / f"seed_{seed}", seed=seed, train=train) for seed in (0, 1)]
    predictor = Predictor.restore(folders[1])
    Applicability.of_run(predictor, load(crystals, predictor.featurizer, [])).save(folders[1])
    parsed = [item.parse() if isinstance(item, CrystalLine) else item for item in items]
    found = rows(screen(items, [folders], tmp_path / "plain", hire=hired, shard_size=22))
    pd.testing.assert_frame_equal(found, Ensemble.restore(folders).predict_entries(parsed), rtol=RTOL, atol=1e-5)
    assert found["std"].dropna().min() > 0
    found = rows(screen(items, [folders], tmp_path / "judged", hire=hired, shard_size=22, judge=True))
    wanted = JudgingPredictor.restore(*folders).predict_entries(parsed)
    pd.testing.assert_frame_equal(found, wanted, rtol=RTOL, atol=1e-5)
    # Beside another, it is called by its first folder, or by all if the other begins with that one, too.
    other = save_model(tmp_path / "other", seed=2)
    both = rows(screen(items, [folders, other], tmp_path / "both", shard_size=22))
    assert {"seed_0:prediction", "seed_0:std", "other:prediction"} < set(both.columns)
    both = rows(screen(items, [folders, folders[0]], tmp_path / "same", shard_size=22))
    wanted = Predictor.restore(folders[0]).predict_entries(parsed)["prediction"]
    np.testing.assert_allclose(both[f"{folders[0]}:prediction"], wanted, rtol=RTOL, atol=1e-5)
    assert f"{folders[0]}, {folders[1]}:std" in both


def test_workers_of_either_kind_give_the_same(model: Path, items: list[Item], tmp_path: Path) -> None:
    wanted = expected(model, items)
    kinds: tuple[Place, ...] = ("worker", "parent")
    for predict in kinds:
        done = screen(items, [model], tmp_path / predict, hire=hire, shard_size=22, predict=predict)
        pd.testing.assert_frame_equal(rows(done), wanted, rtol=RTOL, atol=ATOL)


def test_several_models_have_columns_of_their_own(model: Path, items: list[Item], tmp_path: Path) -> None:
    # Of other neighbours, so that the graphs are built twice, and of two properties.
    other = save_model(tmp_path / "both", 1, ("gap", "bulk"), num_neighbors=8)
    done = screen(items, [model, other], tmp_path / "out", shard_size=20, top=Top(3, "both:gap (eV)", highest=True))
    table, first, second = rows(done), expected(model, items), expected(other, items)
    assert list(table) == [
        *("id", "formula", "energy:prediction", "energy:unit", "both:gap (eV)", "both:bulk (eV)", "reason")
    ]
    assert table["energy:prediction"].tolist() == pytest.approx(
        first["prediction"].tolist(), rel=RTOL, abs=ATOL, nan_ok=True
    )
    for name in ("gap (eV)", "bulk (eV)"):
        assert table[f"both:{name}"].tolist() == pytest.approx(second[name].tolist(), rel=RTOL, abs=ATOL, nan_ok=True)
    assert table["reason"].tolist() == first["reason"].tolist()
    best = pd.read_csv(tmp_path / "out" / "top.csv")
    assert best["id"].tolist() == second.sort_values("gap (eV)", ascending=False)["id"].head(3).tolist()


def test_a_stopped_screening_goes_on_and_repeats_nothing(model: Path, items: list[Item], tmp_path: Path) -> None:
    stops = iter([False, False, True])
    first = screen(items, [model], tmp_path, shard_size=7, should_stop=lambda: next(stops))
    assert (first.is_finished, first.shards, first.new_rows) == (False, 2, 14)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert not (tmp_path / "summary.json").exists()
    second = screen(items, [model], tmp_path, shard_size=7)
    assert (second.is_finished, second.rows, second.new_rows) == (True, 44, 30)
    assert written.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}.items()
    pd.testing.assert_frame_equal(rows(second), expected(model, items), rtol=RTOL, atol=ATOL)
    assert screen(items, [model], tmp_path, shard_size=7).new_rows == 0


def test_another_model_or_input_is_refused(model: Path, items: list[Item], tmp_path: Path) -> None:
    out = tmp_path / "out"
    screen(items, [model], out, shard_size=7)
    with pytest.raises(ValueError, match="holds another screening:\n  models: "):
        screen(items, [save_model(tmp_path / "energy", 1)], out, shard_size=7)
    with pytest.raises(ValueError, match="shard_size: 7 -> 8"):
        screen(items, [model], out, shard_size=8)
    with pytest.raises(ValueError, match=r"the input changed since .* shard 2 was made of other structures than the 7"):
        screen([*items[:16], *items[17:]], [model], out, shard_size=7)
    with pytest.raises(ValueError, match="shard 6 was made of other structures than the 0 that now stand there"):
        screen(items[:42], [model], out, shard_size=7)
    grown = items + items[:5]  # fills shard 6
    with pytest.raises(ValueError, match="shard 6 was made of other structures than the 7"):
        screen(grown, [model], out, shard_size=7)
    assert screen(items, [model], out, shard_size=7).is_finished


def test_a_file_written_while_it_is_screened_is_another_input_afterwards(
    model: Path, crystals: list[Crystal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for number, crystal in enumerate(crystals[:2]):
        files.append(CrystalFile(f"x{number}", tmp_path / f"x{number}.vasp"))
        crystal.to_structure().to(str(files[-1].path), fmt="poscar")
    text, right = files[1].path.read_text(), worker.predict

    def writing(*arguments: Any) -> pd.DataFrame:
        table = right(*arguments)
        files[1].path.write_text(text.replace("1.0", "1.05", 1))
        return table

    with monkeypatch.context() as patch:
        patch.setattr(worker, "predict", writing)
        screen(files, [model], tmp_path / "out", shard_size=2)
    with pytest.raises(ValueError, match="the input changed since this screening began"):
        screen(files, [model], tmp_path / "out", shard_size=2)


def test_a_finished_screening_does_not_grow(model: Path, items: list[Item], tmp_path: Path) -> None:
    screen(items[:14], [model], tmp_path, shard_size=7)
    with pytest.raises(ValueError, match="the input grew since this screening was finished with 14 structures"):
        screen(items, [model], tmp_path, shard_size=7)
    # Nor does it stand in the way of making good what was lost.
    (tmp_path / "parts" / "000001.parquet").unlink()
    assert screen(items[:14], [model], tmp_path, shard_size=7).new_rows == 7


def test_a_model_trained_on_in_the_midst_is_noticed_by_the_workers(crystals: list[Crystal], tmp_path: Path) -> None:
    import shutil

    folder = save_model(tmp_path / "m")

    def changed() -> Iterator[Item]:
        shutil.rmtree(folder)
        save_model(folder, 1)
        yield from crystals

    with pytest.raises(ValueError, match="the model changed while it was used for screening"):
        screen(changed(), [folder], tmp_path / "out", hire=hire)


@pytest.mark.slow
def test_structures_that_kill_or_block_workers_are_rows(model: Path, crystals: list[Crystal], tmp_path: Path) -> None:
    odd: list[Item] = list(crystals[:20])
    odd.insert(4, Odd("killer", "kill"))
    odd.insert(9, Odd("accident", "kill", once=tmp_path / "happened"))
    odd.insert(13, Odd("sleeper", "sleep"))
    odd.insert(16, Odd("stuck", "stuck"))
    odd.insert(19, Odd("greedy", "memory"))
    done = screen(odd, [model], tmp_path / "out", hire=hire, shard_size=4, predict="parent", time_limit=1)
    table = rows(done)
    assert table["id"].tolist() == [one.id for one in odd]
    assert dict(table.query("reason != ''")[["id", "reason"]].values.tolist()) == {
        "killer": "killer: killed its worker, alone and in company",
        "sleeper": "sleeper: took longer than 1 s",
        "stuck": "stuck: killed its worker, alone and in company",
        "greedy": "greedy: takes more memory than there is",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": []}, "screening needs a model"),
        ({"predict": "here"}, "predict must be worker or parent; got 'here'"),
        ({"shard_size": 0}, "shard_size must be at least 1"),
        ({"time_limit": 0}, "time_limit must be above 0 s"),
        ({"format": "xlsx"}, "format must be one of parquet, csv"),
        ({"top": Top(0)}, "ask for at least 1"),
        ({"top": Top(1, "gap")}, "no column 'gap' to rank by \\(--by\\); choose one of prediction"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_written(
    settings: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        screen([], settings.pop("models", [model]), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_the_column_to_rank_by_must_be_clear() -> None:
    columns = {"id": "text", "gap": "number", "bulk": "number"}
    with pytest.raises(ValueError, match="name the column to rank by with --by=COLUMN; there are gap, bulk"):
        Top(1).column_of(columns)


def test_the_same_model_twice_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the same model is named twice"):
        screen([], [model, model], tmp_path / "out")


def test_nothing_to_screen_is_a_finished_screening(model: Path, tmp_path: Path) -> None:
    done = screen([], [model], tmp_path, top=Top(3))
    assert (done.is_finished, done.rows, done.shards) == (True, 0, 0)
    assert json.loads((tmp_path / "summary.json").read_text())["rows"] == 0
    assert pd.read_csv(tmp_path / "top.csv").empty


def test_shards_hold_every_structure_once_and_know_when_one_changes(crystals: list[Crystal], tmp_path: Path) -> None:
    shards = list(cut(iter(crystals), 16))
    assert [len(shard.items) for shard in shards] == [16, 16, 8]
    assert [item.id for shard in shards for item in shard.items] == [crystal.id for crystal in crystals]
    file = tmp_path / "a.cif"
    file.write_text("one")
    kinds: list[Item] = [crystals[0], CrystalLine("x:1", "{}"), Rejected("a", "b"), CrystalFile("f", file)]
    before = Shard(0, tuple(kinds)).digest()
    assert Shard(1, tuple(kinds)).digest() == before
    assert Shard(0, tuple(reversed(kinds))).digest() != before
    changed: list[Item] = [crystals[1], CrystalLine("x:1", "{ }"), Rejected("a", "c"), CrystalFile("g", file)]
    for place, item in enumerate(changed):
        assert Shard(0, (*kinds[:place], item, *kinds[place + 1 :])).digest() != before
    file.write_text("three")
    assert Shard(0, tuple(kinds)).digest() != before
    file.unlink()
    assert Shard(0, tuple(kinds)).digest() != before
