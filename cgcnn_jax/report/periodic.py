"""Numbers by element as a coloured periodic table."""

import bisect
import math
from collections.abc import Mapping

import numpy as np

from cgcnn_jax.data import elements

try:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_hex, to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
except ImportError as error:
    raise ImportError("figures need matplotlib; install it with: pip install 'cgcnn-jax[plot]'") from error

SYMBOLS = (
    *elements.SYMBOLS,
    *["Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"],
)
"""The 118 elements by atomic number, from H; those beyond Lr have no atom features, but a cell in the table."""

_CLOSED_SHELLS = (0, 2, 10, 18, 36, 54, 86, 118)
_ATOMIC_NUMBERS = {symbol: 1 + index for index, symbol in enumerate(SYMBOLS)}
_MISSING = "0.88"


def table_cell(symbol: str) -> tuple[int, int]:
    """Row and column of an element in the usual table of 18 columns, both from 1.

    Rows 1 to 7 are the periods; He is in column 18. As in IUPAC's chart and pymatgen's heat map, all 15 lanthanides and
    all 15 actinides stand below, La to Lu in row 9 and Ac to Lr in row 10, columns 3 to 17; their places in column 3 of
    rows 6 and 7 are empty, and so is row 8, the gap.

    Raises:
      ValueError: If it is not the symbol of an element.
    """
    if symbol not in _ATOMIC_NUMBERS:
        raise ValueError(f"unknown element {symbol!r}; known are the symbols from 'H' to {SYMBOLS[-1]!r}")
    z = _ATOMIC_NUMBERS[symbol]
    for row, first in ((9, 57), (10, 89)):
        if first <= z < first + 15:
            return row, 3 + z - first
    row = bisect.bisect_left(_CLOSED_SHELLS, z)
    after_the_last_shell = z - _CLOSED_SHELLS[row - 1]
    if after_the_last_shell <= 2 and symbol != "He":
        return row, after_the_last_shell
    return row, 18 - (_CLOSED_SHELLS[row] - z)


def periodic_table(
    values: Mapping[str, float],
    *,
    label: str,
    unit: str,
    center: float | None = None,
    limits: tuple[float, float] | None = None,
    number_format: str = ".2f",
    title: str = "",
) -> Figure:
    """The periodic table, each element coloured by its value and labelled with symbol and value.

    The colours run from blue over white to red, with white at `center` and equal distances from it equally strong
    (ColorBrewer's RdBu); without a centre from dark blue to yellow (cividis), for numbers without a neutral value, such
    as counts. Both scales are told apart with any colour vision. Elements without a value are light grey.

    Args:
      values: Value by symbol; NaN is no value.
      label: What the values are, for the colour bar.
      unit: Of the values, empty if there is none.
      center: Value of the neutral colour.
      limits: Values of the two end colours, which values beyond take too; by default the range of the values, widened
        to be symmetric about a centre. Two tables with the same limits can be compared by eye.
      number_format: How values are written, a format specification.
      title: Above the table.

    Raises:
      ValueError: If a symbol is unknown, a value is infinite, no element has a value, the limits are not ordered, or the
        centre is not halfway between them.
    """
    known = {symbol: float(value) for symbol, value in values.items() if not math.isnan(value)}
    cells = {symbol: table_cell(symbol) for symbol in (*SYMBOLS, *values)}
    if not known:
        raise ValueError(f"no element has a value of {label}; a periodic table needs one")
    infinite = [symbol for symbol, value in known.items() if math.isinf(value)]
    if infinite:
        raise ValueError(f"the value of {label} is infinite for {', '.join(infinite)}; give NaN for no value")
    low, high = _limits(list(known.values()), center, limits)
    colors = ScalarMappable(Normalize(low, high), "cividis" if center is None else "RdBu_r")
    faces = dict(zip(known, map(to_hex, colors.to_rgba(np.array(list(known.values())))), strict=True))

    figure = Figure(figsize=(11.0, 6.2), layout="constrained")
    axes = figure.add_subplot()
    for symbol, (row, column) in cells.items():
        y = row - 0.5 if row > 8 else row  # half a row is gap enough
        face = faces.get(symbol, _MISSING)
        axes.add_patch(Rectangle((column - 0.48, y - 0.48), 0.96, 0.96, facecolor=face, lw=0, gid=symbol))
        ink = _readable(face) if symbol in known else "0.4"
        axes.text(column, y - 0.14, symbol, ha="center", va="center", fontsize=13, fontweight="bold", color=ink)
        if symbol in known:
            number = format(known[symbol], number_format)
            size = 9 if len(number) < 6 else 7
            axes.text(column, y + 0.27, number, ha="center", va="center", fontsize=size, color=ink)
    for row, name in ((6, "57–71"), (7, "89–103")):
        axes.text(3, row, name, ha="center", va="center", fontsize=9, color="0.4")
    axes.set(xlim=(0.4, 18.6), ylim=(10.1, 0.4), aspect="equal")
    axes.axis("off")
    if title:
        axes.set_title(title, fontsize=13, loc="left")

    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        min(known.values()) < low, max(known.values()) > high
    ]
    bar = figure.colorbar(colors, ax=axes, orientation="horizontal", shrink=0.5, aspect=35, pad=0.02, extend=extend)
    bar.set_label(f"{label} ({unit})" if unit else label, fontsize=12)
    bar.ax.tick_params(labelsize=10.5)
    bar.outline.set_visible(False)
    return figure


def _limits(values: list[float], center: float | None, limits: tuple[float, float] | None) -> tuple[float, float]:
    if limits is None:
        low, high = min(values), max(values)
        if center is not None:
            reach = max(high - center, center - low)
            low, high = center - reach, center + reach
        return (low, high) if low < high else (low - 0.5, high + 0.5)
    low, high = limits
    if not low < high:
        raise ValueError(f"need limits (low, high) with low < high, got {limits}")
    if center is not None and not math.isclose(center - low, high - center, rel_tol=1e-6):
        raise ValueError(f"center {center} is not halfway between the limits {limits}, so colours would not compare")
    return low, high


def _readable(face: str) -> str:
    """Black or white, whichever contrasts more with the colour (relative luminance of WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(face)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
