"""Trains a network, and goes on where it was stopped.

python -m experiments.train --config=configs/formation_energy.py [--workdir=DIR] [--config.train.epochs=50 ...]
"""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from experiments import allocator, cli

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file; append :paper for the paper's preset.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME of the configuration if not given.")


def main() -> None:
    started = time.monotonic()
    config = _config()
    allocator.keep_freed_memory()
    # Imported after the flags are checked, so that a misspelt one is told at once.
    import numpy as np

    from cgcnn_jax import config as configs
    from cgcnn_jax import evaluation
    from cgcnn_jax.data.splits import NAMES
    from cgcnn_jax.nn.model import count_parameters, init_variables
    from cgcnn_jax.predict import Predictor, describe
    from cgcnn_jax.train.checkpoint import Checkpoints
    from cgcnn_jax.train.loop import fit
    from cgcnn_jax.workdir import Workdir, environment
    from experiments import data

    configs.validate(config)
    plain = configs.to_dict(config)
    workdir = Workdir(WORKDIR.value or Path("runs") / _config_name())
    workdir.check(plain)
    atom_table = configs.build_atom_table(config)

    began = time.monotonic()
    crystals = data.load(config, atom_table)
    seconds = {"data": time.monotonic() - began}
    split = configs.build_split(config, crystals)
    ids = {name: [crystals.ids[i] for i in split[name]] for name in NAMES}
    scaler = configs.build_scaler(config, crystals.targets, split["train"])
    model = configs.build_model(config, atom_table.shape, scaler.n_output)
    variables = init_variables(model, config.train.seed, atom_table)
    if config.init_from:
        start = Predictor.restore(config.init_from)
        variables = start.variables_for(model, atom_table, scaler)
        other = configs.differences({"graph": start.about["config"]["graph"]}, {"graph": plain["graph"]})
        if other:
            _say("the weights of init_from were trained on other graphs, so their first predictions may be far off:")
            _say("\n".join(f"  {field}" for field in other))
    atoms, nodes = int(crystals.store.n_atom.sum()), int(crystals.graphs.n_node.sum())
    if config.data.source == "demo":
        _say(
            "The demo crystals' labels come from a machine-learned potential (CHGNet), not from DFT or experiment:\n"
            "this set is for trying the software. For your own: --config.data.source=directory --config.data.path=..."
        )
    _say(
        f"{len(crystals)} crystals ({len(crystals.rejected)} left out), {atoms} atoms as {nodes} nodes; "
        + ", ".join(f"{name} {len(split[name])}" for name in NAMES)
    )
    if configs.atom_table_name(config).endswith(".json"):
        _say(f"atom features of {configs.atom_table_name(config)}")
    _say(f"{config.model.num_convs} x {config.model.conv}, {count_parameters(variables)} parameters, in {workdir.path}")

    training = configs.build_train_settings(config)
    about = describe(config, scaler, atom_table.shape, ids, crystals.digest(atom_table))
    with (
        workdir.lock(),
        Checkpoints(workdir.checkpoints) as checkpoints,
        cli.stop_requests() as should_stop,
    ):
        before = checkpoints.about()
        if before is not None and before["data_digest"] != about["data_digest"]:
            raise ValueError(_what_changed(before, about))
        if before is not None and (workdir.path / "summary.json").exists():
            _say(f"this run is finished; its results lie in {workdir.path}. To train on from it:")
            _say(f"  another --workdir, with --config.init_from={workdir.path}")
            return
        # From here on the folder is this run's: a start that failed before may be corrected.
        workdir.claim(plain)
        workdir.write_json("split.json", ids)
        if config.data.on_error == "skip":
            workdir.write_rejected(crystals.rejected)
        first = checkpoints.latest_step() // training.steps_per_epoch(len(split["train"]))
        workdir.keep_records(first)
        if first:
            _say(f"going on after {first} of {training.epochs} epochs")
        with tqdm(total=training.epochs, initial=first, desc="training", unit="epoch", file=sys.stderr) as bar:

            def on_step(epoch: int, done: int, of: int) -> None:
                bar.n = round(epoch + done / of, 2)
                bar.refresh()

            def on_epoch(record: dict[str, Any]) -> None:
                workdir.append_record(record)
                shown = "val_mae" if "val_mae" in record else "val_error"
                bar.set_postfix_str(f"{shown} {record[shown]:.4g} {scaler.units[0] if shown == 'val_mae' else ''}")

            fitted = fit(
                model,
                variables,
                crystals.graphs,
                crystals.targets,
                split,
                scaler,
                training,
                configs.build_optimizer_settings(config),
                checkpoints=checkpoints,
                about=about,
                on_step=on_step,
                on_epoch=on_epoch,
                should_stop=should_stop,
            )
    if fitted.values is None:
        _say(f"stopped; the same command goes on:\n  {_command()}")
        return

    began = time.monotonic()
    measured = {
        name: evaluation.measure(scaler, crystals.targets[split[name]], fitted.values[split[name]]) for name in NAMES
    }
    judged = "test" if len(split["test"]) else "val"
    targets, values = crystals.targets[split[judged]], fitted.values[split[judged]]
    bounds = evaluation.measure_intervals(scaler, targets, values)
    workdir.write_csv("predictions.csv", *evaluation.prediction_table(scaler, ids[judged], targets, values))
    records = workdir.records()
    drawn = evaluation.pictures(scaler, targets, values, judged)
    drawn |= evaluation.learning_curves(scaler, records, int(fitted.state.best_epoch))
    workdir.save_figures(drawn)
    seconds |= fitted.seconds | {"evaluation": time.monotonic() - began}
    seconds["total"] = time.monotonic() - started
    seconds["rest"] = seconds["total"] - sum(value for name, value in seconds.items() if name != "total")
    workdir.write_json(
        "summary.json",
        {
            "metrics": measured,
            "intervals_95": {judged: bounds},
            "properties": dict(zip(scaler.names, scaler.units, strict=True)),
            "best_epoch": int(fitted.state.best_epoch),
            "parameters": count_parameters(variables),
            "crystals": {name: len(split[name]) for name in NAMES} | {"left_out": len(crystals.rejected)},
            # Of this session; epochs before a stop are in the sum of all.
            "seconds": seconds,
            "seconds_of_all_epochs": sum(record["seconds"] for record in records),
            "train_crystals_per_second": fitted.crystals_per_second,
            "padding": dict(zip(("nodes", "edges"), np.round(fitted.padding, 4).tolist(), strict=True)),
            "command": _command(),
            **environment(),
        },
    )
    _say("")
    for line in evaluation.headline(scaler, measured[judged], bounds):
        _say(f"{judged} {line}")
    rate = fitted.crystals_per_second
    _say(f"in {seconds['total']:.0f} s" + (f"; {rate:.0f} crystals/s in training\n" if rate == rate else "\n"))
    python, folder = os.path.relpath(sys.executable), shlex.quote(str(workdir.path))
    _say(f"results   {workdir.path}: summary.json, predictions.csv, {', '.join(f'{name}.png' for name in drawn)}")
    _say(f"predict   {python} -m experiments.predict --workdir={folder} --input=YOUR_CIFS")
    _say(f"evaluate  {python} -m experiments.evaluate --workdir={folder}")
    if config.data.source == "demo":
        _say(f"your data {python} -m experiments.train --config=configs/formation_energy.py --workdir=runs/mine \\")
        _say("            --config.data.source=directory --config.data.path=FOLDER \\")
        _say("            --config.data.target=NAME --config.data.unit=UNIT")


