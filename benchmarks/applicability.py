"""What it means for errors that a crystal lies outside of the training crystals: the test split of a run by reason.

python -m benchmarks.applicability --workdir=DIR [--quantile=0.95] [--path=DATA] [--thinned]

Prints two Markdown tables: share of the test crystals and their mean absolute error, for every reason; and the share of
test crystals that lie outside once all lengths are stretched, and how much the predictions change. --path says where the
run's data are, if not where they were; --thinned takes the vectors of as many training crystals as experiments.export.
"""

import argparse
import dataclasses

import numpy as np
from scipy.stats import spearmanr

from cgcnn_jax import config as configs
from cgcnn_jax.applicability import QUANTILE, Applicability
from cgcnn_jax.data import portion
from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.predict import Predictor
from cgcnn_jax.run import load_dataset

REASONS = {
    "an unknown element": "is in no training crystal",
    "an unknown pair of neighbours": "are neighbours in no training crystal",
    "a bond shorter than any of its pair": "Å apart, at least",
    "a nearest neighbour farther than any of its pair": "as nearest neighbours",
    "an empty layer": "an empty layer",
    "far from every training crystal": "far from every",
}
STRETCHES = (-0.1, -0.05, -0.02, 0, 0.02, 0.05, 0.1, 0.2)
MOST_STRETCHED = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--quantile", type=float, default=QUANTILE)
    parser.add_argument("--path", default="")
    parser.add_argument("--thinned", action="store_true")
    arguments = parser.parse_args()

    predictor = Predictor.restore(arguments.workdir)
    config = configs.from_dict(predictor.about["config"])
    config.data.path = arguments.path or config.data.path
    crystals = load_dataset(config, np.asarray(predictor.weights.constants["atom_table"]))
    known = Applicability.of_run(predictor, crystals, quantile=arguments.quantile)
    known = known.thinned().for_others() if arguments.thinned else known
    test = crystals.places(predictor.about["split"]["test"], "test crystals")
    graphs = crystals.store.take(test)
    seen = predictor.inspect_graphs(graphs)
    errors = np.abs(seen.values - crystals.targets[test])[:, 0]
    found = known.judge(graphs, crystals.store.vacuum[test], seen.crystals)
    print(
        f"vectors of {len(known.ids)} training crystals; {len(test)} test crystals; distance that is far: "
        f"{known.threshold:.3g}\n"
    )
    print(
        f"| lies outside for | test crystals | MAE ({predictor.scaler.units[0]}) | MAE of the others |\n|---|---|---|---|"
    )

    def row(name: str, mask: np.ndarray) -> None:
        mean = f"{errors[mask].mean():#.3g}" if mask.any() else "–"
        print(f"| {name} | {mask.mean():.1%} | {mean} | {errors[~mask].mean():#.3g} |")

    for name, text in REASONS.items():
        row(name, np.array([text in reason for reason in found.reasons]))
    row("any of these", np.array([bool(reason) for reason in found.reasons]))
    for quantile in (one for one in (0.9, 0.99) if one >= known.quantile or not known.is_thinned):
        other = known.at(quantile)
        row(f"far, by the quantile {quantile:g}", found.distances[:, 0] > other.threshold)
    rank = spearmanr(found.distances[:, 0], errors).statistic
    print(f"\nrank correlation of distance and error: {rank:.2f}; MAE of all {errors.mean():.3g}\n")

    wanted = set(predictor.about["split"]["test"][:MOST_STRETCHED])
    some = [
        entry.read()
        for entry in configs.build_entries(config)
        if not isinstance(entry, Rejected) and entry.id in wanted
    ]
    names = (*(name for name in REASONS if "bond" in name or "nearest" in name or "far" in name), "any of these")
    head = f"{len(some)} test crystals stretched by", *names, f"median change ({predictor.scaler.units[0]})"
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    unchanged = predictor.predict_graphs(portion.build(some, predictor.featurizer).store.graphs)
    for stretch in STRETCHES:
        wider = [dataclasses.replace(one, lattice=(1 + stretch) * one.lattice) for one in some]
        made = portion.build(wider, predictor.featurizer).store
        now = predictor.inspect_graphs(made.graphs)
        reasons = known.judge(made.graphs, made.vacuum, now.crystals).reasons
        shares = [np.mean([REASONS.get(name, "") in reason and bool(reason) for reason in reasons]) for name in names]
        change = np.median((now.values - unchanged)[:, 0])
        print(f"| {stretch:+.0%} | {' | '.join(f'{share:.0%}' for share in shares)} | {change:+.3f} |")


if __name__ == "__main__":
    main()
