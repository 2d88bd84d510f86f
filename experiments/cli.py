"""What every entry point shares: flags, one-line errors, signals, worker processes."""

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from cgcnn_jax import memory
from experiments import allocator, compilation

_SECONDS_FOR_SCHEDULER = 15  # in which a scheduler that restarts is back
# config_flags raises whatever reading a configuration runs into.
_OF_CONFIGS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError)
STOPPED = 75  # exit status of a run that was stopped and can go on; EX_TEMPFAIL of sysexits.h

ALLOCATOR = flags.DEFINE_enum("allocator", "tuned", ["tuned", "default"], "Memory settings (Linux CPU); default: none.")
COMPILED = flags.DEFINE_bool("keep_compiled", True, "Keep compiled programs in the user's cache folder.")
SCHEDULER = flags.DEFINE_string(
    "scheduler", "", "Workers elsewhere: the address of a Dask scheduler, or mpi; empty for processes here."
)
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error came from.")


def run(
    main: Callable[..., None], *, allow: str | None = None, positional: bool = False, goes_on: bool = False
) -> None:
    """Parses the flags and runs `main`; what a user can cause ends in one clear message and exit status 1 or 2.

    Args:
      main: The entry point.
      allow: Arguments that start so are left to the entry point.
      positional: Hand arguments that are no flags to `main`; otherwise they are an error.
      goes_on: The same command goes on where a signal stopped it, so that the exit status is then STOPPED.
    """
    if {"--help", "-help", "-h", "--helpfull"} & set(sys.argv[1:]):
        shared = [name for name in ("experiments.hosts", __name__) if name in sys.modules]
        listed = [flags.FLAGS.main_module_help(), *map(flags.FLAGS.module_help, shared)]
        print(sys.modules["__main__"].__doc__, *listed, sep="\n")
        return
    # A scheduler's SIGTERM unwinds like Ctrl-C, so that worker processes are told to end.
    signal.signal(signal.SIGTERM, _interrupt if goes_on else lambda number, frame: sys.exit(143))
    if goes_on and hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _interrupt)
    try:
        rest = flags.FLAGS([argument for argument in sys.argv if not (allow and argument.startswith(allow))])
    except _OF_CONFIGS as error:
        _fail(f"{_one_line(error)}\n(--help lists the flags; configs/base.py every field)", 2)
    if len(rest) > 1 and not positional:
        _fail(f"unexpected argument {rest[1]!r}; flags are written --name=value", 2)
    try:
        main(*rest[1:])
    except KeyboardInterrupt:
        _fail(*(("interrupted; the same command goes on", STOPPED) if goes_on else ("interrupted", 130)))
    except (ValueError, OSError, RuntimeError, MemoryError, ImportError) as error:
        message = str(error) or repr(error)
        # Threads of Python tell it in their own words.
        wants_memory = memory.is_lacking(error) or "can't start new thread" in message
        if TRACEBACK.value or (type(error).__module__.startswith("jax") and not wants_memory):
            raise
        if wants_memory:
            way_out = "what was finished is kept, and the same command goes on; " if goes_on else ""
            cause = message.splitlines()[0]
            message = f"not enough memory ({cause}); {way_out}fewer workers and smaller batches need less"
        _fail(message, 1)


def prepare() -> None:
    """Makes the settings that jax must find when it is imported."""
    if ALLOCATOR.value == "tuned":
        allocator.keep_freed_memory()
    if COMPILED.value:
        compilation.keep_compiled_programs()


