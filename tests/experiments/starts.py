"""Entry points in processes of their own: to their end, or begun and left to run.

Those that run to their end are forks of a process that has imported what all of them import, which takes longer than
they do. A fork does what `python -m experiments.NAME` does from there on: the module is run as the main one, with
arguments, environment and output of its own. What a start imports, and when, is tested by those that are begun.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.compiling import quick
from tests.experiments.runs import ROOT

# Libraries only, of those that leave no thread and no device behind when they are imported: jax finds its devices in
# the fork. tensorstore, and with it orbax, is not one of them.
_LIBRARIES = (
    "flax.linen",
    "jax.numpy",
    "matplotlib.pyplot",
    "ml_collections.config_flags",
    "optax",
    "pandas",
    "pymatgen.core",
    "scipy.stats",
    "sklearn.metrics",
)
_SECONDS = 300


def start(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The finished `python -m experiments.NAME ARGUMENTS`, started from the project's root.

    Args:
      name: The entry point.
      arguments: Its command line.
      environment: Variables beside those of this process. jax reads most of its own when it is imported, which is past.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LIBRARIES))
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        files = Path(folder, "stdout"), Path(folder, "stderr")
        # daemon=False: an entry point may have processes of its own.
        process = context.Process(
            target=_run, args=(name, arguments, os.environ | quick() | environment, files), daemon=False
        )
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        output, errors = (file.read_text() for file in files)
    return subprocess.CompletedProcess([name, *arguments], process.exitcode, output, errors)


def begin(name: str, *arguments: str, errors: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """`python -m experiments.NAME ARGUMENTS`, begun from the project's root.

    Args:
      name: The entry point.
      arguments: Its command line.
      errors: Where stderr goes. A pipe that nobody reads fills with the progress bar of a long run and blocks it.
    """
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *arguments],
        cwd=ROOT,
        env=os.environ | quick(),
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


def _run(name: str, arguments: tuple[str, ...], environment: dict[str, str], files: tuple[Path, Path]) -> None:
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv[1:] = arguments
    # Imported before the environment was known.
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    # run_module puts the path of the module first, as the interpreter does.
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
