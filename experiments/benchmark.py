r"""Runs the field's benchmarks as their protocols say, and sets the results beside the published ones.

python -m experiments.benchmark --suite=matbench --tasks=matbench_phonons,matbench_dielectric --workdir=DIR \
  [--data=DATA] [--networks=1] [--population=1] [--config=configs/formation_energy.py] [--config.train.epochs=300 ...]
python -m experiments.benchmark --table --workdir=DIR --data=DATA [--contributions=CONTRIBUTIONS]

The crystals are the official files that experiments.fetch has brought, or JSON lines in DATA. Every fold is a run of
experiments.train in DIR/TASK/fold_K; the same command goes on where it was stopped, or where other processes have what
is left (exit status 75), and repeats nothing. DIR/TASK/record.json has the errors of a task, DIR/table.md all tasks beside
the published errors. CONTRIBUTIONS is jarvis_leaderboard/contributions in a copy of
github.com/usnistgov/jarvis_leaderboard, which has what its models predict for every crystal: the table then has their
errors on the crystals judged here.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

import configs
from experiments import cli

if TYPE_CHECKING:
    from cgcnn_jax.data.tasks import Task

# Fields that the protocol sets for each fold of each task.
_OF_PROTOCOL = (
    *(f"data.{name}" for name in ("source", "path", "task", "fold", "target", "unit", "columns", "log10")),
    *(f"split.{name}" for name in ("kind", "ratios", "sizes", "files", "num_folds", "by_composition", "by_structure")),
    *("model.task", "model.num_classes"),
)

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Network and training; the configuration of each task if not given. The protocol sets the data."
)
SUITE = flags.DEFINE_string("suite", None, "matbench, mp_2018_6_1 or jarvis_dft3d.")
TASKS = flags.DEFINE_string("tasks", "all", "Tasks of the suite, separated by commas, or all.")
DATA = flags.DEFINE_string("data", None, "Folder of data sets of JSON lines; the fetched sets if not given.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the benchmark.", required=True)
NETWORKS = flags.DEFINE_integer(
    "networks", 1, "Per fold, alike but for train.seed; the mean of their predictions is judged.", lower_bound=1
)
POPULATION = flags.DEFINE_integer(
    "population", 1, "Networks that train together, as one compiled program, at most: for GPUs.", lower_bound=1
)
TABLE = flags.DEFINE_bool("table", False, "Only write the table of what is finished.")
LEADERBOARDS = flags.DEFINE_string("leaderboards", None, "Folder of published errors; DATA/leaderboards if not given.")
CONTRIBUTIONS = flags.DEFINE_string(
    "contributions", None, "Published predictions of the JARVIS-Leaderboard, for their errors on the crystals at hand."
)


def main() -> None:
    folder = Path(WORKDIR.value).expanduser()
    data = Path(DATA.value).expanduser() if DATA.value else None
    published = Path(LEADERBOARDS.value).expanduser() if LEADERBOARDS.value else data and data / "leaderboards"
    if CONTRIBUTIONS.value and not TABLE.value:
        raise ValueError("--contributions goes with --table, when tasks are finished")
    for flag in (LEADERBOARDS, CONTRIBUTIONS):
        if flag.value and not Path(flag.value).expanduser().is_dir():
            raise FileNotFoundError(f"--{flag.name}={flag.value}: no such folder")
    if TABLE.value:
        cli.refuse(SUITE, TASKS, NETWORKS, POPULATION, unless="tasks that are run; --table shows all that are finished")
        _write_table(folder, published, Path(CONTRIBUTIONS.value).expanduser() if CONTRIBUTIONS.value else None)
        return
    if SUITE.value is None:
        raise ValueError("--suite says what to run (or --table, for a table alone)")
    for field in _OF_PROTOCOL:
        if cli.is_given(f"config.{field}", f"noconfig.{field}"):
            raise ValueError(
                f"--config.{field} is the protocol's: --suite, --tasks and --data say what is judged and how"
            )
    cli.config_file()
    # Imported after the flags are checked, so that a misspelt one is told at once.
    from cgcnn_jax.benchmark.tasks import config_name, find_tasks

    paths = _paths(find_tasks(SUITE.value, TASKS.value), data)
    cli.prepare()
    from cgcnn_jax.benchmark.protocol import plan, run_task
    from experiments import data as loading
    from experiments.watch import Terminal, say

    command = cli.command()
    watcher = Terminal()
    chosen = [_config_of(config_name(task)) for task, _ in paths]
    # What one of the tasks does not admit is told before hours are spent on those before it.
    for config, (task, path) in zip(chosen, paths, strict=True):
        try:
            plan(config, task, path, folder / task.name, networks=NETWORKS.value)
        except ValueError as error:
            raise ValueError(f"{task.name}: {error}") from error
    are_all_done = True
    for config, (task, path) in zip(chosen, paths, strict=True):
        record = run_task(
            config,
            task,
            path,
            folder / task.name,
            networks=NETWORKS.value,
            population=POPULATION.value,
            load=loading.load,
            watcher=watcher,
            command=command,
        )
        if record is None and watcher.should_stop():
            say(f"stopped; the same command goes on:\n  {command}")
            sys.exit(cli.STOPPED)
        if record is None:
            say(f"{task.name}: other processes have the folds that are left; the last of them writes the record")
            are_all_done = False
            continue
        say(f"\n{_headline(record)}\n")
        _write_table(folder, published)
    if not are_all_done:
        say(f"not all folds are done; the same command goes on:\n  {command}")
        sys.exit(cli.STOPPED)


def _config_of(name: str) -> ConfigDict:
    """The configuration of the command line, or the named one with what the command line changes."""
    if CONFIG.value is not None:
        return CONFIG.value
    config = configs.named(name)
    cli.override(config, sys.argv[1:])
    return config


def _paths(tasks: "list[Task]", data: Path | None) -> "list[tuple[Task, str]]":
    """The tasks with their data, before hours are spent on the first: named ones must be there, of all those that are."""
    from cgcnn_jax.benchmark.tasks import find_data

    found = []
    for task in tasks:
        try:
            found.append((task, find_data(task, data)))
        except FileNotFoundError as error:
            if TASKS.value != "all" or (task is tasks[-1] and not found):
                raise
            print(f"{task.name} is left out: {error}")
    return found


def _headline(record: dict) -> str:
    score, unit = record["scores"][record["metric"]], f" {record['unit']}" if record["unit"] else ""
    mean = "no number" if score["mean"] is None else f"{score['mean']:.4g}"
    spread = "" if score["std"] is None else f" ± {score['std']:.4g}"
    of = f" of the mean of {record['networks']} networks" if record["networks"] > 1 else ""
    return f"{record['task']}: {record['metric'].upper()} {mean}{spread}{unit}{of}, test folds: {len(record['folds'])}"


def _write_table(folder: Path, published: Path | None, contributions: Path | None = None) -> None:
    from cgcnn_jax.benchmark.table import markdown
    from cgcnn_jax.files import write_text

    if published is None or not published.is_dir():
        print(f"no published errors at {published or 'DATA/leaderboards'} (--leaderboards): the table shows ours alone")
        published = None
    write_text(folder / "table.md", markdown(folder, published, contributions))
    print(f"table     {folder / 'table.md'}")


if __name__ == "__main__":
    # Without --config, --config.FIELD changes the configuration of each task, which flags do not know.
    cli.run(main, goes_on=True, allow=None if cli.is_given("config", "table") else "--config.")
