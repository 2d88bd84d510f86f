"""Judges a trained model on a split of its run, or on other crystals.

python -m experiments.evaluate --workdir=DIR [--workdir=...] [--split=test]
python -m experiments.evaluate --workdir=DIR --split=all --config.data.source=jsonl --config.data.path=PATH [...]

test, val and train are the crystals of the run's split, by id, wherever the data now lie; all is every crystal of the
data, those that the run was trained on included and counted (under other ids too, as far as applicability.npz holds
them). Several --workdir, of runs that differ in their seeds, are judged together: the mean of what they predict, of the
properties that all of them learned. The results lie in DIR/evaluation_SPLIT, or beside the several; --output=NAME calls
the folder evaluation_NAME, and --output=./FOLDER puts it where you say.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli

if TYPE_CHECKING:
    from cgcnn_jax.data.dataset import Dataset
    from cgcnn_jax.ensemble import Ensemble
    from cgcnn_jax.predict import Predictor
    from cgcnn_jax.workdir import Workdir

WORKDIR = flags.DEFINE_multi_string(
    "workdir", None, "Folder of a training run; several are an ensemble.", required=True
)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test", "all"], "Which crystals.")
OUTPUT = flags.DEFINE_string("output", None, "Name of the results in the folder, or a path; the split if not given.")


def main() -> None:
    cli.prepare()
    import numpy as np

    from cgcnn_jax import config as configs
    from cgcnn_jax import evaluation
    from cgcnn_jax.ensemble import Ensemble, networks_of, restore
    from cgcnn_jax.workdir import environment
    from experiments import data

    predictor = restore(*WORKDIR.value)
    networks = networks_of(predictor)
    # The first whose graphs are those of all: with angles, if one of them takes those.
    first = next(one for one in networks if one.featurizer == predictor.featurizer)
    scaler, own = predictor.scaler, first.scaler
    config = configs.from_dict(first.about["config"])
    cli.override(config, sys.argv[1:], "--config.data.")
    cli.with_own_unit(config)
    configs.validate(config)
    # Of networks that learned more than is judged, the data are read with all that this one learned.
    read = scaler if cli.is_given("config.data.target") else own
    data.check_target(read, *configs.learned(config))
    wanted = _split(networks, SPLIT.value) if SPLIT.value != "all" else []
    folder = _folder()
    crystals = data.load(config, np.asarray(first.weights.constants["atom_table"]))
    seen: dict[str, Any] = {}
    if SPLIT.value == "all":
        index = np.arange(len(crystals))
        seen = _seen(predictor, crystals)
    else:
        index = _members(crystals, wanted, SPLIT.value)
        data.tell_if_other(first, crystals)
    graphs, targets = crystals.store.take(index), crystals.targets[index]
    if read.names != scaler.names:
        targets = targets[:, read.places(scaler.names)]
    ids = [crystals.ids[i] for i in index]
    columns: dict[str, Sequence[Any]] = dict(evaluation.crystal_columns(crystals, index))
    if isinstance(predictor, Ensemble):
        values, spread = predictor.predict_graphs(graphs)
        columns |= dict(zip(predictor.columns()[-spread.shape[1] :], spread.T.tolist(), strict=True))
    else:
        values = predictor.predict_graphs(graphs)

    measured = evaluation.measure(scaler, targets, values)
    bounds = evaluation.measure_intervals(scaler, targets, values)
    judged, weights = configs.to_dict(config)["data"], predictor.digest()
    # What an earlier call wrote would be taken for this one's, were it stopped here; in a folder without, all is of others.
    if (folder.path / "summary.json").exists():
        if others := _others(folder.summary(), judged, weights):
            print(
                f"{folder.path} had results of {others}, which these replace; --output names another", file=sys.stderr
            )
        for pattern in ("parity*.png", "confusion.png", "roc.png", "summary.json"):
            for old in folder.path.glob(pattern):
                old.unlink(missing_ok=True)
    folder.write_csv("predictions.csv", *evaluation.prediction_table(scaler, ids, targets, values, columns))
    folder.write_rejected(crystals.rejected)
    summary: dict[str, Any] = {
        "metrics": {SPLIT.value: measured},
        "intervals_95": {SPLIT.value: bounds},
        "crystals": {"judged": len(index), "left_out": len(crystals.rejected), **seen},
        "networks": WORKDIR.value,
        "weights": weights,
        "data": judged,
        **environment(),
    }
    folder.write_json("summary.json", summary)
    # The numbers are safe by now, whatever drawing runs into.
    try:
        folder.save_figures(evaluation.pictures(scaler, targets, values, SPLIT.value))
    except Exception as error:
        print(f"no pictures were drawn ({type(error).__name__}: {error})", file=sys.stderr)
    for line in evaluation.headline(scaler, measured, bounds):
        print(f"{SPLIT.value} ({len(index)} crystals) {line}")
    if crystals.rejected:
        print(f"{len(crystals.rejected)} crystals of the data are left out: {folder.path}/rejected.csv says why")
    print(f"results   {folder.path}/summary.json, predictions.csv")


def _folder() -> "Workdir":
    """Of the results, made. Raises OSError if that cannot be, ValueError if it is the folder of a run."""
    from cgcnn_jax.workdir import Workdir

    name = OUTPUT.value or SPLIT.value
    places = [Workdir(one).path.absolute() for one in WORKDIR.value]
    folder = Workdir(name if "/" in name else Path(os.path.commonpath(places)) / f"evaluation_{name}")
    if (folder.path / "config.json").exists():
        raise ValueError(
            f"--output={name} is the folder of a run, whose summary, predictions and pictures would be replaced; name another"
        )
    folder.path.mkdir(parents="/" in name, exist_ok=True)
    return folder


def _others(before: dict[str, Any], data: dict[str, Any], weights: str) -> str:
    """Of what else than this call an earlier one's results are, empty if of the same."""
    differs = {
        "networks": before.get("weights", weights) != weights,
        "crystals": list(before.get("metrics", {})) != [SPLIT.value],
        "data": before.get("data") != data,
    }
    return " and ".join(f"other {name}" for name, is_so in differs.items() if is_so)


