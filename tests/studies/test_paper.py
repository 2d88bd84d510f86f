import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from cgcnn_jax import config as configs
from cgcnn_jax.data import dataset
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.report.convergence import Point
from cgcnn_jax.run import Watcher
from cgcnn_jax.studies import drawing
from cgcnn_jax.studies.paper import _about, find_jobs, find_parts, make
from cgcnn_jax.studies.parts import PARTS, _unit_of
from cgcnn_jax.studies.properties import SIZES, PropertyStudy, Unavailable
from cgcnn_jax.studies.results import Results, crossing, fixed
from cgcnn_jax.sweep.folder import SweepFolder
from cgcnn_jax.workdir import Workdir
from configs import bulk_modulus
from tests.studies.paper_data import config_of, write_data

pytestmark = pytest.mark.usefixtures("quicker_compiling")

CHOSEN = find_parts("table_i,figure_2a,figure_2b,figure_2c,figure_2d,figure_s1,figure_s2,figure_s4,table_s4")
RUNS = [f"formation_energy/{conv}_{n}" for n in (16, 48) for conv in ("gated_norm", "sum")]


class StopsAfter(Watcher):
    def __init__(self, epochs: int) -> None:
        self.left = epochs
        self.told: list[str] = []

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.left -= 1

    def message(self, text: str) -> None:
        self.told.append(text)

    def should_stop(self) -> bool:
        return self.left <= 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Formation energies alone, so that four runs make what can be made."""
    folder = tmp_path_factory.mktemp("data")
    return write_data(folder, n_crystal=90, n_listed=80, labels={"mp_2018_6_1": ("formation_energy_eV_per_atom",)})


def open_study(data: Path, folder: Path, *, watcher: Watcher | None = None, **keywords: Any) -> Results:
    study = PropertyStudy(data, folder, SIZES["quick"], config_of, watcher=watcher, command="typed", **keywords)
    return Results(study, folder)


def records(folder: Path) -> dict[str, bytes]:
    found = sorted(folder.glob("runs/*/*/record.json"))
    return {str(path.parent.relative_to(folder / "runs")): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was stopped in its second run, went on, and was started a third time."""
    folder = tmp_path_factory.mktemp("paper") / "quick"
    # Two epochs a run.
    assert not make(open_study(data, folder, watcher=StopsAfter(3)), CHOSEN)
    first = records(folder)
    assert list(first) == RUNS[:1]
    assert "not made yet; --only=table_i makes it" in (folder / "index.md").read_text()
    made: list[str] = []
    assert make(open_study(data, folder), CHOSEN, on_part=made.append)
    # Parts that need no run come first.
    assert sorted(made) == sorted(CHOSEN) and made[0] == "figure_2a"
    second = records(folder)
    assert sorted(second) == sorted(RUNS) and second[RUNS[0]] == first[RUNS[0]]

    def load(*arguments: object) -> Any:
        raise AssertionError("loaded again")

    shutil.rmtree(folder / "parts")
    watcher = StopsAfter(10**6)
    assert make(open_study(data, folder, watcher=watcher, load=load), CHOSEN)
    assert records(folder) == second and not any("run 1 of" in text for text in watcher.told)
    return folder


def predictions(folder: Path, path: str) -> pd.DataFrame:
    return pd.read_csv(folder / "runs" / path / "predictions.csv")


@pytest.mark.slow
def test_a_stopped_study_ends_where_an_unbroken_one_does(data: Path, finished: Path, tmp_path: Path) -> None:
    results = open_study(data, tmp_path)
    job = next(job for job in results.study.jobs("formation_energy", curve=True) if job.path == RUNS[1])
    assert results.study.run([job])
    # The run that was interrupted after one of its epochs.
    for name in ("predictions.csv", "split.json", "config.json"):
        whole, stopped = (root / "runs" / RUNS[1] / name for root in (tmp_path, finished))
        assert whole.read_bytes() == stopped.read_bytes()


