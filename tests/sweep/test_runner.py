"""Trials end as work directories of ordinary runs, and a stopped sweep repeats nothing."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax import config as configs
from cgcnn_jax.predict import Predictor
from cgcnn_jax.report import trials as report_of_trials
from cgcnn_jax.run import run
from cgcnn_jax.sweep import runner
from cgcnn_jax.sweep.folder import SweepFolder
from cgcnn_jax.sweep.runner import SweepWatcher, make_trial, run_sweep
from cgcnn_jax.sweep.space import with_overrides
from cgcnn_jax.together import fits_together
from tests.sweep.problem import config, load

pytestmark = pytest.mark.usefixtures("quick_compiling")
# The first three make one program and the last two another; the third diverges.
TRIALS = [
    {"optimizer.learning_rate": 1e-2, "model.features": 4, "train.seed": 0},
    {"optimizer.learning_rate": 3e-3, "model.features": 4, "train.seed": 1, "model.init_scale": 0.1, "split.seed": 1},
    {"optimizer.learning_rate": 1e12, "model.features": 4, "train.seed": 0},
    {"optimizer.learning_rate": 1e-2, "model.features": 3, "train.seed": 0},
    {"optimizer.learning_rate": 1e-3, "model.features": 3, "train.seed": 0},
]


class StopAfter(SweepWatcher):
    """Stops once so many epochs were shown, and remembers which trials ended."""

    def __init__(self, epochs: int = 10**9) -> None:
        self._left = epochs
        self.trials: list[int] = []

    def epoch(self, record):
        self._left -= 1

    def should_stop(self) -> bool:
        return self._left <= 0

    def ended(self, record, n_ended, n_trial):
        self.trials.append(record["trial"])
        assert n_trial == len(TRIALS)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], list[int], dict[str, int]]:
    """A sweep that was stopped after one epoch of the second population, and went on."""
    folder = tmp_path_factory.mktemp("sweep")
    before, after = StopAfter(), StopAfter()
    original = before.ended

    def stop_soon(record, n_ended, n_trial):
        original(record, n_ended, n_trial)
        before._left = 1

    before.ended = stop_soon
    assert not run_sweep(config(), TRIALS, folder, data=load, watcher=before)
    times = {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("trials/*/trial.json")}
    assert run_sweep(config(), TRIALS, folder, data=load, watcher=after)
    return folder, before.trials, after.trials, times


def test_a_stopped_sweep_goes_on_and_repeats_nothing(swept):
    folder, before, after, times = swept
    assert (before, after) == ([0, 1, 2], [3, 4])
    assert {name: (folder / "trials" / name / "trial.json").stat().st_mtime_ns for name in times} == times
    for number in (0, 1, 3, 4):
        epochs = [record["epoch"] for record in SweepFolder(folder).trial(number).records()]
        assert epochs == [0, 1, 2, 3]
    assert list((folder / "populations").iterdir()) == []


def test_a_sweep_that_has_ended_loads_no_crystal(swept):
    def refuse(*arguments):
        raise AssertionError("nothing is left to train")

    assert run_sweep(config(), TRIALS, swept[0], data=refuse)


def test_a_trial_is_what_the_run_of_its_configuration_is(swept, tmp_path):
    folder = swept[0]
    alone = run(with_overrides(config(), TRIALS[1]), tmp_path, data=load)
    mine = SweepFolder(folder).trial(1).summary()
    assert mine["metrics"]["val"]["mae"] == pytest.approx(alone.summary["metrics"]["val"]["mae"], rel=1e-3)
    assert mine["metrics"]["test"]["mae"] == pytest.approx(alone.summary["metrics"]["test"]["mae"], rel=1e-3)
    assert mine["best_epoch"] == alone.summary["best_epoch"]
    plain = [json.loads((place / "config.json").read_text()) for place in (folder / "trials/0001", tmp_path)]
    assert configs.differences(*plain) == []


def test_each_trial_predicts(swept):
    place = swept[0] / "trials" / "0003"
    crystals = load(config(), configs.build_atom_table(config()))
    table = pd.read_csv(place / "predictions.csv")
    rows = [crystals.ids.index(id) for id in table["id"]]
    predicted = Predictor.restore(place).predict_graphs(crystals.graphs)[rows, 0]
    np.testing.assert_allclose(predicted, table["prediction"], rtol=1e-4)


def test_the_table_has_a_row_per_trial(swept):
    table = pd.read_csv(swept[0] / "results.csv")
    assert table["trial"].tolist() == [0, 1, 2, 3, 4]
    assert table["status"].tolist() == ["finished", "finished", "diverged", "finished", "finished"]
    assert table["optimizer.learning_rate"].tolist() == [1e-2, 3e-3, 1e12, 1e-2, 1e-3]
    assert np.isnan(table["model.init_scale"][0]) and table["model.init_scale"][1] == 0.1
    # Adam's first step is 1e12 whatever the gradient; the square of the second error is beyond float32.
    assert table["diverged_at"][2] == 1 and table["diverged_at"].isna().sum() == 4
    assert np.isnan(table["val_mae"][2]) and np.isfinite(table[["val_mae", "test_mae", "seconds"]].to_numpy()[3]).all()
    for number in (0, 1, 3, 4):
        summary = SweepFolder(swept[0]).trial(number).summary()
        assert table["val_mae"][number] == pytest.approx(summary["metrics"]["val"]["mae"], rel=1e-5)
        assert table["best_epoch"][number] == summary["best_epoch"]
    assert (swept[0] / "hyperparameters.png").stat().st_size > 10_000


def test_another_sweep_is_refused_and_more_trials_are_welcome(swept):
    folder = SweepFolder(swept[0])
    plain = configs.to_dict(config())
    with pytest.raises(ValueError, match=r"holds another sweep:\n  trial 1: .*0\.003.* -> .*0\.004"):
        folder.claim(plain, {"trials": [TRIALS[0], TRIALS[1] | {"optimizer.learning_rate": 4e-3}, *TRIALS[2:]]})
    with pytest.raises(ValueError, match="2 trials are gone"):
        folder.claim(plain, {"trials": TRIALS[:3]})
    with pytest.raises(ValueError, match="one searches a space and the other tries a list"):
        folder.claim(plain, {"space": {}})
    other = config()
    other.train.epochs = 5
    with pytest.raises(ValueError, match=r"train\.epochs: 4 -> 5"):
        folder.claim(configs.to_dict(other), {"trials": TRIALS})
    folder.claim(plain, {"trials": [*TRIALS, TRIALS[0] | {"train.seed": 9}]})


def test_trials_of_a_sweep_learn_from_the_same_data(swept, tmp_path):
    folder, trials = shutil.copytree(swept[0], tmp_path / "copy"), [*TRIALS, TRIALS[0] | {"train.seed": 9}]

    def changed(config, atom_table):
        crystals = load(config, atom_table)
        return dataclasses.replace(crystals, targets=crystals.targets + 1)

    with pytest.raises(ValueError, match="the data changed since trials of this sweep ended"):
        run_sweep(config(), trials, folder, data=changed)
    # Wherever they lie.
    moved = config()
    moved.data.path = "elsewhere"
    assert run_sweep(moved, trials, folder, data=load)


def test_the_table_has_what_a_trial_sets_to_nothing_and_what_it_leaves(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.claim(configs.to_dict(config()), {"trials": []})
    for number, overrides in enumerate(
        [
            {"model.init_scale": None},
            {"model.init_scale": 0.05},
            {"graph.fidelity": ""},
            {"graph.fidelity": "published"},
        ]
    ):
        folder._end(number, overrides, status="finished", val_error=0.1)
    folder.write_table()
    table = report_of_trials.read(tmp_path / "results.csv")
    assert table["model.init_scale"].tolist() == ["None", "0.05", "None", "None"]
    assert table["graph.fidelity"].tolist() == ["''", "''", "''", "published"]
    assert report_of_trials.varied(table) == ["model.init_scale", "graph.fidelity"]
    # Each is changed by one trial alone, and compared with the trials that leave it.
    folder.draw("eV/atom")
    assert (tmp_path / "hyperparameters.png").exists()


def test_a_member_that_ended_before_the_stop_is_not_taken_for_damaged(tmp_path):
    told = []
    after = SweepWatcher()
    after.message = told.append
    assert not run_sweep(config(), TRIALS[:3], tmp_path, data=load, watcher=StopAfter(3))
    # Of the second, which trains on, an epoch is lost.
    lost = SweepFolder(tmp_path).trial(1).path / "metrics.jsonl"
    lost.write_text("".join(line for line in lost.read_text().splitlines(keepends=True) if '"epoch": 1,' not in line))
    assert run_sweep(config(), TRIALS[:3], tmp_path, data=load, watcher=after)
    assert "going on after 3 of 4 epochs" in told
    # The third diverged in the first epoch, so that it has no record.
    assert SweepFolder(tmp_path).record(2)["status"] == "diverged" and SweepFolder(tmp_path).trial(2).records() == []
    assert [line.split(" is damaged")[0] for line in told if "damaged" in line] == [str(lost)]


def test_a_population_goes_on_without_the_model_it_began_from(tmp_path):
    run(config(), tmp_path / "old", data=load, report=False)
    own = config()
    own.init_from = str(tmp_path / "old")
    trials = [{"train.seed": 1, "split.seed": 1}, {"train.seed": 2, "split.seed": 1}]
    told = []
    before = StopAfter(2)
    before.message = told.append
    assert not run_sweep(own, trials, tmp_path / "new", data=load, watcher=before)
    # Of both at once.
    assert len([line for line in told if "the model of init_from was trained on" in line]) == 1
    (tmp_path / "old").rename(tmp_path / "moved")
    assert run_sweep(own, trials, tmp_path / "new", data=load)
    # What was counted at the start stands in the summaries all the same.
    old = json.loads((tmp_path / "moved" / "split.json").read_text())
    for number in range(2):
        place = tmp_path / "new" / "trials" / f"{number:04d}"
        new, summary = (json.loads((place / name).read_text()) for name in ("split.json", "summary.json"))
        seen = {"test": len({*old["train"], *old["val"]}.intersection(new["test"]))}
        seen["val"] = len(set(old["train"]).intersection(new["val"]))
        assert seen["test"] and summary["seen_by_init_from"] == {**seen, "looks_compared_with": "none"}


def test_trials_may_choose_what_is_learned(tmp_path):
    own = config()
    own.data.target = ""
    assert run_sweep(own, [{"data.target": "Z"}], tmp_path, data=load)
    assert pd.read_csv(tmp_path / "results.csv")["data.target"].tolist() == ["Z"]
    # The file's unit is that of its own property.
    own = config()
    own.data.unit = "eV"
    units = [make_trial(own, 0, one).config.data.unit for one in ({}, {"data.target": "Z"})]
    assert units == ["eV", ""]
    given = make_trial(own, 0, {"data.target": "Z", "data.unit": "GPa"})
    assert given.config.data.unit == "GPa"


def groups(overrides, begun, size):
    trials = [make_trial(config(), number, changes) for number, changes in enumerate(overrides)]
    return runner._groups(trials, begun, size)


def test_trials_of_one_program_train_together():
    assert groups(TRIALS, {}, 16) == [[0, 1, 2], [3, 4]]
    assert groups(TRIALS, {}, 2) == [[0, 1], [2], [3, 4]]
    # A population begun with another size stays as it is; its checkpoints hold just these.
    assert groups(TRIALS, {0: [0, 1]}, 16) == [[0, 1], [2], [3, 4]]
    # Begun after 0 and 1 had ended and more trials were added: whoever comes then cuts the others as who began it.
    more = [{"train.seed": number} for number in range(10)]
    assert groups(more, {}, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert groups(more, {2: [2, 3]}, 4) == [[2, 3], [0, 1], [4, 5, 6, 7], [8, 9]]
    # L2 is a part of the optimiser that is there or not; a batch size is a shape.
    l2 = [{"optimizer.l2": value} for value in (0.0, 1e-3, 1e-2)]
    assert groups([*l2, {"train.batch_size": 5}, {"model.dropout": 0.5}], {}, 16) == [[0, 4], [1, 2], [3]]
    # Each has a split of its own.
    folds = [{"split.kind": "k_fold", **changes} for changes in ({"data.fold": 0}, {"data.fold": 1}, {"split.seed": 1})]
    assert groups(folds, {}, 16) == [[0, 1, 2]]


def test_a_wrong_trial_is_named_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match=r"trial 1 \(\{'model\.num_convs': -1\}\): config\.model\.num_convs must not"):
        run_sweep(config(), [{}, {"model.num_convs": -1}], tmp_path, data=load)
    assert not (tmp_path / "sweep.json").exists()
    with pytest.raises(ValueError, match="population must be at least 1; got 0"):
        run_sweep(config(), [{}], tmp_path, population=0, data=load)


def test_what_another_process_trains_is_left_to_it(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.claim(configs.to_dict(config()), {"trials": TRIALS[:3]})

    def refuse(*arguments):
        raise AssertionError("another process trains these")

    with folder.lock("population_0000"):
        assert not run_sweep(config(), TRIALS[:3], tmp_path, data=refuse)


def test_a_population_that_saved_nothing_may_be_made_smaller(tmp_path, monkeypatch):
    folder, sizes = SweepFolder(tmp_path), []

    def short_of_memory(runs, setups, checkpoints, **options):
        sizes.append(len(runs))
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(runner, "train_together", short_of_memory)
    for population in (3, 2):
        with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            run_sweep(config(), TRIALS[:3], tmp_path, population=population, data=load)
    assert sizes == [3, 2]
    # Not that of another process, which may be about to save.
    with folder.lock("population_0000"):
        assert not run_sweep(config(), TRIALS[:3], tmp_path, population=1, data=load, watcher=StopAfter(0))
    assert folder.populations() == {0: [0, 1]}


def test_a_population_of_what_is_left_is_locked_under_its_own_first_trial_too(tmp_path):
    folder, is_free = SweepFolder(tmp_path), []

    class Look(SweepWatcher):
        def epoch(self, record):
            for number in (0, 1):
                with folder.lock_if_free(f"population_{number:04d}") as free:
                    is_free.append(free)

        def should_stop(self):
            return bool(is_free)

    assert run_sweep(config(), TRIALS[:1], tmp_path, data=load)
    # With two more trials, 0 is the first of their group, and has ended: what trains begins with 1.
    assert not run_sweep(config(), TRIALS[:3], tmp_path, data=load, watcher=Look())
    assert is_free == [False, False]
    assert list(folder.populations()) == [1]


def test_a_pruned_trial_may_have_had_no_finite_error(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.claim(configs.to_dict(config()), {"space": {}})
    folder.trial(0).path.mkdir()
    for epoch, error in enumerate((float("inf"), 0.5, float("nan"), 0.7)):
        folder.trial(0).append_record({"epoch": epoch, "step": epoch + 1, "val_error": error, "seconds": 1.0})
    record = folder.end_pruned(0, {})
    assert (record["val_error"], record["best_epoch"], record["epochs"]) == (0.5, 1, 4)


def test_folds_of_one_set_load_it_once():
    loaded, said = [], []

    class Told(SweepWatcher):
        def message(self, text):
            said.append(text)

    def counting(own, table):
        loaded.append(own.data.target)
        return load(own, table)

    crystals_of = runner.Crystals(counting, Told())
    for fold, unit, target in ((0, "", "Z"), (1, "", "Z"), (1, "u", "Z"), (0, "", "N")):
        own = config()
        own.data.fold, own.data.unit, own.data.target = fold, unit, target
        crystals_of(own)
        crystals_of.tell(own)
    assert loaded == ["Z", "N"]
    assert sum(text.startswith("30 crystals (0 left out)") for text in said) == 2


def test_streamed_crystals_make_no_population():
    crystals = load(config(), configs.build_atom_table(config()))
    own = config()
    for feed, fits in (("stream", False), ("device", True), ("auto", True)):
        own.train.feed = feed
        assert fits_together(own, crystals) is fits
