import gzip
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.model_selection import KFold

from cgcnn_jax import Predictor, together
from cgcnn_jax import config as configs
from cgcnn_jax.benchmark.protocol import run_task
from cgcnn_jax.benchmark.table import markdown
from cgcnn_jax.benchmark.tasks import SUITES
from cgcnn_jax.data.sets import SETS, File
from cgcnn_jax.data.sources import matbench, read_matbench
from cgcnn_jax.data.sources.matbench import Task
from cgcnn_jax.files import lock_if_free
from cgcnn_jax.run import Watcher, run
from cgcnn_jax.train.loop import Diverged
from configs import base
from tests.benchmark.toys import HEAVY, TOY, write
from tests.compiling import the_way_of_populations

pytestmark = pytest.mark.usefixtures("quicker_compiling")


@pytest.fixture(autouse=True, scope="module")
def toys() -> Iterator[None]:
    """Tasks of a few crystals among those of Matbench."""
    with pytest.MonkeyPatch.context() as patch:
        for task in (TOY, HEAVY):
            patch.setitem(matbench.TASKS, task.name, task)
        yield


@pytest.fixture(scope="module")
def config() -> ConfigDict:
    config = base.get_config()
    config.data.cache, config.split.val_ratio = "", 0.2
    config.train.epochs, config.train.batch_size = 3, 8
    config.model.features, config.model.num_convs = 4, 1
    return config


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "toy.jsonl")


class StopsAfter(Watcher):
    """Stops after so many epochs, over all folds."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.left -= 1

    def should_stop(self) -> bool:
        return self.left <= 0


@pytest.fixture(scope="module")
def whole(config: ConfigDict, crystals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task that was run without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_task(config, TOY, crystals, folder, command="the command") is not None
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def test_the_record_has_what_the_leaderboard_asks_for(whole: Path) -> None:
    record = read(whole)
    assert record["crystals"] == {"official": 40, "present": 30, "missing": 10, "left_out": 0}
    assert record["command"] == "the command"
    assert record["config"]["train"]["epochs"] == 3
    assert len(record["folds"]) == 3
    of_folds = []
    for k, fold in enumerate(record["folds"]):
        assert fold["crystals"] == {"train": 16, "val": 4, "test": 10, "test_official": 14 if k == 0 else 13}
        rows = [line.split(",") for line in (whole / f"fold_{k}" / "predictions.csv").read_text().splitlines()[1:]]
        # The label is the sum of the numbers in the id, so each row shows that the right one was judged.
        assert all(sum(map(int, row[0].split("-"))) == float(row[1]) for row in rows)
        errors = [abs(float(row[2]) - float(row[1])) for row in rows]
        assert fold["scores"]["mae"] == pytest.approx(np.mean(errors))
        assert fold["scores"]["max_error"] == pytest.approx(max(errors))
        of_folds.append(np.mean(errors))
    assert record["scores"]["mae"]["mean"] == pytest.approx(np.mean(of_folds))
    assert record["scores"]["mae"]["std"] == pytest.approx(np.std(of_folds))
    judged = {line.split(",")[0] for k in range(3) for line in (whole / f"fold_{k}" / "predictions.csv").open()}
    assert len(judged - {"id"}) == 30


def test_labels_of_the_test_fold_change_no_bit_of_the_weights(config: ConfigDict, whole: Path, tmp_path: Path) -> None:
    poisoned = write(tmp_path / "toy.jsonl", poisoned_fold=0)
    assert run_task(config, TOY, poisoned, tmp_path / "b", watcher=StopsAfter(3)) is None
    clean, other = (Predictor.restore(folder / "fold_0") for folder in (whole, tmp_path / "b"))
    assert clean.scaler == other.scaler
    for one, two in zip(jax.tree.leaves(clean.weights), jax.tree.leaves(other.weights), strict=True):
        np.testing.assert_array_equal(one, two)
    # The poison was there: the judge saw it.
    scores = [json.loads((folder / "fold_0" / "fold.json").read_text())["scores"] for folder in (whole, tmp_path / "b")]
    assert scores[1]["mae"] > 100 * scores[0]["mae"]


def without_times(record: Mapping[str, Any]) -> dict[str, Any]:
    volatile = {"date", "command", "inference", "inference_crystals_per_second"}
    volatile |= {"seconds_to_train", "train_crystals_per_second"}
    kept = {key: value for key, value in record.items() if key not in volatile}
    for name in {"folds", "ensemble"} & kept.keys():
        kept[name] = [without_times(one) for one in kept[name]]
    return kept


def test_a_stopped_benchmark_goes_on_to_the_record_of_an_undisturbed_one(
    config: ConfigDict, crystals: Path, whole: Path, tmp_path: Path
) -> None:
    # Stopped in the second fold, after its first epoch.
    assert run_task(config, TOY, crystals, tmp_path, watcher=StopsAfter(4)) is None
    assert (tmp_path / "fold_0" / "fold.json").exists() and not (tmp_path / "fold_1" / "fold.json").exists()
    first = (tmp_path / "fold_0" / "fold.json").read_bytes()
    # What began alone goes on alone, and so does what is left then.
    assert run_task(config, TOY, crystals, tmp_path, population=3) is not None
    assert (tmp_path / "fold_0" / "fold.json").read_bytes() == first
    assert without_times(read(tmp_path)) == without_times(read(whole))


def test_processes_share_the_folds_and_the_last_one_writes_the_record(
    config: ConfigDict, crystals: Path, whole: Path, tmp_path: Path
) -> None:
    with lock_if_free(tmp_path / "fold_1.lock") as is_mine:
        assert is_mine
        # Three together are a matter of all three.
        assert run_task(config, TOY, crystals, tmp_path, population=3, load=lambda *_: pytest.fail("loaded")) is None
        assert run_task(config, TOY, crystals, tmp_path) is None
    assert [(tmp_path / f"fold_{k}" / "fold.json").exists() for k in range(3)] == [True, False, True]
    assert not (tmp_path / "record.json").exists()

    class Meets(Watcher):
        """A process with fold 1 meets another one, which finds nothing to do."""

        def epoch(self, record: Mapping[str, Any]) -> None:
            assert run_task(config, TOY, crystals, tmp_path, load=lambda *arguments: pytest.fail("loaded")) is None

    assert run_task(config, TOY, crystals, tmp_path, watcher=Meets()) is not None
    assert without_times(read(tmp_path)) == without_times(read(whole))


@pytest.fixture(scope="module")
def pair(config: ConfigDict, crystals: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `whole` after it became an ensemble of two networks a fold."""
    folder = tmp_path_factory.mktemp("pair") / "task"
    shutil.copytree(whole, folder)
    assert run_task(config, TOY, crystals, folder, networks=2) is not None
    return folder


