"""Files of a finished run that are gone or half written: the same command makes them again, to the same numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cgcnn_jax import config as configs
from cgcnn_jax import evaluation
from cgcnn_jax.predict import Predictor
from cgcnn_jax.run import RunResult, Watcher, run
from cgcnn_jax.sweep.folder import SweepFolder
from cgcnn_jax.workdir import Workdir
from tests.sweep.problem import config, load

pytestmark = pytest.mark.usefixtures("quick_compiling")


class Told(Watcher):
    """Remembers messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def again(folder: Path) -> RunResult:
    """The same command."""
    return run(config(), folder, data=load, report=False)


def numbers(folder: Path) -> dict[str, Any]:
    """All that a run says of its errors and predictions."""
    place = Workdir(folder)
    crystals = load(config(), configs.build_atom_table(config()))
    return {
        "predictions.csv": (folder / "predictions.csv").read_text(),
        "metrics": place.summary()["metrics"],
        "split": place.read_json("split.json"),
        "config": place.read_json("config.json"),
        "records": [{key: value for key, value in one.items() if key != "seconds"} for one in place.records()],
        "predicted": Predictor.restore(folder).predict_graphs(crystals.graphs).tolist(),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, whose judging was killed once: its summary was there, its pictures were not."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "pictures", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            again(folder)
    assert (folder / "summary.json").exists() and not (folder / "parity.png").exists()
    first = (folder / "predictions.csv").read_text()
    result = again(folder)
    assert not result.was_finished and "parity" in result.pictures
    assert (folder / "predictions.csv").read_text() == first
    return folder


def test_what_a_kill_left_of_a_judged_run_is_made_by_the_next_start_and_by_no_other(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir() if path.is_file() and path.name != ".lock"}
    assert {"parity.png", "learning_curve.png", "summary.json"} <= {path.name for path in before}
    assert again(finished).was_finished
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_files_that_are_gone_are_written_again(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    for name in ("predictions.csv", "split.json", "config.json"):
        (tmp_path / "run" / name).unlink()
    assert not again(tmp_path / "run").was_finished
    assert numbers(tmp_path / "run") == numbers(finished)


def test_without_its_last_checkpoint_a_finished_run_predicts_nothing_and_is_trained_to_its_end_again(
    finished, tmp_path
):
    shutil.copytree(finished, tmp_path / "run")
    steps = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(steps[-1]))
    with pytest.raises(ValueError, match=rf"the last checkpoint of this finished run is gone, .* step {steps[0]} "):
        Predictor.restore(tmp_path / "run")
    assert not again(tmp_path / "run").was_finished
    assert numbers(tmp_path / "run") == numbers(finished)


class Stopping(Watcher):
    """Stops at the first step."""

    def should_stop(self) -> bool:
        return True


def test_a_finished_run_that_is_trained_again_and_stopped_is_not_finished(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    shutil.rmtree(folder / "checkpoints" / str(steps[-1]))
    stopped = run(config(), folder, data=load, report=False, watcher=Stopping())
    assert not stopped.is_finished and (folder / "summary.json").exists()
    assert not Workdir(folder).is_finished
    result = again(folder)
    assert result.is_finished and not result.was_finished
    assert numbers(folder) == numbers(finished)


def test_a_run_stopped_in_its_first_epoch_does_not_predict_with_the_weights_it_began_with(tmp_path):
    own = config()
    own.train.batch_size = 2
    assert not run(own, tmp_path, data=load, report=False, watcher=Stopping()).is_finished
    assert Workdir(tmp_path).has_checkpoints and not Workdir(tmp_path).records()
    with pytest.raises(FileNotFoundError, match=r"the run was stopped in its first epoch, .*; train on"):
        Predictor.restore(tmp_path)
    assert run(own, tmp_path, data=load, report=False).is_finished
    assert Predictor.restore(tmp_path)


def test_without_config_json_the_checkpoint_tells_which_run_it_is(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    other = config()
    other.optimizer.learning_rate = 0.5
    with pytest.raises(
        ValueError, match=r"holds a run with another configuration:\n  optimizer\.learning_rate: .* -> 0\.5"
    ):
        run(other, tmp_path / "run", data=load, report=False)
    assert not (tmp_path / "run" / "config.json").exists()


def test_records_that_are_gone_are_told_of(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").unlink()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text(lines[0] + lines[1][:20])
    told = Told()
    run(config(), tmp_path / "run", data=load, report=False, watcher=told)
    assert f"{tmp_path / 'run'}/metrics.jsonl is damaged: it lacks epochs, which curves and times then lack too" in (
        told.messages
    )
    assert numbers(tmp_path / "run") == numbers(finished) | {"records": numbers(finished)["records"][:1]}


def test_a_trial_without_its_records_is_named_with_what_to_remove(finished, tmp_path):
    folder = SweepFolder(tmp_path)
    folder.claim({}, {"trials": [{}]})
    shutil.copytree(finished, folder.trial(0).path)
    folder.open_population([0])
    (folder.trial(0).path / "metrics.jsonl").unlink()
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl: damaged, it lacks epoch \d\. Remove .*/trials/0000 and .*/0000, "
    ):
        folder.end_finished(0, {})


@pytest.mark.parametrize("name", ["sweep.json", "populations/0000/population.json", "trials/0000/trial.json"])
def test_a_damaged_file_of_a_sweep_is_named(tmp_path, name):
    folder = SweepFolder(tmp_path)
    folder.claim({}, {"trials": [{}]})
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(json.dumps({"trials": [0]})[:-2])
    with pytest.raises(ValueError, match=rf"{name}: damaged, not JSON"):
        folder.claim({}, {"trials": [{}]}) if name == "sweep.json" else (folder.populations(), folder.ended())
