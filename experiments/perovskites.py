r"""Repeats the perovskite section of the paper: errors, site energies by element, and the search.

python -m experiments.perovskites --workdir=DIR [--data=DATA] [--config=configs/perovskite_sites.py] \
  [--config.train.epochs=100 ...] [--gated] [--quick]

The crystals are the JSON lines in DATA/matbench_perovskites, with their official split, or the file that
`experiments.fetch matbench_perovskites` has brought, split 60:20:20. Linear and full pooling are trained with Eq. 4 on
the same split, --gated also with Eq. 5, in DIR/models; the same command goes on where it was stopped (exit status 75).
DIR/index.md then shows all. --quick takes 600 crystals and a few epochs, to see what comes out.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

import configs
from experiments import cli

CONFIG = config_flags.DEFINE_config_file(
    "config",
    str(Path(configs.__file__).parent / "perovskite_sites.py"),
    "Graphs, network and training; pool and convolution are set by the study.",
)
DATA = flags.DEFINE_string("data", None, "Folder of data sets of JSON lines; the fetched set if not given.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.", required=True)
GATED = flags.DEFINE_bool("gated", False, "Train both poolings with Eq. 5 as well.")
QUICK = flags.DEFINE_bool("quick", False, "600 crystals and at most 10 epochs, in half a minute.")


def main() -> None:
    cli.config_file()
    # Imported after the flags are checked, so that a misspelt one is told at once.
    from cgcnn_jax.benchmark.tasks import SUITES, find_data

    config, task = cli.with_own_unit(CONFIG.value), SUITES["matbench"]["matbench_perovskites"]
    path = find_data(task, Path(DATA.value).expanduser() if DATA.value else None)
    with config.unlocked():
        config.data.path = path
        if DATA.value:
            config.data.source, split_kind = "jsonl", "source"
        else:
            config.data.source, config.data.task, split_kind = task.source, task.name, "ratio"
            if not cli.is_given("config.data.target"):
                config.data.target = config.data.unit = ""
        if config.split.kind == "auto":
            config.split.kind = split_kind
        if QUICK.value:
            config.train.epochs = min(config.train.epochs, 10)
    cli.prepare()
    from cgcnn_jax.studies.perovskites.study import GATED as WITH_GATES
    from cgcnn_jax.studies.perovskites.study import MODELS, run_study
    from experiments import data
    from experiments.watch import Terminal, say

    command = cli.command()
    study = run_study(
        config,
        Path(WORKDIR.value).expanduser(),
        models=(*MODELS, *WITH_GATES) if GATED.value else MODELS,
        limit=600 if QUICK.value else 0,
        load=data.load,
        watcher=Terminal(),
        command=command,
    )
    if study is None:
        say(f"stopped; the same command goes on:\n  {command}")
        sys.exit(cli.STOPPED)
    say(f"\nreport    {study.folder / 'index.md'}")


if __name__ == "__main__":
    cli.run(main, goes_on=True)
