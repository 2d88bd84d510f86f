"""Figures of a run: learning curve, parity, ROC and confusion matrix.

Every function returns a matplotlib Figure made without pyplot, so no window, backend or global state is involved.
Colours are those of Okabe and Ito, told apart by readers with any colour vision.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cgcnn_jax.files import write_figure
from cgcnn_jax.train.metrics import known_classes, known_values, regression_metrics

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
except ImportError as error:
    raise ImportError("figures need matplotlib; install it with: pip install 'cgcnn-jax[plot]'") from error

BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE)
GREY = "0.55"

DENSE = 2000
"""Points above which a parity plot shows densities: beyond it, overlapping points hide how many they are."""

_METRICS = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "auc": "ROC AUC", "roc_auc": "ROC AUC", "f1": "F1"}
_STEPS = (1, 2, 5, 10)
# The unit of a logarithm: log10(GPa), or log10 where that of the number is not known.
_LOGARITHM = re.compile(r"^log10(?:\((.*)\))?$")


# Columns of the known data sets whose own names do not say what they hold.
_QUANTITIES = {
    "K vrh": "bulk modulus",
    "G vrh": "shear modulus",
    "poisson ratio": "Poisson ratio",
    "gap pbe": "PBE band gap",
    "fermi energy eV mp2020": "Fermi energy",
    "e form": "formation energy",
    "heat all": "heat of formation",
}


def axis_label(name: str, unit: str) -> str:
    """A property identifier as a reader writes it: formation_energy_eV_per_atom, eV/atom -> formation energy (eV/atom).

    A logarithm is of a number, so its unit divides: log10(K_vrh_GPa), log10(GPa) -> log₁₀(bulk modulus / GPa). A few
    names of the known data sets are spelt out, as that one.

    Args:
      name: Identifier; the unit at its end, "/" spelt _per_, is not repeated.
      unit: Unit, empty if there is none.
    """
    logarithm = re.fullmatch(r"log10[_(](.*?)\)?", name)
    bare_unit = _LOGARITHM.sub(r"\1", unit)
    quantity = logarithm[1] if logarithm else name
    spelt = bare_unit.replace("/", "_per_").translate(str.maketrans("Å²³ ", "A23_", "^"))
    quantity = quantity.removesuffix(f"_{spelt}").replace("_", " ")
    quantity = _QUANTITIES.get(quantity, quantity)
    if logarithm or bare_unit != unit:
        return f"log₁₀({quantity} / {bare_unit})" if bare_unit else f"log₁₀({quantity})"
    return f"{quantity} ({unit})" if unit else quantity


def learning_curve(
    epochs: Sequence[Mapping[str, float]], *, metric: str, unit: str, best_epoch: int | None = None
) -> Figure:
    """A metric on the training and the validation split against the epoch.

    The axis is logarithmic if all values are positive and they span more than a factor of 5. Below, on an axis of its
    own, the learning rate, where it is recorded and changes.

    Args:
      epochs: Records with "epoch" and any of "train_<metric>", "val_<metric>", "learning_rate"; what is missing or NaN
        is skipped.
      metric: mae, for instance.
      unit: Its unit, empty if there is none.
      best_epoch: Epoch whose validation value is marked.

    Raises:
      ValueError: If no record has the metric, or best_epoch has no validation value.
    """
    curves = {split: _series(epochs, f"{split}_{metric}") for split in ("train", "val")}
    drawn = {split: curve for split, curve in curves.items() if len(curve[0])}
    if not drawn:
        names = sorted({key for record in epochs for key in record})
        raise ValueError(f"no epoch has train_{metric} or val_{metric}; the records hold {names}")
    rate_epochs, rate = _series(epochs, "learning_rate")
    has_rate = len(rate) > 0 and rate.min() < rate.max()

    figure = new_figure(6.4, 5.0 if has_rate else 4.2)
    grid = figure.add_gridspec(2, 1, height_ratios=(5, 1)) if has_rate else figure.add_gridspec(1, 1)
    axes = figure.add_subplot(grid[0])
    for split, label, color in (("train", "training", BLUE), ("val", "validation", VERMILLION)):
        if split in drawn:
            epoch, value = drawn[split]
            axes.plot(epoch, value, color=color, label=label, lw=1.6, marker="o" if len(epoch) < 20 else "", ms=3.5)
    if best_epoch is not None:
        epoch, value = curves["val"]
        if best_epoch not in epoch:
            raise ValueError(f"best_epoch {best_epoch} has no val_{metric} in the records")
        best = float(value[epoch == best_epoch][0])
        axes.axvline(best_epoch, color=GREY, lw=0.8, ls=":", zorder=1)
        label = f"best: {best:.4g} {plain_unit(unit)}".rstrip() + f" at epoch {best_epoch}"
        axes.plot(
            [best_epoch], [best], ls="", marker="o", ms=8, mfc="white", mec=VERMILLION, mew=1.8, label=label, zorder=5
        )
    log_if_wide(axes, np.concatenate([value for _, value in drawn.values()]))
    axes.set_ylabel(metric_label(metric, unit), fontsize=12)
    clean(axes)
    axes.legend(frameon=False, fontsize=10.5)
    lowest = axes
    if has_rate:
        lowest = figure.add_subplot(grid[1], sharex=axes)
        lowest.plot(rate_epochs, rate, color=GREEN, lw=1.2)
        log_if_wide(lowest, rate, subs=(1.0,))
        lowest.set_ylabel("learning\nrate", fontsize=10)
        clean(lowest)
        axes.tick_params(labelbottom=False)
    lowest.set_xlabel("epoch", fontsize=12)
    lowest.xaxis.set_major_locator(MaxNLocator(8, steps=_STEPS, integer=True))
    return figure


def parity_plot(
    target: ArrayLike,
    prediction: ArrayLike,
    *,
    name: str,
    unit: str,
    split: str = "test",
    mae: float | None = None,
) -> Figure:
    """Predictions against targets on one square, with the line of perfect agreement, n, MAE, RMSE and R².

    Above DENSE crystals the points give way to hexagons coloured by the logarithm of their counts.

    Args:
      target: Labels in unit, [n]; NaN where unknown, left out.
      prediction: In the same unit, [n].
      name: Property, see axis_label.
      unit: Of both.
      split: Part of the data shown.
      mae: Shown instead of the mean absolute error of these points, if they are a selection.

    Raises:
      ValueError: If no label is known, or a value is not finite.
    """
    y, p = finite_values(target, prediction)
    limits = square_limits(y, p)

    is_dense = len(y) > DENSE
    figure = new_figure(6.0 if is_dense else 5.2, 5.2)
    axes = figure.add_subplot()
    if is_dense:
        cells = axes.hexbin(y, p, gridsize=55, extent=(*limits, *limits), bins="log", mincnt=1, cmap="viridis", lw=0.1)
        bar = figure.colorbar(cells, ax=axes, shrink=0.8, pad=0.02, format=plain_numbers())
        bar.set_label("crystals per hexagon", fontsize=11)
        bar.outline.set_visible(False)
    else:
        axes.scatter(y, p, s=22 if len(y) < 300 else 14, color=BLUE, alpha=0.8 if len(y) < 300 else 0.45, lw=0)
    axes.axline((y.min(), y.min()), slope=1, color="0.2", lw=1.0, ls="--", zorder=4 if is_dense else 1)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    # The same ticks on both axes; matplotlib chooses fewer where labels are wide.
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    label = axis_label(name, unit)
    axes.set_xlabel(f"target {label}", fontsize=12)
    axes.set_ylabel(f"predicted {label}", fontsize=12)
    axes.set_title(f"{split} split", fontsize=12, loc="left")
    clean(axes)

    axes.text(0.03, 0.97, error_lines(y, p, unit, mae), transform=axes.transAxes, va="top", fontsize=11)
    return figure


def roc_curve(
    label: ArrayLike, probability: ArrayLike, *, class_names: Sequence[str] | None = None, split: str = "test"
) -> Figure:
    """True against false positive rate at every threshold, with the area under it (AUC).

    Two classes: the curve of class 1. More: one curve a class against the rest, for the classes that occur.

    Args:
      label: Class numbers, [n]; NaN where unknown, left out.
      probability: Of each class, [n, n_class].
      class_names: By class number; "class 0", ... if left out.
      split: Part of the data shown.

    Raises:
      ValueError: If no label is known or all are one class, a probability is not finite, or names are not n_class.
    """
    # Imported late: it takes a second, which runs that learn numbers need not wait for.
    from sklearn import metrics

    classes, probability = _finite_classes(label, probability)
    n_class = probability.shape[1]
    names = _class_names(class_names, n_class)
    occurring = np.unique(classes)
    if len(occurring) == 1:
        raise ValueError(
            f"all {len(classes)} labelled crystals are {names[occurring[0]]!r}; a ROC curve needs two classes"
        )

    figure = new_figure(5.2, 5.2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.0, ls="--", label="chance: AUC 0.5")
    for number, one in enumerate([1] if n_class == 2 else occurring):
        false_positive, true_positive, _ = metrics.roc_curve(classes == one, probability[:, one])
        area = metrics.auc(false_positive, true_positive)
        axes.plot(
            false_positive,
            true_positive,
            color=PALETTE[number % len(PALETTE)],
            ls=("-", "-.", ":")[number // len(PALETTE) % 3],
            lw=1.8,
            label=f"{names[one]}: AUC {area:.3f}",
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("false positive rate", fontsize=12)
    axes.set_ylabel("true positive rate", fontsize=12)
    axes.set_title(f"{split} split, n = {len(classes):,}", fontsize=12, loc="left")
    clean(axes)
    axes.legend(frameon=False, fontsize=10.5, loc="lower right")
    return figure


def confusion_matrix(
    label: ArrayLike, probability: ArrayLike, class_names: Sequence[str] | None = None, *, split: str = "test"
) -> Figure:
    """Crystals by true class (rows) and most probable class (columns): counts, and shares of the row.

    Args:
      label: Class numbers, [n]; NaN where unknown, left out.
      probability: Of each class, [n, n_class].
      class_names: By class number; "class 0", ... if left out.
      split: Part of the data shown.

    Raises:
      ValueError: If no label is known, a probability is not finite, or names are not n_class.
    """
    from sklearn import metrics

    classes, probability = _finite_classes(label, probability)
    n_class = probability.shape[1]
    names = _class_names(class_names, n_class)
    counts = metrics.confusion_matrix(classes, probability.argmax(axis=1), labels=np.arange(n_class))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    side = max(4.2, 1.6 + 0.85 * n_class)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(n_class, n_class):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{shares[row, column]:.1%}",
            ha="center",
            va="center",
            fontsize=12 if n_class < 5 else 9,
            color="white" if shares[row, column] > 0.55 else "0.15",
        )
    turned = max(map(len, names)) > 8 and n_class > 3
    axes.set_xticks(range(n_class), names, rotation=40 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(range(n_class), names)
    axes.tick_params(length=0, labelsize=11)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class", fontsize=12)
    axes.set_ylabel("true class", fontsize=12)
    axes.set_title(f"{split} split, n = {len(classes):,}", fontsize=12, loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03, format=PercentFormatter(xmax=1))
    bar.set_label("share of the true class", fontsize=11)
    bar.outline.set_visible(False)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Writes a PNG of 150 dots an inch, whole or not at all: a failure leaves what was at path."""
    write_figure(Path(path), figure)


