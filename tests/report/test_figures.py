import builtins
import importlib
import math
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from cgcnn_jax.report import figures

# 8 of the 9 pairs of a positive and a negative crystal are ordered right; only 0.55 < 0.6 is not.
LABEL = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
SCORE = np.array([0.1, 0.4, 0.6, 0.8, 0.7, 0.55])
PROBABILITY = np.stack([1 - SCORE, SCORE], axis=1)

# Errors 1, 0, -1, -1: MAE 3/4, RMSE sqrt(3/4) = 0.866, R2 = 1 - 3/14 = 0.786.
TARGET = np.array([1.0, 2.0, math.nan, 3.0, 6.0])
PREDICTION = np.array([2.0, 2.0, 50.0, 2.0, 5.0])


def parity(n: int, **keywords) -> Figure:
    random = np.random.default_rng(0)
    target = random.normal(-1.5, 1.0, n)
    return figures.parity_plot(target, target + random.normal(0, 0.1, n), name="band_gap_eV", unit="eV", **keywords)


def records(values: list[float], **others: list[float]) -> list[dict[str, float]]:
    columns = {"train_mae": [value / 2 for value in values], "val_mae": values, **others}
    return [
        {"epoch": number, **{key: column[number - 1] for key, column in columns.items()}}
        for number in range(1, len(values) + 1)
    ]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("name", "unit", "label"),
    [
        ("formation_energy_eV_per_atom", "eV/atom", "formation energy (eV/atom)"),
        ("formation_energy", "eV/atom", "formation energy (eV/atom)"),
        ("volume_A3_per_atom", "Å³/atom", "volume (Å³/atom)"),
        ("log10(K_vrh_GPa)", "log10(GPa)", "log₁₀(bulk modulus / GPa)"),
        ("log10(K_vrh)", "log10(GPa)", "log₁₀(bulk modulus / GPa)"),
        ("log10(K_hill_GPa)", "log10(GPa)", "log₁₀(K hill / GPa)"),
        ("e_form_eV_per_cell", "eV/cell", "formation energy (eV/cell)"),
        ("fermi_energy_eV_mp2020", "eV", "Fermi energy (eV)"),
        ("gap_pbe_eV", "eV", "PBE band gap (eV)"),
        ("log10_bulk_modulus_GPa", "GPa", "log₁₀(bulk modulus / GPa)"),
        ("bulk_modulus_GPa", "log10(GPa)", "log₁₀(bulk modulus / GPa)"),
        ("log10(density_ratio)", "", "log₁₀(density ratio)"),
        ("log10(density_ratio)", "log10", "log₁₀(density ratio)"),
        ("poisson_ratio", "", "Poisson ratio"),
        ("band_gap_meV", "eV", "band gap meV (eV)"),  # a unit is not a part of another one
    ],
)
def test_a_label_names_the_quantity_and_its_unit_once(name, unit, label):
    assert figures.axis_label(name, unit) == label


@pytest.mark.parametrize("n", [50, 5000], ids=["points", "hexagons"])
def test_parity_is_a_square_around_its_diagonal(n):
    axes = parity(n).axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1.0
    diagonal = [line for line in axes.lines if line.get_slope() == 1.0]
    assert [x - y for x, y in (line.get_xy1() for line in diagonal)] == [0.0]
    assert axes.get_xlim()[0] < diagonal[0].get_xy1()[0] < axes.get_xlim()[1]


def test_parity_draws_every_known_target_once():
    points = figures.parity_plot(TARGET, PREDICTION, name="band_gap", unit="eV").axes[0].collections[0].get_offsets()
    np.testing.assert_array_equal(points, [[1, 2], [2, 2], [3, 2], [6, 5]])


def test_hexagons_hold_every_known_target_once():
    random = np.random.default_rng(0)
    target = random.normal(size=5000)
    target[:100] = math.nan
    figure = figures.parity_plot(target, random.normal(size=5000), name="band_gap", unit="eV")
    assert figure.axes[0].collections[0].get_array().sum() == 4900
    assert figure.axes[1].get_ylabel() == "crystals per hexagon"


def test_hexagons_begin_above_2000_crystals():
    assert len(parity(2000).axes[0].collections[0].get_offsets()) == 2000
    assert len(parity(2001).axes[0].collections[0].get_offsets()) < 2001


