"""Interactive figures of finished runs, as bokeh figures: notebooks show them, the report embeds them.

Colours of curves and points are those of `report.figures`. Everything else follows the page by bokeh's CSS variables
(page.html), so that one page reads in light and dark.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cgcnn_jax.report.figures import PALETTE, axis_label, square_limits
from cgcnn_jax.report.periodic import SYMBOLS, table_cell

try:
    from bokeh.models import (
        BasicTicker,
        ColorBar,
        ColumnDataSource,
        CustomJS,
        FixedTicker,
        HoverTool,
        LinearColorMapper,
        LogColorMapper,
        LogTicker,
        PlainText,
        PrintfTickFormatter,
        Range1d,
        Whisker,
    )
    from bokeh.palettes import Cividis256, Viridis256
    from bokeh.plotting import figure as Figure
except ImportError as error:
    raise ImportError("the report needs bokeh; install it with: pip install 'cgcnn-jax[report]'") from error

GREY = "#888888"
INK = "#7a828c"
"""Text that reads on the white and on the dark page."""
POINTS = 5000
"""Crystals that a parity plot shows at most; `residuals.thinned` chooses them."""
STEPS = 1000
"""Points that a curve shows at most; see `steps`."""
LONGEST = 80
"""Characters of an id or a formula under the pointer; of longer ones the midst is left out."""

_DENSE = 1500  # crystals above which a parity plot tells their density by colour
_DASHES = ("solid", "dashed", "dotted", "dotdash")
_CURVES = {"train": ("dashed", "dotted"), "val": ("solid", "dotdash")}
_MARKERS = ("circle", "square", "triangle", "diamond")
_FEW = 5  # crystals, fewer of which make an element's mean weak


def learning_curves(curves: Mapping[str, pd.DataFrame], *, label: str, best: Mapping[str, int] | None = None) -> Figure:
    """A metric against the epoch, of one run or several.

    The axis is logarithmic if all values are positive and span more than a factor of 5.

    Args:
      curves: Run -> epoch, and train, val and learning_rate as far as there are any. Of several runs, training is dashed;
        those that lack a colour of their own, dotted (training) and dotted and dashed.
      label: Of the metric, with its unit.
      best: Run -> the epoch whose weights were kept, marked on the validation curve.

    Raises:
      ValueError: If no run has a value.
    """
    values = np.concatenate(
        [curve[part].dropna() for curve in curves.values() for part in ("train", "val") if part in curve] or [[]]
    )
    if not len(values):
        raise ValueError(f"no run has a value of {label}")
    is_log = values.min() > 0 and values.max() > 5 * values.min()
    plot = _figure("epoch", label, y_axis_type="log" if is_log else "linear")
    if is_log:
        _mark_decades(plot.yaxis, values)
    drawn = []
    for number, (name, curve) in enumerate(curves.items()):
        for part, word in (("train", "training"), ("val", "validation")):
            if part not in curve or not curve[part].notna().any():
                continue
            known = curve[curve[part].notna()]
            source = _source(
                known.iloc[_spread(len(known), steps(len(curves)))].rename(columns={part: "value"}),
                what=word,
                run=_short(name),
            )
            one = len(curves) == 1
            drawn.append(
                plot.line(
                    "epoch",
                    "value",
                    source=source,
                    color=PALETTE[part == "val"] if one else PALETTE[number % len(PALETTE)],
                    line_dash="solid" if one else _CURVES[part][number // len(PALETTE) % 2],
                    line_width=2,
                    legend_label=word if one else f"{_short(name, 30)}, {word}",
                )
            )
            chosen = (best or {}).get(name)
            if part == "val" and chosen in set(known["epoch"]):
                value = known.loc[known["epoch"] == chosen, "val"]
                plot.scatter(
                    [chosen], value, size=11, fill_color=None, line_width=2, line_color=drawn[-1].glyph.line_color
                )
    rows = [("run", "@run")] * (len(curves) > 1) + [("epoch", "@epoch"), ("curve", "@what"), ("value", "@value{%.4g}")]
    if any("learning_rate" in curve for curve in curves.values()):
        rows.append(("learning rate", "@learning_rate{%.3g}"))
    _point_at(plot, rows, drawn, mode="vline" if len(curves) == 1 else "mouse")
    _legend(plot, "top_right")
    return plot


def parity(
    frame: pd.DataFrame,
    *,
    name: str,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Predictions against targets on one square, with the line of perfect agreement; id and formula under the pointer.

    Args:
      frame: What `residuals.thinned` left: id, target, prediction, error, neighbours, and formula, n_atom, nearest and
        distance where they are known.
      name: Property, see axis_label.
      unit: Of both.
      limits: Of both axes, so that plots can be compared; by default those of these points.
    """
    low, high = limits or square_limits(frame["target"].to_numpy(), frame["prediction"].to_numpy())
    label = axis_label(name, unit)
    plot = _figure(f"target {label}", f"predicted {label}", x_range=Range1d(low, high), y_range=Range1d(low, high))
    _square(plot)
    color: Any = PALETTE[0]
    if frame["neighbours"].sum() > len(frame) and len(frame) > _DENSE:
        # Neither end is lost on a white or a dark page.
        mapper = LogColorMapper(Viridis256[90:245], low=1, high=max(2, int(frame["neighbours"].max())))
        color = {"field": "neighbours", "transform": mapper}
        plot.add_layout(_color_bar(mapper, "crystals in the cell of a point", LogTicker(desired_num_ticks=5)), "below")
    plot.line([low, high], [low, high], color=GREY, line_dash="dashed", line_width=1.5)
    known = [
        (title, column, form)
        for title, column, form in (
            ("formula", "formula", ""),
            ("target", "target", "{%.5g}"),
            ("predicted", "prediction", "{%.5g}"),
            ("error", "error", "{%+.3g}"),
            ("atoms", "n_atom", "{%d}"),
            ("nearest in training", "nearest", ""),
            ("distance to it", "distance", "{%.3g}"),
        )
        if column in frame
    ]
    columns = ["id", "neighbours", *(column for _, column, _ in known)]
    points = plot.scatter(
        "target",
        "prediction",
        source=_source(frame[columns]),
        size=7 if len(frame) < 500 else 5,
        color=color,
        line_color=None,
        fill_alpha=0.75 if len(frame) < _DENSE else 0.9,
        hit_dilation=2.5,
    )
    rows = [("id", "@id"), *((title, f"@{column}{form}") for title, column, form in known)]
    _point_at(plot, rows, [points])
    return plot