def test_an_ensemble_is_judged_by_the_mean_of_its_predictions(whole: Path, pair: Path) -> None:
    record = read(pair)
    assert record["networks"] == 2 and record["parameters"] == 2 * read(whole)["parameters"]
    of_folds, of_one = [], []
    for k, fold in enumerate(record["folds"]):
        # The first network is the one that was there.
        for name in ("fold.json", "predictions.csv"):
            assert (pair / f"fold_{k}" / name).read_bytes() == (whole / f"fold_{k}" / name).read_bytes()
        first, second = (
            [line.split(",") for line in (pair / name / "predictions.csv").read_text().splitlines()[1:]]
            for name in (f"fold_{k}", f"fold_{k}_seed_1")
        )
        assert [row[:2] for row in first] == [row[:2] for row in second] and first != second
        target, *predicted = (
            np.array([float(row[column]) for row in rows]) for rows, column in ((first, 1), (first, 2), (second, 2))
        )
        of_folds.append(np.abs((predicted[0] + predicted[1]) / 2 - target).mean())
        of_one.append(np.mean([np.abs(one - target).mean() for one in predicted]))
        assert fold["scores"]["mae"] == pytest.approx(of_folds[-1])
        assert [one["seed"] for one in fold["ensemble"]] == [0, 1]
        # Both learned from the same crystals, and the weights of both were chosen by the same others.
        splits = [(pair / name / "split.json").read_bytes() for name in (f"fold_{k}", f"fold_{k}_seed_1")]
        assert splits[0] == splits[1]
    assert record["scores"]["mae"]["mean"] == pytest.approx(np.mean(of_folds))
    assert record["scores_of_one"]["mae"]["mean"] == pytest.approx(np.mean(of_one))
    spreads = [np.std([fold["ensemble"][m]["scores"]["mae"] for fold in record["folds"]]) for m in (0, 1)]
    assert record["scores_of_one"]["mae"]["std"] == pytest.approx(np.mean(spreads))
    # The norm of the mean of two errors is at most the mean of their norms, and less unless they are parallel.
    assert record["scores"]["rmse"]["mean"] < record["scores_of_one"]["rmse"]["mean"]
    once = {name: record["inference_crystals_per_second"] for record, name in ((read(whole), "one"), (record, "both"))}
    assert 0 < once["both"] < once["one"]


