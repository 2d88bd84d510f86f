"""Benchmarks of a few crystals: their tasks, which tests add to those of Matbench, and their file."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from cgcnn_jax.data.sources.matbench import Task

TOY = Task("matbench_toy", "y", "Z", "", 40, num_folds=3)
HEAVY = Task("matbench_heavy", "y", "is_heavy", "", 30, "classification", num_folds=1, n_test=6)


def write(path: Path, poisoned_fold: int = -1) -> Path:
    """30 CsCl-type crystals labelled with the sum of their atomic numbers, in turn in one of three folds."""
    lines = []
    for n, (a, b) in enumerate(permutations(range(1, 7), 2)):
        fold = n % 3
        lattice = ((3 + 0.02 * (a + b)) * np.eye(3)).tolist()
        record: dict[str, Any] = {"id": f"{a}-{b}", "lattice": lattice, "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}
        record["species"] = [["H", "He", "Li", "Be", "B", "C"][z - 1] for z in (a, b)]
        label = (a + b) if fold != poisoned_fold else 1e4 * (-1) ** n
        record["properties"] = {"Z": label, "is_heavy": int(a + b > 7)}
        published = ("train", "train", "val", "train", "test")[n % 5]
        record["meta"] = {"matbench": {"toy": [f"{a}-{b}", fold], "heavy": [f"{a}-{b}", published]}}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    return path
