"""Judges a trained model on a split of its run, or on other crystals.

python -m experiments.evaluate --workdir=DIR [--split=test]
python -m experiments.evaluate --workdir=DIR --split=all --config.data.source=jsonl --config.data.path=PATH [...]

test, val and train are the crystals of the run's split, by id, wherever the data now lie; all is every crystal of the
data, those that the run was trained on included and counted.
"""

import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    from cgcnn_jax.data.dataset import Dataset

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test", "all"], "Which crystals.")
OUTPUT = flags.DEFINE_string("output", None, "Name of the results in the folder; the split if not given.")


def main() -> None:
    cli.prepare()
    import numpy as np

    from cgcnn_jax import config as configs
    from cgcnn_jax import evaluation
    from cgcnn_jax.predict import Predictor
    from cgcnn_jax.workdir import Workdir, environment
    from experiments import data

    predictor = Predictor.restore(WORKDIR.value)
    scaler = predictor.scaler
    config = configs.from_dict(predictor.about["config"])
    cli.override_data(config, sys.argv[1:])
    configs.validate(config)
    crystals = data.load(config, np.asarray(predictor.weights.constants["atom_table"]))
    name = (OUTPUT.value or SPLIT.value).replace("/", "_")
    if SPLIT.value == "all":
        index = np.arange(len(crystals))
        seen = len(set(crystals.ids) & set(predictor.about["split"]["train"] + predictor.about["split"]["val"]))
        if seen:
            print(f"{seen} of the {len(crystals)} crystals have ids that the run was trained on or chosen by")
    else:
        index = _members(crystals, predictor.about["split"][SPLIT.value], SPLIT.value)
    graphs = crystals.store.take(index)
    targets, values = crystals.targets[index], predictor.predict_graphs(graphs)
    ids = [crystals.ids[i] for i in index]

    workdir = Workdir(WORKDIR.value)
    folder = Workdir(workdir.path / f"evaluation_{name}")
    folder.path.mkdir(exist_ok=True)
    columns = evaluation.crystal_columns(crystals, index)
    folder.write_csv("predictions.csv", *evaluation.prediction_table(scaler, ids, targets, values, columns))
    folder.write_rejected(crystals.rejected)
    measured, bounds = (
        evaluation.measure(scaler, targets, values),
        evaluation.measure_intervals(scaler, targets, values),
    )
    summary: dict[str, Any] = {
        "metrics": {name: measured},
        "intervals_95": {name: bounds},
        "crystals": {"judged": len(index), "left_out": len(crystals.rejected)},
        "data": configs.to_dict(config)["data"],
        **environment(),
    }
    folder.write_json("summary.json", summary)
    # The numbers are safe by now, whatever drawing runs into.
    try:
        folder.save_figures(evaluation.pictures(scaler, targets, values, name))
    except Exception as error:
        print(f"no pictures were drawn ({type(error).__name__}: {error})", file=sys.stderr)
    for line in evaluation.headline(scaler, measured, bounds):
        print(f"{name} ({len(index)} crystals) {line}")
    print(f"results   {folder.path}/summary.json, predictions.csv")


def _members(crystals: "Dataset", wanted: list[str], split: str) -> Any:
    """Indices of the wanted ids. Raises ValueError if the data no longer hold them."""
    if not wanted:
        raise ValueError(
            f"the run has no crystal in {split}; choose another --split, or judge other data with --split=all "
            "--config.data.source=... --config.data.path=..."
        )
    try:
        return crystals.places(wanted, f"crystals of {split}")
    except ValueError as error:
        raise ValueError(f"{error}; --split=all judges whatever the data hold") from error


if __name__ == "__main__":
    cli.run(main, allow="--config.data.")
