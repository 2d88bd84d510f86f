import builtins
import importlib
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("bokeh", reason="the report needs bokeh: pip install cgcnn-jax[report]")

from cgcnn_jax.report import plots
from cgcnn_jax.report.periodic import table_cell


def points(n: int = 5, **more: object) -> pd.DataFrame:
    target = np.linspace(-1, 2, n)
    return pd.DataFrame(
        {"id": [f"x{k}" for k in range(n)], "target": target, "prediction": target + 0.5, "error": 0.5, "neighbours": 1}
        | more
    )


def source(plot: plots.Figure, column: str) -> dict:
    """Data of the one source that has a column."""
    (found,) = {one.data_source for one in plot.renderers if column in one.data_source.data}
    return found.data


def test_parity_axes_are_equal_and_show_every_point():
    plot = plots.parity(points(), name="formation_energy_eV_per_atom", unit="eV/atom")
    x, y = plot.x_range, plot.y_range
    assert (x.start, x.end) == (y.start, y.end)
    assert x.start < -1 and x.end > 2.5
    assert plot.xaxis.axis_label.text == "target formation energy (eV/atom)"
    assert plot.yaxis.axis_label.text == "predicted formation energy (eV/atom)"


def test_logarithmic_properties_are_labelled_as_logarithms():
    plot = plots.parity(points(), name="log10(K_vrh_GPa)", unit="log10(GPa)")
    assert plot.xaxis.axis_label.text == "target log₁₀(bulk modulus / GPa)"


def test_the_pointer_shows_what_is_known_and_nothing_else():
    def rows(frame: pd.DataFrame) -> list[str]:
        plot = plots.parity(frame, name="a", unit="")
        return [name for name, _ in plot.hover[0].tooltips]

    assert rows(points()) == ["id", "target", "predicted", "error"]
    known = points(formula=["NaCl"] * 5, n_atom=2, distance=0.1)
    assert rows(known) == ["id", "formula", "target", "predicted", "error", "atoms", "distance to it"]


def test_long_ids_are_cut():
    frame = points(1).assign(id="y" * 10_000)
    assert source(plots.parity(frame, name="a", unit=""), "neighbours")["id"] == ["y" * 40 + "…" + "y" * 39]


def test_a_table_of_elements_puts_each_where_it_belongs_and_pales_the_rare():
    table = pd.DataFrame({"n": [100, 50, 2], "miss": [0.1, 0.4, 9.0]}, index=["Na", "U", "O"])
    plot = plots.element_table(table, label="MAE (eV)")
    shown = pd.DataFrame(source(plot, "miss")).set_index("symbol")
    assert (shown.loc["Na", "row"], shown.loc["Na", "column"]) == table_cell("Na")
    assert shown.loc["U", "column"] == table_cell("U")[1]
    assert shown.loc["O", "alpha"] < 0.5 < shown.loc["Na", "alpha"]
    # Nine on two crystals does not set the colours.
    assert plots.highest_miss(table) == 0.4
    every = [data["symbol"] for data in (one.data_source.data for one in plot.renderers) if "symbol" in data]
    assert len({symbol for symbols in every for symbol in symbols}) == 118


def test_means_stand_over_their_bins_between_their_bounds():
    table = pd.DataFrame(
        {"lower": [1, 5], "upper": [4, 30], "middle": [2, 9], "n": [7, 8], "miss": [0.1, 0.2], "low": 0.05, "high": 0.3}
    )
    plot = plots.means_along({"a": table}, x_label="atoms", y_label="MAE")
    data = plot.renderers[-1].data_source.data
    np.testing.assert_allclose(data["middle"], [2, 9])
    np.testing.assert_allclose(data["miss"], [0.1, 0.2])
    assert plot.y_range.start == 0 and plot.y_range.end > 0.3


