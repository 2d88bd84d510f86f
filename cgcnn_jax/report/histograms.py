"""Histograms: what a set of crystals holds, and predictions against calculated values (Figs. 2a, 2c, S2, S4, S6)."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from cgcnn_jax.report.figures import (
    BLUE,
    PALETTE,
    VERMILLION,
    axis_label,
    clean,
    error_lines,
    finite_values,
    new_figure,
    plain_numbers,
    square_limits,
)

MANY = 12
"""Number of different counts above which bars stand for several counts each and carry no labels."""


def count_histogram(counts: ArrayLike, *, label: str, unit: str = "crystals") -> Figure:
    """How many crystals have 1, 2, 3, ... of something, such as elements or atoms.

    Up to MANY there is a bar for every count, with its share above it (its height, if that is below 0.05 %); of more, bars
    of equal width, and a line at the smallest count that 90 % of the crystals do not exceed.

    Args:
      counts: Whole numbers of at least 0, [n].
      label: What is counted.
      unit: What has the counts.

    Raises:
      ValueError: If there is no count, or one is not a whole number of at least 0.
    """
    values = np.asarray(counts, dtype=np.float64).ravel()
    if not len(values) or (values < 0).any() or (values != np.round(values)).any():
        raise ValueError(f"{label}: need whole numbers of at least 0, one a crystal; got {values[:5]}")
    low, high = int(values.min()), int(values.max())
    width = max(1, math.ceil((high - low + 1) / 60)) if high - low >= MANY else 1
    edges = np.arange(low, high + width + 1, width) - 0.5
    heights, _ = np.histogram(values, edges)

    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    gap = 0.85 if width == 1 and high - low < MANY else 1.0
    middles = edges[:-1] + width / 2
    axes.bar(middles, heights, width=gap * width, color=BLUE, edgecolor="white", lw=0.3)
    if high - low < MANY:
        axes.set_xticks(middles)
        for place, height in zip(middles, heights, strict=True):
            axes.annotate(
                # A share that rounds to 0.0 % would pass for none.
                f"{height / len(values):.1%}" if height / len(values) >= 0.0005 else f"{height:,}",
                (place, height),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=9.5,
            )
    else:
        most = float(np.quantile(values, 0.9, method="inverted_cdf"))
        axes.axvline(most, color=VERMILLION, lw=1.2, ls="--", label=f"90 % have at most {most:.0f}")
        axes.legend(frameon=False, fontsize=10.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel(label if width == 1 else f"{label} (bars of {width})", fontsize=12)
    axes.set_ylabel(unit, fontsize=12)
    axes.set_title(f"n = {len(values):,}", fontsize=12, loc="left")
    clean(axes)
    axes.grid(axis="x", visible=False)
    return figure


def element_histogram(counts: Mapping[str, int], *, unit: str = "crystals that contain it") -> Figure:
    """How many crystals contain each element, the most frequent first, in two rows.

    Args:
      counts: Number of crystals by symbol; elements with 0 are left out.
      unit: What is counted.

    Raises:
      ValueError: If no element occurs.
    """
    found = sorted(((symbol, n) for symbol, n in counts.items() if n), key=lambda pair: (-pair[1], pair[0]))
    if not found:
        raise ValueError("element_histogram needs at least one element with a count above 0")
    half = -(-len(found) // 2) if len(found) > 30 else len(found)
    rows = [found[:half], found[half:]] if half < len(found) else [found]
    figure = new_figure(11.0, 2.7 * len(rows))
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, row in zip(panels, rows, strict=True):
        axes.bar(range(len(row)), [n for _, n in row], width=0.8, color=BLUE)
        axes.set_xticks(range(len(row)), [symbol for symbol, _ in row])
        axes.set_xlim(-0.7, half - 0.3)
        clean(axes)
        axes.tick_params(axis="x", length=0, labelsize=9.5)
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supylabel(unit, fontsize=12)
    panels[0].set_title(f"{len(found)} elements", fontsize=12, loc="left")
    return figure


def value_histogram(values: Mapping[str, ArrayLike], *, name: str, unit: str) -> Figure:
    """How a property is distributed in each split, as shares of the split, so that splits of any size compare.

    Args:
      values: Labels by split; NaN where unknown, left out.
      name: Property, see figures.axis_label.
      unit: Of the labels.

    Raises:
      ValueError: If no label is known or one is infinite.
    """
    known = {split: _known(labels) for split, labels in values.items()}
    known = {split: labels for split, labels in known.items() if len(labels)}
    if not known:
        raise ValueError(f"{name}: no label is known in {', '.join(values) or 'no split'}")
    together = np.concatenate(list(known.values()))
    if not np.isfinite(together).all():
        raise ValueError(f"{name}: {int((~np.isfinite(together)).sum())} labels are not finite")
    # As many bins as the smallest split can fill without a comb of single crystals.
    fewest = min(len(labels) for labels in known.values())
    edges = np.histogram_bin_edges(together, bins=int(np.clip(np.sqrt(fewest), 10, 50)))

    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for number, (split, labels) in enumerate(known.items()):
        heights, _ = np.histogram(labels, edges, weights=np.full(len(labels), 100 / len(labels)))
        color = PALETTE[number % len(PALETTE)]
        axes.stairs(heights, edges, color=color, fill=number == 0, alpha=0.35 if number == 0 else 1.0)
        axes.stairs(heights, edges, color=color, lw=1.4, label=f"{split}, n = {len(labels):,}")
    axes.set_xlabel(axis_label(name, unit), fontsize=12)
    axes.set_ylabel("share of the split (%)", fontsize=12)
    axes.set_ylim(top=1.25 * axes.dataLim.y1)  # room for the legend
    axes.legend(frameon=False, fontsize=10.5)
    clean(axes)
    return figure


def joint_histogram(
    target: ArrayLike, prediction: ArrayLike, *, name: str, unit: str, split: str = "test", bins: int = 60
) -> Figure:
    """Predicted against calculated values: a square of counts with the line of agreement, and a histogram of each.

    Colours go with the logarithm of the count, so that single crystals far from the line show beside the crowd on it.

    Args:
      target: Calculated values in unit, [n]; NaN where unknown, left out.
      prediction: In the same unit, [n].
      name: Property, see figures.axis_label.
      unit: Of both.
      split: Part of the data shown.
      bins: Cells along a side.

    Raises:
      ValueError: If no label is known, or a value is not finite.
    """
    y, p = finite_values(target, prediction)
    limits = square_limits(y, p)
    edges = np.linspace(*limits, bins + 1)
    counts, _, _ = np.histogram2d(y, p, bins=(edges, edges))

    figure = new_figure(6.6, 5.6)
    axes = figure.add_subplot()
    top = max(int(counts.max()), 2)
    norm = LogNorm(1, top)
    cells = axes.pcolormesh(edges, edges, np.ma.masked_equal(counts.T, 0), norm=norm, cmap="viridis_r")
    axes.axline((limits[0], limits[0]), slope=1, color="0.2", lw=0.9, ls="--")
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    label = axis_label(name, unit)
    axes.set_xlabel(f"calculated {label}", fontsize=12)
    axes.set_ylabel(f"predicted {label}", fontsize=12)
    clean(axes)
    axes.text(0.03, 0.97, error_lines(y, p, unit), transform=axes.transAxes, va="top", fontsize=10.5)

    # Insets, unlike axes of a grid, stay beside a square whatever the shape of the figure.
    above = axes.inset_axes((0.0, 1.03, 1.0, 0.16), sharex=axes)
    beside = axes.inset_axes((1.03, 0.0, 0.16, 1.0), sharey=axes)
    above.hist(y, edges.tolist(), color=BLUE, alpha=0.8)
    beside.hist(p, edges.tolist(), color=BLUE, alpha=0.8, orientation="horizontal")
    for small in (above, beside):
        small.tick_params(labelbottom=False, labelleft=False, length=0)
        small.spines[:].set_visible(False)
        small.set_xticks([]) if small is beside else small.set_yticks([])
    above.set_title(f"{split} split", fontsize=12, loc="left")
    bar = figure.colorbar(cells, cax=axes.inset_axes((1.21, 0.0, 0.045, 1.0)), format=plain_numbers())
    # The largest number too: of few crystals there is no second decade to read the colours from.
    bar.set_ticks([*(10**k for k in range(6) if 2 * 10**k <= top), top])
    bar.set_label("crystals per cell", fontsize=11)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    return figure


def _known(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[~np.isnan(array)]
