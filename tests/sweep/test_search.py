"""A search shared by processes: no trial twice, and what a killed process left behind is finished by another."""

import builtins
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cgcnn_jax.data.dataset import DataError
from cgcnn_jax.run import run
from cgcnn_jax.sweep import Integers, Uniform, search
from cgcnn_jax.sweep.folder import SweepFolder
from cgcnn_jax.sweep.runner import SweepWatcher
from cgcnn_jax.sweep.search import run_search
from tests.sweep.problem import N_TRIAL, SPACE, config, load

optuna = pytest.importorskip("optuna", reason="the search needs the extra `sweep`")
ROOT = Path(__file__).parents[2]
STATES = optuna.trial.TrialState


def journal(folder: Path):
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    return optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend)).get_trials()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict]]:
    """Trials that train in no time to the error |log10(learning rate) + 3|; the list tells of each."""
    trained = []

    def train_one(trial, folder, crystals, watcher, command):
        trained.append((trial.number, trial.overrides))
        error = abs(np.log10(trial.overrides["optimizer.learning_rate"]) + 3)
        watcher.epoch({"epoch": 0, "val_error": error})
        if watcher.should_stop():
            return False
        folder._end(trial.number, trial.overrides, status="finished", val_error=error)
        return True

    monkeypatch.setattr(search, "train_one", train_one)
    return trained


class StopAfter(SweepWatcher):
    def __init__(self, n_trial: int) -> None:
        self._left = n_trial

    def ended(self, record, n_ended, n_trial):
        self._left -= 1

    def should_stop(self) -> bool:
        return self._left <= 0


WIDE = {
    "optimizer.learning_rate": Uniform(1e-6, 1.0, log=True),
    "model.num_convs": Integers(1, 3),
    ("model.atom_layers", "model.crystal_layers"): [(1, 0), (0, 1)],
}


def test_a_search_finds_the_lowest_error_of_a_known_function(quick, tmp_path):
    assert run_search(config(), WIDE, tmp_path, 40, data=load)
    errors = pd.read_csv(tmp_path / "results.csv")["val_error"]
    assert len(errors) == 40
    # The best of 40 blind draws from six decades is 0.037 off on average; a search stays near what was good.
    assert errors.min() < 0.1
    assert np.median(errors[20:]) < 0.5 * np.median(errors[:10])
    layers = {(t["model.atom_layers"], t["model.crystal_layers"]) for _, t in quick}
    assert layers == {(1, 0), (0, 1)} and {t["model.num_convs"] for _, t in quick} <= {1, 2, 3}


def test_a_stopped_search_chooses_as_one_that_was_not(quick, tmp_path):
    run_search(config(), WIDE, tmp_path / "one", 14, data=load)
    undisturbed = list(quick)
    quick.clear()
    assert not run_search(config(), WIDE, tmp_path / "two", 14, data=load, watcher=StopAfter(5))
    assert len(quick) == 5
    assert run_search(config(), WIDE, tmp_path / "two", 14, data=load)
    assert quick == undisturbed
    # All have ended; more trials may be asked for, and the space may not change.
    assert run_search(config(), WIDE, tmp_path / "two", 14, data=load) and len(quick) == 14
    assert run_search(config(), WIDE, tmp_path / "two", 15, data=load) and len(quick) == 15
    with pytest.raises(ValueError, match="the space is another one"):
        run_search(config(), SPACE, tmp_path / "two", 15, data=load)


def test_a_trial_left_behind_is_taken_up_unless_its_process_lives(quick, tmp_path, monkeypatch):
    folder = SweepFolder(tmp_path)

    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(search, "train_one", die)
        with pytest.raises(KeyboardInterrupt):
            run_search(config(), WIDE, tmp_path, 3, data=load)
    (left,) = journal(tmp_path)
    assert left.state == STATES.RUNNING
    with folder.lock("trial_0000"):
        assert not run_search(config(), WIDE, tmp_path, 3, data=load)
    assert [number for number, _ in quick] == [1, 2]
    assert run_search(config(), WIDE, tmp_path, 3, data=load)
    assert [number for number, _ in quick] == [1, 2, 0]
    assert quick[2][1]["optimizer.learning_rate"] == left.params["optimizer.learning_rate"]
    assert [trial.state for trial in journal(tmp_path)] == [STATES.COMPLETE] * 3


def test_a_trial_that_ended_untold_is_told_and_not_trained_again(quick, tmp_path, monkeypatch):
    real = optuna.Study.tell

    def die(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "tell", die)
        with pytest.raises(KeyboardInterrupt):
            run_search(config(), WIDE, tmp_path, 1, data=load)
    assert optuna.Study.tell is real
    assert run_search(config(), WIDE, tmp_path, 1, data=load)
    assert len(quick) == 1 and journal(tmp_path)[0].state == STATES.COMPLETE