def test_tables_hold_the_errors_of_the_runs(finished: Path) -> None:
    error = {}
    for path in RUNS:
        table = predictions(finished, path)
        error[path] = np.abs(table["target"] - table["prediction"]).mean()
        # Judged on the same 16 crystals, whatever the training size.
        assert table["id"].tolist() == predictions(finished, RUNS[0])["id"].tolist() and len(table) == 16
    first = pd.read_csv(finished / "table_i.csv", dtype=str, keep_default_na=False)
    row = first.iloc[0]
    assert row["property"] == "Formation energy" and row["test MAE"] == f"{error['formation_energy/gated_norm_48']:.3f}"
    assert (row["training crystals"], row["paper's"], row["paper's test MAE"]) == ("48", "28,046", "0.039")
    assert row["DFT against experiment"] == "0.081 to 0.136"
    assert (first["test MAE"][1:] == "").all() and len(first) == 7
    both = pd.read_csv(finished / "table_s4.csv", dtype=str, keep_default_na=False).iloc[0]
    assert both["Eq. 4"] == f"{error['formation_energy/sum_48']:.3f}" and both["Eq. 5"] == row["test MAE"]
    assert (both["paper's Eq. 4"], both["paper's Eq. 5"]) == ("0.112", "0.039")


def test_smaller_training_sets_are_part_of_larger_ones(finished: Path) -> None:
    splits = {path: json.loads((finished / "runs" / path / "split.json").read_text()) for path in RUNS}
    small, large = splits[RUNS[0]], splits[RUNS[2]]
    assert len(small["train"]) == 16 and set(small["train"]) < set(large["train"])
    assert small["test"] == large["test"] and small["val"] == large["val"]
    assert not set(large["train"]) & {*large["val"], *large["test"]}


