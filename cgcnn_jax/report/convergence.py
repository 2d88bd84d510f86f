"""Test error against the number of training crystals (Figs. 2b and S5)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from cgcnn_jax.report.figures import GREEN, PALETTE, axis_label, clean, new_figure, plain_numbers, plain_unit


@dataclass(frozen=True)
class Point:
    """A run.

    Attributes:
      n_train: Crystals it was trained on.
      error: Its test error.
      interval: Bounds of the error, if known.
    """

    n_train: int
    error: float
    interval: tuple[float, float] | None = None


def exponent(points: Sequence[Point]) -> float:
    """b of the power law error = a n_train^b through the points, by least squares of the logarithms; NaN for one size."""
    x, y = np.log([point.n_train for point in points]), np.log([point.error for point in points])
    return float(np.polyfit(x, y, 1)[0]) if len(np.unique(x)) > 1 else math.nan


def convergence(
    series: Mapping[str, Sequence[Point]],
    *,
    name: str,
    unit: str,
    band: tuple[float, float] | None = None,
    band_label: str = "DFT against experiment",
    published: Mapping[str, Point] | None = None,
) -> Figure:
    """Mean absolute test error against training size, both logarithmic, a line for each network.

    Args:
      series: Runs by network, in any order.
      name: Property, for the title.
      unit: Of the errors.
      band: Error of the labels themselves, drawn as a band (low, high), or as a line where both are equal.
      band_label: What it is.
      published: Results from elsewhere of networks in `series`, as stars.

    Raises:
      ValueError: If there is no run, a size or error is not positive and finite, the band is not ordered, or a published
        result is of no network in `series`.
    """
    everything = [point for points in (*series.values(), list((published or {}).values())) for point in points]
    if not any(series.values()):
        raise ValueError(f"{name}: no run to draw")
    for point in everything:
        if not (point.n_train > 0 and 0 < point.error < math.inf):
            raise ValueError(f"{name}: logarithmic axes need positive sizes and errors, got {point}")
    strange = [network for network in published or {} if network not in series]
    if strange:
        raise ValueError(f"{name}: published results of {', '.join(strange)}, but the runs are of {', '.join(series)}")
    if band is not None and not 0 < band[0] <= band[1]:
        raise ValueError(f"{name}: need 0 < low <= high of the band, got {band}")

    figure = new_figure(6.8, 5.2)
    axes = figure.add_subplot()
    if band is not None and band[0] < band[1]:
        label = f"{band_label}: {band[0]:g} to {band[1]:g} {plain_unit(unit)}".rstrip()
        axes.axhspan(*band, color=GREEN, alpha=0.18, lw=0, label=label)
    elif band is not None:
        label = f"{band_label}: {band[0]:g} {plain_unit(unit)}".rstrip()
        axes.axhline(band[0], color=GREEN, lw=1.2, ls="--", label=label)
    for number, (network, points) in enumerate(series.items()):
        if not points:
            continue
        ordered = sorted(points, key=lambda point: point.n_train)
        x, y = [point.n_train for point in ordered], [point.error for point in ordered]
        bounds = [point.interval or (point.error, point.error) for point in ordered]
        bars = np.abs(np.array(bounds).T - y)
        slope = exponent(ordered)
        axes.errorbar(
            x,
            y,
            yerr=bars,
            color=PALETTE[number % len(PALETTE)],
            marker="os^D"[number % 4],
            ms=5,
            lw=1.4,
            capsize=2,
            label=network + ("" if math.isnan(slope) else f", error ∝ n$^{{{slope:.2f}}}$".replace("-", "−")),
        )
    for network, point in (published or {}).items():
        color = PALETTE[list(series).index(network) % len(PALETTE)]
        label = f"published, {network}: {point.error:g} {plain_unit(unit)}".rstrip()
        axes.plot(point.n_train, point.error, ls="", marker="*", ms=13, mfc="white", mec=color, mew=1.4, label=label)
    axes.set(xscale="log", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _decades(everything) < 2 else (1.0,)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training crystals", fontsize=12)
    axes.set_ylabel(f"test MAE ({plain_unit(unit)})" if unit else "test MAE", fontsize=12)
    axes.set_title(axis_label(name, unit), fontsize=12, loc="left")
    clean(axes)
    # Lines fall from the upper left to the lower right, and stars and band take the rest: no corner is sure to be free.
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return figure


def _decades(points: Sequence[Point]) -> float:
    sizes = [point.n_train for point in points]
    return math.log10(max(sizes) / min(sizes))