def element_table(table: pd.DataFrame, *, label: str, highest: float | None = None) -> Figure:
    """The periodic table, coloured by the mean miss of the crystals that hold an element.

    Elements of fewer than 5 crystals are drawn pale.

    Args:
      table: Of `residuals.by_element`.
      label: What a miss is, with its unit.
      highest: Miss of the last colour, so that tables can be compared; by default `highest_miss`.

    Raises:
      ValueError: If the table is empty.
    """
    if not len(table):
        raise ValueError("no element is known; a table of elements needs one")
    cells = pd.DataFrame(
        [(symbol, *table_cell(symbol)) for symbol in SYMBOLS], columns=["symbol", "row", "column"]
    ).set_index("symbol")
    cells["row"] -= np.where(cells["row"] > 8, 0.6, 0.0)  # less than a row is gap enough
    shown = table.join(cells).reset_index(names="symbol")
    mapper = LinearColorMapper(Cividis256[::-1], low=0, high=highest or highest_miss(table) or 1.0)
    place = (shown["miss"] / mapper.high * 255).clip(0, 255)
    # Cividis, turned round, is dark in its upper half.
    is_rare = shown["n"] < _FEW
    shown["ink"] = np.where(is_rare, GREY, np.where(place > 128, "#ffffff", "#000000"))
    shown["alpha"] = np.where(is_rare, 0.25, 1.0)

    plot = _figure(None, None, x_range=Range1d(0.4, 18.6), y_range=Range1d(10.0, 0.4))
    plot.axis.visible = False
    plot.grid.visible = False
    plot.toolbar_location = None
    rest = _source(cells.drop(shown["symbol"]).reset_index(names="symbol"))
    plot.rect("column", "row", width=0.94, height=0.94, source=rest, fill_color=GREY, alpha=0.1, line_color=None)
    # The places of the two rows below.
    plot.rect(3, [6, 7], width=0.94, height=0.94, fill_color=None, line_color=GREY, line_alpha=0.3, line_dash="dotted")
    values = _source(shown)
    drawn = plot.rect(
        "column",
        "row",
        width=0.94,
        height=0.94,
        source=values,
        fill_color={"field": "miss", "transform": mapper},
        fill_alpha="alpha",
        line_color=None,
        hover_line_color=PALETTE[1],
    )
    names = [
        plot.text("column", "row", "symbol", source=part, color=ink, text_align="center", text_baseline="middle")
        for part, ink in ((rest, GREY), (values, "ink"))
    ]
    # Cells as wide as the page allows, with letters to fit.
    resize = CustomJS(
        args={"plot": plot, "texts": [one.glyph for one in names]},
        code="""
            plot.frame_height = Math.round(plot.inner_width * 9.6 / 18.2)
            for (const text of texts)
                text.text_font_size = Math.max(8, Math.min(20, plot.inner_width / 18.2 * 0.45)).toFixed(1) + "px"
        """,
    )
    plot.js_on_change("inner_width", resize)
    rows = [("element", "@symbol"), ("crystals", "@n"), (label, "@miss{%.3g}")]
    if "error" in shown:
        rows.append(("mean error", "@error{%+.3g}"))
    _point_at(plot, rows, [drawn])
    plot.add_layout(_color_bar(mapper, label, BasicTicker(desired_num_ticks=5)), "below")
    return plot


