"""Work in a process of its own, forked, so that it need not import anything: started, killed at any moment, asked.

The parent must have imported what the work needs and must not have computed with jax: its threads do not survive a fork.
"""

import ctypes
import functools
import mmap
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cgcnn_jax.files import write_bytes

_stage = mmap.mmap(-1, 64)  # shared with all children
PATIENCE = 300.0  # seconds for any piece of work here, on a busy machine


class End(NamedTuple):
    """How a process ended.

    Attributes:
      status: Exit status, negative for the signal that killed it.
      stage: What it was at; see `mark`.
      seconds: How long it lived.
      value: What its function gave, None if it did not come to that.
      error: Its traceback, empty if there is none.
    """

    status: int
    stage: str
    seconds: float
    value: Any = None
    error: str = ""


def mark(stage: str) -> None:
    """Notes, where a kill does not reach, what the work of this process is at."""
    _stage[:] = stage.encode().ljust(64, b"\0")


def marking(owner: Any, name: str, stage: str) -> None:
    """Has a function of a module or class mark a stage while it runs. For good: in a process of its own."""
    original = getattr(owner, name)

    @functools.wraps(original)  # its name is what workers find it by
    def marked(*arguments: Any, **keywords: Any) -> Any:
        before = _marked()
        mark(stage)
        found = original(*arguments, **keywords)
        # An error leaves the stage as it is, to tell where it came up.
        mark(before)
        return found

    setattr(owner, name, marked)


def _marked() -> str:
    return bytes(_stage).rstrip(b"\0").decode()


class Process:
    """A function at work. It leads a group of its own, which its workers belong to."""

    def __init__(self, function: Callable[[], Any], folder: Path) -> None:
        self._answer = folder / f".answer{random.getrandbits(40):x}"
        self._log = self._answer.with_suffix(".log")
        mark("starting")
        self._began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.setpgid(0, 0)
            _run(function, self._answer, self._log)
        self._end: End | None = None

    def wait(self, seconds: float) -> bool:
        """Waits at most so long for the end, and says whether it came."""
        until = time.monotonic() + seconds
        while self._end is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._end = self._close(os.waitstatus_to_exitcode(status))
            elif time.monotonic() >= until:
                return False
            else:
                time.sleep(min(0.002, max(until - time.monotonic(), 0)))
        return True

    def send(self, number: int) -> None:
        """Signals the process, if it lives."""
        if self._end is None:
            os.kill(self.pid, number)

    def kill(self) -> End:
        """Kills it as the kernel does when memory is out; its workers see to themselves."""
        if not self.wait(0):
            os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self, patience: float = PATIENCE) -> End:
        """How it ended; one that does not end in time is killed, which its status tells."""
        if not self.wait(patience):
            os.kill(self.pid, signal.SIGKILL)
            self.wait(60)
        assert self._end is not None
        return self._end

    def _close(self, status: int) -> End:
        seconds, value, error = time.monotonic() - self._began, None, ""
        if self._answer.exists():
            value, error = pickle.loads(self._answer.read_bytes())
            self._answer.unlink()
        if status and not error:
            error = self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""
        self._log.unlink(missing_ok=True)
        return End(status, _marked(), seconds, value, error)


def ask(function: Callable[[], Any], folder: Path) -> Any:
    """What a function gives in a process of its own. Raises RuntimeError with its traceback if it fails."""
    end = Process(function, folder).end()
    if end.status:
        raise RuntimeError(f"ended with {end.status} while {end.stage}:\n{end.error}")
    return end.value


def _run(function: Callable[[], Any], answer: Path, log: Path) -> None:
    """What a child does; does not return."""
    status = 1
    try:
        # Ends with its parent, so that a campaign that is stopped leaves nothing behind.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            value, error, status = function(), "", 0
        except SystemExit as leaving:
            value, error, status = None, "", leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
        except BaseException as failure:
            value, error, status = None, f"{type(failure).__name__}: {failure}\n{traceback.format_exc()}", 1
        sys.stdout.flush()
        if status in (0, 1) and (value is not None or error):
            write_bytes(answer, pickle.dumps((value, error)))
    except BaseException:
        traceback.print_exc()
    finally:
        # No handlers and no threads of the parent: they belong to it.
        os._exit(status)