def test_parity_states_unit_split_and_errors():
    figure = figures.parity_plot(TARGET, PREDICTION, name="band_gap_eV", unit="eV", split="validation")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "target band gap (eV)"
    assert axes.get_ylabel() == "predicted band gap (eV)"
    assert axes.get_title(loc="left") == "validation split"
    assert texts(figure) == ["n = 4\nMAE = 0.75 eV\nRMSE = 0.866 eV\nR² = 0.786"]


def test_parity_shows_the_mae_it_is_given():
    assert "MAE = 0.039 eV" in texts(parity(10, mae=0.039))[0]


def test_parity_of_one_crystal_is_drawn():
    figure = figures.parity_plot([2.0], [2.0], name="band_gap", unit="eV")
    assert "R² undefined" in texts(figure)[0]
    assert figure.axes[0].get_xlim() == (1.5, 2.5)


def test_the_best_epoch_is_marked_at_its_validation_value():
    figure = figures.learning_curve(records([0.9, 0.3, 0.1, 0.4]), metric="mae", unit="eV/atom", best_epoch=3)
    label = "best: 0.1 eV/atom at epoch 3"
    (marker,) = (line for line in figure.axes[0].lines if line.get_label() == label)
    np.testing.assert_array_equal(marker.get_xydata(), [[3, 0.1]])
    assert legend(figure) == ["training", "validation", label]
    assert figure.axes[0].get_ylabel() == "MAE (eV/atom)"
    assert figure.axes[-1].get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 0.3], "log"), ([1.0, 0.9], "linear"), ([1.0, 0.0], "linear"), ([-0.5, 0.9], "linear")],
    ids=["span above 5", "span below 5", "zero", "negative"],
)
def test_the_axis_is_logarithmic_where_that_helps(values, scale):  # training values are half the validation's
    figure = figures.learning_curve(records(values), metric="mae", unit="eV")
    assert figure.axes[0].get_yscale() == scale


def test_missing_and_nan_values_are_skipped():
    epochs = [{"epoch": 1, "train_mae": 0.5}, {"epoch": 2, "train_mae": 0.4, "val_mae": math.nan}]
    epochs += [{"epoch": 3, "val_mae": 0.6}, {"epoch": 4, "train_mae": 0.3, "val_mae": 0.5}]
    training, validation = figures.learning_curve(epochs, metric="mae", unit="eV").axes[0].lines
    np.testing.assert_array_equal(training.get_xydata(), [[1, 0.5], [2, 0.4], [4, 0.3]])
    np.testing.assert_array_equal(validation.get_xydata(), [[3, 0.6], [4, 0.5]])


def test_the_learning_rate_is_drawn_only_if_it_changes():
    constant = figures.learning_curve(records([0.9, 0.8], learning_rate=[0.01, 0.01]), metric="mae", unit="eV")
    assert len(constant.axes) == 1
    changing = figures.learning_curve(records([0.9, 0.8], learning_rate=[0.01, 0.001]), metric="mae", unit="eV")
    np.testing.assert_array_equal(changing.axes[1].lines[0].get_xydata(), [[1, 0.01], [2, 0.001]])
    assert changing.axes[1].get_ylabel() == "learning\nrate"


def test_a_metric_of_a_logarithm_names_it():
    figure = figures.learning_curve(records([0.9]), metric="mae", unit="log10(GPa)")
    assert figure.axes[0].get_ylabel() == "MAE (log₁₀ GPa)"


def test_roc_curve_by_hand():
    # From the highest score down: 0.8, 0.7 true; 0.6 false; 0.55 true; 0.4, 0.1 false. Collinear points may be missing.
    figure = figures.roc_curve(LABEL, PROBABILITY, class_names=["insulator", "metal"])
    assert legend(figure) == ["chance: AUC 0.5", "metal: AUC 0.889"]  # 8/9
    curve = figure.axes[0].lines[1].get_xydata()
    corners = np.array([[0, 0], [0, 2], [1, 2], [1, 3], [3, 3]]) / 3
    assert all(np.isclose(curve, corner).all(axis=1).any() for corner in corners)
    assert figure.axes[0].get_aspect() == 1.0
    assert figure.axes[0].get_title(loc="left") == "test split, n = 6"