def highest_miss(*tables: pd.DataFrame) -> float:
    """The largest mean miss of an element that 5 crystals or more hold, or of any if all are rarer."""
    table = pd.concat(tables)
    often = table[table["n"] >= _FEW]
    return float((often if len(often) else table)["miss"].max())


def means_along(tables: Mapping[str, pd.DataFrame], *, x_label: str, y_label: str) -> Figure:
    """Mean misses in bins of a number, with 95 % intervals, of one run or several.

    The axis of the number is logarithmic if it is 1 or more, as a count, and spans more than a factor of 20.

    Args:
      tables: Run -> table of `residuals.along`.
      x_label: Of the number.
      y_label: Of the miss.
    """
    middles = np.concatenate([table["middle"] for table in tables.values()])
    is_log = middles.min() >= 1 and middles.max() > 20 * middles.min()
    plot = _figure(x_label, y_label, x_axis_type="log" if is_log else "linear", height=280)
    if is_log:
        _mark_decades(plot.xaxis, middles)
    drawn = []
    for number, (name, table) in enumerate(tables.items()):
        color = PALETTE[number % len(PALETTE)]
        source = _source(table, run=_short(name))
        whisker = Whisker(base="middle", upper="high", lower="low", source=source, line_color=color, line_width=1.5)
        whisker.upper_head.line_color = whisker.lower_head.line_color = color  # type: ignore[union-attr]
        plot.add_layout(whisker)
        plot.line("middle", "miss", source=source, color=color, line_width=1, line_alpha=0.5)
        legend = {"legend_label": _short(name, 30)} if len(tables) > 1 else {}
        marker = _MARKERS[number // len(PALETTE) % len(_MARKERS)]
        drawn.append(plot.scatter("middle", "miss", source=source, color=color, marker=marker, size=9, **legend))
    plot.y_range = Range1d(0, 1.05 * max(table["high"].max() for table in tables.values()) or 1.0)
    rows = [("run", "@run")] * (len(tables) > 1)
    rows += [
        ("from … to", "@lower{%.4g} … @upper{%.4g}"),
        ("crystals", "@n"),
        ("mean", "@miss{%.3g}"),
        ("95 %", "@low{%.3g} … @high{%.3g}"),
    ]
    _point_at(plot, rows, drawn)
    if len(tables) > 1:
        _legend(plot, "top_left")
    return plot


def rates(curves: Mapping[str, pd.DataFrame], *, x_label: str, y_label: str, diagonal: bool, legend: str) -> Figure:
    """Curves on the unit square: ROC, precision-recall or calibration.

    Args:
      curves: Name -> x and y ascending in what is swept, and what else the pointer shows, such as threshold and n.
      x_label: Of x.
      y_label: Of y.
      diagonal: Draw y = x, which is chance of a ROC, and perfect calibration.
      legend: Corner without curves, as top_left.
    """
    plot = _figure(x_label, y_label, x_range=Range1d(-0.02, 1.02), y_range=Range1d(-0.02, 1.02))
    _square(plot)
    if diagonal:
        plot.line([0, 1], [0, 1], color=GREY, line_dash="dashed", line_width=1.5)
    drawn = []
    for number, (name, curve) in enumerate(curves.items()):
        source = _source(curve.iloc[_spread(len(curve), steps(len(curves)))], name=_short(name))
        color, dash = PALETTE[number % len(PALETTE)], _DASHES[number // len(PALETTE) % len(_DASHES)]
        if {"low", "high"} <= set(curve):
            whisker = Whisker(base="x", upper="high", lower="low", source=source, line_color=color)
            whisker.upper_head.line_color = whisker.lower_head.line_color = color  # type: ignore[union-attr]
            plot.add_layout(whisker)
            plot.line("x", "y", source=source, color=color, line_width=1, line_alpha=0.6)
            drawn.append(plot.scatter("x", "y", source=source, color=color, size=8, legend_label=_short(name, 40)))
        else:
            drawn.append(
                plot.line(
                    "x", "y", source=source, color=color, line_dash=dash, line_width=2, legend_label=_short(name, 40)
                )
            )
    extra = [column for column in ("threshold", "n") if any(column in curve for curve in curves.values())]
    forms = {"threshold": "{%.3g}", "n": "{%d}"}
    rows = [("curve", "@name"), (x_label, "@x{%.3f}"), (y_label, "@y{%.3f}")]
    _point_at(plot, [*rows, *((column, f"@{column}{forms[column]}") for column in extra)], drawn)
    _legend(plot, legend)
    return plot


def confusion(counts: pd.DataFrame) -> Figure:
    """Counts of predicted (columns) against true classes (rows), coloured by the share of the row."""
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    cells = pd.DataFrame(
        [
            (str(true), str(predicted), int(counts.loc[true, predicted]), float(shares.loc[true, predicted]))
            for true in counts.index
            for predicted in counts.columns
        ],
        columns=["true", "predicted", "n", "share"],
    )
    mapper = LinearColorMapper(Cividis256[::-1], low=0, high=1)
    cells["text"] = [f"{n:,}\n{share:.1%}" for n, share in zip(cells["n"], cells["share"], strict=True)]
    cells["ink"] = np.where(cells["share"] > 0.5, "#ffffff", "#000000")
    plot = _figure(
        "predicted class",
        "true class",
        x_range=[str(one) for one in counts.columns],
        y_range=[str(one) for one in counts.index[::-1]],
    )
    _square(plot)
    plot.grid.visible = False
    source = _source(cells)
    drawn = plot.rect(
        "predicted",
        "true",
        width=0.97,
        height=0.97,
        source=source,
        fill_color={"field": "share", "transform": mapper},
        line_color=None,
    )
    size = "15px" if len(counts) < 5 else "11px"
    plot.text(
        "predicted",
        "true",
        "text",
        source=source,
        color="ink",
        text_align="center",
        text_baseline="middle",
        text_font_size=size,
    )
    _point_at(
        plot,
        [("true", "@true"), ("predicted", "@predicted"), ("crystals", "@n"), ("of the true", "@share{%.3f}")],
        [drawn],
    )
    return plot


def _figure(x_label: str | None, y_label: str | None, *, height: int = 320, **keywords: Any) -> Figure:
    """An empty figure as wide as its place. A drag or a wheel over it moves the page, until a tool is chosen."""
    plot = Figure(
        height=height,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag=None,
        active_scroll=None,
        toolbar_location="above",
        min_border_right=12,
        **keywords,
    )
    plot.toolbar.logo = None
    for axis, label in ((plot.xaxis, x_label), (plot.yaxis, y_label)):
        # Plain, because bokeh would take dollars in a name for TeX.
        axis.axis_label = PlainText(label) if label else None
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "14px"
        axis.major_label_text_font_size = "12px"
    plot.outline_line_color = None
    plot.grid.grid_line_alpha = 0.6
    return plot


def _mark_decades(axis: Any, values: np.ndarray) -> None:
    """Plain numbers on a logarithmic axis: 1, 2 and 5 of every decade, 1 alone where there are more than three."""
    first, last = int(np.floor(np.log10(values.min()))) - 1, int(np.ceil(np.log10(values.max()))) + 1
    steps = (1, 2, 5) if last - first <= 5 else (1,)
    axis.ticker = FixedTicker(ticks=[float(f"{step}e{decade}") for decade in range(first, last + 1) for step in steps])
    axis.formatter = PrintfTickFormatter(format="%g")


def _square(plot: Figure) -> None:
    """Keeps the frame as high as it is wide."""
    plot.frame_height = 300
    code = "plot.frame_height = Math.round(plot.inner_width)"
    plot.js_on_change("inner_width", CustomJS(args={"plot": plot}, code=code))


def _point_at(plot: Figure, rows: Sequence[tuple[str, str]], renderers: Sequence[Any], mode: str = "mouse") -> None:
    """What the pointer shows. Bokeh escapes the values."""
    formats = {f"@{column}": "printf" for column in _printf_columns(rows)}
    plot.add_tools(
        HoverTool(tooltips=list(rows), formatters=formats, renderers=list(renderers), mode=mode, limit=3, visible=False)
    )


def _printf_columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [part.split("{")[0] for _, value in rows for part in value.split("@")[1:] if "{%" in part]


def _legend(plot: Figure, location: str) -> None:
    legend = plot.legend[0]
    legend.location = location
    legend.click_policy = "hide"
    # Legends and colour bars do not follow the page.
    legend.background_fill_color = None
    legend.border_line_color = None
    legend.label_text_color = INK
    legend.label_text_font_size = "12px"
    legend.padding = legend.margin = 4


def _color_bar(mapper: Any, title: str, ticker: Any) -> ColorBar:
    return ColorBar(
        color_mapper=mapper,
        title=title,
        ticker=ticker,
        height=10,
        title_text_font_size="12px",
        title_text_font_style="normal",
        title_text_color=INK,
        major_label_text_color=INK,
        major_label_text_font_size="11px",
        background_fill_color=None,
        bar_line_color=None,
        margin=0,
        padding=4,
    )


def _source(frame: pd.DataFrame, **more: str) -> ColumnDataSource:
    """Columns as bokeh sends them: numbers in single precision, long texts without their midst."""
    data: dict[str, Any] = {}
    for column in frame:
        values = frame[column]
        if values.dtype.kind == "f":
            data[str(column)] = values.to_numpy(np.float32)
        elif values.dtype.kind in "iu":
            data[str(column)] = values.to_numpy(np.int32)
        else:
            data[str(column)] = [_short(str(value)) for value in values]
    return ColumnDataSource(data | {name: [text] * len(frame) for name, text in more.items()})


def _short(text: str, length: int = LONGEST) -> str:
    """Both ends of a text: names of runs begin alike, and what is said of a curve stands last."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - half]}…{text[-half:]}"


def steps(n_curve: int) -> int:
    """Points that each curve of a plot shows at most: all of them no more than five of STEPS, for the size of the page."""
    return min(STEPS, max(5 * STEPS // n_curve, 50))


def _spread(n: int, most: int) -> np.ndarray:
    """Places of at most so many among n points, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
