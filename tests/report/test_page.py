import json
import math
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bokeh", reason="the report needs bokeh: pip install cgcnn-jax[report]")

from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.report import finished, page, panels
from cgcnn_jax.workdir import Workdir
from tests.experiments.starts import start
from tests.report.finished_runs import classes, edit_json, regression, write_run

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'); alert(3); ('",
    "<!--<script>",
    "&lt;b&gt; $$x$$ @id {{ 1 }} {% raw %} \\u003c",
    "Ünïcödé 水 \u2028 line",
)


class Reader(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self._inside: str = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def read(*folders: Path) -> Reader:
    return Reader(page.page(finished.read_all(folders)))


def test_names_from_the_data_are_text_wherever_they_stand(tmp_path: Path) -> None:
    n = len(HOSTILE)
    targets = np.arange(2.0 * n).reshape(n, 2)

    def reader(run: str, names: tuple[str, ...]) -> Reader:
        columns = {"formula": names, "n_atom": range(n), "nearest": names, "distance": np.arange(n) / 8}
        folder = write_run(
            tmp_path / run, targets, targets + 1, names=names[:2], units=names[2:4], ids=names, columns=columns
        )
        Workdir(folder).write_rejected([Rejected(name, name) for name in names])
        edit_json(folder / "summary.json", command=names[0], versions=dict.fromkeys(names, names[1]))
        return read(folder)

    good, bad = reader("good", tuple(f"name-{k}" for k in range(n))), reader("<i>bad", HOSTILE)
    # The same elements, and none more.
    assert [tag for tag, _ in bad.tags] == [tag for tag, _ in good.tags]
    assert not bad.count("img")
    for name in (*HOSTILE, "<i>bad"):
        assert name in bad.text


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    reader = read(write_run(tmp_path / "run", *regression()))
    for _, attributes in reader.tags:
        assert not {"src", "href", "srcset", "action", "data"} & attributes.keys()
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in reader.tags


def test_numbers_on_the_page_are_those_of_the_run(tmp_path: Path) -> None:
    targets, values = regression()
    text = read(write_run(tmp_path / "run", targets, values)).text
    mae = np.abs(values - targets).mean()
    assert f"MAE {mae:.4g} [{0.99 * mae:.4g}, {1.01 * mae:.4g}], test split" in text
    for word in ("300 / 100 / 40", "96,641", "90.0 s (90%)", "1,234", "5,678", "a processor", "abc123", "0.9.2"):
        assert word in text


def test_what_a_run_of_an_earlier_version_lacks_is_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "old", *regression(), columns={})
    gone = dict.fromkeys(("inference_crystals_per_second", "finished", "hardware", "padding"))
    edit_json(folder / "summary.json", crystals={"train": 3, "val": 1, "test": 40, "left_out": 0}, **gone)
    text = read(folder).text
    for what in ("formulas", "numbers of atoms"):
        assert f"old was written without {what}; train it again with this version to see them." in text
    # A trial or a fold of this version has none either.
    assert "old has no distances to the training data: experiments.train computes them with its report" in text
    assert "not recorded" in text


def test_the_page_says_which_fold_of_the_data_was_the_test(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *regression())
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", data=config["data"] | {"fold": 3}, split=config["split"] | {"kind": "source"})
    assert "the data's own, fold 3" not in read(folder).text
    edit_json(folder / "summary.json", split_is_fold=True)
    assert "the data's own, fold 3" in read(folder).text


def test_the_page_tells_a_redrawn_val_and_angles(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *regression())
    config = json.loads((folder / "config.json").read_text())
    split = config["split"] | {"kind": "source", "redraw_val": True, "val_ratio": 0.02}
    before = read(folder).text
    edit_json(folder / "config.json", split=split, graph=config["graph"] | {"angles": True})
    for text in ("the data's own test, val 0.02 of the others", "within 8 Å, with angles, quotient"):
        assert text not in before and text in read(folder).text


@pytest.mark.parametrize("n", [1, 2])
def test_a_run_of_very_few_crystals_has_a_page(tmp_path: Path, n: int) -> None:
    text = read(write_run(tmp_path / "run", np.array([[1.0], [1.0]])[:n], np.array([[1.0], [1.0]])[:n])).text
    assert f"test split, {n} crystals" in text and "undefined" in text


def test_predictions_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    targets, values = regression()
    values[3] = math.inf
    text = read(write_run(tmp_path / "run", targets, values)).text
    assert "run: 1 crystals have no finite prediction and are left out here and below." in text
    assert "test split, 39 crystals" in text


