"""What hyperparameters do to the validation error, from a table of trials (Fig. S3)."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from cgcnn_jax.report.figures import BLUE, VERMILLION, clean, log_if_wide, new_figure, plain_unit

FEW = 8
"""Different values up to which a hyperparameter gets a box for each; of more numbers, and of fractions that hardly repeat,
there is a point for each trial."""
_FAR_OFF = 5.0  # times the median error, above which a trial's place in the picture is the edge
_LONG = 6  # characters of a tick's label, of which five find no room side by side


def read(path: Path) -> pd.DataFrame:
    """A table of trials, such as the results.csv of a sweep; None is a value, an empty cell is none."""
    return pd.read_csv(path, keep_default_na=False, na_values=["", "nan"])


def varied(trials: pd.DataFrame) -> list[str]:
    """Columns that are fields of a configuration (group.field) and take more than one value in the trials."""
    return [name for name in trials if "." in str(name) and trials[name].nunique(dropna=True) > 1]


def errors(trials: pd.DataFrame, metric: str) -> np.ndarray:
    """The metric of each trial, f64[n], NaN for those whose "status" is another than finished: cut short, it would mislead."""
    values = pd.to_numeric(trials[metric], errors="coerce").to_numpy(float)
    return np.where(trials["status"] == "finished", values, np.nan) if "status" in trials else values


def hyperparameter_effects(
    trials: pd.DataFrame, *, unit: str, columns: Sequence[str] | None = None, metric: str = "val_mae"
) -> Figure:
    """The validation error of every trial against each hyperparameter, a panel each.

    All trials are in every panel (but those without a value of it, in a table that has empty cells), so its spread holds
    what the other hyperparameters do; the line joins the lowest error of each value, which is what a choice of that value
    can reach. Trials without a number (stopped, diverged), and those
    whose "status" is another than finished, are left out and counted above the panels; errors of more than five times the
    median are drawn at that edge, and counted too.

    Args:
      trials: A row a trial, a column for every overridden field (such as model.num_convs) and one for the metric.
      unit: Of the metric.
      columns: Hyperparameters to draw; those that vary among trials with an error if None.
      metric: Column of the error, smaller is better.

    Raises:
      ValueError: If a column is missing, no hyperparameter varies, or no trial has a finite error.
    """
    missing = [name for name in (metric, *(columns or ())) if name not in trials]
    if missing:
        raise ValueError(f"no column {missing[0]!r}; the trials have {', '.join(map(str, trials))}")
    found = errors(trials, metric)
    is_known = np.isfinite(found)
    if not is_known.any():
        raise ValueError(f"none of the {len(trials)} trials has a finite {metric}")
    chosen = (
        varied(trials[is_known])
        if columns is None
        else [name for name in columns if trials[name][is_known].notna().any()]
    )
    if not chosen:
        raise ValueError(
            f"no hyperparameter varies: no column group.field with two values among {', '.join(map(str, trials))}"
        )

    # Networks that never got off the ground may be wrong by any power of ten: they would leave no room for the rest.
    limit = float(f"{_FAR_OFF * np.median(found[is_known]):.1g}")
    n_far = int((found[is_known] > limit).sum()) if limit > 0 else 0
    found = np.minimum(found, limit) if n_far else found

    per_row = min(3, len(chosen))
    n_row = -(-len(chosen) // per_row)
    figure = new_figure(4.0 * per_row, 3.3 * n_row)
    panels = figure.subplots(n_row, per_row, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, chosen, strict=False):
        has_value = is_known & trials[name].notna().to_numpy()
        # Inferred anew: a column with empty cells has objects for its truth values.
        _panel(axes, trials[name][has_value].infer_objects(), found[has_value])
        axes.set_xlabel(name, fontsize=12)
        clean(axes)
        axes.grid(axis="x", visible=False)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    known = found[is_known]
    log_if_wide(panels[0], known)
    label = "validation MAE" if metric == "val_mae" else metric.replace("_", " ")
    for axes in panels[::per_row]:
        axes.set_ylabel(f"{label} ({plain_unit(unit)})" if unit else label, fontsize=12)
    left_out = int((~is_known).sum())
    panels[0].set_title(
        f"{len(known)} trials"
        + (f", {left_out} without an error left out" if left_out else "")
        + (f"; {n_far} above {limit:g} drawn there" if n_far else ""),
        fontsize=12,
        loc="left",
    )
    for axes in panels[: len(chosen)]:
        if max((len(label.get_text()) for label in axes.get_xticklabels()), default=0) > _LONG:
            axes.tick_params(axis="x", rotation=20)
    return figure


def _panel(axes: Axes, values: pd.Series, errors: np.ndarray) -> None:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    is_number = np.isfinite(numbers).all() and values.dtype != bool
    kinds = sorted(values.unique().tolist(), key=lambda value: value if is_number else str(value))
    # Drawn from an interval, as an adaptive search does, hardly any two trials share a value to make a box of.
    is_drawn = is_number and len(numbers) < 2 * len(kinds) and (numbers != np.round(numbers)).any()
    if (is_number and len(kinds) > FEW) or is_drawn:
        axes.scatter(numbers, errors, s=16, color=BLUE, alpha=0.6, lw=0)
        if numbers.min() > 0 and numbers.max() > 20 * numbers.min():
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        return
    groups = [errors[(values == kind).to_numpy()] for kind in kinds]
    for place, group in enumerate(groups):
        # Spread by rank, so that equal tables make equal pictures and no two points of a value hide one another.
        ranks = np.argsort(np.argsort(group, kind="stable"), kind="stable")
        aside = 0.3 * ((ranks * (math.sqrt(5) - 1) / 2) % 1 - 0.5)
        axes.scatter(place + aside, group, s=16, color=BLUE, alpha=0.6, lw=0, zorder=3)
    axes.boxplot(
        groups,
        positions=range(len(kinds)),
        widths=0.55,
        showfliers=False,
        medianprops={"color": "0.25"},
        boxprops={"color": "0.6"},
        whiskerprops={"color": "0.6"},
        capprops={"color": "0.6"},
    )
    axes.plot(range(len(kinds)), [group.min() for group in groups], color=VERMILLION, lw=1.2, marker="_", zorder=4)
    axes.set_xticks(range(len(kinds)), [f"{kind:g}" if is_number else str(kind) for kind in kinds])
    axes.set_xlim(-0.6, len(kinds) - 0.4)
    if not is_number and max(len(str(kind)) for kind in kinds) > 8:
        for label in axes.get_xticklabels():
            label.set(rotation=20, ha="right", rotation_mode="anchor")