def test_an_ensemble_that_is_stopped_goes_on_and_its_first_networks_are_a_record_of_their_own(
    config: ConfigDict, crystals: Path, whole: Path, pair: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "task")
    assert run_task(config, TOY, crystals, tmp_path / "task", networks=2, watcher=StopsAfter(4)) is None
    assert read(tmp_path / "task") == read(whole)
    assert [(tmp_path / "task" / f"fold_{k}_seed_1" / "fold.json").exists() for k in range(3)] == [True, False, False]
    assert run_task(config, TOY, crystals, tmp_path / "task", networks=2) is not None
    assert without_times(read(tmp_path / "task")) == without_times(read(pair))
    assert run_task(config, TOY, crystals, tmp_path / "task") == read(whole)


def test_networks_that_began_together_go_on_as_they_began_or_not_at_all(
    config: ConfigDict, crystals: Path, tmp_path: Path
) -> None:
    def go(settings: ConfigDict, watcher: Watcher) -> dict[str, Any] | None:
        with the_way_of_populations():
            return run_task(settings, TOY, crystals, tmp_path, population=3, watcher=watcher)

    assert go(config, StopsAfter(1)) is None
    assert not (tmp_path / "fold_0" / "checkpoints").exists()
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate, other.train.epochs = 0.5, config.train.epochs + 1
    with pytest.raises(ValueError, match=r"(?s)fold_0 holds a run with another configuration:.*learning_rate.*epochs"):
        go(other, StopsAfter(9))
    assert json.loads((tmp_path / "fold_0" / "config.json").read_text())["train"]["epochs"] == config.train.epochs


