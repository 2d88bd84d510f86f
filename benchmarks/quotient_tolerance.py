"""What the quotient graph's tolerance costs and brings, on real crystals with the published formation-energy weights.

python benchmarks/quotient_tolerance.py [--data=FOLDER] [--crystals=1000] [--neighbors=shells]

For every tolerance: nodes and edges of the full graphs over those of the quotients, and the change of the predicted
formation energy against the full graphs. Prints a Markdown table; docs/graphs.md shows it.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from cgcnn_jax import reference
from cgcnn_jax.data import store
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK, WholeShells
from cgcnn_jax.data.sources import read_jsonl

TOLERANCES = (0.0, 1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CGCNN_DATA", "../shared/data")))
    parser.add_argument("--crystals", type=int, default=1000)
    parser.add_argument("--neighbors", choices=("shells", "nearest"), default="shells")
    arguments = parser.parse_args()

    every = list(read_jsonl(arguments.data / "mp_2018_6_1"))
    chosen = np.random.default_rng(0).choice(len(every), arguments.crystals, replace=False)
    crystals = [every[i] for i in chosen]
    weights = arguments.data / "cgcnn_reference" / "pre-trained" / "formation-energy-per-atom.pth.tar"
    predictor = reference.load(weights)
    # The published weights expect 12 bonds an atom, so equals of the last share its places.
    rule = WholeShells(share_last=True) if arguments.neighbors == "shells" else NearestK()
    full = store.build(crystals, Featurizer(rule, use_quotient=False))
    expected = predictor.predict_graphs(full.graphs)[:, 0]

    print(f"{len(full)} crystals of MP-2018.6.1, {arguments.neighbors}, published formation-energy weights\n")
    print("| tolerance, Å | nodes | edges | mean change, meV/atom | 99th percentile | largest |")
    print("|---|---|---|---|---|---|")
    for tolerance in TOLERANCES:
        built = store.build(crystals, Featurizer(rule, use_quotient=True, tolerance=tolerance))
        change = 1000 * np.abs(predictor.predict_graphs(built.graphs)[:, 0] - expected)
        print(
            f"| {tolerance:g} | {full.graphs.n_node.sum() / built.graphs.n_node.sum():.2f} x "
            f"| {full.graphs.n_edge.sum() / built.graphs.n_edge.sum():.2f} x "
            f"| {change.mean():.4f} | {np.quantile(change, 0.99):.3f} | {change.max():.3f} |"
        )


if __name__ == "__main__":
    main()