def test_the_page_shows_what_there_is_and_says_why_the_rest_is_not(finished: Path) -> None:
    page = (finished / "index.md").read_text()
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert titles == [part.title for part in PARTS.values()]
    shown = [line.split("](")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert shown == [
        "figure_2a.png",
        "figure_2b.png",
        "figure_2c.png",
        "figure_s1.png",
        "figure_s2_atoms.png",
        "figure_s2_elements.png",
        "figure_s2_formation_energy.png",
    ]
    for name in shown:
        assert imread(finished / name).std() > 0.01
        assert f'src="{name}"' in (finished / "index.html").read_text()
    assert "80 crystals of 65 elements are at hand for the formation energy, of the paper's 46,742" in page
    assert "**Not here:** Band gap, Eq. 5: " in page and "mp_2018_6_1 has 0 crystals with gap_pbe_eV" in page
    assert "jarvis_dft3d: no such folder; Absolute energy has its crystals there" in page
    assert "not made yet; --only=table_s5 makes it" in page
    table = predictions(finished, "formation_energy/gated_norm_48")
    mae = np.abs(table["target"] - table["prediction"]).mean()
    assert (
        f"Formation energy, Eq. 5: test MAE {mae:.3f} (" in page and "The paper has 0.039 eV/atom from 28,046." in page
    )
    assert "Eq. 5 does not come below 0.136 eV/atom" in page


def test_figures_of_any_run_show_its_predictions(finished: Path, tmp_path: Path) -> None:
    place = Workdir(finished / "runs" / RUNS[2])
    ((name, figure),) = drawing.joint_histograms(place).items()
    assert name == "formation_energy_eV_per_atom"
    assert figure.axes[0].collections[0].get_array().sum() == 16
    # A run without a test split is judged by its validation crystals.
    other = Workdir(shutil.copytree(place.path, tmp_path / "other"))
    summary = other.summary()
    other.write_json("summary.json", summary | {"intervals_95": {"val": summary["intervals_95"]["test"]}})
    for run, split in ((place, "test"), (other, "val")):
        (drawn,) = drawing.joint_histograms(run).values()
        assert f"{split} split" in [axes.get_title(loc="left") for axes in drawn.axes[0].child_axes]
    with pytest.raises(ValueError, match="does not classify, so it has no ROC curve"):
        drawing.roc(place)
    with pytest.raises(ValueError, match="holds no finished run"):
        drawing.joint_histograms(Workdir(finished))
    curve = drawing.convergence([Workdir(finished / "runs" / path) for path in RUNS], band=(0.08, 0.14)).axes[0]
    assert "DFT against experiment: 0.08 to 0.14 eV/atom" in curve.get_legend_handles_labels()[1]
    sizes = [container[0].get_xdata().tolist() for container in curve.containers]
    assert sizes == [[16, 48], [16, 48]]
    assert curve.containers[0][0].get_ydata()[1] == place.summary()["metrics"]["test"]["mae"]
    # The same property in meV is another.
    other.write_json("summary.json", summary | {"properties": {name: "meV/atom"}})
    with pytest.raises(ValueError, match=r"one property in one unit; these learn .* \(eV/atom\), .* \(meV/atom\)"):
        drawing.convergence([place, other], band=(0.08, 0.14))


def test_contents_are_those_of_the_chosen_crystals(rock_salt: Crystal) -> None:
    others = [Crystal.from_arrays(f"po{n}", 3.3 * np.eye(3), ["Po"], [[0, 0, 0]]) for n in range(3)]
    crystals = dataset.load([rock_salt, *others], Featurizer(), ())
    drawn = drawing.contents_of(crystals, {"NaCl", "po1"})
    assert {name: figure.axes[0].get_title(loc="left") for name, figure in drawn.items()} == {
        "elements": "n = 2",
        "atoms": "n = 2",
        "occurrence": "3 elements",
    }
    # One has one element and one two; one has one atom and one eight, though its graph has two nodes.
    assert [bar.get_height() for bar in drawn["elements"].axes[0].patches] == [1, 1]
    assert [bar.get_height() for bar in drawn["atoms"].axes[0].patches] == [1, 0, 0, 0, 0, 0, 0, 1]


def test_the_perovskite_study_is_shown_and_linked(finished: Path, data: Path, tmp_path: Path) -> None:
    parts = find_parts("figure_3b,figure_3cd,figure_s6,table_s5")
    assert find_jobs(open_study(data, tmp_path / "page"), parts) == {}
    results = open_study(data, tmp_path / "page")
    assert make(results, parts)
    page = (tmp_path / "page" / "index.md").read_text()
    assert page.count("no perovskite study was named") == 4
    # Any finished regression will do for the picture.
    results.perovskites = tmp_path / "perovskites"
    shutil.copytree(finished / "runs" / RUNS[2], results.perovskites / "models" / "linear")
    assert make(results, parts)
    assert (
        "perovskites has no index.md, found.csv, a_site.png, b_site.png" in (tmp_path / "page" / "index.md").read_text()
    )
    for name in ("index.md", "a_site.png", "b_site.png"):
        (results.perovskites / name).write_text(name)
    (results.perovskites / "found.csv").write_text(
        "formula,e_form_eV_per_cell,linear,split,paper\nPbHfO3,0.1,0.08112,test,0.1\n"
    )
    assert make(results, parts)
    page = (tmp_path / "page" / "index.md").read_text()
    assert (
        "gated_norm convolution and mean pool, 48 training and 16 test crystals: test MAE" in page
        and "The paper has 0.130" in page
    )
    assert (tmp_path / "page" / "figure_3cd_a_site.png").read_text() == "a_site.png"
    assert page.count("[The perovskite study](../perovskites/index.md)") == 2
    assert (
        "| formula | e_form (eV/cell) | linear | split | paper |" in page
        and "| PbHfO3 | 0.10 | 0.08 | test | 0.10 |" in page
    )
    assert "models/full has no finished run" in page


def test_trials_are_drawn_where_there_are_some(data: Path, tmp_path: Path) -> None:
    results = open_study(data, tmp_path)
    results.trials = tmp_path / "results.csv"
    results.trials.write_text("model.num_convs,val_mae\n1,0.3\n2,0.2\n2,0.1\n")
    assert make(results, ["figure_s3"])
    assert (tmp_path / "figure_s3.png").exists()
    assert "Validation error of the 3 trials of results.csv" in (tmp_path / "index.md").read_text()
    assert _unit_of(results.trials) == ""
    stored = SweepFolder(tmp_path)
    stored.claim(configs.to_dict(bulk_modulus.get_config()), {"trials": []})
    assert _unit_of(results.trials) == "log10(GPa)"  # what is learned, of labels in GPa
    (tmp_path / "sweep.json").write_text("{}")
    assert make(results, ["figure_s3"])
    assert "not a configuration" in (tmp_path / "index.md").read_text()
    (tmp_path / "sweep.json").unlink()
    results.trials.write_text("trial\n1\n")
    assert make(results, ["figure_s3"])
    assert "no column 'val_mae'" in (tmp_path / "index.md").read_text()
    results.trials.unlink()
    assert make(results, ["figure_s3"])
    assert f"--trials={results.trials}: No such file or directory" in (tmp_path / "index.md").read_text()


def test_a_failed_run_leaves_a_reason(data: Path, tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    file = tmp_path / "copy" / "runs" / RUNS[3] / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"failed": "loss is nan"}))
    results = open_study(data, tmp_path / "copy")
    assert make(results, ["figure_2b", "table_s4"])
    page = (tmp_path / "copy" / "index.md").read_text()
    assert "the run formation_energy/sum_48 failed, and has no point" in page
    assert "Formation energy, Eq. 4: the run formation_energy/sum_48 failed: loss is nan" in page
    with pytest.raises(Unavailable, match="failed: loss is nan"):
        results.largest("formation_energy", "sum")