def command() -> str:
    """The command line, to type again."""
    return shlex.join(["python", "-m", f"experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]])


def refuse(*given: flags.FlagHolder, unless: str) -> None:
    """Raises ValueError if one of the flags is given, which mean nothing unless something else is."""
    for flag in given:
        if flag.present:
            raise ValueError(f"--{flag.name} goes with {unless}")


def executor(workers: int, scheduler: str = "") -> Executor | None:
    """Workers that build graphs; None if one process does as well.

    Args:
      workers: Processes on this machine, 0 for all cores.
      scheduler: As --scheduler, which then decides.

    Raises:
      ValueError: If the package for the scheduler is missing.
      OSError: If there is no scheduler at the address.
    """
    if not scheduler and _count(workers) == 1:
        return None
    return hire(workers, scheduler)[0]


@contextlib.contextmanager
def graph_workers(workers: int) -> Iterator[Executor | None]:
    """What `executor` gives for --scheduler, let go at the end without waiting for what is left."""
    given = executor(workers, SCHEDULER.value)
    try:
        yield given
    finally:
        if given is not None:
            given.shutdown(cancel_futures=True)


def hire(workers: int, scheduler: str = "") -> tuple[Executor, int | Callable[[], int]]:
    """Workers, at least one, and how many tasks they do at a time, or what tells it; see executor."""
    if scheduler == "mpi":
        return _mpi()
    if scheduler:
        return _dask(scheduler)
    count = _count(workers)
    # Spawned, not forked: a fork of a process that runs jax can deadlock.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin_worker), count


def _count(workers: int) -> int:
    # Those this process may use, which on a cluster are fewer than the machine has.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return workers or available


def _begin_worker() -> None:
    """Leaves signals to the process that began the workers, and ends with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def wait_for_its_end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_for_its_end, daemon=True).start()


def _dask(address: str) -> tuple[Executor, Callable[[], int]]:
    try:
        from distributed import Client
        from distributed.cfexecutor import ClientExecutor
    except ImportError as error:
        raise ValueError(
            "--scheduler=ADDRESS needs the package distributed: pip install 'cgcnn-jax[cluster]'"
        ) from error

    class Cluster(ClientExecutor):
        """Dask's executor, with the signature of the standard library's, and a client of its own."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=wait and not cancel_futures)
            self._client.close()

    try:
        client = Client(address, timeout=_SECONDS_FOR_SCHEDULER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"--scheduler={address}: no Dask scheduler answers there ({error})") from error

    def threads() -> int:
        # Workers come and go. A scheduler that does not answer now has its say when a task is handed in.
        try:
            return sum(client.nthreads().values())
        except OSError:
            return 1

    # Not pure: Dask takes equal tasks for one.
    return Cluster(client, pure=False), threads


def _mpi() -> tuple[Executor, int]:
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor
    # ImportError without the package, RuntimeError without an MPI library.
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"--scheduler=mpi needs mpi4py and an MPI library: pip install 'cgcnn-jax[mpi]' ({error})"
        ) from error
    count = MPI.COMM_WORLD.Get_size() - 1
    if count < 1:
        raise ValueError("--scheduler=mpi: start it as mpiexec -n N python -m mpi4py.futures -m experiments.NAME ...")
    return MPIPoolExecutor(), count


def bar(entries: Iterable[Any] | None = None, **options: Any) -> Any:
    """A progress bar on stderr, with tqdm's options; none where stderr is a file, which it would fill with its copies."""
    return tqdm(entries, file=sys.stderr, disable=None, **options)


@contextlib.contextmanager
def stop_requests(asked: list[int] | None = None) -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C, SIGTERM or SIGUSR1 into a request to save and leave; a second one interrupts at once.

    Args:
      asked: The signals that came before, and those that come.
    """
    asked = [] if asked is None else asked

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print(f"\n{signal.Signals(number).name}: saving, then leaving ...", file=sys.stderr, flush=True)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    old = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def with_own_unit(config: ConfigDict) -> ConfigDict:
    """The configuration, without a unit if the command line names another property: the file's unit is of the file's."""
    if is_given("config.data.target") and not is_given("config.data.unit"):
        config.data.unit = ""
    return config


def output_file(path: str | Path, kind: str) -> Path:
    """The file that --output names, in a folder that is there and takes it: asked before the work, not after.

    Raises:
      ValueError: If there is no such folder, or it is itself one; `kind` says what file it should be.
      OSError: If nothing can be written there.
    """
    output = Path(path).expanduser()
    if not output.absolute().parent.is_dir():
        raise ValueError(f"--output={output}: there is no folder {output.absolute().parent}")
    if output.is_dir():
        raise ValueError(f"--output={output} is a folder; name {kind} file in it")
    if output.is_file() or not output.exists():
        try:
            with tempfile.TemporaryFile(dir=output.resolve().parent):
                pass
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(output)) from error
    return output


def check_inputs(paths: Iterable[str]) -> None:
    """Raises FileNotFoundError for an --input that is not there, or a pattern of which nothing is."""
    from cgcnn_jax.data.sources import is_there

    for path in paths:
        if not is_there(path):
            raise FileNotFoundError(f"--input={path}: no such file or folder")


def tell_unread(paths: Iterable[str]) -> None:
    """Says which files in the folders among --input are not read."""
    from cgcnn_jax.data.sources import unread

    for path in paths:
        if others := unread(path):
            kinds = ", ".join(f"{ending} {number}" for ending, number in others.most_common(5))
            print(
                f"{path}: {others.total()} files in it are not read ({kinds}); --input takes them by their own names if they "
                "hold structures",
                file=sys.stderr,
            )


def is_given(*names: str) -> bool:
    """Whether one of these flags is on the command line."""
    return any(argument.lstrip("-").partition("=")[0] in names for argument in sys.argv[1:] if argument[:1] == "-")


def config_file() -> tuple[Path | None, str]:
    """File and preset of --config=FILE:PRESET on the command line; None and empty without one.

    Raises:
      ValueError: If there is no such file, listing those of the project.
    """
    for place, argument in enumerate(sys.argv):
        name, has_value, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            file, _, preset = (value if has_value else sys.argv[place + 1]).partition(":")
            path = Path(file)
            if not path.is_file():
                known = ", ".join(
                    sorted(str(file) for file in Path("configs").glob("[a-z]*.py") if file.stem != "base")
                )
                raise ValueError(
                    f"--config={path}: no such file; from the project's folder there are {known or 'none'}"
                )
            return path, preset
    return None, ""


def override(config: ConfigDict, arguments: Sequence[str], prefix: str = "--config.") -> None:
    """Applies --config.FIELD=VALUE arguments to a configuration that no --config names.

    Args:
      config: Changed in place.
      arguments: Of the command line.
      prefix: Of those that are applied, such as --config.data.

    Raises:
      ValueError: For an unknown field or a value of the wrong type.
    """
    given = ["", *(argument for argument in arguments if argument.startswith(prefix))]
    for argument in given[1:]:
        field = argument.removeprefix("--config.").partition("=")[0]
        if field not in _fields(config):
            raise ValueError(f"unknown field --config.{field}; configs/base.py has every field")
    own = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=own, lock_config=False, sys_argv=given)
        own(given)
    except _OF_CONFIGS as error:
        raise ValueError(_one_line(error)) from error


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Names as the command line has them: data.target."""
    for name in config:
        yield f"{prefix}{name}"
        if isinstance(config[name], ConfigDict):
            yield from _fields(config[name], f"{prefix}{name}.")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _one_line(error: BaseException) -> str:
    """The reason of a flag error, without ml_collections' quoting and its copy of the traceback."""
    text = str(error.args[0] if error.args else error).replace("\\n", "\n").replace("\\'", "'")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, AttributeError) and "Did you mean" in text:
        lines.insert(0, "unknown field")
    # The last line of a wrapped traceback names the cause.
    if any(line.startswith("Traceback") for line in lines):
        lines = [lines[0], lines[-1]]
    return " ".join(lines)


def _fail(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