def test_learning_curves_of_one_run_are_solid_and_of_several_named():
    curve = pd.DataFrame({"epoch": [0.0, 1.0, 2.0], "train": [3.0, 2.0, 1.0], "val": [4.0, np.nan, 2.0]})
    one = plots.learning_curves({"a": curve}, label="MAE (eV)", best={"a": 2})
    assert [item.label.value for item in one.legend[0].items] == ["training", "validation"]
    lines = [line.data_source.data["value"].tolist() for line in one.renderers if "value" in line.data_source.data]
    assert lines == [[3, 2, 1], [4, 2]]
    (mark,) = (line.data_source.data for line in one.renderers if "value" not in line.data_source.data)
    assert (list(mark["x"]), list(mark["y"])) == ([2], [2])
    two = plots.learning_curves({"a": curve, "b": curve.drop(columns="val")}, label="MAE (eV)")
    assert [item.label.value for item in two.legend[0].items] == ["a, training", "a, validation", "b, training"]
    with pytest.raises(ValueError, match=r"no run has a value of MAE \(eV\)"):
        plots.learning_curves({"a": curve[["epoch"]]}, label="MAE (eV)")


def test_more_runs_than_colours_differ_by_their_lines_and_marks():
    curve = pd.DataFrame({"epoch": [0.0, 1.0], "train": [3.0, 2.0], "val": [4.0, 2.0]})
    means = pd.DataFrame({"lower": [1], "upper": [4], "middle": [2], "n": [7], "miss": [0.1], "low": 0.05, "high": 0.3})
    names = [f"run_{number}" for number in range(12)]
    curves = plots.learning_curves(dict.fromkeys(names, curve), label="MAE (eV)").renderers
    assert len({(line.glyph.line_color, tuple(line.glyph.line_dash)) for line in curves}) == 2 * len(names)
    along = plots.means_along(dict.fromkeys(names, means), x_label="atoms", y_label="MAE").renderers
    marks = [mark.glyph for mark in along if hasattr(mark.glyph, "marker")]
    assert len({(mark.fill_color, mark.marker) for mark in marks}) == len(names)


def test_long_names_keep_what_tells_them_apart():
    curve = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]})
    names = [f"formation_energy_of_the_whole_set_by_seed_{seed}: AUC 0.9{seed}" for seed in (1, 2)]
    plot = plots.rates(dict.fromkeys(names, curve), x_label="x", y_label="y", diagonal=True, legend="top_left")
    labels = [item.label.value for item in plot.legend[0].items]
    assert [label[-12:] for label in labels] == ["_1: AUC 0.91", "_2: AUC 0.92"]
    assert all(label.startswith("formation_energy") and len(label) == 40 for label in labels)


def test_long_curves_are_thinned_to_their_ends():
    n = 50_000
    curve = pd.DataFrame({"x": np.linspace(0, 1, n), "y": np.linspace(0, 1, n)})
    plot = plots.rates({"a": curve}, x_label="x", y_label="y", diagonal=False, legend="top_left")
    x = plot.renderers[0].data_source.data["x"]
    assert len(x) == plots.STEPS and (x[0], x[-1]) == (0, 1)
    # What many curves send is bounded, too.
    names = [f"run {number}" for number in range(21)]
    plot = plots.rates(dict.fromkeys(names, curve), x_label="x", y_label="y", diagonal=False, legend="top_left")
    sent = [line.data_source.data["x"] for line in plot.renderers]
    assert len(sent) == 21 and sum(map(len, sent)) <= 5 * plots.STEPS
    assert all((x[0], x[-1]) == (0, 1) for x in sent)


def test_without_bokeh_the_error_names_the_extra(monkeypatch):
    importing = builtins.__import__

    def without_bokeh(name, *arguments):
        if name.startswith("bokeh"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return importing(name, *arguments)

    monkeypatch.delitem(sys.modules, "cgcnn_jax.report.plots")
    monkeypatch.setattr(builtins, "__import__", without_bokeh)
    with pytest.raises(ImportError, match=r"pip install 'cgcnn-jax\[report\]"):
        importlib.import_module("cgcnn_jax.report.plots")


def test_a_confusion_matrix_counts_and_shares_by_true_class():
    names = ["class 0", "class 1"]
    counts = pd.DataFrame([[3, 1], [0, 4]], index=names, columns=names)
    data = plots.confusion(counts).renderers[0].data_source.data
    found = dict(zip(zip(data["true"], data["predicted"], strict=True), data["text"], strict=True))
    assert found["class 0", "class 1"] == "1\n25.0%"
    assert found["class 1", "class 1"] == "4\n100.0%"
