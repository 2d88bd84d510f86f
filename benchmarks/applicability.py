"""What it means for errors that a crystal lies outside of the training crystals: the test split of a run by reason.

python -m benchmarks.applicability --workdir=DIR [--quantile=0.95]

Prints a Markdown table: share of the test crystals and their mean absolute error, for every reason.
"""

import argparse
import dataclasses

import numpy as np
from scipy.stats import spearmanr

from cgcnn_jax import config as configs
from cgcnn_jax.applicability import QUANTILE, Applicability
from cgcnn_jax.predict import Predictor
from cgcnn_jax.run import load_dataset

REASONS = {
    "an unknown element": "is in no training crystal",
    "an unknown pair of neighbours": "are neighbours in no training crystal",
    "a bond shorter than any of its pair": "Å apart",
    "far from every training crystal": "far from every",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--quantile", type=float, default=QUANTILE)
    arguments = parser.parse_args()

    predictor = Predictor.restore(arguments.workdir)
    crystals = load_dataset(
        configs.from_dict(predictor.about["config"]), np.asarray(predictor.weights.constants["atom_table"])
    )
    known = Applicability.of_run(predictor, crystals, quantile=arguments.quantile)
    test = crystals.places(predictor.about["split"]["test"], "test crystals")
    graphs = crystals.store.take(test)
    seen = predictor.inspect_graphs(graphs)
    errors = np.abs(seen.values - crystals.targets[test])[:, 0]
    found = known.judge(graphs, seen.crystals)
    print(f"{len(known.ids)} training and {len(test)} test crystals, distance that is far: {known.threshold:.3g}\n")
    print(
        f"| lies outside for | test crystals | MAE ({predictor.scaler.units[0]}) | MAE of the others |\n|---|---|---|---|"
    )

    def row(name: str, mask: np.ndarray) -> None:
        mean = f"{errors[mask].mean():.3f}" if mask.any() else "–"
        print(f"| {name} | {mask.mean():.1%} | {mean} | {errors[~mask].mean():.3f} |")

    for name, text in REASONS.items():
        row(name, np.array([text in reason for reason in found.reasons]))
    row("any of these", np.array([bool(reason) for reason in found.reasons]))
    for quantile in (0.9, 0.99):
        other = dataclasses.replace(known, quantile=quantile)
        row(f"far, by the quantile {quantile:g}", found.distances[:, 0] > other.threshold)
    rank = spearmanr(found.distances[:, 0], errors).statistic
    print(f"\nrank correlation of distance and error: {rank:.2f}; MAE of all {errors.mean():.3f}")


if __name__ == "__main__":
    main()
