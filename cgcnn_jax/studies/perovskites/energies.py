"""Energies of the sites by element, and what the paper reads off them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cgcnn_jax.data import elements
from cgcnn_jax.data.store import GraphStore
from cgcnn_jax.graph import offsets
from cgcnn_jax.interpret import check_sites
from cgcnn_jax.predict import Predictor
from cgcnn_jax.studies.perovskites.crystals import Sites

LARGE_A = ("In", "Sn", "Sb", "Tl", "Pb", "Bi")
"""The large elements of groups 13 to 15, which the paper puts on A."""
D_B = ("Ti", "V", "Cr", "Zr", "Nb", "Mo", "Hf", "Ta", "W")
"""Groups 4 to 6, which it puts on B."""
SMALL = ("Be", "B", "Si")

_SIGNIFICANT = 0.05


def site_energies(predictor: Predictor, store: GraphStore, sites: Mapping[str, Sites]) -> pd.DataFrame:
    """Contributions of the sites, Eqs. S14-S15, in the unit of the label.

    The prediction is the mean of the contributions of the five atoms; X is the mean of three.

    Args:
      predictor: Of a model with pool="site".
      store: The graphs.
      sites: Of the crystals; those without are left out.

    Returns:
      A row per crystal, by id: energy_A, energy_B, energy_X.

    Raises:
      ValueError: If the model has another pool.
    """
    check_sites(predictor)
    of_nodes = predictor.inspect_graphs(store.graphs).sites
    assert of_nodes is not None
    of_atoms = of_nodes[np.repeat(offsets(store.graphs).node, store.n_atom) + store.atom_node, 0]
    rows = {
        id: (of[at.a], of[at.b], of[list(at.x)].mean())
        for id, of in zip(store.ids, np.split(of_atoms, np.cumsum(store.n_atom)[:-1]), strict=True)
        if (at := sites.get(id)) is not None
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["energy_A", "energy_B", "energy_X"])


def by_element(crystals: pd.DataFrame, label: str) -> pd.DataFrame:
    """Energies of A and B averaged over the crystals in which an element is on that site.

    Args:
      crystals: With A, B, energy_A, energy_B and the label.
      label: Column of the labels.

    Returns:
      A row per site and element, the lowest energy of each site first: crystals, energy, spread (standard deviation over
      the crystals), mean_label (of the same crystals, where known), group, period, covalent_radius (Å, Pyykkö, single
      bond) and ionic_radius (Å, mean over oxidation states, as pymatgen has it).
    """
    parts = []
    for site in ("A", "B"):
        grouped = crystals.groupby(site)
        part = pd.DataFrame(
            {
                "crystals": grouped.size(),
                "energy": grouped[f"energy_{site}"].mean(),
                "spread": grouped[f"energy_{site}"].std(ddof=0),
                "mean_label": grouped[label].mean(),
            }
        )
        part = part.rename_axis("element").sort_values("energy").reset_index()
        part.insert(0, "site", site)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return table.join(table["element"].map(_properties).apply(pd.Series))


def trends(elements_table: pd.DataFrame, energy: str = "energy") -> pd.DataFrame:
    """What the paper says of the site energies, each beside a number.

    A rank correlation is Spearman's. "lower" is the probability that an element of a group has a lower energy than one
    that is not of it (Mann and Whitney): 1 if all have, 1/2 if the group means nothing. Both agree with the claim if they
    have its sign and p < 0.05, disagree if they have the opposite one and p < 0.05, and are undecided otherwise.

    Args:
      elements_table: Of `by_element`.
      energy: Column with the energies; "mean_label" asks the labels themselves, without a network.

    Returns:
      A row per claim: site, name, claim, statistic, value, p, elements (how many enter), verdict. The claims without a
      verdict are shown for comparison.
    """
    table = elements_table.assign(energy=elements_table[energy]).dropna(subset=["energy"])
    a, b = (table[table["site"] == site] for site in ("A", "B"))
    d = b[b["group"].between(4, 12)]
    rows = [
        ("A", "atom", _correlation(a, "covalent_radius", "the larger the atom, the lower the energy", -1)),
        ("A", "ion", _correlation(a, "ionic_radius", "the larger the ion, the lower the energy", -1)),
        ("A", "small", _lower(a, a["element"].isin(SMALL), "Be, B and Si are among the least stable", -1)),
        ("A", "early", _lower(a, a["group"] <= 3, "groups 1 to 3 are stable", 1)),
        ("A", "late", _lower(a, a["element"].isin(LARGE_A), "large atoms of groups 13 to 15 are stable", 1)),
        ("B", "d groups", _lower(b, b["group"].between(4, 6), "groups 4 to 6 are the most stable", 1)),
        ("B", "d electrons", _correlation(d, "group", "from group 4 to 12 the energy rises with d electrons", 1)),
        ("B", "atom", _correlation(b, "covalent_radius", "for comparison: size on B", 0)),
    ]
    return pd.DataFrame([{"site": site, "name": name, **row} for site, name, row in rows])


def least_stable(elements_table: pd.DataFrame, site: str, symbols: Iterable[str]) -> dict[str, int]:
    """Places of elements on a site, 1 being the highest energy."""
    order = elements_table[elements_table["site"] == site].sort_values("energy", ascending=False)["element"].tolist()
    return {symbol: 1 + order.index(symbol) for symbol in symbols if symbol in order}


def _correlation(table: pd.DataFrame, column: str, claim: str, sign: int) -> dict[str, Any]:
    """Rank correlation of the energy with a property; sign 0 expects nothing."""
    known = table.dropna(subset=[column])
    varies = len(known) > 2 and known[column].nunique() > 1 and known["energy"].nunique() > 1
    value, p = stats.spearmanr(known[column], known["energy"]) if varies else (math.nan, math.nan)
    return {
        "claim": claim,
        "statistic": f"rank correlation with {column.replace('_', ' ')}",
        "value": float(value),
        "p": float(p),
        "elements": len(known),
        "verdict": _verdict(sign * value, p) if sign else "",
    }


def _lower(table: pd.DataFrame, is_member: pd.Series, claim: str, sign: int) -> dict[str, Any]:
    """How often a member of a group has a lower energy than an element that is none; sign -1 expects it seldom."""
    inside, outside = table["energy"][is_member], table["energy"][~is_member]
    value = p = math.nan
    if len(inside) and len(outside):
        tested = stats.mannwhitneyu(outside, inside)
        value, p = tested.statistic / (len(inside) * len(outside)), tested.pvalue
    return {
        "claim": claim,
        "statistic": f"lower than others ({len(inside)} of {len(table)} elements)",
        "value": float(value),
        "p": float(p),
        "elements": len(table),
        "verdict": _verdict(sign * (value - 0.5), p),
    }


def _verdict(effect: float, p: float) -> str:
    """Of an effect that is positive if it is as claimed."""
    if not p < _SIGNIFICANT:
        return "undecided"
    return "agrees" if effect > 0 else "disagrees"


def _properties(symbol: str) -> dict[str, float]:
    from pymatgen.core import Element

    element, radius = Element(symbol), elements.ELEMENTS[symbol]["covalent_radius"]
    ionic = float(element.average_ionic_radius)
    return {
        "group": element.group,
        "period": element.row,
        "covalent_radius": math.nan if radius is None else float(radius) / 100,
        "ionic_radius": ionic or math.nan,
    }
