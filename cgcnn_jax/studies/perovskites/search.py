"""The paper's search: large atoms of groups 13 to 15 on A, groups 4 to 6 on B."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cgcnn_jax.studies.perovskites.energies import D_B, LARGE_A

HEAT_ALL = "heat_all_eV_per_cell"
"""The label of the paper's Table S5, where the source has it."""

THRESHOLD = 0.2
"""Largest energy of a perovskite that might be made, in the unit of the label. The paper writes eV/atom of it."""

PUBLISHED = {
    "candidates": 378,
    "below": 33,
    "all": 18928,
    "all below": 228,
    "test candidates": 58,
    "test below": 8,
}
"""Counts of the paper."""
PUBLISHED_ENERGIES = {"InTaO3": -0.16, "SnTaO3": 0.0, "PbHfO3": 0.1}
"""Some of its Table S5."""


def is_candidate(crystals: pd.DataFrame) -> pd.Series:
    """Whether the cations are those of the search."""
    return crystals["A"].isin(LARGE_A) & crystals["B"].isin(D_B)


def count(crystals: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """How many crystals lie below the threshold, in the paper and by each label.

    Args:
      crystals: With A, B, split, and the labels.
      labels: What a label is called -> its column.

    Returns:
      A row per label, the paper's first: candidates and all with a label, those below the threshold of each, how many
      times as frequent they are among the candidates, and the candidates of the test split.
    """
    rows = [{"label": "the paper", **PUBLISHED, "factor": _factor(*list(PUBLISHED.values())[:4])}]
    candidate = is_candidate(crystals)
    for name, column in labels.items():
        known, below = crystals[column].notna(), crystals[column] < THRESHOLD
        test = crystals["split"] == "test"
        numbers = {
            "candidates": (candidate & known).sum(),
            "below": (candidate & below).sum(),
            "all": known.sum(),
            "all below": below.sum(),
            "test candidates": (candidate & known & test).sum(),
            "test below": (candidate & below & test).sum(),
        }
        counted = {key: int(value) for key, value in numbers.items()}
        rows.append({"label": name, **counted, "factor": _factor(*list(counted.values())[:4])})
    return pd.DataFrame(rows)


def expected_below(crystals: pd.DataFrame, label: str, other: str) -> dict[str, float]:
    """How many crystals would be below the threshold by a label that is not known of all.

    Where `label` is unknown, the other one stands in: a crystal counts as much as the share of those, with the same anions
    and on the same side of the threshold by the other label, that are below it by `label`.

    Args:
      crystals: With A, B, X and both labels.
      label: Column of the label wanted.
      other: Column of one that is known of more crystals.

    Returns:
      Expected numbers "below", of candidates, and "all below"; crystals of which neither label is known count 0.
    """
    both = crystals[label].notna() & crystals[other].notna()
    side = crystals[other] < THRESHOLD
    below = crystals[label] < THRESHOLD
    groups = [crystals["X"], side]
    share = below[both].groupby([group[both] for group in groups]).mean()
    keys = pd.MultiIndex.from_arrays(groups)
    # A group without a crystal that has both labels says nothing; the other label then decides.
    guessed = pd.Series(share.reindex(keys).to_numpy(float), crystals.index).fillna(side.astype(float))
    weight = pd.Series(
        np.where(crystals[label].notna(), below, np.where(crystals[other].notna(), guessed, 0.0)), crystals.index
    ).astype(float)
    return {"below": float(weight[is_candidate(crystals)].sum()), "all below": float(weight.sum())}


def disagreement(crystals: pd.DataFrame, label: str, other: str) -> dict[str, Any]:
    """Crystals with "both" labels, those in which they "differ" by more than rounding, and the "anions" of those."""
    apart = (crystals[label] - crystals[other]).dropna().abs() > 0.005
    return {
        "both": len(apart),
        "differ": int(apart.sum()),
        "anions": sorted(crystals.loc[apart[apart].index, "X"].unique()),
    }


def found(crystals: pd.DataFrame, label: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """The candidates below the threshold by their label, the lowest first, as in Table S5.

    Args:
      crystals: With formula, A, B, split and the columns.
      label: Column that decides.
      columns: Names of further columns -> column.

    Returns:
      formula, the columns, split, and the paper's energy where it is known.
    """
    chosen = crystals[is_candidate(crystals) & (crystals[label] < THRESHOLD)].sort_values([label, "formula"])
    table: dict[str, Any] = {"formula": chosen["formula"]}
    table |= {name: chosen[column] for name, column in columns.items()}
    table |= {"split": chosen["split"], "paper": chosen["formula"].map(PUBLISHED_ENERGIES)}
    return pd.DataFrame(table)


def _factor(candidates: int, below: int, everything: int, all_below: int) -> float:
    """How many times as frequent crystals below the threshold are among the candidates."""
    if not (candidates and everything and all_below):
        return float("nan")
    return (below / candidates) / (all_below / everything)
