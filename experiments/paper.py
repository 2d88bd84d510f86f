r"""Makes the figures and tables of the CGCNN paper and its supplement from the data at hand, on one page.

python -m experiments.paper --data=DATA --workdir=DIR [--size=small] [--only=figure_2b,table_s4] \
  [--perovskites=DIR] [--trials=results.csv]

DATA holds data sets of JSON lines in folders: mp_2018_6_1, jarvis_dft3d and mp_elastic_cgcnn3402, and the paper's lists
of ids in cgcnn_reference/material-data; what is not there is left out, and the page says so. Every property is trained
with both convolutions, Eq. 4 and Eq. 5, by the same protocol. DIR/index.html shows all parts, DIR/runs has the runs, and
the same command goes on where it was stopped (exit status 75) and repeats no run. --plan only prints what would be run.

sizes: quick takes seconds a property, to see that all works; small about half an hour on two cores; full a night.
"""

import importlib
import shlex
import sys
from pathlib import Path

from absl import flags

from experiments import cli

DATA = flags.DEFINE_string("data", None, "Folder of data sets of JSON lines.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of runs, figures and pages.", required=True)
SIZE = flags.DEFINE_enum("size", "small", ["quick", "small", "full"], "How much is trained.")
ONLY = flags.DEFINE_string("only", "all", "Figures and tables, separated by commas, or all.")
PEROVSKITES = flags.DEFINE_string("perovskites", None, "Folder of the perovskite study, for Figs. 3 and S6, Table S5.")
TRIALS = flags.DEFINE_string("trials", None, "Table of trials of hyperparameters (CSV), for Fig. S3.")
PLAN = flags.DEFINE_bool("plan", False, "Only print the runs that are missing and an estimate of their time.")


def main() -> None:
    data, folder = Path(DATA.value).expanduser(), Path(WORKDIR.value).expanduser()
    if not data.is_dir():
        raise ValueError(f"--data={data}: no such folder")
    cli.prepare()
    # Imported after the flags are checked, so that a misspelt one is told at once.
    from cgcnn_jax.studies.paper import find_jobs, find_parts, make
    from cgcnn_jax.studies.properties import SIZES, PropertyStudy, estimate
    from cgcnn_jax.studies.results import Results
    from experiments import data as loading
    from experiments.watch import Terminal, say

    _check_figures()
    names = find_parts(ONLY.value)
    command = shlex.join(["python", "-m", "experiments.paper", *sys.argv[1:]])
    study = PropertyStudy(
        data,
        folder,
        SIZES[SIZE.value],
        lambda name: importlib.import_module(f"configs.{name}").get_config(),
        load=loading.load,
        watcher=Terminal(),
        command=command,
    )
    results = Results(study, folder, _path(PEROVSKITES.value), _path(TRIALS.value))
    missing = [job for jobs in find_jobs(results, names).values() for job in jobs if study.record(job) is None]
    for job in missing:
        say(f"{job.path:40} {job.epochs:4} epochs")
    minutes = sum(estimate(job) for job in missing) / 60
    say(f"{len(missing)} runs to do, about {minutes:.0f} minutes on two cores that have nothing else to do\n")
    if PLAN.value:
        return
    if not make(results, names, on_part=lambda name: say(f"made {name}")):
        say(f"stopped; the same command goes on:\n  {command}")
        sys.exit(cli.STOPPED)
    say(f"\nall of it: {folder}/index.html")


def _check_figures() -> None:
    """Raises ValueError if figures cannot be drawn, before hours are spent on runs."""
    try:
        import cgcnn_jax.report.figures  # noqa: F401
    except ImportError as error:
        raise ValueError(str(error)) from error


def _path(value: str | None) -> Path | None:
    return Path(value).expanduser() if value else None


if __name__ == "__main__":
    cli.run(main, goes_on=True)
