"""Loading the crystals of a configuration, with a progress bar, and what a run was trained on."""

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax import run
from cgcnn_jax.applicability import Applicability, training_ids
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.predict import Predictor
from cgcnn_jax.scaling import TargetScaler
from experiments import cli


def load(config: ConfigDict, atom_table: np.ndarray, entries: Iterable[Entry | Rejected] | None = None) -> Dataset:
    """The configured crystals, or those of `entries`. Raises DataError for what cannot be used."""
    with (
        cli.graph_workers(config.data.workers) as executor,
        cli.bar(desc="building graphs", unit="crystal", leave=False) as bar,
    ):

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        return run.load_dataset(config, atom_table, entries, executor=executor, on_progress=advance)


def check_target(scaler: TargetScaler, names: Sequence[str], units: Sequence[str]) -> None:
    """Raises ValueError if the labels are not what the network predicts, as far as numbers, names and units tell."""
    if len(names) != len(scaler.names):
        raise ValueError(
            f"the network predicts {len(scaler.names)} properties ({', '.join(scaler.names)}), so config.data.target must "
            f"name as many; got {', '.join(names)}"
        )
    if set(names) == set(scaler.names) and tuple(names) != tuple(scaler.names):
        raise ValueError(
            f"the network predicts {', '.join(scaler.names)} in this order, and the labels are {', '.join(names)}; name them in "
            f"its order: --config.data.target={','.join(scaler.names)}"
        )
    for name, unit, own, wanted in zip(names, units, scaler.names, scaler.units, strict=True):
        # log10 alone is that of an unknown unit.
        is_known = unit and wanted and "log10" not in (unit, wanted)
        if (is_known and unit != wanted) or unit.startswith("log10") != wanted.startswith("log10"):
            raise ValueError(
                f"the network predicts {own} in {wanted or 'no unit'}, and the labels are {name} in {unit or 'no unit'}; "
                "judge it by labels in its unit (config.data.target, config.data.unit; config.data.log10=True takes the logarithm of labels that are none)"
            )


def tell_if_other(predictor: Predictor, crystals: Dataset) -> None:
    """Says so if the data are not those that the run was trained on, whose crystals are then known by their ids alone."""
    digest = predictor.about.get("data_digest")
    if digest and digest != crystals.digest(np.asarray(predictor.weights.constants["atom_table"])):
        print(
            "these are not the data that the run was trained on: crystals, labels, structures or their order differ. Those of its split "
            "are found by their ids",
            file=sys.stderr,
        )


def applicability(predictor: Predictor, workdir: str | Path, arguments: Sequence[str] = ()) -> Applicability:
    """What the run in `workdir` was trained on: read from there, or made of its training crystals and kept there.

    Args:
      predictor: That of the run.
      workdir: Its folder.
      arguments: --config.data.FIELD=VALUE, if the data have moved.

    Raises:
      ValueError: If the run does not say which crystals it was trained on, the data no longer hold them, or the labels are
        not what it predicts.
    """
    # One that is missing or damaged is made anew, as is that of other weights.
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = Applicability.load(workdir)
        if found.is_of(predictor):
            return found
    training_ids(predictor)  # or their data would be read in vain
    config = configs.from_dict(predictor.about["config"])
    cli.override(config, arguments, "--config.data.")
    configs.validate(config)
    check_target(predictor.scaler, *configs.learned(config))
    crystals = load(config, np.asarray(predictor.weights.constants["atom_table"]))
    found = Applicability.of_run(predictor, crystals)
    tell_if_other(predictor, crystals)
    try:
        found.save(workdir)
    except OSError as error:  # a folder of someone else, say
        print(f"what it was trained on is not kept there: {error}", file=sys.stderr)
    return found
