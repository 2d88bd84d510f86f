"""Which atom of an ABX3 cell is A, and which B."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal, CrystalError, Entry, Rejected

ANIONS = ("O", "F", "N", "S")
"""X of the 18,928 cells, which have no other anion, in the order in which a formula lists them."""

_TOLERANCE = 1e-3  # of fractional coordinates; the data have six decimals


class Sites(NamedTuple):
    """Indices of the atoms of an ABX3 cell: A, B and the three X."""

    a: int
    b: int
    x: tuple[int, int, int]


def find_sites(crystal: Crystal) -> Sites:
    """The sites of a cubic perovskite cell whose atoms are displaced along the first cell axis at most.

    Ideally A is at (0, 0, 0), B at (1/2, 1/2, 1/2) and X at the centres of the faces, (0, 1/2, 1/2) and so on. Seen along
    the first axis, B then has an X behind it and A has none, wherever the origin lies and however far atoms have moved
    along that axis. Distances would not do: in one of 36 of the cells A has moved so far that it is closer to the X than B.

    Raises:
      CrystalError: If the cell has not two cations and three of ANIONS, if an atom is off the columns of a perovskite, or
        if not just one of the cations has an X behind it.
    """
    symbols = [elements.symbol(int(number)) for number in crystal.species]
    cations = [site for site, symbol in enumerate(symbols) if symbol not in ANIONS]
    x = tuple(site for site, symbol in enumerate(symbols) if symbol in ANIONS)
    if len(cations) != 2 or len(x) != 3:
        raise CrystalError(
            f"{crystal.id}: an ABX3 cell has two cations and three of {', '.join(ANIONS)}; got {' '.join(symbols)}"
        )
    columns = crystal.frac_coords[:, 1:]
    from_grid = 2 * (columns - columns[cations[0]])
    if np.abs(from_grid - from_grid.round()).max() > 2 * _TOLERANCE:
        raise CrystalError(f"{crystal.id}: atoms are displaced along the second or third axis, where none may be")
    apart = columns[list(x)][None] - columns[cations][:, None]
    shares_column = (np.abs(apart - apart.round()) < _TOLERANCE).all(axis=2).any(axis=1)
    if shares_column.sum() != 1:
        raise CrystalError(
            f"{crystal.id}: one cation must have an X behind it along the first axis; got {shares_column}"
        )
    a, b = (cations[1], cations[0]) if shares_column[0] else (cations[0], cations[1])
    return Sites(a, b, x)


def tabulate(entries: Iterable[Entry | Rejected]) -> tuple[pd.DataFrame, dict[str, Sites], list[Rejected]]:
    """The crystals as a table.

    Returns:
      A row per perovskite, by id: formula, A, B, X, and a column per label of the source; the sites by id; and the crystals
      that are no perovskites, and why.
    """
    rows, sites, rejected = [], {}, []
    for entry in entries:
        if isinstance(entry, Rejected):
            rejected.append(entry)
            continue
        try:
            crystal = entry.read()
            found = find_sites(crystal)
        except CrystalError as error:
            rejected.append(Rejected(entry.id, str(error)))
            continue
        if entry.id in sites:
            rejected.append(Rejected(entry.id, f"{entry.id}: the id stands twice; the first crystal of it is taken"))
            continue
        a, b, *x = (elements.symbol(int(crystal.species[site])) for site in (found.a, found.b, *found.x))
        anions = "".join(f"{one}{x.count(one) if x.count(one) > 1 else ''}" for one in ANIONS if one in x)
        rows.append({"id": entry.id, "formula": f"{a}{b}{anions}", "A": a, "B": b, "X": anions, **entry.targets})
        sites[entry.id] = found
    columns = ["id", "formula", "A", "B", "X"]
    return pd.DataFrame(rows, columns=None if rows else columns).set_index("id"), sites, rejected