def test_properties_stand_apart_and_unknown_labels_count_nowhere(tmp_path: Path) -> None:
    targets = np.random.default_rng(0).normal(size=(30, 2))
    targets[::2, 0] = np.nan
    folder = write_run(
        tmp_path / "run",
        targets,
        targets + 0.25,
        names=("gap_pbe_eV", "log10(K_vrh_GPa)"),
        units=("eV", "log10(GPa)"),
    )
    text = read(folder).text
    assert "PBE band gap (eV): MAE 0.25" in text and "log₁₀(bulk modulus / GPa): MAE 0.25" in text
    assert "test split, 15 crystals" in text and "test split, 30 crystals" in text
    assert "MAE (log₁₀ GPa)" in text


def test_a_classifier_has_its_curves(tmp_path: Path) -> None:
    text = read(write_run(tmp_path / "run", *classes(), names=("is_metal",), units=("",), task="classification")).text
    for title in ("ROC curve", "Precision and recall", "Calibration", "Confusion matrix", "Errors by element"):
        assert title in text
    assert "probability of the true class" in text


def test_labels_of_one_class_have_no_curve_and_the_page_says_so(tmp_path: Path) -> None:
    labels, probabilities = classes()
    text = read(
        write_run(tmp_path / "run", np.ones_like(labels), probabilities, names=("is_metal",), task="classification")
    ).text
    assert "run: all 60 crystals are of one class, which has no curve." in text


def test_two_runs_are_compared_over_the_crystals_they_share(tmp_path: Path) -> None:
    targets = np.array([[0.0], [0.0], [0.0], [5.0]])
    write_run(tmp_path / "first", targets, targets + [[1], [2], [3], [9]], ids=list("abcd"))
    # d has another label here, and e is new: neither counts.
    write_run(
        tmp_path / "second",
        np.array([[0.0], [0.0], [0.0], [6.0], [0.0]]),
        np.array([[2.0], [-2.0], [5.0], [6.0], [9.0]]),
        ids=list("abcde"),
        changes={"train.seed": 7},
    )
    runs = finished.read_all([tmp_path / "first", tmp_path / "second"])
    table = panels.paired_differences(runs, "formation_energy_eV_per_atom")
    assert table.loc["second"].tolist()[:2] == ["3", "+1"]  # (1 + 0 + 2) / 3
    text = read(tmp_path / "first", tmp_path / "second").text
    assert "Difference to first, MAE (eV/atom)" in text and "train.seed" in text


def test_a_difference_that_is_the_same_for_all_crystals_has_an_interval_of_no_width(tmp_path: Path) -> None:
    targets, _ = regression()
    write_run(tmp_path / "first", targets, targets + 0.5)
    write_run(tmp_path / "second", targets, targets + 0.25)
    table = panels.paired_differences(
        finished.read_all([tmp_path / "first", tmp_path / "second"]), "formation_energy_eV_per_atom"
    )
    assert table.loc["second"].tolist() == ["40", "-0.25", "-0.25 to -0.25"]


@pytest.mark.slow
def test_the_page_of_70000_crystals_with_long_ids_is_below_3_megabytes_and_says_what_it_left_out(
    tmp_path: Path,
) -> None:
    n = 70_000
    random = np.random.default_rng(0)
    targets = random.normal(size=(n, 2))
    values = targets + 0.1 * random.standard_t(2, size=(n, 2))
    ids = [f"{'long' * 25}-{k}" for k in range(n)]
    columns = {
        "formula": ["BaTiO3"] * n,
        "n_atom": random.integers(1, 200, n),
        "nearest": ids,
        "distance": targets[:, 0] ** 2,
    }
    write_run(tmp_path / "run", targets, values, names=("a", "b"), units=("eV", "eV"), ids=ids, columns=columns)
    html = page.page([finished.read(tmp_path / "run")])
    assert len(html.encode()) < 3_000_000
    assert "test split, 70,000 crystals, " in html and "Every number on this page is of all 70,000." in html
    worst = ids[int(np.abs(values - targets)[:, 0].argmax())]
    assert worst in html


def test_the_command_writes_the_page_beside_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *regression())
    done = start("report", f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"report    {folder}/report.html (1.")
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", *regression())
    output = tmp_path / "report.html"
    output.write_text("old")
    (folder / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match="a report needs the folder of a finished run"):
        page.write([folder], output)
    assert output.read_text() == "old"


def test_the_setup_names_the_hidden_layers_on_both_sides_of_the_pool(tmp_path: Path) -> None:
    sites = {"model.pool": "site", "model.atom_layers": 2, "model.crystal_layers": 0, "model.features": 48}
    one = read(write_run(tmp_path / "mean", *regression())).text
    other = read(write_run(tmp_path / "site", *regression(), changes=sites)).text
    assert "mean pooling, 1 × 32 after it" in one and "site pooling, 2 × 48 before it;" in other
    # As the curve, from 1.
    assert "5 of 200; weights of epoch 5 kept" in one
