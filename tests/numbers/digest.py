"""What this library computes for small fixed things, as numbers in a JSON file, to be compared between versions.

python -m tests.numbers.digest --output=FILE            the numbers (tests/numbers/digest.json: jax 0.9.2, Python 3.11)
python -m tests.numbers.digest --train=FOLDER           trains a small run there
python -m tests.numbers.digest --predict=FOLDER         restores it and prints what it predicts, as JSON

Another version of jax fuses and orders sums in its own way, so that numbers agree to rounding, not to bits. Each is
therefore compared to Case.admitted of the largest of its kind (tests/numbers/cases.py); after three steps of training to
ten times that.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import Predictor
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.sources import read_demo
from cgcnn_jax.run import load_dataset, run
from cgcnn_jax.workdir import versions
from configs import formation_energy
from tests.numbers.cases import CASES, case

COMMITTED = Path(__file__).with_suffix(".json")
STEPS, RATE = 3, 1e-4


def numbers(name: str) -> dict[str, list[float]]:
    """A case's initial weights, outputs, gradient and statistics, and its outputs after some steps of plain descent."""
    one = case(name)
    params = one.variables["params"]
    found: dict[str, list[float]] = {"weights": _norms(params)}
    gradient, (outputs, stats) = one.of_loss(params)
    found |= {"outputs": outputs[:, 0].tolist(), "gradient": _norms(gradient), "statistics": _norms(stats)}
    for _ in range(STEPS):
        params = jax.tree.map(_descended, params, one.of_loss(params)[0])
    found["after training"] = one.of_loss(params)[1][0][:, 0].tolist()
    return found


def differences(one: dict[str, list[float]], other: dict[str, list[float]], admitted: float) -> dict[str, float]:
    """Kinds of numbers whose largest difference is more than admitted, relative to the largest of them."""
    assert one.keys() == other.keys()
    found = {}
    for key in one:
        mine, theirs = np.array(one[key]), np.array(other[key])
        assert mine.shape == theirs.shape, f"{key}: {mine.shape} numbers are now {theirs.shape}"
        off = np.abs(mine - theirs).max(initial=0) / max(np.abs(theirs).max(initial=0), 1e-30)
        # Written with 8 digits.
        if off > (1e-7 if key == "weights" else admitted * (10 if key == "after training" else 1)):
            found[key] = float(off)
    return found


def _descended(weights: Any, slope: Any) -> np.ndarray:
    return np.asarray(weights) - np.float32(RATE) * np.asarray(slope)


def _norms(tree: Any) -> list[float]:
    """Of each array, in the order of their names."""
    return [float(np.linalg.norm(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(tree)]


def small_config() -> ConfigDict:
    config = formation_energy.get_config()
    config.data.cache = ""
    config.train.epochs, config.train.batch_size, config.train.devices = 3, 8, 1
    config.model.features, config.model.num_convs, config.model.dropout = 8, 2, 0.2
    return config


def crystals(count: int = 60) -> list[Crystal]:
    """The first of the demo set."""
    return list(itertools.islice(read_demo(), count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--predict", type=Path)
    arguments = parser.parse_args()
    if arguments.train:
        config = small_config()
        run(config, arguments.train, data=lambda *of: load_dataset(*of, crystals()), report=False)
    if arguments.predict:
        table = Predictor.restore(arguments.predict).predict_entries(crystals())
        print(json.dumps({"versions": versions(), "values": dict(zip(table["id"], table["prediction"], strict=True))}))
    if arguments.output:
        made = {name: {key: [float(f"{x:.8g}") for x in row] for key, row in numbers(name).items()} for name in CASES}
        lines = [f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in made.items()]
        head = json.dumps({key: versions()[key] for key in ("python", "jax", "jaxlib", "flax", "numpy")})
        arguments.output.write_text(f'{{"versions": {head},\n"cases": {{\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main()