def test_an_epoch_far_above_the_median_prunes():
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(2, 1))
    for error in (1.0, 2.0):
        trial = study.ask()
        for epoch in range(3):
            trial.report(error, epoch)
        study.tell(trial, error)
    pruning = search._Pruning(SweepWatcher(), study.ask())
    pruning.epoch({"epoch": 0, "val_error": 9.0})  # within the warm-up
    assert not pruning.should_stop()
    pruning.epoch({"epoch": 1, "val_error": 1.4})  # below 1.5
    assert not pruning.should_stop()
    # The lowest of this trial so far counts: 1.4. Told again after a kill, an epoch is not reported twice.
    pruning.epoch({"epoch": 1, "val_error": 1.4})
    worse = search._Pruning(SweepWatcher(), study.ask())
    worse.epoch({"epoch": 1, "val_error": 1.6})
    assert worse.should_stop() and worse.is_pruned


def test_without_optuna_the_extra_is_named(monkeypatch, tmp_path):
    real = builtins.__import__

    def missing(name, *arguments, **named):
        if name == "optuna":
            raise ImportError("no module")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'cgcnn-jax\[sweep\]"):
        run_search(config(), SPACE, tmp_path, 1, data=load)


def test_a_choice_that_cannot_be_trained_fails_by_itself(quick, tmp_path):
    # Sites have no layers after pooling, which the configuration has.
    space = {**WIDE, ("model.atom_layers", "model.crystal_layers"): [(1, 0), (0, 1)], "model.pool": ["site", "mean"]}
    assert run_search(config(), space, tmp_path, 12, data=load)
    table = pd.read_csv(tmp_path / "results.csv")
    failed = (table["model.pool"] == "site") & (table["model.crystal_layers"] == 1)
    assert 0 < failed.sum() < 12
    assert (table["status"] == np.where(failed, "failed", "finished")).all()
    assert table["reason"][failed].str.contains("config.model.pool=site predicts a number per atom").all()
    assert [number for number, _ in quick] == table["trial"][~failed].tolist()
    assert [trial.state == STATES.PRUNED for trial in journal(tmp_path)] == failed.tolist()


def test_a_network_that_old_weights_do_not_fit_fails_by_itself(tmp_path):
    own = config()
    run(own, tmp_path / "old", data=load, report=False)
    own.init_from, own.train.epochs = str(tmp_path / "old"), 1
    assert run_search(own, {"model.features": [4, 5]}, tmp_path / "search", 4, data=load)
    table = pd.read_csv(tmp_path / "search" / "results.csv")
    fits = table["model.features"] == 4
    assert 0 < fits.sum() < 4
    assert (table["status"] == np.where(fits, "finished", "failed")).all()
    assert table["reason"][~fits].str.contains("the weights of config.init_from do not fit this network").all()


def test_a_choice_too_large_for_the_memory_fails_by_itself(quick, tmp_path, monkeypatch):
    trains = search.train_one

    def short_of_memory(trial, *others):
        if trial.config.model.num_convs == 3:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17592186044416 bytes.")
        return trains(trial, *others)

    monkeypatch.setattr(search, "train_one", short_of_memory)
    assert run_search(config(), WIDE, tmp_path, 12, data=load)
    table = pd.read_csv(tmp_path / "results.csv")
    large = table["model.num_convs"] == 3
    assert 0 < large.sum() < 12
    assert (table["status"] == np.where(large, "failed", "finished")).all()
    assert table["reason"][large].str.contains("not enough memory .RESOURCE_EXHAUSTED").all()

    # A trial that is as large as all others is not to blame, nor is any for another error.
    def always(trial, *others):
        raise RuntimeError(message)

    monkeypatch.setattr(search, "train_one", always)
    alike = {"optimizer.learning_rate": Uniform(1e-3, 1e-2, log=True)}
    for number, (message, space) in enumerate([("RESOURCE_EXHAUSTED: Out", alike), ("a wire is loose", WIDE)]):
        with pytest.raises(RuntimeError, match=message):
            run_search(config(), space, tmp_path / str(number), 2, data=load)


def test_a_trial_that_another_process_told_is_not_told_twice(quick, tmp_path, monkeypatch):
    tell = optuna.Study.tell

    def told_before(study, number, *arguments, **named):
        tell(study, number, *arguments)
        tell(study, number, *arguments, **named)

    monkeypatch.setattr(optuna.Study, "tell", told_before)
    assert run_search(config(), WIDE, tmp_path, 2, data=load)
    assert [trial.state for trial in journal(tmp_path)] == [STATES.COMPLETE] * 2