def finite_values(target: ArrayLike, prediction: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are known, and their predictions. Raises ValueError if there is none or a value is not finite."""
    y, p = known_values(target, prediction)
    infinite = int((~np.isfinite(y) | ~np.isfinite(p)).sum())
    if infinite:
        raise ValueError(f"{infinite} of {len(y)} labelled crystals have a label or a prediction that is not finite")
    return y, p


def square_limits(y: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Limits of both axes of a square that holds all pairs, with a margin."""
    lower, upper = float(min(y.min(), p.min())), float(max(y.max(), p.max()))
    margin = 0.04 * (upper - lower) or 0.5
    return lower - margin, upper + margin


def error_lines(y: np.ndarray, p: np.ndarray, unit: str, mae: float | None = None) -> str:
    """n, MAE, RMSE and R² of predictions p of labels y as text; `mae` stands instead of theirs, if they are a selection."""
    values = regression_metrics(y, p)
    lines = (
        f"n = {len(y):,}",
        f"MAE = {values['mae'] if mae is None else mae:.3g} {plain_unit(unit)}",
        f"RMSE = {values['rmse']:.3g} {plain_unit(unit)}",
        f"R² = {values['r2']:.3f}" if np.isfinite(values["r2"]) else "R² undefined",
    )
    return "\n".join(line.rstrip() for line in lines)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    return figure


def _series(epochs: Sequence[Mapping[str, float]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of the records in which key is a finite number."""
    found = [(record["epoch"], record[key]) for record in epochs if record.get(key) is not None]
    epoch, value = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return epoch[np.isfinite(value)], value[np.isfinite(value)]


def _finite_classes(label: ArrayLike, probability: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    classes, probability = known_classes(label, probability)
    is_wrong = ~np.isfinite(probability).all(axis=1)
    if is_wrong.any():
        raise ValueError(f"{is_wrong.sum()} of {len(classes)} labelled crystals have a probability that is not finite")
    return classes, probability


def _class_names(class_names: Sequence[str] | None, n_class: int) -> list[str]:
    names = [f"class {number}" for number in range(n_class)] if class_names is None else list(class_names)
    if len(names) != n_class:
        raise ValueError(f"the probabilities are of {n_class} classes, but class_names has {len(names)}: {names}")
    return names


def metric_label(metric: str, unit: str) -> str:
    """A metric as readers write it, with its unit: mae, eV -> MAE (eV)."""
    label = _METRICS.get(metric, metric.replace("_", " "))
    return f"{label} ({plain_unit(unit)})" if unit else label


def plain_unit(unit: str) -> str:
    """The unit of a difference of logarithms, log10(GPa), without brackets in brackets."""
    return _LOGARITHM.sub(r"log₁₀ \1", unit).rstrip()


def log_if_wide(axes: Axes, values: np.ndarray, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """A logarithmic y axis with plain numbers, if the values allow one and gain from it."""
    if values.min() > 0 and values.max() > 5 * values.min():
        axes.set_yscale("log")
        # Over many decades there is no room for a label at 2 and 5, and matplotlib then leaves out all of them.
        subs = subs if values.max() < 1e3 * values.min() else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(plain_numbers())
        axes.yaxis.set_minor_formatter(NullFormatter())


def plain_numbers() -> FuncFormatter:
    """Ticks as 0.1 and 1000, also on logarithmic axes."""
    return FuncFormatter(lambda value, _: f"{value:g}")


def clean(axes: Axes) -> None:
    """No frame on top and right, a faint grid behind the data, ticks of a readable size."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10.5)
