"""ABX3 cells with known sites and a known energy, as the records of a file of JSON lines."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgcnn_jax.data.crystal import Crystal

IDEAL = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
# Lower on A from Pb to Zn and on B from Zn to Ti, whatever the anions: what a study must find.
ON_A = {"Pb": -2.0, "Sn": -1.0, "K": -0.5, "Ba": 0.0, "Ti": 1.0, "Zn": 2.0}
ON_B = {"Ti": -1.5, "Nb": -1.0, "Sn": 0.0, "Ba": 0.5, "Pb": 1.0, "Zn": 1.5}
ANIONS = (["O", "O", "O"], ["N", "O", "O"], ["F", "O", "O"])


def cell(a: str, b: str, x: Sequence[str], *, shift: Sequence[float] = (0, 0, 0), moved: float = 0.0, id="") -> Crystal:
    """A cubic cell of 4 Å, its origin shifted, A moved along the first axis; A comes last, as it may."""
    coords = np.array(IDEAL, float) + shift
    coords[0, 0] += moved
    order = [1, 2, 3, 4, 0]
    symbols = [a, b, *x]
    return Crystal.from_arrays(id or a + b, 4.0 * np.eye(3), [symbols[i] for i in order], coords[order])


def energy(a: str, b: str) -> float:
    return 1.0 + ON_A[a] + ON_B[b]


def write_cells(folder: Path) -> Path:
    """All 108 cells as DATA/matbench_perovskites/x.jsonl, four without a label; DATA is returned."""
    lines = []
    for n, (x, a, b) in enumerate(itertools.product(ANIONS, ON_A, ON_B)):
        crystal = cell(a, b, x, moved=0.02 * (n % 5))
        properties = {} if n % 27 == 5 else {"e_form_eV_per_cell": energy(a, b)}
        if n % 2 and properties:
            # As in the source: higher by another reference, with O2F.
            properties["heat_all_eV_per_cell"] = energy(a, b) + (0.3 if "F" in x else 0.0)
        record = {
            "id": f"x{n}",
            "lattice": crystal.lattice.tolist(),
            "species": [a, b, *x][1:] + [a],
            "frac_coords": crystal.frac_coords.tolist(),
            "properties": properties,
            "split": ("train", "train", "train", "val", "test")[n * 7 % 5],
        }
        lines.append(json.dumps(record))
    (folder / "matbench_perovskites").mkdir(parents=True)
    (folder / "matbench_perovskites" / "x.jsonl").write_text("\n".join(lines) + "\n")
    return folder
