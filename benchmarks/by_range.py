"""Errors of a network by what the labels say, and by how far an ensemble agrees.

python -m benchmarks.by_range --predictions=DIR/evaluation_test/predictions.csv --labels=0,1,2,4 [--spreads=0.01,0.05,0.1,0.2,0.5]

Prints a Markdown table of the crystals between the given labels, with the share that is predicted no higher than the first
and a tenth of the step from there to the second; and, of several networks that experiments.evaluate judged together, one of
the crystals between given standard deviations.
"""

import argparse
import itertools

import numpy as np
import pandas as pd
from scipy.stats import spearmanr


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--labels", required=True, type=_numbers)
    parser.add_argument("--spreads", default="0.01,0.05,0.1,0.2,0.5", type=_numbers)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.predictions)
    table = table[table["target"].notna() & table["prediction"].notna()]
    table = table.assign(error=(table["prediction"] - table["target"]).abs())

    first, second = arguments.labels[:2]
    low = first + 0.1 * (second - first)
    print(
        f"| labels | crystals | MAE | mean of prediction - label | predicted at most {low:g} |\n|---|---|---|---|---|"
    )
    for name, some in [("all", table), *_between(table, "target", arguments.labels)]:
        bias, share = (some["prediction"] - some["target"]).mean(), (some["prediction"] <= low).mean()
        print(f"| {name} | {len(some):,} | {some['error'].mean():#.3g} | {bias:+.3f} | {share:.1%} |")
    if "std" not in table:
        return
    print("\n| spread of the networks | crystals | MAE | error within two spreads |\n|---|---|---|---|")
    for name, some in [("all", table), *_between(table, "std", arguments.spreads)]:
        within = (some["error"] <= 2 * some["std"]).mean()
        print(f"| {name} | {len(some):,} | {some['error'].mean():#.3g} | {within:.0%} |")
    print(f"\nrank correlation of spread and error: {spearmanr(table['std'], table['error']).statistic:.2f}")


def _numbers(text: str) -> list[float]:
    numbers = [float(part) for part in text.split(",")]
    if len(numbers) < 2 or numbers != sorted(set(numbers)):
        raise argparse.ArgumentTypeError(f"needs two numbers or more, ascending; got {text}")
    return numbers


def _between(table: pd.DataFrame, column: str, edges: list[float]) -> list[tuple[str, pd.DataFrame]]:
    """The rows up to the first edge, between two, and above the last, but for empty parts."""
    place = np.searchsorted(edges, table[column], side="left")  # an edge belongs to the part below
    names = [
        f"at most {edges[0]:g}",
        *(f"{one:g} to {other:g}" for one, other in itertools.pairwise(edges)),
        f"above {edges[-1]:g}",
    ]
    return [(name, table[place == number]) for number, name in enumerate(names) if (place == number).any()]


if __name__ == "__main__":
    main()
