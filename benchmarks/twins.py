"""How many test crystals of public sets have a twin in training, by their official splits; docs/reliability.md shows it.

python -m benchmarks.twins [--data=FOLDER] [--only=mp_2018_6_1,jarvis_dft3d]

Of each set: crystals of test (of all folds together) with a twin among those that are not test, and how far their labels
differ. Graphs are kept in the user's cache. Prints a Markdown table, and the time of fingerprints and search.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cgcnn_jax import config as configs
from cgcnn_jax.data import duplicates
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.splits import Split
from cgcnn_jax.run import load_dataset
from configs import base


class Known(NamedTuple):
    """A set of the data folder: how it is read, and whose split it has."""

    source: str
    task: str
    target: str
    unit: str
    split: str


SETS = {
    "mp_2018_6_1": Known("jsonl", "", "formation_energy_eV_per_atom", "eV/atom", "published"),
    "jarvis_dft3d": Known("jsonl", "", "formation_energy_eV_per_atom", "eV/atom", "leaderboard"),
    "matbench_perovskites": Known("matbench", "matbench_perovskites", "", "eV/cell", "Matbench's folds"),
    "matbench_log_vrh": Known("matbench", "matbench_log_kvrh", "", "log10(GPa)", "Matbench's folds"),
    "matbench_phonons": Known("matbench", "matbench_phonons", "", "1/cm", "Matbench's folds"),
    "matbench_dielectric": Known("matbench", "matbench_dielectric", "", "", "Matbench's folds"),
}


def load(folder: Path, known: Known) -> Dataset:
    config = base.get_config()
    config.data.source, config.data.path, config.data.task = known.source, str(folder), known.task
    config.data.target, config.data.unit, config.data.on_error = known.target, known.unit, "skip"
    return load_dataset(config, configs.build_atom_table(config))


def rounds(crystals: Dataset) -> Iterator[Split]:
    """Test crystals against all that training may see, val included: once, or for each fold."""
    label = np.array([mark or "" for mark in crystals.source_split])
    for test in sorted({mark for mark in label if mark.isdecimal()}) or ["test"]:
        yield {
            "train": np.flatnonzero((label != test) & (label != "")),
            "val": np.array([], int),
            "test": np.flatnonzero(label == test),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CGCNN_DATA", "../shared/data")))
    parser.add_argument("--only", default=",".join(SETS), help="sets, separated by commas")
    arguments = parser.parse_args()

    print(
        "| set | split | test crystals | with a twin in train | at 0.001 Å | labels differ, mean, median | all labels |"
    )
    print("|---|---|---|---|---|---|---|")
    notes = []
    for name in arguments.only.split(","):
        known = SETS[name]
        crystals = load(arguments.data / name, known)
        cpu, wall = time.process_time(), time.perf_counter()
        pairs, strict, tested = [], 0, 0
        for split in rounds(crystals):
            twins = duplicates.find(crystals.fingerprints, split)
            pairs += list(zip(twins.crystal, twins.twin, strict=True))
            strict += len(duplicates.find(crystals.fingerprints, split, 1e-3).crystal)
            tested += len(split["test"])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        labels = crystals.targets[:, 0]
        one, other = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
        apart = np.abs(labels[one] - labels[other])
        differ = f"{apart.mean():.3g}, {np.median(apart):.2g} {known.unit}" if len(apart) else ""
        print(
            f"| {name} | {known.split} | {tested:,} | {len(one):,} ({len(one) / tested:.1%}) | {strict:,} | {differ} "
            f"| ±{labels.std():.2g} |"
        )
        notes.append(f"{name}: {len(crystals):,} crystals, fingerprints and search {wall:.1f} s, CPU {cpu:.1f} s")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
