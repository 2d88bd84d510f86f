r"""Makes the figures and tables of the CGCNN paper and its supplement from the data at hand, on one page.

python -m experiments.paper --data=DATA --workdir=DIR [--size=small] [--only=figure_2b,table_s4] \
  [--perovskites=DIR] [--trials=results.csv]

DATA holds data sets of JSON lines in folders: mp_2018_6_1, jarvis_dft3d and mp_elastic_cgcnn3402, and the paper's lists
of ids in cgcnn_reference/material-data; what is not there is left out, and the page says so. Every property is trained
with both convolutions, Eq. 4 and Eq. 5, by the same protocol. The perovskites of DATA/matbench_perovskites and a random
search over Table S1 (on the embedded crystals) are studied in DIR/perovskites and DIR/sweep, unless --perovskites and
--trials name such studies. DIR/index.html shows all parts, DIR/runs has the runs, and the same command goes on where it was
stopped (exit status 75) and repeats no run. --plan only prints what would be run.

sizes, on one quiet core: quick takes minutes, to see that all works; small half an hour; full some hours. docs/paper.md has
what they took.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

import configs
from experiments import cli

DATA = flags.DEFINE_string("data", None, "Folder of data sets of JSON lines.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of runs, figures and pages.", required=True)
SIZE = flags.DEFINE_enum("size", "small", ["quick", "small", "full"], "How much is trained.")
ONLY = flags.DEFINE_string("only", "all", "Figures and tables, separated by commas, or all.")
PEROVSKITES = flags.DEFINE_string("perovskites", None, "Folder of a perovskite study, for Figs. 3 and S6, Table S5.")
TRIALS = flags.DEFINE_string("trials", None, "Table of trials of hyperparameters (CSV), for Fig. S3.")
PLAN = flags.DEFINE_bool("plan", False, "Only print the runs that are missing and an estimate of their time.")


OF_PEROVSKITES, OF_TRIALS = {"figure_3b", "figure_3cd", "figure_s6", "table_s5"}, {"figure_s3"}
# Trials and epochs of the search, and minutes that it takes on one quiet core.
SEARCH = {"quick": (2, 1, 1), "small": (80, 10, 2), "full": (80, 50, 8)}
PEROVSKITE_MINUTES = {"quick": 1, "small": 2, "full": 2}


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
    command = cli.command()
    study = PropertyStudy(
        data,
        folder,
        SIZES[SIZE.value],
        configs.named,
        load=loading.load,
        watcher=Terminal(),
        command=command,
        writes=not PLAN.value,
    )
    companions = _companions(names, data, folder)
    results = Results(
        study,
        folder,
        companions["perovskites"].folder if "perovskites" in companions else _path(PEROVSKITES.value),
        companions["sweep"].folder / "results.csv" if "sweep" in companions else _path(TRIALS.value),
    )
    missing = [job for jobs in find_jobs(results, names).values() for job in jobs if study.record(job) is None]
    for job in missing:
        say(f"{job.path:40} {job.epochs:4} epochs")
    minutes = sum(estimate(job) for job in missing) / 60
    for one in companions.values():
        if not one.is_finished:
            say(f"{one.folder.name:40} about {one.minutes} minutes")
            minutes += one.minutes
    say(f"{len(missing)} runs to do, about {minutes:.0f} minutes on a core that has nothing else to do\n")
    if PLAN.value:
        return
    is_finished = all(one.is_finished or one.make(data, one.folder, command) for one in companions.values())
    if not (is_finished and make(results, names, on_part=lambda name: say(f"made {name}"))):
        say(f"stopped; the same command goes on:\n  {command}")
        sys.exit(cli.STOPPED)
    say(f"\nall of it: {folder}/index.html")


class Companion(NamedTuple):
    """A study of its own that parts of the paper show.

    Attributes:
      folder: Where.
      is_finished: Whether it is.
      minutes: That it takes on a core that has nothing else to do.
      make: Makes it, or goes on; whether it was finished.
    """

    folder: Path
    is_finished: bool
    minutes: int
    make: Callable[[Path, Path, str], bool]


def _companions(names: Sequence[str], data: Path, folder: Path) -> dict[str, Companion]:
    """Those that the parts need, the data can give and no flag names."""
    found = {}
    place = folder / "perovskites"
    if PEROVSKITES.value is None and OF_PEROVSKITES & {*names} and (data / "matbench_perovskites").is_dir():
        found["perovskites"] = Companion(place, (place / "index.md").exists(), PEROVSKITE_MINUTES[SIZE.value], _study)
    place = folder / "sweep"
    if TRIALS.value is None and OF_TRIALS & {*names}:
        number, _, minutes = SEARCH[SIZE.value]
        ended = len(list(place.glob("trials/*/trial.json")))
        found["sweep"] = Companion(place, ended == number and (place / "results.csv").exists(), minutes, _search)
    return found


def _study(data: Path, folder: Path, command: str) -> bool:
    """The perovskites, as experiments.perovskites does."""
    from cgcnn_jax.studies.perovskites.study import run_study
    from configs import perovskite_sites
    from experiments import data as loading
    from experiments.watch import Terminal

    config, limit = perovskite_sites.get_config(), 0
    with config.unlocked():
        config.data.source, config.data.path = "jsonl", str(data / "matbench_perovskites")
        config.split.kind = "source"
        if SIZE.value == "quick":
            config.train.epochs, limit = 2, 600
    return run_study(config, folder, limit=limit, load=loading.load, watcher=Terminal(), command=command) is not None


def _search(data: Path, folder: Path, command: str) -> bool:
    """Trials of Table S1 with Eq. 4, as experiments.sweep does."""
    from cgcnn_jax.sweep.runner import run_sweep
    from configs.sweeps import table_s1
    from experiments import data as loading
    from experiments.watch import watch_trials

    config, (number, epochs, _) = table_s1.get_config("sum"), SEARCH[SIZE.value]
    with config.unlocked():
        config.train.epochs = epochs
    trials = table_s1.get_trials("sum")[:number]
    return run_sweep(config, trials, folder, data=loading.load, watcher=watch_trials(), command=command)


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
