"""Predicts for any number of structures with one or several trained models, and goes on where it was stopped.

python -m experiments.screen --workdir=DIR --input=FILE_OR_FOLDER --output=FOLDER [--top=100 --highest] [...]

Inputs are JSON lines, folders of structure files (CIF, POSCAR), and files of Matbench, CDVAE and ase; --input and
--workdir may be given several times. The output is a folder: parts/ with a row per structure, in input order, and
top.csv with --top; a structure without prediction has a reason instead. docs/screening.md tells more.

The workers are processes here, or those of a Dask scheduler (--scheduler=ADDRESS) or of MPI (--scheduler=mpi).
The exit status is 0 when all is done, and 75 when a signal (Ctrl-C, SIGTERM, SIGUSR1) stopped it: the same command
goes on.
"""

import functools
import itertools
import sys
from pathlib import Path

from absl import flags

from experiments import cli

WORKDIR = flags.DEFINE_multi_string("workdir", None, "Folder of a training run; several models at once.", required=True)
INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or pattern (a/*.cif); may be given several times.", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the result.", required=True)
TOP = flags.DEFINE_integer("top", 0, "Structures in top.csv; 0 writes none.", lower_bound=0)
BY = flags.DEFINE_string("by", "", "Column that --top ranks by; needed where there are several.")
HIGHEST = flags.DEFINE_bool("highest", False, "Let --top take the highest values, not the lowest.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes on this machine; 0 takes all cores.", lower_bound=0)
PREDICT = flags.DEFINE_enum(
    "predict", "auto", ["auto", "worker", "parent"], "Where; auto: here if here is an accelerator, else in the workers."
)
SHARD_SIZE = flags.DEFINE_integer("shard_size", 1000, "Structures that a worker takes at a time.", lower_bound=1)
FORMAT = flags.DEFINE_enum("format", "parquet", ["parquet", "csv"], "Of the parts; parquet needs pyarrow.")
ENSEMBLE = flags.DEFINE_bool(
    "ensemble", False, "Let the networks of all --workdir predict as one: their mean, and their spread in a column std."
)
OUTSIDE = flags.DEFINE_bool(
    "outside", False, "Also say in a column outside why a structure is unlike the training crystals of a model."
)
TIME_LIMIT = flags.DEFINE_float("time_limit", 60.0, "Seconds for reading a structure, and again for its graph.")


def main() -> None:
    cli.prepare()
    import jax

    from cgcnn_jax.data.sources import read_unparsed
    from cgcnn_jax.screen.screening import Top, screen

    cli.check_inputs(INPUT.value)
    cli.tell_unread(INPUT.value)
    if ENSEMBLE.value and len(WORKDIR.value) < 2:
        raise ValueError("--ensemble needs several --workdir, of networks that differ in their seeds")
    if not TOP.value:
        cli.refuse(BY, HIGHEST, unless="--top")
    where = PREDICT.value
    if where == "auto":
        where = "worker" if jax.default_backend() == "cpu" else "parent"
    items = itertools.chain.from_iterable(read_unparsed(path) for path in INPUT.value)
    with (
        cli.stop_requests() as should_stop,
        cli.bar(desc="screening", unit="structure", smoothing=0.05) as bar,
    ):
        done = screen(
            items,
            [WORKDIR.value] if ENSEMBLE.value else WORKDIR.value,
            OUTPUT.value,
            described=[_described(path) for path in INPUT.value],
            hire=functools.partial(cli.hire, WORKERS.value, cli.SCHEDULER.value),
            predict=where,
            shard_size=SHARD_SIZE.value,
            format=FORMAT.value,
            time_limit=TIME_LIMIT.value,
            top=Top(TOP.value, BY.value, HIGHEST.value) if TOP.value else None,
            judge=OUTSIDE.value,
            on_progress=bar.update,
            should_stop=should_stop,
        )
    if not done.is_finished:
        print(f"stopped after {done.rows} structures; the same command goes on:\n  {cli.command()}", file=sys.stderr)
        sys.exit(cli.STOPPED)
    print(f"{done.predicted} predictions in {done.output.path}, {done.failed} structures without one", file=sys.stderr)
    if TOP.value:
        print(f"the best {TOP.value}: {done.output.path / 'top.csv'}", file=sys.stderr)


def _described(path: str) -> str:
    """An input in the manifest: as given, and how long a file is."""
    file = Path(path).expanduser()
    return f"{path} ({file.stat().st_size} bytes)" if file.is_file() else path


if __name__ == "__main__":
    cli.run(main, goes_on=True)
