"""The eight published models on public crystals: their errors, and what whole neighbour shells change.

python benchmarks/published_models.py [--data=FOLDER] [--crystals=5000]

Errors are given apart for crystals on the id list that the model was trained from (its training, validation and test
crystals together: which was which is not published) and for others. Prints two Markdown tables, which
docs/published_models.md shows.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from cgcnn_jax import reference
from cgcnn_jax.data import store
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK, WholeShells
from cgcnn_jax.data.sources import read_jsonl


@dataclass(frozen=True)
class Case:
    """A model on a set: the label, its transformation, and the id list the model was trained from."""

    model: str
    data: str
    target: str
    id_list: str
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray
    keep: Callable[[Crystal], bool] = lambda crystal: True


def has_gap(crystal: Crystal) -> bool:
    return crystal.targets["gap_pbe_eV"] > 0


def is_physical(name: str) -> Callable[[Crystal], bool]:
    """The May 2018 table has a few moduli that are negative or in the thousands."""
    return lambda crystal: 0 < crystal.targets[name] < 1000


CASES = (
    Case("formation-energy-per-atom", "mp_2018_6_1", "formation_energy_eV_per_atom", "46744"),
    Case("band-gap", "mp_2018_6_1", "gap_pbe_eV", "27430", keep=has_gap),
    Case("efermi", "mp_2018_6_1", "fermi_energy_eV_mp2020", "46744"),
    Case("bulk-moduli", "mp_elastic_cgcnn3402", "K_vrh_GPa", "3402", np.log10, is_physical("K_vrh_GPa")),
    Case("bulk-moduli", "matbench_log_vrh", "K_vrh_GPa", "3402", np.log10, is_physical("K_vrh_GPa")),
    Case("bulk-moduli", "mp_2018_6_1", "K_vrh_GPa", "3402", np.log10, is_physical("K_vrh_GPa")),
    Case("shear-moduli", "mp_elastic_cgcnn3402", "G_vrh_GPa", "3402", np.log10, is_physical("G_vrh_GPa")),
    Case("shear-moduli", "matbench_log_vrh", "G_vrh_GPa", "3402", np.log10, is_physical("G_vrh_GPa")),
    Case("shear-moduli", "mp_2018_6_1", "G_vrh_GPa", "3402", np.log10, is_physical("G_vrh_GPa")),
    Case("poisson-ratio", "mp_elastic_cgcnn3402", "poisson_ratio", "3402"),
    Case("semi-metal-classification", "mp_2018_6_1", "is_metal", "46744"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CGCNN_DATA", "../shared/data")))
    parser.add_argument("--crystals", type=int, default=5000, help="how many of MP-2018.6.1 for the second table")
    arguments = parser.parse_args()
    weights = arguments.data / "cgcnn_reference" / "pre-trained"
    lists = {
        path.stem.removeprefix("mp-ids-"): {line.strip().strip(",") for line in path.read_text().splitlines()}
        for path in (arguments.data / "cgcnn_reference" / "material-data").glob("mp-ids-*.csv")
    }
    loaded = {
        name: [crystal for crystal in read_jsonl(arguments.data / name) if isinstance(crystal, Crystal)]
        for name in sorted({case.data for case in CASES})
    }
    published = Featurizer(NearestK(published_padding=True), tolerance=reference.QUOTIENT_TOLERANCE)
    built = {name: store.build(crystals, published) for name, crystals in loaded.items()}

    print("| model | set | on its id list | others |\n|---|---|---|---|")
    for case in CASES:
        crystals, graphs = loaded[case.data], built[case.data]
        assert list(graphs.ids) == [crystal.id for crystal in crystals]
        known = [
            index
            for index, crystal in enumerate(crystals)
            if not np.isnan(crystal.targets.get(case.target, np.nan)) and case.keep(crystal)
        ]
        predictor = reference.load(weights / f"{case.model}.pth.tar")
        values = predictor.predict_graphs(graphs.take(np.array(known)))
        labels = case.transform(np.array([crystals[index].targets[case.target] for index in known]))
        on_list = np.array([crystals[index].id in lists[case.id_list] for index in known])
        cells = [judged(predictor.scaler.task, labels[part], values[part]) for part in (on_list, ~on_list)]
        print(f"| {case.model} | {case.data} `{case.target}` | {cells[0]} | {cells[1]} |")

    chosen = np.random.default_rng(0).choice(len(loaded["mp_2018_6_1"]), arguments.crystals, replace=False)
    sample = [loaded["mp_2018_6_1"][index] for index in chosen]
    cut = store.build(sample, published)
    others = {
        "shared": store.build(sample, Featurizer(WholeShells(share_last=True), tolerance=reference.QUOTIENT_TOLERANCE)),
        "whole": store.build(sample, Featurizer(WholeShells(), tolerance=reference.QUOTIENT_TOLERANCE)),
    }
    print(f"\n{len(cut)} crystals of MP-2018.6.1, against the cut at 12\n")
    print(
        "| model | unit | last shell | mean change | 99th percentile | largest | above 1e-3 |\n|---|---|---|---|---|---|---|"
    )
    for name in reference.PUBLISHED:
        predictor = reference.load(weights / f"{name}.pth.tar")
        before = predictor.predict_graphs(cut.graphs)[:, -1]
        unit = "probability" if predictor.scaler.task == "classification" else predictor.scaler.units[0]
        for rule, graphs in others.items():
            change = np.abs(before - predictor.predict_graphs(graphs.graphs)[:, -1])
            print(
                f"| {name} | {unit} | {rule} | {change.mean():.4f} | {np.quantile(change, 0.99):.4f} "
                f"| {change.max():.4f} | {(change > 1e-3).mean():.0%} |"
            )


def judged(task: str, labels: np.ndarray, values: np.ndarray) -> str:
    """MAE, or AUC and accuracies, with the number of crystals."""
    if not len(labels):
        return "–"
    if task == "regression":
        return f"{np.abs(values[:, 0] - labels).mean():.4f} ({len(labels)})"
    # The weights do not say which class is 1; an AUC below one half would mean that it is the other.
    predicted = values[:, 1] > 0.5
    accuracies = [(predicted == labels)[labels == kind].mean() for kind in (1, 0)]
    return (
        f"AUC {roc_auc_score(labels, values[:, 1]):.3f}, right for {accuracies[0]:.0%} of metals and "
        f"{accuracies[1]:.0%} of others ({len(labels)})"
    )


if __name__ == "__main__":
    main()
