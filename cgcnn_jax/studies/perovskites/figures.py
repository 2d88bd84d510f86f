"""Pictures of the perovskite study."""

import numpy as np
import pandas as pd

from cgcnn_jax.report.figures import BLUE, GREY, VERMILLION, clean, new_figure, parity_plot
from cgcnn_jax.report.periodic import periodic_table
from cgcnn_jax.studies.perovskites.energies import D_B, LARGE_A

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("figures need matplotlib; install it with: pip install 'cgcnn-jax[plot]'") from error


def draw(crystals: pd.DataFrame, elements_table: pd.DataFrame, *, label: str, unit: str) -> dict[str, Figure]:
    """Figure 3b (linear pooling), that of full pooling, Figure 3c and d, and what the energies follow.

    Args:
      crystals: With split, the label, and the predictions "linear" and "full".
      elements_table: Of `energies.by_element`.
      label: Column of the labels.
      unit: Of the labels.

    Returns:
      Name -> figure.
    """
    test = crystals[crystals["split"] == "test"]
    return {
        f"parity_{model}": parity_plot(test[label].to_numpy(), test[model].to_numpy(), name=label, unit=unit)
        for model in ("linear", "full")
    } | {
        "a_site": _site(elements_table, "A", unit),
        "b_site": _site(elements_table, "B", unit),
        "trends": trend_figure(elements_table, unit=unit),
    }


def trend_figure(elements_table: pd.DataFrame, *, unit: str) -> Figure:
    """The energy on A against the covalent radius, and that on B against the group; the elements of the search in red."""
    figure = new_figure(11.0, 5.0)
    left, right = figure.subplots(1, 2)
    a, b = (elements_table[elements_table["site"] == site] for site in ("A", "B"))
    _symbols(left, a, "covalent_radius", LARGE_A, 0.055)
    left.set_xlabel("covalent radius (Å)", fontsize=12)
    left.set_ylabel(f"mean energy of the A site ({unit})", fontsize=12)
    _symbols(right, b, "group", D_B, 0.45)
    right.set_xlabel("group", fontsize=12)
    right.set_ylabel(f"mean energy of the B site ({unit})", fontsize=12)
    right.set_xticks(range(1, 19))
    means = b.groupby("group")["energy"].mean()
    right.plot(means.index, means, color=GREY, lw=1.2, zorder=1, label="mean of the group")
    right.legend(frameon=False, fontsize=10.5)
    for axes in (left, right):
        clean(axes)
    return figure


def _site(elements_table: pd.DataFrame, site: str, unit: str) -> Figure:
    """The scales of A and B differ, since their energies spread differently."""
    energies = elements_table[elements_table["site"] == site].set_index("element")["energy"]
    return periodic_table(
        energies.to_dict(),
        label=f"mean energy of the {site} site; white: mean of the elements",
        unit=unit,
        center=float(energies.mean()),
        title=f"{site} site",
    )


def _symbols(axes: Axes, table: pd.DataFrame, column: str, marked: tuple[str, ...], aside: float) -> None:
    """Element symbols as points, moved aside by so much where they would cover another."""
    known = table.dropna(subset=[column]).sort_values("energy")
    near = 0.028 * float(np.ptp(known["energy"]) or 1.0)
    axes.scatter(known[column], known["energy"], s=0)
    placed: list[tuple[float, float]] = []
    for symbol, x, y in zip(known["element"], known[column], known["energy"], strict=True):
        tried = [float(x + shift * aside) for shift in (0, -1, 1, -2, 2)]
        covers = [any(abs(one - at) < 0.9 * aside and abs(y - to) < near for at, to in placed) for one in tried]
        # Where all are covered, the true place is as good as another.
        place = tried[covers.index(False)] if False in covers else float(x)
        placed.append((place, y))
        axes.text(
            place,
            y,
            symbol,
            ha="center",
            va="center",
            fontsize=9.5,
            color=VERMILLION if symbol in marked else BLUE,
            fontweight="bold" if symbol in marked else "normal",
        )
