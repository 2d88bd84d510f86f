"""The paper's kinds of figures of any finished runs."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cgcnn_jax.data import elements
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.scaling import with_units
from cgcnn_jax.workdir import Workdir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cgcnn_jax.report.convergence import Point


def joint_histograms(place: Workdir) -> "dict[str, Figure]":
    """Predicted against calculated values of the judged split, by property (Figs. 2c, 3b, S4, S6).

    A property that has no label there has no figure.

    Raises:
      ValueError: If the run is not finished, or classifies.
    """
    from cgcnn_jax.report.histograms import joint_histogram

    summary = _finished(place)
    properties = summary["properties"]
    table = _predictions(place)
    if "probability_1" in table:
        raise ValueError(f"{place.path} classifies: its figure is the ROC curve")
    suffixes = {name: f":{name}" if len(properties) > 1 else "" for name in properties}
    return {
        name: joint_histogram(
            table[f"target{suffixes[name]}"],
            table[f"prediction{suffixes[name]}"],
            name=name,
            unit=unit,
            split=_judged(summary),
        )
        for name, unit in properties.items()
        if table[f"target{suffixes[name]}"].notna().any()
    }


def roc(place: Workdir, class_names: Sequence[str] | None = None) -> "Figure":
    """ROC curve of the judged split of a classification (Fig. 2d).

    Raises:
      ValueError: If the run is not finished, or is a regression.
    """
    from cgcnn_jax.report.figures import roc_curve

    summary = _finished(place)
    table = _predictions(place)
    columns = [name for name in table if str(name).startswith("probability_")]
    if not columns:
        raise ValueError(f"{place.path} does not classify, so it has no ROC curve")
    return roc_curve(table["target"], table[columns].to_numpy(), class_names=class_names, split=_judged(summary))


def convergence(places: Sequence[Workdir], *, band: tuple[float, float] | None = None) -> "Figure":
    """Test error of runs with different numbers of training crystals, a line for each model.conv (Figs. 2b, S5).

    Args:
      places: The runs.
      band: From and to, an error to compare with, such as that of DFT against experiment; in the unit of the property.

    Raises:
      ValueError: If a run is not finished, has no test split or several properties, or two learn different ones.
    """
    from cgcnn_jax.report import convergence as drawn

    series: dict[str, list[Point]] = {}
    properties: set[tuple[str, str]] = set()
    for place in places:
        summary = _finished(place)
        test, bounds = summary["metrics"].get("test") or {}, summary["intervals_95"].get("test") or {}
        if len(summary["properties"]) != 1 or test.get("mae") is None:
            raise ValueError(f"{place.path} has no test MAE of one property, which a learning curve is made of")
        properties |= set(summary["properties"].items())
        point = drawn.Point(summary["crystals"]["train"], test["mae"], tuple(bounds["mae"]))
        series.setdefault(place.read_json("config.json")["model"]["conv"], []).append(point)
    if len(properties) != 1:
        named = ", ".join(with_units(*zip(*sorted(properties), strict=True)))
        raise ValueError(f"the runs of a learning curve must learn one property in one unit; these learn {named}")
    ((name, unit),) = properties
    return drawn.convergence(series, name=name, unit=unit, band=band)


def contents(symbols: Sequence[Sequence[str]], atoms: Sequence[int]) -> "dict[str, Figure]":
    """What crystals hold: number of elements, of atoms, and how often each element occurs (Figs. 2a, S2).

    Args:
      symbols: Elements of each crystal, each once.
      atoms: In the cell of each.
    """
    from cgcnn_jax.report.histograms import count_histogram, element_histogram

    return {
        "elements": count_histogram([len(one) for one in symbols], label="elements in the crystal"),
        "atoms": count_histogram(atoms, label="atoms in the cell"),
        "occurrence": element_histogram(Counter(symbol for one in symbols for symbol in one)),
    }


def contents_of(crystals: Dataset, ids: Collection[str]) -> "dict[str, Figure]":
    """`contents` of those crystals that have the ids, such as the splits of a run."""
    graphs = crystals.graphs
    species = np.split(np.asarray(graphs.species), np.cumsum(graphs.n_node)[:-1])
    chosen = [n for n, id in enumerate(crystals.ids) if id in ids]
    symbols = [[elements.symbol(int(number)) for number in np.unique(species[n])] for n in chosen]
    return contents(symbols, crystals.store.n_atom[chosen].tolist())


def _finished(place: Workdir) -> dict:
    if not place.is_finished:
        raise ValueError(f"{place.path} holds no finished run (there is no summary.json)")
    return place.summary()


def _judged(summary: dict) -> str:
    """The split of which predictions.csv is."""
    return next(iter(summary["intervals_95"]))


def _predictions(place: Workdir) -> pd.DataFrame:
    return pd.read_csv(place.path / "predictions.csv", dtype={"id": str})