def test_a_search_of_which_nothing_can_be_trained_ends(quick, tmp_path):
    space = {"model.crystal_layers": [1, 2], "model.pool": ["site"]}
    with pytest.raises(ValueError, match=r"none of 5 trials can be trained; the last: trial 4 .*model\.pool=site"):
        run_search(config(), space, tmp_path, 40, data=load)
    # The same call goes on with the next.
    with pytest.raises(ValueError, match="none of 6 trials can be trained"):
        run_search(config(), space, tmp_path, 40, data=load)
    # All asked for have failed: nothing was found.
    with pytest.raises(ValueError, match="none of 6 trials can be trained"):
        run_search(config(), space, tmp_path, 6, data=load)
    assert quick == []


def test_data_that_no_trial_can_use_are_told_at_once(quick, tmp_path):
    def broken(*arguments):
        raise DataError("1 of 30 crystals cannot be used")

    with pytest.raises(DataError, match="1 of 30"):
        run_search(config(), WIDE, tmp_path, 9, data=broken)
    # Mended, the search goes on with the same trial.
    assert run_search(config(), WIDE, tmp_path, 2, data=load)
    assert [number for number, _ in quick] == [0, 1]
    # Where a trial chooses the graphs, its own may be to blame.
    wider = {**WIDE, "graph.cutoff": [8.0, 1.0]}

    def short(own, table):
        return broken() if own.graph.cutoff == 1.0 else load(own, table)

    assert run_search(config(), wider, tmp_path / "graphs", 8, data=short)
    table = pd.read_csv(tmp_path / "graphs" / "results.csv")
    assert set(table["status"][table["graph.cutoff"] == 1.0]) == {"failed"}
    assert set(table["status"][table["graph.cutoff"] == 8.0]) == {"finished"}


def test_a_split_that_a_trial_chose_fails_by_itself(quick, tmp_path):
    # The first of all to load crystals, too: a hundredth of 30 is none.
    for number, ratios in enumerate([[(0.98, 0.01, 0.01)], [(0.98, 0.01, 0.01), (0.6, 0.2, 0.2)]]):
        place = tmp_path / str(number)
        space = {**WIDE, "split.ratios": ratios}
        if number:
            assert run_search(config(), space, place, 8, data=load)
        else:
            with pytest.raises(ValueError, match="none of 2 trials can be trained"):
                run_search(config(), space, place, 2, data=load)
    table = pd.read_csv(place / "results.csv")
    assert set(table["status"]) == {"failed", "finished"}
    assert table["reason"].dropna().str.contains("too few for split.ratios").all()


def test_nothing_to_validate_on_and_no_trial_are_refused(quick, tmp_path):
    own = config()
    own.split.ratios = (0.8, 0.0, 0.2)
    with pytest.raises(ValueError, match=r"config\.split leaves val empty"):
        run_search(own, WIDE, tmp_path, 1, data=load)
    with pytest.raises(ValueError, match="at least 1 trial; got 0"):
        run_search(config(), WIDE, tmp_path, 0, data=load)


def worker(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep.problem", str(folder), *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_share_a_search_and_a_killed_ones_trial_is_finished(tmp_path):
    hanging = worker(tmp_path, "hang")
    deadline = time.monotonic() + 300
    while not (tmp_path / "hangs").exists():
        assert hanging.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    # Two more at once: they train what is left, and leave alone what a living process holds.
    others = [worker(tmp_path), worker(tmp_path)]
    assert [other.communicate(timeout=600)[0].strip() for other in others].count("false") == 2
    assert [trial.state for trial in journal(tmp_path)].count(STATES.RUNNING) == 1
    hanging.send_signal(signal.SIGKILL)
    hanging.wait()
    told = []

    class Told(SweepWatcher):
        def message(self, text):
            told.append(text)

    assert run_search(config(), SPACE, tmp_path, N_TRIAL, data=load, watcher=Told())
    assert any(text.startswith("going on after 1 of 4 epochs") for text in told)
    trials = journal(tmp_path)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert all(trial.state in (STATES.COMPLETE, STATES.PRUNED) for trial in trials)
    assert pd.read_csv(tmp_path / "results.csv")["trial"].tolist() == [0, 1, 2, 3]
    assert [record["epoch"] for record in SweepFolder(tmp_path).trial(0).records()] == [0, 1, 2, 3]
