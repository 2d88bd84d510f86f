"""TimeLimit: ends the work on a structure that takes too long."""

import contextlib
import ctypes
import faulthandler
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cgcnn_jax.data.crystal import Crystal, CrystalError, Entry
from cgcnn_jax.data.featurize import Featurize, Featurized

T = TypeVar("T")
# Code below Python that does not return is not interrupted; after so many times the limit its process is ended.
_LAST_RESORT = 3


class OutOfTimeError(BaseException):
    """Raised in the midst of work. No Exception: readers of structure files catch all of those."""


class TimeLimit:
    """Watches the thread that enters it.

    Args:
      seconds: For reading a structure, and again for building its graph.
      may_exit: Whether this process may be ended when neither Python nor the limit gets a word in: true in a worker that
        is replaced.
    """

    def __init__(self, seconds: float, *, may_exit: bool = False) -> None:
        self.seconds = seconds
        self._may_exit = may_exit
        self._lock = threading.Lock()
        self._began: float | None = None
        self._renewed = 0.0
        self._left = threading.Event()

    def __enter__(self) -> "TimeLimit":
        self._thread = threading.get_ident()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._watch.join()
        if self._may_exit:
            faulthandler.cancel_dump_traceback_later()

    def call(self, id: str, function: Callable[[], T]) -> T:
        """What the function gives. Raises CrystalError if it takes too long, or more memory than there is."""
        if self._may_exit and time.monotonic() - self._renewed > self.seconds / 4:
            faulthandler.dump_traceback_later(_LAST_RESORT * self.seconds, exit=True)
            self._renewed = time.monotonic()
        try:
            with self._counted():
                return function()
        except OutOfTimeError:
            raise CrystalError(f"{id}: took longer than {self.seconds:g} s") from None
        except MemoryError as error:
            raise CrystalError(f"{id}: takes more memory than there is") from error
        except PermissionError as error:
            raise CrystalError(f"{id}: cannot be read ({error})") from error

    def entry(self, entry: Entry) -> Entry:
        """The entry, to be read within the limit."""
        return _Limited(entry, self)

    def featurize(self, featurize: Featurize) -> Featurize:
        """Makes graphs within the limit."""

        def limited(crystal: Crystal) -> Featurized:
            return self.call(crystal.id, lambda: featurize(crystal))

        return limited

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._began = time.monotonic()
        try:
            yield
        finally:
            # Once this lock is passed, the watching thread interrupts no more.
            with self._lock:
                self._began = None

    def _look(self) -> None:
        while not self._left.wait(min(self.seconds / 4, 1.0)):
            with self._lock:
                if self._began is not None and time.monotonic() - self._began > self.seconds:
                    self._began = None
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._thread), ctypes.py_object(OutOfTimeError)
                    )


@dataclass(frozen=True)
class _Limited:
    """An entry that is read within a limit."""

    _entry: Entry
    _limit: TimeLimit

    @property
    def id(self) -> str:
        return self._entry.id

    @property
    def targets(self) -> Mapping[str, float]:
        return self._entry.targets

    @property
    def split(self) -> str | None:
        return self._entry.split

    def digest(self) -> str:
        return self._entry.digest()

    def read(self) -> Crystal:
        return self._limit.call(self.id, self._entry.read)
