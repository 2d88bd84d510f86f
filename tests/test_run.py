import dataclasses
import functools
import json
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ml_collections import ConfigDict
from pymatgen.core import Structure

from cgcnn_jax import Predictor, evaluation, reference
from cgcnn_jax import config as configs
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data import dataset, duplicates
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.predict import Misfit
from cgcnn_jax.preparation import facts
from cgcnn_jax.report import facts as report_facts
from cgcnn_jax.report import finished, page
from cgcnn_jax.run import RunResult, Watcher
from cgcnn_jax.run import run as run_and_report
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.state import Weights
from cgcnn_jax.workdir import Workdir
from configs import formation_energy
from tests.predictors import make_predictor

pytestmark = pytest.mark.usefixtures("quicker_compiling")

# Reports take seconds each.
run = functools.partial(run_and_report, report=False)


@pytest.fixture(scope="module")
def config() -> ConfigDict:
    config = formation_energy.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.data.target, config.data.unit, config.data.cache = "Z", "", ""
        config.train.epochs, config.train.batch_size = 4, 8
        config.model.features, config.model.num_convs = 4, 1
    return config


@pytest.fixture(scope="module")
def crystals(config: ConfigDict) -> Dataset:
    """30 CsCl-type crystals, labelled with their mean atomic number."""
    entries = [
        Crystal.from_arrays(f"{a}-{b}", (3 + 0.02 * (a + b)) * np.eye(3), [a, b], [[0, 0, 0], [0.5] * 3], {"Z": a + b})
        for a, b in permutations(range(1, 7), 2)
    ]
    return dataset.load(entries, configs.build_featurizer(config, configs.build_atom_table(config)), ["Z"])


@pytest.fixture(scope="module")
def split() -> dict[str, np.ndarray]:
    return {"train": np.arange(20), "val": np.arange(20, 25), "test": np.arange(25, 30)}


