"""Where a model errs: mean misses by element and along a number, the extremes, and which points a plot can do without.

All take the frame of `FinishedRun.labelled`: one row per crystal, `miss` being |prediction - target| of numbers, and 1 or
0 of classes, so that its mean is the MAE or the share of wrong classes.
"""

import re

import numpy as np
import pandas as pd

from cgcnn_jax.data import elements
from cgcnn_jax.train import metrics

_SYMBOL = re.compile(r"[A-Z][a-z]?")


def by_element(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean miss of the crystals that hold an element; a crystal counts for each of its elements.

    Args:
      frame: With formula and miss, and error if there is one.

    Returns:
      A row per element that occurs, by symbol: n crystals, their mean miss and, of numbers, the mean error, whose sign
      tells whether the model predicts too much (+) or too little.
    """
    known = set(elements.SYMBOLS)
    symbols = frame["formula"].map(lambda formula: sorted(known & set(_SYMBOL.findall(formula))))
    long = frame.assign(element=symbols).explode("element").dropna(subset="element")
    columns = {"n": ("miss", "size"), "miss": ("miss", "mean")}
    if "error" in frame:
        columns["error"] = ("error", "mean")
    return long.groupby("element").agg(**columns)


def along(frame: pd.DataFrame, column: str, num_bins: int = 10) -> pd.DataFrame:
    """Mean miss in bins of a number that hold about equally many crystals.

    The bins' edges are quantiles; equal values are in one bin, so that there may be fewer. 95 % intervals of the means
    are bootstrapped within the bin (`metrics.intervals`).

    Args:
      frame: With miss and the column; rows where that is NaN are left out.
      column: A number, such as n_atom.
      num_bins: At most so many.

    Returns:
      A row per bin, ascending: lower and upper are the smallest and the largest value in it, middle their median, n
      crystals, miss, low and high.
    """
    known = frame[frame[column].notna()]
    edges = np.unique(np.quantile(known[column], np.linspace(0, 1, num_bins + 1), method="nearest"))
    # Right-closed bins: the first edge has its own values with the second's.
    number = np.maximum(np.searchsorted(edges, known[column], side="left"), 1)
    rows = []
    for _, bin in known.groupby(number):
        low, high = metrics.intervals(lambda miss: {"mean": float(miss.mean())}, bin["miss"])["mean"]
        value = bin[column]
        rows.append((value.min(), value.max(), value.median(), len(bin), bin["miss"].mean(), low, high))
    return pd.DataFrame(rows, columns=["lower", "upper", "middle", "n", "miss", "low", "high"])


def extremes(frame: pd.DataFrame, n: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The n worst and the n best predictions, worst and best first; ties in the order of ids.

    Of numbers by |error|, of classes by the probability that the model gave to the true class.
    """
    by = "certainty" if "certainty" in frame else "miss"
    goodness = frame[by] if by == "certainty" else -frame[by]
    ordered = frame.assign(_goodness=goodness).sort_values(["_goodness", "id"], kind="stable").drop(columns="_goodness")
    # With few crystals none is among both.
    n_worst = min(n, -(-len(frame) // 2))
    n_best = min(n, len(frame) - n_worst)
    best = ordered.iloc[n_worst:].sort_values(by, ascending=by != "certainty", kind="stable")
    return ordered.head(n_worst), best.head(n_best)


def thinned(frame: pd.DataFrame, limit: int, *, keep: int = 200, cells: int = 160) -> pd.DataFrame:
    """At most `limit` rows that look like all of them on a plot of prediction against target.

    The square of both axes is cut into cells x cells. A cell keeps its m crystals with the largest errors, m as large as
    the limit admits, and the `keep` largest errors of all stay in any case. No chance is involved.

    Args:
      frame: With id, target, prediction and miss, all finite.
      limit: Largest number of rows, at least `keep`.
      keep: Worst crystals that always stay.
      cells: Per axis; halved until a crystal per cell is not too many.

    Returns:
      The rows that stay, in their order, with neighbours: how many crystals of the whole frame are in the cell.

    Raises:
      ValueError: If limit < keep.
    """
    if limit < keep:
        raise ValueError(f"need limit >= keep, got {limit} and {keep}")
    values = frame[["target", "prediction"]].to_numpy()
    low, high = values.min(), values.max()
    order = np.lexsort((frame["id"], -frame["miss"]))
    is_worst = np.zeros(len(frame), bool)
    is_worst[order[:keep]] = True
    while True:
        place = ((values - low) / max(high - low, np.finfo(float).tiny) * cells).clip(0, cells - 1).astype(int)
        cell = pd.Series(place[:, 0] * cells + place[:, 1])
        rank = cell.iloc[order].groupby(cell).cumcount().sort_index().to_numpy()
        # Rows that stay if every cell keeps those of rank < m, for m = 1, 2, ...
        staying = np.cumsum(np.bincount(rank[~is_worst], minlength=1)) + is_worst.sum()
        if staying[0] <= limit or cells == 1:
            break
        cells //= 2
    most = int(np.searchsorted(staying, limit, side="right"))
    neighbours = cell.map(cell.value_counts()).to_numpy()
    return frame.assign(neighbours=neighbours)[is_worst | (rank < most)]
