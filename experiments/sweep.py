r"""Tries many settings, and goes on where it was stopped.

python -m experiments.sweep --config=configs/sweeps/table_s1.py --workdir=DIR [--population=16] [--config.train.epochs=50 ...]
python -m experiments.sweep --config=configs/sweeps/table_s1.py --workdir=DIR --search=optuna --trials=100

The file says what to try, docs/sweeps.md how to write one. DIR/results.csv has a row per trial, DIR/hyperparameters.png
the validation error against each setting, DIR/trials/NNNN is the work directory of a trial: predict with the best. The
same command may run on any number of hosts that share DIR; they divide the trials among themselves. The exit status is
0 when all trials have ended, and 75 when a signal stopped it or others still train: the same command goes on.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "Sweep file; append :PRESET where it has presets.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.", required=True)
POPULATION = flags.DEFINE_integer("population", 16, "Trials that train together at most; 1 trains one after another.")
PARALLEL = flags.DEFINE_enum("parallel", "shard", ["shard", "pmap"], "How devices share a population.")
SEARCH = flags.DEFINE_enum("search", None, ["optuna"], "Chooses trials by what earlier ones reached; the file's space.")
TRIALS = flags.DEFINE_integer("trials", 50, "Trials of a search.")


def main() -> None:
    file, preset = cli.config_file()
    if file is None:
        raise ValueError("--config=FILE says what to try; there is configs/sweeps/table_s1.py")
    if SEARCH.value:
        cli.refuse(POPULATION, PARALLEL, unless="trials that the file names; a search trains one after another")
    else:
        cli.refuse(TRIALS, unless="--search=optuna; the file names the others")
    config = cli.with_own_unit(CONFIG.value)
    module = _module(file)
    cli.prepare()
    # Imported after the flags are checked, so that a misspelt one is told at once.
    from experiments import data
    from experiments.watch import say, watch_trials

    command = cli.command()
    arguments: dict[str, Any] = {"data": data.load, "watcher": watch_trials(), "command": command}
    if SEARCH.value:
        from cgcnn_jax.sweep.search import run_search

        is_finished = run_search(config, _ask(module, "get_space", preset), WORKDIR.value, TRIALS.value, **arguments)
    else:
        from cgcnn_jax.sweep.runner import run_sweep

        trials = _ask(module, "get_trials", preset)
        is_finished = run_sweep(
            config, trials, WORKDIR.value, population=POPULATION.value, parallel=PARALLEL.value, **arguments
        )
    folder = Path(WORKDIR.value).expanduser()
    say(f"\nresults   {folder}: results.csv, hyperparameters.png")
    if not is_finished:
        say(f"not all trials have ended; the same command goes on:\n  {command}")
        sys.exit(cli.STOPPED)


def _module(file: Path) -> ModuleType:
    """The sweep file."""
    spec = importlib.util.spec_from_file_location(f"sweep_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _ask(module: ModuleType, name: str, preset: str) -> Any:
    if not hasattr(module, name):
        raise ValueError(f"{module.__file__} has no {name}(preset): it says what to try, see docs/sweeps.md")
    return getattr(module, name)(preset or None)


if __name__ == "__main__":
    cli.run(main, goes_on=True)