def test_networks_that_train_together_make_the_record_of_those_that_train_alone(
    config: ConfigDict, crystals: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(population: int) -> dict[str, Any] | None:
        with the_way_of_populations():
            return run_task(config, TOY, crystals, tmp_path, networks=2, population=population)

    original = together.train_together

    def diverges_in_the_first(*arguments: Any, **options: Any) -> Any:
        first, *others = original(*arguments, **options) or ()
        return [replace(first, end=Diverged(3, 1)), *others]

    with monkeypatch.context() as patch:
        patch.setattr(together, "train_together", diverges_in_the_first)
        with pytest.raises(Diverged, match="step 3"):
            go(population=4)
    begun = json.loads((tmp_path / "together" / "fold_0" / "runs.json").read_text())
    assert begun["runs"] == ["fold_0", "fold_1", "fold_2", "fold_0_seed_1"]
    # The others of the four have their records; in another number they go on as they began.
    finished = {name: (tmp_path / name / "fold.json").read_bytes() for name in begun["runs"][1:]}
    assert not (tmp_path / "fold_0" / "fold.json").exists() and not (tmp_path / "fold_1_seed_1").exists()
    record = go(population=6)
    assert record is not None
    assert {name: (tmp_path / name / "fold.json").read_bytes() for name in finished} == finished
    assert not any((tmp_path / "together").iterdir())
    expected = read(pair)
    assert record["networks"] == 2 and record["parameters"] == expected["parameters"]
    for mine, other in zip(record["folds"], expected["folds"], strict=True):
        assert mine["crystals"] == other["crystals"]
        for one, alone in zip(mine["ensemble"], other["ensemble"], strict=True):
            assert one["best_epoch"] == alone["best_epoch"] and one["epochs"] == alone["epochs"]
            # Float32 rounding, which training amplifies: to 0.0009 on jax 0.9 and 0.0017 on 0.12.
            assert one["scores"]["mae"] == pytest.approx(alone["scores"]["mae"], rel=5e-3)
        # Other weights and shuffles are farther apart than that.
        first, second = (alone["scores"]["mae"] for alone in other["ensemble"])
        assert first != pytest.approx(second, rel=2e-2)
    for name in ("fold_0", "fold_2_seed_1"):
        assert (tmp_path / name / "split.json").read_bytes() == (pair / name / "split.json").read_bytes()
        # The weights that each left are those that were judged.
        values = Predictor.restore(tmp_path / name).predict_entries(read_matbench(crystals, TOY.name))
        of_id = dict(zip(values["id"], values["prediction"], strict=True))
        rows = [row.split(",") for row in (tmp_path / name / "predictions.csv").read_text().splitlines()[1:]]
        assert [float(row[2]) for row in rows] == pytest.approx([of_id[row[0]] for row in rows], rel=1e-5)


@pytest.mark.parametrize("population", [1, 3])
def test_networks_that_began_with_others_are_not_trained_without_them(
    config: ConfigDict, crystals: Path, tmp_path: Path, population: int
) -> None:
    begun = tmp_path / "together" / "fold_0"
    (begun / "checkpoints" / "12").mkdir(parents=True)
    (begun / "runs.json").write_text(json.dumps({"runs": ["fold_0", "fold_1", "fold_2", "fold_0_seed_1"]}))
    with pytest.raises(ValueError, match=r"has 4 networks that began .* got --networks=1, which has 3 of them"):
        run_task(config, TOY, crystals, tmp_path, population=population)
    assert not (tmp_path / "fold_0").exists()


@pytest.mark.parametrize("population", [0, -1])
def test_no_population_is_refused(config: ConfigDict, crystals: Path, tmp_path: Path, population: int) -> None:
    with pytest.raises(ValueError, match=r"--population, .* must be at least 1; got"):
        run_task(config, TOY, crystals, tmp_path, population=population)


@pytest.fixture(scope="module")
def classes(config: ConfigDict, crystals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task of classes on a published split."""
    folder = tmp_path_factory.mktemp("classes")
    assert run_task(config, HEAVY, crystals, folder) is not None
    return folder


def test_an_ensemble_of_classifiers_averages_probabilities(
    config: ConfigDict, crystals: Path, classes: Path, tmp_path: Path
) -> None:
    shutil.copytree(classes, tmp_path, dirs_exist_ok=True)
    record = run_task(config, HEAVY, crystals, tmp_path, networks=2)
    assert record is not None
    first, second = (
        [line.split(",") for line in (tmp_path / name / "predictions.csv").read_text().splitlines()]
        for name in ("fold_0", "fold_0_seed_1")
    )
    assert first[0][:5] == ["id", "target", "prediction", "probability_0", "probability_1"]
    is_heavy = [(float(one[4]) + float(two[4])) / 2 > 0.5 for one, two in zip(first[1:], second[1:], strict=True)]
    labels = [float(row[1]) == 1 for row in first[1:]]
    assert record["folds"][0]["scores"]["accuracy"] == pytest.approx(np.mean(np.array(is_heavy) == labels))


def test_predictions_of_other_crystals_are_not_averaged(
    config: ConfigDict, crystals: Path, pair: Path, tmp_path: Path
) -> None:
    shutil.copytree(pair, tmp_path / "task")
    file = tmp_path / "task" / "fold_1_seed_1" / "predictions.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    with pytest.raises(
        ValueError, match=r"fold_1_seed_1/predictions\.csv and fold_1/predictions\.csv are of different"
    ):
        run_task(config, TOY, crystals, tmp_path / "task", networks=2)
    with pytest.raises(ValueError, match="networks per fold must be at least 1; got 0"):
        run_task(config, TOY, crystals, tmp_path / "task", networks=0)


def test_a_finished_task_is_not_even_loaded_again(config: ConfigDict, crystals: Path, whole: Path) -> None:
    def load(*arguments: object) -> Any:
        raise AssertionError("loaded")

    before = read(whole)
    assert run_task(config, TOY, crystals, whole, load=load) == before


def test_folds_of_two_commits_say_so(config: ConfigDict, crystals: Path, whole: Path, tmp_path: Path) -> None:
    task = SUITES["matbench"]["matbench_phonons"]
    shutil.copytree(whole, tmp_path / task.name)
    file = tmp_path / task.name / "fold_1" / "fold.json"
    fold = json.loads(file.read_text())
    commit = fold["commit"]
    file.write_text(json.dumps(fold | {"commit": "another"}))
    record = run_task(config, TOY, crystals, tmp_path / task.name)
    assert record is not None
    assert [fold["commit"] for fold in record["folds"]] == [commit, "another", commit]
    assert all("hardware" not in fold for fold in record["folds"])
    (tmp_path / task.name / "record.json").write_text(json.dumps(record | {"task": task.name}))
    assert f"commit {commit} and another." in markdown(tmp_path, None)


def test_networks_of_two_machines_say_so(config: ConfigDict, crystals: Path, pair: Path, tmp_path: Path) -> None:
    task = SUITES["matbench"]["matbench_phonons"]
    shutil.copytree(pair, tmp_path / task.name)
    file = tmp_path / task.name / "fold_1_seed_1" / "fold.json"
    fold = json.loads(file.read_text())
    hardware = fold["hardware"] | {"processor": "another", "cores": 7}
    file.write_text(json.dumps(fold | {"hardware": hardware, "command": "theirs"}))
    record = run_task(config, TOY, crystals, tmp_path / task.name, networks=2, command="with --networks=2")
    assert record is not None and record["command"] == "with --networks=2"
    assert [one["command"] for one in record["folds"][1]["ensemble"]] == ["the command", "theirs"]
    (tmp_path / task.name / "record.json").write_text(json.dumps(record | {"task": task.name}))
    table = markdown(tmp_path, None)
    assert f"{fold['hardware']['cores']} cores) and cpu (another, 7 cores), {record['date'][:10]}" in table
    assert f"{record['parameters']:,} parameters of all networks" in table
    (tmp_path / task.name / "fold_2" / "predictions.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"fold_2/predictions\.csv is gone, and the mean needs it"):
        run_task(config, TOY, crystals, tmp_path / task.name, networks=2)


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("optimizer", "l2", 0.1, r"fold_0 holds a run with another configuration:\n  optimizer\.l2: 0\.0 -> 0\.1"),
        ("split", "val_ratio", 0.1, r"split\.val_ratio: 0\.2 -> 0\.1"),
    ],
)
def test_another_configuration_is_refused(
    config: ConfigDict, crystals: Path, whole: Path, group: str, field: str, value: object, message: str
) -> None:
    other = config.copy_and_resolve_references()
    other[group][field] = value
    with pytest.raises(ValueError, match=message):
        run_task(other, TOY, crystals, whole)


def test_other_data_are_refused(config: ConfigDict, whole: Path, tmp_path: Path) -> None:
    for name in ("fold_0", "fold_1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fold.json").write_bytes((whole / name / "fold.json").read_bytes())
    with pytest.raises(ValueError, match="matbench_toy: the data changed since fold_0 was finished"):
        run_task(config, TOY, write(tmp_path / "toy.jsonl", poisoned_fold=1), tmp_path)
    # Nor do folds that another process, begun with other data, has finished make a record with these.
    (tmp_path / "fold_2").mkdir()
    record = json.loads((whole / "fold_2" / "fold.json").read_text())
    (tmp_path / "fold_2" / "fold.json").write_text(json.dumps(record | {"data_digest": "another"}))
    with pytest.raises(ValueError, match="matbench_toy: the data changed since fold_0 was finished"):
        run_task(config, TOY, tmp_path / "toy.jsonl", tmp_path)
    assert not (tmp_path / "record.json").exists()
    # Nor is a fold whose checkpoints were removed taken for one of another configuration.
    other = config.copy_and_resolve_references()
    other.train.seed = 5
    with pytest.raises(ValueError, match=r"fold_0 holds a fold of another configuration:\n  train\.seed: 0 -> 5"):
        run_task(other, TOY, tmp_path / "toy.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("init_from", "runs/demo", "may have seen the crystals of the test folds"),
        ("train.patience", 3, r"config\.train\.patience must be 0 where .* no crystal to validate on: .*; got 3"),
    ],
)
def test_what_the_protocol_does_not_admit_is_refused(
    config: ConfigDict, crystals: Path, tmp_path: Path, field: str, value: object, message: str
) -> None:
    other = config.copy_and_resolve_references()
    other.split.val_ratio = 0.0
    group, _, name = field.rpartition(".")
    (other[group] if group else other)[name] = value
    with pytest.raises(ValueError, match=message):
        run_task(other, TOY, crystals, tmp_path)


def test_classes_on_a_published_split_and_all_that_may_train_training(classes: Path) -> None:
    record = read(classes)
    (fold,) = record["folds"]
    assert fold["crystals"] == {"train": 18, "val": 6, "test": 6, "test_official": 6}
    assert record["metric"] == "rocauc"
    assert record["scores"]["rocauc"]["std"] is None
    assert set(record["scores"]) == {"accuracy", "balanced_accuracy", "f1", "rocauc", "rocauc_of_labels"}
    # By hand from the file: labels and the more probable class.
    rows = [line.split(",") for line in (classes / "fold_0" / "predictions.csv").read_text().splitlines()[1:]]
    assert fold["scores"]["accuracy"] == np.mean([float(row[1]) == float(row[2]) for row in rows])


def test_with_nothing_held_out_all_other_folds_train_and_the_last_weights_judge(
    config: ConfigDict, crystals: Path, tmp_path: Path
) -> None:
    other = config.copy_and_resolve_references()
    other.split.val_ratio = 0.0
    assert run_task(other, TOY, crystals, tmp_path, watcher=StopsAfter(3)) is None
    fold = json.loads((tmp_path / "fold_0" / "fold.json").read_text())
    assert fold["crystals"] == {"train": 20, "val": 0, "test": 10, "test_official": 14}
    assert fold["weights_chosen_by"] == "nothing: those after the last epoch"
    assert fold["metrics_of_val"] == {} and fold["best_epoch"] == 2
    members = json.loads((tmp_path / "fold_0" / "split.json").read_text())
    assert not members["val"] and not set(members["train"]) & set(members["test"])
    records = [json.loads(line) for line in (tmp_path / "fold_0" / "metrics.jsonl").open()]
    assert len(records) == 3 and not any(key.startswith("val_") for one in records for key in one)
    assert (tmp_path / "fold_0" / "learning_curve.png").exists()


def configured_as_typed(config: ConfigDict, path: Path | str, fold: int) -> ConfigDict:
    """With --config.data.source=matbench --config.data.task=matbench_toy --config.data.fold=K --config.data.path=PATH."""
    typed = config.copy_and_resolve_references()
    typed.data.source, typed.data.task, typed.data.path = "matbench", "matbench_toy", str(path)
    typed.data.fold = fold
    return typed


def test_a_fold_is_the_run_that_train_makes(config: ConfigDict, crystals: Path, whole: Path, tmp_path: Path) -> None:
    typed = configured_as_typed(config, crystals, fold=1)
    assert json.loads((whole / "fold_1" / "config.json").read_text()) == json.loads(json.dumps(configs.to_dict(typed)))
    run(typed, tmp_path, report=False)
    for name in ("config.json", "split.json", "predictions.csv"):
        assert (tmp_path / name).read_bytes() == (whole / "fold_1" / name).read_bytes()
    # So that the run may as well go on, or be judged again, as one.
    assert run(typed, whole / "fold_1").was_finished


def test_official_files_that_were_fetched_need_no_path(
    config: ConfigDict, crystals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("matbench_toy", "y", "Z", "", 30, num_folds=2)
    config = config.copy_and_resolve_references()
    config.train.epochs = 1
    monkeypatch.setitem(matbench.TASKS, task.name, task)
    monkeypatch.setenv("CGCNN_JAX_DATA", str(tmp_path / "sets"))
    phonons = SETS["matbench_phonons"]
    file = f"{task.name}.json.gz"
    monkeypatch.setitem(SETS, task.name, replace(phonons, name=task.name, files=(File(file, ""),), records=30))
    with pytest.raises(FileNotFoundError, match=r"python -m experiments\.fetch matbench_toy"):
        run_task(config, task, "", tmp_path / "runs")
    rows = [[one.to_structure().as_dict(), one.targets["Z"]] for one in read_matbench(crystals, task.name)]
    content = {"index": list(range(30)), "columns": ["structure", "y"], "data": rows}
    (tmp_path / "sets" / task.name).mkdir(parents=True)
    (tmp_path / "sets" / task.name / file).write_bytes(gzip.compress(json.dumps(content).encode()))
    record = run_task(config, task, "", tmp_path / "runs")
    assert record is not None
    assert record["crystals"] == {"official": 30, "present": 30, "missing": 0, "left_out": 0}
    judged = []
    for k, (_, test) in enumerate(KFold(2, shuffle=True, random_state=18012019).split(rows)):
        members = json.loads((tmp_path / "runs" / f"fold_{k}" / "split.json").read_text())["test"]
        assert members == [f"mb-toy-{place + 1:02d}" for place in test]
        judged += members
    assert len(set(judged)) == 30
