"""Does the gate of Eq. 5 ignore weak bonds? The mean gate against bond length, with the published weights.

python benchmarks/mean_gates.py --data=DATA [--crystals=3000] [--model=formation-energy-per-atom] [--figure=FILE.png]

DATA holds cgcnn_reference/pre-trained and mp_2018_6_1. Prints Markdown tables.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from cgcnn_jax import interpret, reference
from cgcnn_jax.data import elements
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_jsonl
from cgcnn_jax.predict import Predictor
from cgcnn_jax.report import figures, insight

EDGES = (0, 2, 2.5, 3, 3.5, 4, 5, 8.01)
NEAR, FAR = 2.0, 4.0  # Å
CONTACT = 1.25  # bonds shorter than this many sums of covalent radii are called contacts


def within_atoms(table: pd.DataFrame, column: str) -> float:
    """Rank correlation of a column with the distance, among the bonds of each atom, over all atoms.

    Ranks are taken within an atom and centred, so that differences between atoms and elements do not count.
    """
    atom = [table["crystal"], table["atom_i"]]
    x, y = (table[name].groupby(atom).rank() for name in ("distance", column))
    x, y = (ranks - ranks.groupby(atom).transform("mean") for ranks in (x, y))
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def distance_parts(predictor: Predictor, near: float, far: float) -> list[np.ndarray]:
    """How much the argument of the sigmoid changes with the length alone, for every convolution, [features].

    The argument is a sum of what v_i, v_j and u say, so the part of u is known without any crystal.
    """
    u = np.asarray(predictor.model.basis(np.array([near, far], np.float32)))
    changes = []
    for t in range(predictor.model.num_convs):
        params, stats = (tree[f"conv_{t}"] for tree in (predictor.weights.params, predictor.weights.batch_stats))
        kernel = np.asarray(params["gate"]["kernel"])[-u.shape[1] :]
        factor = params["gate_norm"]["scale"] / np.sqrt(stats["gate_norm"]["var"] + 1e-5)
        changes.append(np.asarray((u[1] - u[0]) @ kernel * factor))
    return changes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--crystals", type=int, default=3000)
    parser.add_argument("--model", default="formation-energy-per-atom")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()

    predictor = reference.load(
        arguments.data / "cgcnn_reference" / "pre-trained" / f"{arguments.model}.pth.tar", invariant=True
    )
    found = [
        one for one in read_jsonl(arguments.data / "mp_2018_6_1") if isinstance(one, Crystal) and len(one.species) <= 60
    ]
    chosen = np.random.default_rng(0).permutation(len(found))[: arguments.crystals]
    explained = list(interpret.explain(predictor, [found[k] for k in chosen]))
    parts = []
    for number, one in enumerate(explained):
        if isinstance(one, interpret.Explanation) and one.bonds is not None:
            parts.append(interpret.bond_table([one]).assign(crystal=number))
    table = pd.concat(parts, ignore_index=True)
    num_convs = predictor.model.num_convs
    radius = elements.covalent_radii()
    number_of = {elements.symbol(z): z for z in range(1, 101)}
    length = sum(radius[table[name].map(number_of)] for name in ("element_i", "element_j"))
    is_contact = table["distance"] < CONTACT * length
    layers = range(num_convs)
    print(f"{len(parts)} crystals, {len(table)} bonds, {is_contact.mean():.0%} of them contacts\n")

    def row(name: object, cells: list[float]) -> None:
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")

    print(
        "| bonds | "
        + " | ".join(f"gate {t + 1}" for t in layers)
        + " | "
        + " | ".join(f"message {t + 1}" for t in layers)
        + " |"
    )
    print("|---" * (1 + 2 * num_convs) + "|")
    columns = [f"{kind}_{t}" for kind in ("gate", "message") for t in layers]
    for low, high in itertools.pairwise(EDGES):
        some = table[(table["distance"] >= low) & (table["distance"] < high)]
        row(f"{low:g} to {min(high, 8):g} Å ({len(some):,})", [some[name].median() for name in columns])
    row("contacts", [table.loc[is_contact, name].median() for name in columns])
    row("others", [table.loc[~is_contact, name].median() for name in columns])
    row("rank correlation with length", [table["distance"].corr(table[name], method="spearman") for name in columns])
    row("the same among the bonds of one atom", [within_atoms(table, name) for name in columns])

    weight = table["weight"]
    share = [
        (table[f"message_{t}"] * weight)[~is_contact].sum() / (table[f"message_{t}"] * weight).sum() for t in layers
    ]
    print(
        f"\nbonds that are no contacts are {weight[~is_contact].sum() / weight.sum():.0%} of all, and their messages "
        + ", ".join(f"{s:.0%}" for s in share)
        + " of the sums of the convolutions"
    )
    for t, change in enumerate(distance_parts(predictor, NEAR, FAR)):
        print(
            f"convolution {t + 1}: from {NEAR} to {FAR} Å the gate's argument falls by more than 1 in "
            f"{(change < -1).sum()} and rises by more than 1 in {(change > 1).sum()} of {len(change)} features"
        )
    if arguments.figure:
        gates, messages = (table[[f"{kind}_{t}" for t in layers]].to_numpy() for kind in ("gate", "message"))
        figures.save(insight.gates_by_distance(table["distance"].to_numpy(), gates, messages), arguments.figure)


if __name__ == "__main__":
    main()
