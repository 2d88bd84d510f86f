"""Panels of the run report: what is shown of one or several finished runs, with the reason where something is not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cgcnn_jax.report import classes, plots, residuals
from cgcnn_jax.report.figures import axis_label, metric_label, square_limits
from cgcnn_jax.report.finished import FinishedRun
from cgcnn_jax.train import metrics

BYTES_OF_POINTS = 1_000_000
"""What the points of all parity plots of a page may take; with bokeh's 1.3 MB the page stays below 3 MB."""

_METRICS = (
    "mae",
    "rmse",
    "r2",
    "mad_over_mae",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
)
_LABELS = {"mad_over_mae": "better than guessing the mean"}
_UNJUDGED = "{}: no crystal has both a label and a finite prediction."


@dataclass(frozen=True)
class Panel:
    """A part of the page.

    Attributes:
      title: Its heading.
      notes: Paragraphs: what is shown, or why nothing is.
      tables: Caption -> frame of texts; its index is the first column.
      figures: Caption -> bokeh figure.
      is_wide: Whether it takes the page's whole width.
    """

    title: str
    notes: tuple[str, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, plots.Figure] = field(default_factory=dict)
    is_wide: bool = False


def properties(runs: Sequence[FinishedRun]) -> dict[tuple[str, str, bool], list[FinishedRun]]:
    """Runs by what they predict: (property, unit, whether it is a class) -> the runs to be compared in it."""
    found: dict[tuple[str, str, bool], list[FinishedRun]] = {}
    for run in runs:
        for name, unit in run.units.items():
            found.setdefault((name, unit, run.is_classifier), []).append(run)
    return found


def headline(runs: Sequence[FinishedRun]) -> list[str]:
    """A line per property and run with the metric that counts first."""
    lines = []
    for (name, unit, is_class), group in properties(runs).items():
        key = "roc_auc" if is_class else "mae"
        for run in group:
            measured = run.of_property(run.summary["metrics"][run.judged], name)
            if key in measured:
                bounds = run.of_property(run.summary["intervals_95"][run.judged], name).get(key)
                who = f"{run.name}, " * (len(runs) > 1)
                value = _measured(measured[key], bounds, "")
                lines.append(f"{who}{axis_label(name, unit)}: {metric_label(key, '')} {value}, {run.judged} split")
    return lines


def errors(runs: Sequence[FinishedRun], name: str, unit: str) -> Panel:
    """Metrics with intervals, of each run; for one run of all its splits, for several what sets them apart."""
    rows = {}
    for run in runs:
        for split in [run.judged, *(split for split in run.summary["metrics"] if split != run.judged)]:
            measured = run.of_property(run.summary["metrics"][split], name)
            bounds = run.of_property(run.summary["intervals_95"].get(split, {}), name)
            if measured and (split == run.judged or len(runs) == 1):
                rows[_who(run, split, runs)] = {
                    _LABELS.get(key) or metric_label(key, unit if key in ("mae", "rmse") else ""): _measured(
                        measured[key], bounds.get(key), "×" if key == "mad_over_mae" else ""
                    )
                    for key in _METRICS
                    if key in measured
                }
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    tables = {"": table}
    notes = ["In brackets 95 % intervals: the chance of which crystals were in the split, not that of training again."]
    if len(runs) > 1:
        differences = paired_differences(runs, name)
        if len(differences):
            tables[f"Difference to {runs[0].name}, {_miss_label(runs[0], unit)}"] = differences
            notes.append(
                "Differences are over the crystals that both runs judged with the same label, and their intervals are of "
                "resampled pairs: a difference can be clear where the intervals above overlap."
            )
        else:
            notes.append(
                f"No other run judged crystals that {runs[0].name} did: their errors are of different crystals."
            )
    return Panel("Errors", tuple(notes), tables, is_wide=True)