def _what_changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Why the data are not those that the run began with."""
    old, new = ({id for ids in about["split"].values() for id in ids} for about in (before, now))
    ids = (
        f"{len(new - old)} crystals are new and {len(old - new)} are gone"
        if new != old
        else "labels or structures differ"
    )
    return f"the data changed since this run began: {ids}. Choose another --workdir, or restore the data"


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def _config() -> ConfigDict:
    """The configuration of the command line. Raises ValueError if there is none."""
    path = Path(_config_file()[0])
    if not path.is_file():
        known = ", ".join(sorted(str(file) for file in Path("configs").glob("[a-z]*.py") if file.stem != "base"))
        raise ValueError(f"--config={path}: no such file; from the project's folder there are {known or 'none'}")
    config = CONFIG.value
    # The unit in the file is that of the file's property, not of another.
    names = [argument.lstrip("-").partition("=")[0] for argument in sys.argv]
    if "config.data.target" in names and "config.data.unit" not in names:
        config.data.unit = ""
    return config


def _config_file() -> tuple[str, str]:
    """File and preset of --config=FILE:PRESET."""
    for place, argument in enumerate(sys.argv):
        name, has_value, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            path, _, preset = (value if has_value else sys.argv[place + 1]).partition(":")
            return path, preset
    raise ValueError("--config=FILE says what to train; try --config=configs/formation_energy.py")


def _config_name() -> str:
    path, preset = _config_file()
    return f"{Path(path).stem}_{preset}" if preset else Path(path).stem


def _command() -> str:
    return shlex.join(["python", "-m", "experiments.train", *sys.argv[1:]])


if __name__ == "__main__":
    cli.run(main)