def test_roc_curves_of_three_classes_leave_out_the_one_that_never_occurs():
    probability = np.column_stack([PROBABILITY, np.zeros(6)])
    assert [line.split(":")[0] for line in legend(figures.roc_curve(LABEL, probability))] == [
        "chance",
        "class 0",
        "class 1",
    ]


def test_confusion_matrix_by_hand():  # rows are the true class: 2 of 3 insulators and 3 of 3 metals are right
    figure = figures.confusion_matrix(LABEL, PROBABILITY, ["insulator", "metal"])
    assert texts(figure) == ["2\n66.7%", "1\n33.3%", "0\n0.0%", "3\n100.0%"]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[2 / 3, 1 / 3], [0, 1]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["insulator", "metal"]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("predicted class", "true class")


def test_unknown_classes_are_left_out():
    label, probability = np.append(LABEL, math.nan), np.concatenate([PROBABILITY, [[0.0, 1.0]]])
    assert texts(figures.confusion_matrix(label, probability)) == texts(figures.confusion_matrix(LABEL, PROBABILITY))
    assert legend(figures.roc_curve(label, probability)) == legend(figures.roc_curve(LABEL, PROBABILITY))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.parity_plot([], [], name="a", unit=""), "no label is known among 0 crystals"),
        (lambda: figures.parity_plot([math.nan], [1.0], name="a", unit=""), "no label is known among 1 crystals"),
        (
            lambda: figures.parity_plot([1.0, 2.0], [math.nan, math.inf], name="a", unit=""),
            "2 of 2 labelled crystals have a label or a prediction that is not finite",
        ),
        (lambda: figures.learning_curve([], metric="mae", unit=""), "no epoch has train_mae or val_mae"),
        (
            lambda: figures.learning_curve([{"epoch": 1, "val_loss": 2.0}], metric="mae", unit=""),
            r"the records hold \['epoch', 'val_loss'\]",
        ),
        (
            lambda: figures.learning_curve(records([0.3]), metric="mae", unit="", best_epoch=7),
            "best_epoch 7 has no val_mae",
        ),
        (lambda: figures.roc_curve([], np.empty((0, 2))), "no label is known among 0 crystals"),
        (
            lambda: figures.roc_curve([1, 1], PROBABILITY[:2]),
            "all 2 labelled crystals are 'class 1'; a ROC curve needs",
        ),
        (
            lambda: figures.roc_curve(LABEL, np.where(SCORE[:, None] > 0.75, math.nan, PROBABILITY)),
            "1 of 6 labelled crystals have a probability that is not finite",
        ),
        (lambda: figures.confusion_matrix([], np.empty((0, 2))), "no label is known among 0 crystals"),
        (
            lambda: figures.confusion_matrix([0], [[math.nan, 1.0]]),
            "1 of 1 labelled crystals have a probability that is not finite",
        ),
        (
            lambda: figures.confusion_matrix(LABEL, PROBABILITY, ["metal"]),
            r"are of 2 classes, but class_names has 1: \['metal'\]",
        ),
    ],
)
def test_wrong_input_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_a_saved_figure_is_a_png_of_150_dots_an_inch(tmp_path):
    figure = parity(10)
    figures.save(figure, tmp_path / "parity.png")
    height, width, _ = imread(tmp_path / "parity.png").shape
    np.testing.assert_allclose([width, height], figure.get_size_inches() * 150, atol=1)
    assert [file.name for file in tmp_path.iterdir()] == ["parity.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    def write_half_and_fail(self, file, **keywords):
        file.write(b"half of a")
        raise OSError("disk full")

    path = tmp_path / "parity.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", write_half_and_fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(Figure(), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["parity.png"]


def test_drawing_changes_no_global_setting():
    before = dict(matplotlib.rcParams)
    parity(10)
    figures.learning_curve(records([0.9, 0.1]), metric="mae", unit="eV")
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    importing = builtins.__import__

    def without_matplotlib(name, *arguments):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return importing(name, *arguments)

    monkeypatch.delitem(sys.modules, "cgcnn_jax.report.figures")
    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"pip install 'cgcnn-jax\[plot\]"):
        importlib.import_module("cgcnn_jax.report.figures")