def test_a_network_is_below_the_band_from_where_it_stays_below() -> None:
    errors = {
        "stays": [0.3, 0.13, 0.12],
        "comes back": [0.3, 0.13, 0.2],
        "dips": [0.1, 0.2, 0.13],
    }
    series = {
        name: [Point(n, e) for n, e in zip((100, 1000, 8000), some, strict=True)] for name, some in errors.items()
    }
    assert crossing(series, (0.08, 0.136), "eV/atom") == (
        "The band is DFT against experiment as the paper quotes it: stays is below 0.136 eV/atom from 1,000 crystals on, "
        "comes back does not end below 0.136 eV/atom, dips is below 0.136 eV/atom from 8,000 crystals on."
    )


def test_of_a_network_without_a_run_nothing_is_said() -> None:
    of_dft = "The band is DFT against experiment as the paper quotes it"
    series = {"Eq. 5": [Point(100, 0.1)], "Eq. 4": []}
    assert crossing(series, (0.08, 0.136), "eV/atom") == f"{of_dft}: Eq. 5 is below 0.136 eV/atom from 100 crystals on."
    assert crossing({"Eq. 4": []}, (0.08, 0.136), "eV/atom") == f"{of_dft}."


def test_parts_are_found_by_name_in_the_papers_order() -> None:
    assert find_parts("table_s4, figure_2b") == ["figure_2b", "table_s4"]
    assert find_parts("all") == list(PARTS)
    for wrong in ("figure_9", "", "all,figure_9"):
        with pytest.raises(ValueError, match="--only must be all or some of table_i, figure_2a"):
            find_parts(wrong)


def test_the_page_of_a_size_without_limits_names_none():
    assert "at most 8,000 training and 1,000 test crystals, at least 60 epochs" in _about(SIZES["small"])[1]
    assert (
        "Size full: the paper's numbers of crystals, as far as they are at hand, at least 200 epochs"
        in (_about(SIZES["full"])[1])
    )


def test_energies_round_to_no_negative_zero():
    assert [fixed(value) for value in (-0.0031, 0.005, -0.125, 2.0)] == ["0.00", "0.01", "-0.12", "2.00"]
