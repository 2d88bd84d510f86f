"""Damaged JSON records of crystals, and whether a screening gave each of them its one row with the right reason."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# What is done to a record, and what the reason must then say.
REASONS = {
    "cut": "not JSON",
    "no_species": "the record has no species",
    "no_element": "Xx",
    "flat": "the lattice is degenerate",
    "overlap": "overlap",
    "isolated": "no neighbour",
    "partial": "partially occupied",
    "nan": "not finite",
}
EVERY = 100  # one record in so many is damaged


def kind_of(number: int) -> str | None:
    """What is done to the record of this number in the file, None for nothing; the kinds take turns."""
    return list(REASONS)[number // EVERY % len(REASONS)] if number % EVERY == EVERY // 2 else None


def id_of(kind: str, record: Mapping[str, Any], file: Path, number: int) -> str:
    """The id under which the damaged record is found: a line without JSON is named by its place."""
    return f"{file.name}:{number + 1}" if kind == "cut" else record["id"]


def line_of(record: dict[str, Any], kind: str) -> str:
    """The line, without its end, of a record that has been damaged so."""
    match kind:
        case "cut":
            return json.dumps(record)[:60]
        case "no_species":
            del record["species"]
        case "no_element":
            record["species"][0] = "Xx"
        case "flat":
            record["lattice"][2] = record["lattice"][0]
        case "overlap":
            record["species"] = record["species"][:1] * 2
            record["frac_coords"] = [[0, 0, 0], [0, 0, 0.01]]
        case "isolated":
            record |= {"lattice": (40 * np.eye(3)).tolist(), "species": ["Ar"], "frac_coords": [[0, 0, 0]]}
        case "partial":
            record["species"][0] = {record["species"][0]: 0.5}
        case "nan":
            record["frac_coords"][0][0] = float("nan")
    return json.dumps(record)


def check(parts: Sequence[Path], wanted: Sequence[str], damaged: Mapping[str, str]) -> pd.DataFrame:
    """The rows of a screening, after these checks.

    Args:
      parts: Its parquet files, in order.
      wanted: Ids of the input, in order.
      damaged: Id -> kind of damage.

    Raises:
      AssertionError: Unless every structure has one row, in order; every damaged one has no prediction and a reason that
        says its damage; and every other row has a prediction or a reason, not both.
    """
    table = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    assert table["id"].tolist() == list(wanted), "ids are not those of the input, each once and in order"
    assert len(set(wanted)) == len(wanted), "an id stands twice in the input"
    reasons = dict(zip(table["id"], table["reason"], strict=True))
    wrong = {id: reasons[id] for id, kind in damaged.items() if not re.search(REASONS[kind], reasons[id])}
    assert not wrong, f"reasons that do not say the damage: {wrong}"
    assert (table["prediction"].notna() == (table["reason"] == "")).all(), "a prediction with a reason, or neither"
    return table