def _split(networks: "Sequence[Predictor]", name: str) -> list[str]:
    """Ids of a split.

    Raises:
      ValueError: If there are none, or the networks have not the same: of one they judge, another may have trained on.
    """
    splits: list[list[str]] = [one.about["split"][name] for one in networks]
    for place, other in zip(WORKDIR.value, splits, strict=True):
        if set(other) != set(splits[0]):
            raise ValueError(
                f"{WORKDIR.value[0]} and {place} have different crystals in {name}; judge networks of one split together, or "
                "other crystals with --split=all --config.data.source=... --config.data.path=..."
            )
    if not splits[0]:
        raise ValueError(
            f"the run has no crystal in {name}; choose another --split, or judge other data with --split=all "
            "--config.data.source=... --config.data.path=..."
        )
    return splits[0]


def _seen(predictor: "Predictor | Ensemble", crystals: "Dataset") -> dict[str, Any]:
    """How many of the crystals trained or chose the networks, by their ids, and how many more look so; both are told."""
    import numpy as np

    from cgcnn_jax.ensemble import networks_of
    from cgcnn_jax.judging import looks

    used = {id for one in networks_of(predictor) for part in ("train", "val") for id in one.about["split"][part]}
    is_used = np.array([id in used for id in crystals.ids], bool)
    alike, compared = looks(predictor, WORKDIR.value, crystals.store.take(np.flatnonzero(~is_used)))
    if seen := int(is_used.sum()):
        print(f"{seen} of the {len(crystals)} crystals have ids that the run was trained on or chosen by")
    if more := int(alike.sum()):
        least = "at least " * (compared == "some")
        print(
            f"{least}{more} of the {len(crystals)} crystals look like some that the run was trained on, under other ids"
        )
    if compared == "none":
        print(
            "whether crystals were trained on under other ids is not known: no folder has the training crystals' looks"
        )
    return {"of_the_run": seen, "like_those_of_the_run": more, "looks_compared_with": compared}


def _members(crystals: "Dataset", wanted: list[str], split: str) -> Any:
    """Indices of the wanted ids. Raises ValueError if the data no longer hold them."""
    try:
        return crystals.places(wanted, f"crystals of {split}")
    except ValueError as error:
        raise ValueError(f"{error}; --split=all judges whatever the data hold") from error


if __name__ == "__main__":
    cli.run(main, allow="--config.data.")