def paired_differences(runs: Sequence[FinishedRun], name: str) -> pd.DataFrame:
    """Mean miss of each later run minus that of the first, over the crystals and labels that both have."""
    first = runs[0].labelled(name)[["id", "target", "miss"]]
    rows = {}
    for run in runs[1:]:
        both = first.merge(run.labelled(name)[["id", "target", "miss"]], on=["id", "target"], suffixes=("", "_other"))
        both = both[np.isfinite(both[["miss", "miss_other"]]).all(axis=1)]
        if len(both):
            difference = (both["miss_other"] - both["miss"]).to_numpy()
            bounds = metrics.intervals(lambda values: {"mean": float(values.mean())}, difference)["mean"]
            rows[run.name] = {
                "crystals": f"{len(both):,}",
                "difference": f"{difference.mean():+.3g}",
                "95 %": f"{bounds[0]:+.3g} to {bounds[1]:+.3g}",
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def learning(runs: Sequence[FinishedRun], name: str, unit: str) -> Panel:
    """The metric that chose the weights against the epoch."""
    curves, best = {}, {}
    metric = "mae"
    if runs[0].is_classifier:
        metric = "roc_auc" if all(_has(run.records, "val_roc_auc") for run in runs) else "accuracy"
    for run in runs:
        key = metric if run.is_classifier or len(run.units) == 1 else f"{metric}/{name}"
        found = run.records.reindex(columns=["epoch", f"train_{key}", f"val_{key}", "learning_rate"]).astype(float)
        curve = found.set_axis(["epoch", "train", "val", "learning_rate"], axis=1).dropna(axis=1, how="all")
        if {"train", "val"} & set(curve):
            # Counted from 1, as in the progress that people see.
            curves[run.name] = curve.assign(epoch=curve["epoch"] + 1)
            best[run.name] = int(run.summary["best_epoch"]) + 1
    if not curves:
        return Panel("Learning curves", (f"The runs have no record of {metric_label(metric, unit)} by epoch.",))
    figure = plots.learning_curves(curves, label=metric_label(metric, unit), best=best)
    parts = {part for curve in curves.values() for part in curve}
    notes = ["Training: mean over the epoch, of the weights as they moved."] * ("train" in parts)
    if "val" in parts:
        notes.append(
            "Validation: of the weights after the epoch, or their average where the run averages them. The circle marks the "
            "epoch whose weights were kept."
        )
    notes = [" ".join(notes)]
    if any(len(curve) > plots.steps(len(curves)) for curve in curves.values()):
        notes.append(f"Of longer runs {plots.steps(len(curves)):,} epochs, evenly spread, are drawn.")
    return Panel("Learning curves", tuple(notes), figures={"": figure})


def predictions(runs: Sequence[FinishedRun], name: str, unit: str, budget: float) -> Panel:
    """Parity plots with the same axes; `budget` bytes for the points of each."""
    frames = {run.name: _finite(run, name) for run in runs}
    frames = {key: frame for key, frame in frames.items() if len(frame)}
    if not frames:
        return Panel("Predictions", ("No crystal has a label and a finite prediction.",))
    every = pd.concat(frames.values())
    limits = square_limits(every["target"].to_numpy(), every["prediction"].to_numpy())
    figures, notes = {}, []
    for run in runs:
        if run.name not in frames:
            continue
        frame = frames[run.name]
        shown = residuals.thinned(frame, _affordable(frame, budget), keep=_WORST)
        caption = f"{run.name}: " * (len(runs) > 1) + f"{run.judged} split, {len(frame):,} crystals"
        if len(shown) < len(frame):
            caption += f", {len(shown):,} of them drawn"
        figures[caption] = plots.parity(shown, name=name, unit=unit, limits=limits)
        left = len(run.labelled(name)) - len(frame)
        if left:
            notes.append(f"{run.name}: {left:,} crystals have no finite prediction and are left out here and below.")
        if len(shown) < len(frame):
            notes.append(
                f"{run.name}: not all crystals are drawn. Where they lie dense, each small cell of the plot shows those "
                f"with its largest errors; the {_WORST} largest errors of all are always there. Every number on this "
                f"page is of all {len(frame):,}."
            )
    hint = "Point at a crystal, or tap it, for its id and formula."
    return Panel("Predictions", (hint, *notes), figures=figures, is_wide=len(figures) > 1)


def orders(runs: Sequence[FinishedRun], name: str) -> list[Panel]:
    """For classes: ROC, precision against recall, calibration and confusion."""
    frames = {run.name: _finite(run, name) for run in runs}
    judged = {run.name: run.judged for run in runs}
    frames = {key: frame for key, frame in frames.items() if len(frame)}
    if not frames:
        return [Panel("Predictions", ("No crystal has a label and finite probabilities.",))]
    one_class = [key for key, frame in frames.items() if frame["target"].nunique() == 1]
    reason = tuple(
        f"{key}: all {len(frames[key]):,} crystals are of one class, which has no curve." for key in one_class
    )

    def curves(of: Callable[[pd.DataFrame], Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
        several = len(frames) > 1
        return {
            f"{key}, {label}" if several else label: curve
            for key, frame in frames.items()
            for label, curve in of(frame).items()
        }

    found = []
    for title, of, axes, diagonal, legend, note in (
        (
            "ROC curve",
            classes.roc,
            ("false positive rate", "true positive rate"),
            True,
            "bottom_right",
            "Dashed: chance.",
        ),
        (
            "Precision and recall",
            classes.precision_recall,
            ("recall", "precision"),
            False,
            "bottom_left",
            "AP: mean precision over the steps of recall. Chance is the share of the class.",
        ),
    ):
        drawn = curves(of)
        figures = (
            {"": plots.rates(drawn, x_label=axes[0], y_label=axes[1], diagonal=diagonal, legend=legend)}
            if drawn
            else {}
        )
        found.append(Panel(title, (note, *reason), figures=figures))
    tables = {key: classes.calibration(frame) for key, frame in frames.items()}
    points = {
        f"{key}: ECE {error:.3f}" if len(tables) > 1 else f"ECE {error:.3f}": bins
        for key, (bins, error) in tables.items()
    }
    x, y = "predicted probability of class 1", "share of class 1"
    if runs[0].config["model"]["num_classes"] > 2:
        x, y = "probability of the predicted class", "share predicted right"
    found.append(
        Panel(
            "Calibration",
            (
                "Means of ten bins of equal width with 95 % Wilson intervals; on the dashed line probabilities are what "
                "they say. ECE: mean distance from it, weighted by crystals.",
            ),
            figures={"": plots.rates(points, x_label=x, y_label=y, diagonal=True, legend="top_left")},
        )
    )
    figures = {
        f"{key}: " * (len(frames) > 1) + f"{judged[key]} split, {len(frame):,} crystals": plots.confusion(
            classes.confusion(frame)
        )
        for key, frame in frames.items()
    }
    found.append(
        Panel("Confusion matrix", ("Colour: share of the true class.",), figures=figures, is_wide=len(figures) > 1)
    )
    return found


def by_element(runs: Sequence[FinishedRun], name: str, unit: str) -> Panel:
    """A periodic table of mean misses per run."""
    title, label = "Errors by element", _miss_label(runs[0], unit)
    tables, notes = {}, []
    for run in runs:
        frame = _finite(run, name)
        table = residuals.by_element(frame) if "formula" in frame else ()
        if not len(frame):
            notes.append(_UNJUDGED.format(run.name))
        elif len(table):
            tables[run.name] = table
        else:
            notes.append(_without(run, "formulas"))
    if not tables:
        return Panel(title, tuple(notes))
    highest = plots.highest_miss(*tables.values())
    figures = {
        caption if len(runs) > 1 else "": plots.element_table(table, label=label, highest=highest)
        for caption, table in tables.items()
    }
    note = "A crystal counts for each of its elements. Pale: fewer than 5 crystals."
    return Panel(title, (note, *notes), figures=figures, is_wide=True)


def along(runs: Sequence[FinishedRun], name: str, unit: str, column: str) -> Panel:
    """Mean misses along a number of the crystals."""
    title, x_label, what, note = {
        "n_atom": (
            "Errors by number of atoms",
            "atoms in the cell",
            "numbers of atoms",
            "Of the cell as it was given, primitive or not.",
        ),
        "distance": (
            "Errors by distance to training data",
            "distance to the nearest training crystal",
            "distances to the training data",
            "Euclidean, between the pooled vectors of the crystals in the network; it has no unit, and those of two "
            "networks cannot be compared.",
        ),
    }[column]
    tables, notes = {}, [f"{note} Bins hold about equally many crystals; bars are 95 % intervals of their means."]
    for run in runs:
        frame = _finite(run, name)
        if not len(frame):
            notes.append(_UNJUDGED.format(run.name))
        elif column in frame and frame[column].notna().any():
            tables[run.name] = residuals.along(frame, column)
        elif column == "distance":
            notes.append(
                f"{run.name} has no {what}: experiments.train computes them with its report, at the end of a run that is judged "
                "by crystals it was not trained on, unless it has very many."
            )
        else:
            notes.append(_without(run, what))
    if not tables:
        return Panel(title, tuple(notes[1:]))
    # Distances in two networks have no axis in common.
    parts = {"": tables} if column == "n_atom" or len(tables) == 1 else {key: {key: tables[key]} for key in tables}
    figures = {
        caption: plots.means_along(part, x_label=x_label, y_label=_miss_label(runs[0], unit))
        for caption, part in parts.items()
    }
    return Panel(title, tuple(notes), figures=figures, is_wide=len(figures) > 1)


def extremes(runs: Sequence[FinishedRun], name: str, unit: str) -> Panel:
    """The worst and the best predictions of each run."""
    tables = {}
    for run in runs:
        for word, frame in zip(("Worst", "Best"), residuals.extremes(_finite(run, name)), strict=True):
            if not len(frame):
                continue
            caption = f"{word}, {run.name}" if len(runs) > 1 else word
            shown = pd.DataFrame({"id": frame["id"]})
            for column, label, form in (
                ("formula", "formula", "{}"),
                ("n_atom", "atoms", "{:.0f}"),
                ("target", "target", "{:.5g}"),
                ("prediction", "predicted", "{:.5g}"),
                ("error", metric_label("error", unit), "{:+.3g}"),
                ("certainty", "probability of the true class", "{:.4f}"),
                ("nearest", "nearest in training", "{}"),
                ("distance", "distance to it", "{:.3g}"),
            ):
                if column in frame:
                    shown[label] = [form.format(value) for value in frame[column]]
            tables[caption] = shown.set_index("id")
    return Panel("Worst and best predictions", (), tables, is_wide=True)


_WORST = 200


def _miss_label(run: FinishedRun, unit: str) -> str:
    return "share of wrong classes" if run.is_classifier else metric_label("mae", unit)


def _finite(run: FinishedRun, name: str) -> pd.DataFrame:
    """Labelled crystals with a finite prediction."""
    frame = run.labelled(name)
    values = frame[["target", "prediction", *(column for column in frame if column.startswith("probability_"))]]
    return frame[np.isfinite(values).all(axis=1)].reset_index(drop=True)


def _affordable(frame: pd.DataFrame, budget: float) -> int:
    """Points of a parity plot for a number of bytes."""
    texts = [column for column in ("id", "formula", "nearest") if column in frame]
    length = sum(frame[column].str.len().clip(upper=plots.LONGEST).mean() for column in texts)
    # Seven numbers in base 64, and quotes around texts, which are escaped in the page; texts may be beyond ASCII.
    return int(np.clip(budget / (60 + 1.3 * length), _WORST, plots.POINTS))


def _measured(value: float | None, bounds: Sequence[float | None] | None, suffix: str) -> str:
    text = "undefined" if value is None else f"{value:.4g}{suffix}"
    return text + (f" [{bounds[0]:.4g}, {bounds[1]:.4g}]" if bounds and None not in bounds else "")


def _who(run: FinishedRun, split: str, runs: Sequence[FinishedRun]) -> str:
    return f"{run.name}, {split}" if len(runs) > 1 else split


def _without(run: FinishedRun, what: str) -> str:
    return f"{run.name} was written without {what}; train it again with this version to see them."


def _has(records: pd.DataFrame, column: str) -> bool:
    return column in records and bool(records[column].notna().any())
