"""Figures that explain predictions: a map of crystals by their vectors, and the gates of bonds by their length."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cgcnn_jax.report.figures import GREY, PALETTE, SKY, VERMILLION, clean, new_figure, plain_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 24
_NAMED = 30  # crystals that a map shows with their names at most
# Different lengths in a bin whose median is drawn: of a few crystals, whose bonds are many but equal, a line would seem a
# trend.
_ENOUGH = 30


def crystal_map(
    groups: Mapping[str, ArrayLike],
    *,
    shares: ArrayLike,
    values: Mapping[str, ArrayLike] | None = None,
    label: str = "",
    names: Mapping[str, ArrayLike] | None = None,
) -> "Figure":
    """Crystals in the plane of two coordinates of their vectors, such as the first principal components.

    Args:
      groups: Name of a set -> its points, [n, 2]; the first is drawn in grey below the others. Empty ones are left out.
      shares: Of the vectors' variance along both axes, [2].
      values: Name of a set -> a number for each of its points, which then colours them.
      label: What the number is, with its unit.
      names: Name of a set -> a name for each of its points, written beside them unless there are too many to read.

    Raises:
      ValueError: If there is no point, or values and points differ in number.
    """
    points = {name: np.asarray(one, np.float64).reshape(-1, 2) for name, one in groups.items() if len(np.asarray(one))}
    if not points:
        raise ValueError("a map needs at least one crystal")
    coloured = {name: np.asarray(one, np.float64) for name, one in (values or {}).items() if name in points}
    written = {name: np.asarray(one).tolist() for name, one in (names or {}).items()}
    if sum(map(len, written.values())) > _NAMED:
        written = {}
    for name, one in coloured.items():
        if len(one) != len(points[name]):
            raise ValueError(f"{name!r} has {len(points[name])} points but {len(one)} values")
    from matplotlib.patheffects import withStroke

    figure = new_figure(6.8 if coloured else 5.8, 5.2)
    axes = figure.add_subplot()
    limits = [f(v) for v in coloured.values() if len(v) for f in (np.nanmin, np.nanmax)]
    drawn = None
    for number, (name, xy) in enumerate(points.items()):
        size = 9 if len(xy) > 500 else 26
        style: dict[str, Any] = {"s": size, "label": f"{name} ({len(xy):,})", "lw": 0, "zorder": 2 + number}
        if name in coloured:
            drawn = axes.scatter(
                xy[:, 0], xy[:, 1], c=coloured[name], vmin=min(limits), vmax=max(limits), cmap="viridis", **style
            )
        elif number == 0 and len(points) > 1:
            axes.scatter(xy[:, 0], xy[:, 1], color="0.78", **style)
        else:
            axes.scatter(
                xy[:, 0], xy[:, 1], color=PALETTE[(number - (len(points) > 1)) % len(PALETTE)], alpha=0.85, **style
            )
        for (x, y), text in zip(xy, written.get(name, ()), strict=False):
            axes.annotate(
                text,
                (x, y),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=8,
                color="0.1",
                zorder=9,
                parse_math=False,
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
    along = [f"component {number} ({share:.0%} of the variance)" for number, share in enumerate(np.asarray(shares), 1)]
    axes.set_xlabel(along[0], fontsize=12)
    axes.set_ylabel(along[1], fontsize=12)
    clean(axes)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.02, format=plain_numbers())
        bar.set_label(label, fontsize=11)
        bar.outline.set_visible(False)
    if len(points) > 1:
        axes.legend(frameon=False, fontsize=10, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    else:
        axes.set_title(f"{next(iter(points))}, n = {len(next(iter(points.values()))):,}", fontsize=12, loc="left")
    return figure


def gates_by_distance(distances: ArrayLike, gates: ArrayLike, messages: ArrayLike) -> "Figure":
    """Mean gate and mean message of bonds against their length, a column of panels for each convolution.

    The one message in a thousand that is largest may lie above the axis.

    Args:
      distances: Å, [n_bond].
      gates: Means over the features, [n_bond, num_convs].
      messages: Likewise.

    Raises:
      ValueError: If there is no bond, or no convolution.
    """
    d, both = np.asarray(distances), [np.asarray(one) for one in (gates, messages)]
    num_convs = both[0].shape[1]
    if not len(d) or not num_convs:
        raise ValueError(f"gates need bonds and convolutions, got {len(d)} bonds and {num_convs} convolutions")
    figure = new_figure(2.6 * num_convs + 0.9, 5.4)
    panels = figure.subplots(2, num_convs, sharex=True, sharey="row", squeeze=False)
    # A message may be any number; a few large ones would leave the others no room.
    tops = (1.0, 1.05 * float(np.quantile(both[1], 0.999)) or 1.0)
    for row, (name, values) in enumerate(zip(("mean gate", "mean message"), both, strict=True)):
        for t, axes in enumerate(panels[row]):
            _by_distance(axes, d, values[:, t], tops[row])
            clean(axes)
            if t == 0:
                axes.set_ylabel(name, fontsize=12)
            if row == 0:
                axes.set_title(f"convolution {t + 1}", fontsize=12, loc="left")
            else:
                axes.set_xlabel("bond length (Å)", fontsize=12)
        panels[row, 0].set_ylim(0, tops[row])
    if panels[0, 0].lines:
        panels[0, 0].legend(frameon=False, fontsize=10, loc="upper right")
    return figure


def _by_distance(axes: "Axes", d: np.ndarray, values: np.ndarray, top: float) -> None:
    """Points or densities, the medians of even bins, and the middle half of them."""
    if len(d) > 2000:
        extent = (d.min() - 1e-3, d.max() + 1e-3, 0.0, top)  # of one length, too
        axes.hexbin(d, values, gridsize=(36, 24), extent=extent, bins="log", mincnt=1, cmap="Greys", alpha=0.6, lw=0.1)
    else:
        axes.scatter(d, values, s=8, color=GREY, alpha=0.5, lw=0)
    edges = np.linspace(d.min(), d.max() + 1e-6, _BINS + 1)
    which = np.digitize(d, edges) - 1
    full = [k for k in range(_BINS) if len(np.unique(d[which == k].round(4))) >= _ENOUGH]
    if len(full) > 1:
        middle = (edges[:-1] + edges[1:])[full] / 2
        low, median, high = np.array([np.quantile(values[which == k], (0.25, 0.5, 0.75)) for k in full]).T
        axes.fill_between(middle, low, high, color=SKY, alpha=0.6, lw=0, label="middle half")
        axes.plot(middle, median, color=VERMILLION, lw=1.8, label="median")
