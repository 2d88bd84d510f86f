"""Trains a network, and goes on where it was stopped.

python -m experiments.train --config=configs/formation_energy.py [--workdir=DIR] [--config.train.epochs=50 ...]

The exit status is 0 when the run is finished, and 75 when a signal (Ctrl-C, SIGTERM, SIGUSR1) stopped it: the same
command goes on.

Several processes train as one where each is started with the same command and
  --coordinator=HOST:PORT --num_processes=N --process_id=0 ... N-1     or, by srun,     --distributed=auto
docs/clusters.md has job scripts. The first process alone writes the folder.
"""

import os
import shlex
import sys
import time
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import cli, hosts

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file; append :paper for the paper's preset.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/NAME of the configuration if not given.")
WANTS_REPORT = flags.DEFINE_bool("report", True, "Write report.html and distances to the training crystals at the end.")


def main() -> None:
    began = time.monotonic()
    file, preset = cli.config_file()
    config = _config_of(file)
    cli.prepare()
    # Imported after the flags are checked, so that a misspelt one is told at once.
    from cgcnn_jax.run import REPORT, run
    from cgcnn_jax.train.parallel import is_first_process
    from experiments import data
    from experiments.watch import Silent, Terminal, say

    path = WORKDIR.value or Path("runs") / f"{file.stem}{'_' * bool(preset)}{preset}"
    with hosts.connection():
        is_first = is_first_process()
        watcher = Terminal() if is_first else Silent()
        result = run(
            config,
            path,
            data=data.load,
            watcher=watcher,
            command=cli.command(),
            began=began,
            report=WANTS_REPORT.value,
        )
    workdir = result.workdir
    if not is_first:
        sys.exit(None if result.is_finished else cli.STOPPED)
    if not result.is_finished:
        say(f"stopped; the same command goes on:\n  {cli.command()}")
        sys.exit(cli.STOPPED)
    if result.was_finished:
        say(f"this run is finished; its results lie in {workdir.path}. To train on from it:")
        say(f"  another --workdir, with --config.init_from={workdir.path}")
        return
    say("")
    for line in result.headline:
        say(f"{result.judged} {line}")
    assert result.summary is not None
    rate = result.summary["train_crystals_per_second"]
    say(f"in {result.summary['seconds']['total']:.0f} s" + (f"; {rate:.0f} crystals/s in training\n" if rate else "\n"))
    python, folder = os.path.relpath(sys.executable), shlex.quote(str(workdir.path))
    files = ["summary.json", "predictions.csv", *(workdir.picture_path(name).name for name in result.pictures)]
    files += [REPORT] * result.has_report
    say(f"results   {workdir.path}: {', '.join(files)}")
    say(f"predict   {python} -m experiments.predict --workdir={folder} --input=YOUR_CIFS")
    say(f"evaluate  {python} -m experiments.evaluate --workdir={folder}")
    if config.data.source == "demo":
        say(f"your data {python} -m experiments.train --config=configs/formation_energy.py --workdir=runs/mine \\")
        say("            --config.data.source=directory --config.data.path=FOLDER \\")
        say("            --config.data.target=NAME --config.data.unit=UNIT")


def _config_of(path: Path | None) -> ConfigDict:
    """The configuration of the command line. Raises ValueError if there is none."""
    if path is None:
        raise ValueError("--config=FILE says what to train; try --config=configs/formation_energy.py")
    return cli.with_own_unit(CONFIG.value)


if __name__ == "__main__":
    cli.run(main, goes_on=True)