class Told(Watcher):
    """Remembers messages, and stops after some epochs."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.messages: list[str] = []
        self.epochs = 0
        self._stop_after = stop_after

    def message(self, text: str) -> None:
        self.messages.append(text)

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs += 1

    def should_stop(self) -> bool:
        return self.epochs >= self._stop_after


def test_folds_draw_val_anyway(config: ConfigDict, crystals: Dataset) -> None:
    config = config.copy_and_resolve_references()
    config.split.kind, config.split.redraw_val = "source", True
    folds = dataclasses.replace(crystals, source_split=tuple("012" * 10))
    with pytest.raises(ValueError, match=r"redraw_val joins train and val .* with a source of folds"):
        configs.build_split(config, folds)


def test_what_the_published_code_cannot_express_is_not_saved_for_it(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(config, tmp_path / "run", data=crystals, split=split)
    with pytest.raises(ValueError, match=r"exactly 12 neighbours within 8\.0 Å, this model was trained on WholeShells"):
        reference.save(tmp_path / "run", tmp_path / "x.pth.tar")


def test_a_run_with_angles_predicts_as_it_was_judged(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    config = config.copy_and_resolve_references()
    config.graph.angles = config.graph.share_last_shell = True
    # CsCl's cubes stretched along one axis: their angles differ.
    entries = [
        Crystal.from_arrays(
            id, np.diag([4, 4, 3.6 + 0.03 * z]), [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], {"Z": float(z)}
        )
        for z, id in enumerate(crystals.ids)
    ]
    data = dataset.load(entries, configs.build_featurizer(config, configs.build_atom_table(config)), ["Z"])
    run(config, tmp_path, data=data, split=split)
    with pytest.raises(ValueError, match="the number of angular features is always 0, here it is 16"):
        reference.save(tmp_path, tmp_path / "x.pth.tar")
    predictor = Predictor.restore(tmp_path)
    assert predictor.model.n_angle == 16 and np.ptp(data.graphs.angles, axis=0).max() > 0.03
    judged = pd.read_csv(tmp_path / "predictions.csv").set_index("id")
    again = predictor.predict([entries[i].to_structure() for i in split["test"]])["prediction"]
    np.testing.assert_allclose(again, judged.loc[[data.ids[i] for i in split["test"]], "prediction"], rtol=1e-5)


def test_pictures_that_fail_cost_no_number(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        # Killed here, the run would lose nothing.
        assert (tmp_path / "summary.json").exists() and (tmp_path / "predictions.csv").exists()
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(evaluation, "pictures", fail)
    told = Told()
    result = run(config, tmp_path, data=crystals, split=split, watcher=told)
    assert result.is_finished and result.pictures == ()
    assert told.messages[-1].startswith("no pictures were drawn (ModuleNotFoundError: No module named 'matplotlib')")


def test_a_run_takes_the_crystals_and_the_split_it_is_given_and_prints_nothing(
    config: ConfigDict,
    crystals: Dataset,
    split: dict[str, np.ndarray],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = run(config, tmp_path, data=crystals, split=split, command="a command")
    assert capfd.readouterr() == ("", "")
    assert result.summary is not None
    assert result.summary["command"] == "a command"
    assert json.loads((tmp_path / "split.json").read_text()) == {
        name: [crystals.ids[i] for i in index] for name, index in split.items()
    }
    rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["6-1", "6-2", "6-3", "6-4", "6-5"]
    # Labels are a + b.
    assert [float(row[1]) for row in rows] == [7, 8, 9, 10, 11]
    error = np.mean([abs(float(row[2]) - float(row[1])) for row in rows])
    assert result.summary["metrics"]["test"]["mae"] == pytest.approx(error, rel=1e-6)


def test_fine_tuning_goes_on_without_the_model_it_began_from(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(config, tmp_path / "old", data=crystals, split=split)
    own = config.copy_and_resolve_references()
    own.init_from, own.train.seed = str(tmp_path / "old"), 1
    run(own, tmp_path / "undisturbed", data=crystals, split=split)
    assert not run(own, tmp_path / "new", data=crystals, split=split, watcher=Told(stop_after=1)).is_finished
    (tmp_path / "old").rename(tmp_path / "moved")
    assert run(own, tmp_path / "new", data=crystals, split=split).is_finished
    one, other = (tmp_path / name / "predictions.csv" for name in ("undisturbed", "new"))
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(FileNotFoundError, match="old"):
        run(own, tmp_path / "another", data=crystals, split=split)


def test_a_network_trained_on_all_crystals_knows_them(config: ConfigDict, crystals: Dataset, tmp_path: Path) -> None:
    everything = {"train": np.arange(30), "val": np.arange(0), "test": np.arange(0)}
    run_and_report(config, tmp_path, data=crystals, split=everything)
    known = Applicability.load(tmp_path)
    assert known.ids == tuple(crystals.ids) and known.is_of(Predictor.restore(tmp_path))


def test_fine_tuning_tells_that_the_unit_is_another(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(config, tmp_path / "old", data=crystals, split=split)
    own, told = config.copy_and_resolve_references(), Told()
    own.init_from, own.data.unit = str(tmp_path / "old"), "GPa"
    run(own, tmp_path / "new", data=crystals, split=split, watcher=told)
    assert any(
        line.startswith("the weights of init_from predict Z, and the labels are Z (GPa): in another unit")
        for line in told.messages
    )


def test_fine_tuning_finds_properties_by_their_names() -> None:
    both = TargetScaler("regression", ("gap", "energy"), ("eV", "eV/atom"), (1.0, -1.5), (2.0, 0.7))
    old = make_predictor(pool="mean", scaler=both)
    table = np.asarray(old.weights.constants["atom_table"])

    def outputs(scaler: TargetScaler) -> np.ndarray:
        model = dataclasses.replace(old.model, n_output=scaler.n_output)
        variables = old.variables_for(model, table, scaler)
        weights = Weights(variables["params"], variables["batch_stats"], variables["constants"])
        return Predictor(model, weights, scaler, old.featurizer, {}).predict_graphs(graphs)

    salt = Structure([[0, 2.82, 2.82], [2.82, 0, 2.82], [2.82, 2.82, 0]], ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    graphs = old.featurizer(Crystal.from_structure("salt", salt)).graphs
    gap, energy = old.predict_graphs(graphs)[0]
    other_scale = TargetScaler("regression", ("energy", "gap"), ("eV/atom", "eV"), (-2.0, 1.2), (0.9, 1.8))
    np.testing.assert_allclose(outputs(other_scale), [[energy, gap]], rtol=1e-5)
    np.testing.assert_allclose(outputs(other_scale.only(("energy",))), [[energy]], rtol=1e-5)
    # Others are taken by their order, and as many.
    renamed = dataclasses.replace(both, names=("gap_hse", "energy"))
    np.testing.assert_allclose(outputs(renamed), [[gap, energy]], rtol=1e-5)
    with pytest.raises(Misfit, match="learn as many properties, or some of its own"):
        outputs(renamed.only(("gap_hse",)))


def test_fine_tuning_tells_which_crystals_the_model_has_seen(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(config, tmp_path / "old", data=crystals, split=split)
    own = config.copy_and_resolve_references()
    own.init_from = str(tmp_path / "old")
    kept, moved = Told(), Told()
    run(own, tmp_path / "kept", data=crystals, split=split, watcher=kept)
    assert not any("init_from" in line for line in kept.messages)
    # Of the new val four crystals were in train, one in val; of the new test one was in train, two in val, one in test.
    other = {"train": np.arange(10, 22), "val": np.array([0, 1, 2, 3, 22]), "test": np.array([9, 23, 24, 29])}
    run(own, tmp_path / "moved", data=crystals, split=other, watcher=moved)
    assert any(
        line.startswith(
            "at least 3 of 4 test and 4 of 5 val crystals are some that the model of init_from was trained on"
        )
        for line in moved.messages
    )
    assert Workdir(tmp_path / "moved").summary()["seen_by_init_from"] == {
        "test": 3,
        "val": 4,
        "looks_compared_with": "none",  # without a report
    }


def test_fine_tuning_knows_crystals_that_the_model_has_seen_by_their_looks(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    # Its report says how the network sees its training crystals. 5-1 and 1-5 are one crystal; but for those of 5 and 6
    # each in val and test has its like in train.
    run_and_report(config, tmp_path / "old", data=crystals, split=split)
    own, told = config.copy_and_resolve_references(), Told(stop_after=1)
    # Quotients or not, the network sees the same.
    own.init_from, own.graph.quotient = str(tmp_path / "old"), False
    assert not run(own, tmp_path / "new", data=crystals, split=split, watcher=told).is_finished
    assert any(line.startswith("4 of 5 test and 4 of 5 val crystals are some") for line in told.messages)
    # What was counted at the start outlives the model, and stands in the report.
    (tmp_path / "old").rename(tmp_path / "moved")
    result = run_and_report(own, tmp_path / "new", data=crystals, split=split)
    assert result.summary is not None
    assert result.summary["seen_by_init_from"] == {"test": 4, "val": 4, "looks_compared_with": "all"}
    (table,) = (panel.tables[""] for panel in [report_facts.setup(finished.read_all([tmp_path / "new"]))])
    assert table.loc["seen by the network it started from"].tolist() == ["val 4, test 4"]


def test_another_start_is_refused_while_a_run_is_judged(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def measure_while_another_starts(*arguments: Any) -> Any:
        with pytest.raises(ValueError, match="another process is training in") as error:
            run(config, tmp_path, data=crystals, split=split)
        refused.append(error)
        return right(*arguments)

    right = evaluation.measure
    monkeypatch.setattr(evaluation, "measure", measure_while_another_starts)
    assert run(config, tmp_path, data=crystals, split=split).is_finished
    assert len(refused) == 3  # of train, val and test


def test_predictions_stand_beside_what_the_crystals_are(config: ConfigDict, crystals: Dataset, tmp_path: Path) -> None:
    some = {"train": np.arange(15), "val": np.arange(15, 20), "test": np.array([29, 6])}
    result = run(config, tmp_path, data=crystals, split=some)
    rows = [line.split(",") for line in (tmp_path / "predictions.csv").read_text().splitlines()]
    assert rows[0] == ["id", "target", "prediction", "formula", "n_atom"]
    # By Pauling's electronegativity: B 2.04, C 2.55; helium has none and comes last.
    assert [(row[0], *row[3:]) for row in rows[1:]] == [("6-5", "BC", "2"), ("2-3", "LiHe", "2")]
    assert result.summary is not None
    assert result.summary["crystals"] == {"train": 15, "val": 5, "test": 2, "unused": 8, "left_out": 0}
    assert result.summary["inference_crystals_per_second"] > 0


def test_the_nearest_training_crystal_is_told_with_the_report(
    config: ConfigDict, crystals: Dataset, tmp_path: Path
) -> None:
    split = {"train": np.arange(15), "val": np.arange(15, 20), "test": np.array([29, 6])}
    result = run_and_report(config, tmp_path, data=crystals, split=split)
    assert result.has_report and (tmp_path / "report.html").stat().st_size > 1e6
    predictor = Predictor.restore(tmp_path)
    vectors = predictor.inspect_graphs(crystals.graphs).crystals.astype(float)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0].endswith(",formula,n_atom,nearest,distance")
    for line, crystal in zip(lines[1:], split["test"], strict=True):
        apart = np.linalg.norm(vectors[split["train"]] - vectors[crystal], axis=1)
        *_, nearest, distance = line.split(",")
        assert nearest == crystals.ids[split["train"][apart.argmin()]]
        assert float(distance) == pytest.approx(apart.min(), rel=1e-4)


def test_distances_and_reports_that_fail_cost_no_finished_run(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        assert (tmp_path / "summary.json").exists() and (tmp_path / "predictions.csv").exists()
        raise ModuleNotFoundError("No module named 'bokeh'")

    monkeypatch.setattr(Applicability, "fit", fail)
    monkeypatch.setattr(page, "write", fail)
    told = Told()
    result = run_and_report(config, tmp_path, data=crystals, split=split, watcher=told)
    assert result.is_finished and not result.has_report and result.summary is not None
    assert told.messages[-2].startswith("distances to the training crystals are left out (ModuleNotFoundError")
    assert told.messages[-1].startswith("no report was written (ModuleNotFoundError: No module named 'bokeh')")
    assert (tmp_path / "predictions.csv").read_text().splitlines()[0] == "id,target,prediction,formula,n_atom"


def test_a_report_that_a_full_disk_has_no_room_for_is_written_by_the_next_start(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "report.html")

    with monkeypatch.context() as patch:
        patch.setattr(page, "write", full)
        with pytest.raises(OSError, match="No space left"):
            run_and_report(config, tmp_path, data=crystals, split=split)
    assert not Workdir(tmp_path).is_finished
    assert run_and_report(config, tmp_path, data=crystals, split=split).has_report
    assert Workdir(tmp_path).is_finished and (tmp_path / "report.html").exists()


def test_a_stopped_run_says_so_and_goes_on_to_the_predictions_of_an_undisturbed_one(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    def start(name: str, watcher: Watcher) -> RunResult:
        return run(config, tmp_path / name, data=crystals, split=split, watcher=watcher)

    start("whole", Told())
    stopped = start("stopped", Told(stop_after=2))
    assert not stopped.is_finished and stopped.summary is None
    assert not stopped.workdir.is_finished
    told = Told()
    assert start("stopped", told).is_finished
    assert "going on after 2 of 4 epochs" in told.messages
    assert told.epochs == 2
    whole, resumed = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("whole", "stopped"))
    assert whole == resumed
    again = start("stopped", told)
    assert again.was_finished and told.epochs == 2
    assert again.summary == stopped.workdir.summary()


def test_another_split_under_a_run_is_refused(
    config: ConfigDict, crystals: Dataset, split: dict[str, np.ndarray], tmp_path: Path
) -> None:
    run(config, tmp_path, data=crystals, split=split, watcher=Told(stop_after=1))
    moved = {"train": np.arange(10, 30), "val": np.arange(5), "test": np.arange(5, 10)}
    with pytest.raises(ValueError, match="the split changed since this run began: crystals moved between train, val"):
        run(config, tmp_path, data=crystals, split=moved)


def test_a_run_without_validation_says_that_it_keeps_the_last_weights(
    config: ConfigDict, crystals: Dataset, tmp_path: Path
) -> None:
    config = config.copy_and_resolve_references()
    config.split.ratios, config.train.average_decay = (1.0, 0.0, 0.0), 0.5
    told = Told()
    result = run(config, tmp_path, data=crystals, watcher=told)
    assert "no crystal validates: the averaged weights after the last epoch are kept" in told.messages
    # With nothing held out at all, what is left to show is how the training crystals fit, and it is called that.
    assert result.judged == "train" and set(result.pictures) == {"parity", "learning_curve"}
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 30
    summary = result.workdir.summary()
    assert summary["best_epoch"] == 3
    assert summary["metrics"]["val"] == summary["metrics"]["test"] == {}
    error = result.workdir.records()[-1]
    assert "train_mae" in error and not any(key.startswith("val") for key in error)


def test_the_learning_curve_of_classes_without_validation_is_that_of_the_training_accuracy() -> None:
    records = [{"epoch": epoch, "train_loss": 0.7, "train_accuracy": 0.5 + 0.1 * epoch} for epoch in range(3)]
    labels = np.array([[0.0], [1.0]])
    drawn = evaluation.learning_curves(TargetScaler.for_classes(labels, "metal", 2), records, best_epoch=2)
    (line,) = drawn["learning_curve"].axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 0.5], [2, 0.6], [3, 0.7]])


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "ratio", "ratios": (0.8, 0.0, 0.2)},
        {"kind": "size", "sizes": (20, 0, 10)},
        {"kind": "k_fold", "val_ratio": 0.0},
        {"kind": "files", "files": ("train.txt", "", "")},
        {"kind": "source", "redraw_val": True, "val_ratio": 0.0},
    ],
    ids=lambda asked: asked["kind"],
)
def test_val_may_be_empty_where_the_split_asks_for_that(
    config: ConfigDict, crystals: Dataset, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("\n".join(crystals.ids[:20]))
    config = config.copy_and_resolve_references()
    config.split.update(asked)
    recorded = tuple(["train"] * 15 + ["val"] * 5 + ["test"] * 10)
    split = configs.build_split(config, dataclasses.replace(crystals, source_split=recorded))
    assert not len(split["val"]) and len(split["train"]) >= 20
    config.train.patience = 3
    with pytest.raises(ValueError, match=r"train\.patience must be 0 where config\.split leaves no crystal .*; got 3"):
        configs.validate(config)


def test_val_that_was_asked_for_and_is_empty_is_refused(
    config: ConfigDict, crystals: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.txt").write_text("\n".join(crystals.ids[:20]))
    Path("val.txt").touch()
    config = config.copy_and_resolve_references()
    config.split.update({"kind": "files", "files": ("train.txt", "val.txt", "")})
    with pytest.raises(ValueError, match=r"config\.split gives val no crystal of 30; training needs val"):
        configs.build_split(config, crystals)


@pytest.fixture(scope="module")
def crystals_and_copies(config: ConfigDict) -> Dataset:
    """Ten CsCl-type crystals, and three of them once more as cells of two, labelled a little higher."""
    single = [
        Crystal.from_arrays(f"one-{z}", (4 + 0.02 * z) * np.eye(3), [z, 17], [[0] * 3, [0.5] * 3], {"Z": z})
        for z in range(3, 13)
    ]
    doubled = [
        Crystal.from_arrays(
            f"two-{int(z)}",
            np.diag([1, 1, 2]) * (4 + 0.02 * z),
            [int(z), 17] * 2,
            [[0, 0, 0], [0.5, 0.5, 0.25], [0, 0, 0.5], [0.5, 0.5, 0.75]],
            {"Z": z + 0.5},
        )
        for z in (3.0, 4.0, 5.0)
    ]
    return dataset.load([*single, *doubled], configs.build_featurizer(config, configs.build_atom_table(config)), ["Z"])


def test_a_supercell_of_a_training_crystal_in_test_is_told_at_the_start_and_listed(
    config: ConfigDict, crystals_and_copies: Dataset, tmp_path: Path
) -> None:
    # two-3 is in test and its twin in train, two-5 in test and its twin in val, two-4 and its twin in train.
    split = {"train": np.array([0, 1, *range(4, 10), 11]), "val": np.array([2, 3]), "test": np.array([10, 12])}
    told = Told()
    run(config, tmp_path, data=crystals_and_copies, split=split, watcher=told)
    deviation = 0.5 / np.std(crystals_and_copies.targets)
    assert (
        "1 of 2 test and 0 of 2 val crystals have a twin in train, alike to the network within 0.01 Å "
        f"(two-3 = one-3; labels differ by {deviation:.2g} standard deviations on average).\n"
        "The error on them is of memory. To keep twins in one split: --config.split.by_structure=True. "
        "All are listed in duplicates.csv"
    ) in told.messages
    assert (tmp_path / "duplicates.csv").read_text().splitlines() == [
        "id,split,twin,twin_split,apart,target,twin_target",
        "two-3,test,one-3,train,0.0,3.5,3.0",
        "two-5,test,one-5,val,0.0,5.5,5.0",
    ]
    assert json.loads((tmp_path / "summary.json").read_text())["twins_in_train"] == {"val": 0, "test": 1}


def told_of(config: ConfigDict, crystals: Dataset, **split: Any) -> str:
    parts = {name: np.array(index, int) for name, index in split.items()}
    return "\n".join(facts(config, crystals, parts, duplicates.find(crystals.fingerprints, parts)))


def test_labels_of_twins_are_counted_where_they_are_classes(config: ConfigDict, crystals_and_copies: Dataset) -> None:
    config = config.copy_and_resolve_references()
    config.model.task = "classification"
    labels = (np.arange(13) % 2 == 0).astype(float)[:, None]  # 0 and 10 are alike, 1 and 11, 2 and 12
    labels[11] = 1 - labels[11]
    classes = dataclasses.replace(crystals_and_copies, targets=labels)
    text = told_of(config, classes, train=range(10), val=[], test=range(10, 13))
    assert "3 of 3 test crystals have a twin in train" in text
    assert "labels agree in 2 of 3)" in text


def test_a_split_without_twins_says_so(config: ConfigDict, crystals_and_copies: Dataset) -> None:
    text = told_of(config, crystals_and_copies, train=range(6), val=[6, 7], test=[8, 9])
    assert "no crystal of val or test has a twin in train" in text


@pytest.mark.parametrize("field", ["by_structure", "by_composition"])
def test_twins_stay_in_one_split_where_that_is_asked_for(
    config: ConfigDict, crystals_and_copies: Dataset, field: str
) -> None:
    config = config.copy_and_resolve_references()
    divided = []
    for together in (False, True):
        config.split[field] = together
        for seed in range(20):
            config.split.seed = seed
            split = configs.build_split(config, crystals_and_copies)
            part = {int(i): name for name in split for i in split[name]}
            divided.append(sum(part[one] != part[one + 10] for one in range(3)))
    # A pair is divided with probability 1 - 0.6^2 - 0.2^2 - 0.2^2 = 0.56.
    assert 20 < sum(divided[:20]) < 48 and sum(divided[20:]) == 0


@pytest.mark.parametrize("field", ["by_structure", "by_composition"])
def test_other_splits_than_shuffles_cannot_keep_twins_together(config: ConfigDict, field: str) -> None:
    config = config.copy_and_resolve_references()
    config.split[field], config.split.kind = True, "size"
    with pytest.raises(
        ValueError, match=rf"config\.split\.{field} needs split\.kind ratio or k_fold; got True with size"
    ):
        configs.validate(config)


@pytest.mark.parametrize("data", [{}, {"source": "matbench", "path": "x", "task": "matbench_phonons", "target": ""}])
def test_only_a_recorded_train_and_val_can_be_joined(config: ConfigDict, data: dict[str, str]) -> None:
    config = config.copy_and_resolve_references()
    config.data.update(data)
    config.split.redraw_val = True
    with pytest.raises(ValueError, match=r"config\.split\.redraw_val joins .*with (split\.kind ratio|a task of folds)"):
        configs.validate(config)
