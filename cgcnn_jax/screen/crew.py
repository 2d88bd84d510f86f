"""Crew: workers of any concurrent.futures executor, of which some may die.

A piece of work whose worker died is done again. If that happens twice, something in the piece may be the cause: it is
done once more with nothing beside it, and halved if it kills again, down to the one structure that no worker survives.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from cgcnn_jax.screen.shard import Item

# Worker processes, and how many tasks they do at a time, now or, for a cluster that grows, whenever asked. Called again
# when all of them are lost.
Slots = int | Callable[[], int]
Hire = Callable[[], tuple[Executor, Slots]]
# Deaths of workers in a row, with no work done in between, before they are tried without any structure.
_DEATHS = 4
# Dask's, by name, for it need not be there: of a task whose workers died, and of tasks lost with the scheduler.
_LOSSES = ("KilledWorker", "FutureCancelledError", "FuturesCancelledError", "CommClosedError")


@dataclass(frozen=True)
class Piece:
    """A shard, or a part of one.

    Attributes:
      shard: Its number.
      start: Place of the first structure in the shard.
      items: The structures.
      deaths: Of workers that had it.
    """

    shard: int
    start: int
    items: tuple[Item, ...]
    deaths: int = 0

    def halves(self) -> "tuple[Piece, Piece]":
        middle = len(self.items) // 2
        first = replace(self, items=self.items[:middle])
        return first, replace(self, start=self.start + middle, items=self.items[middle:])


class Crew:
    """Workers that do one task with every piece.

    Args:
      hire: Gives workers; None does the work in this process.
      task: Of a sequence of structures; picklable. It must do with none.
    """

    def __init__(self, hire: Hire | None, task: Callable[[Sequence[Item]], Any]) -> None:
        self._hire = hire
        self._task = task
        self._executor: Executor | None = None
        self._slots: Slots = 1
        self._pending: dict[Future[Any], Piece] = {}
        self._again: deque[Piece] = deque()
        self._suspects: deque[Piece] = deque()
        self._fruitless = 0

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # Python would wait for what is at hand before it ends, which whoever interrupts twice does not want.
        for process in (getattr(self._executor, "_processes", None) or {}).values() if kind else ():
            process.terminate()
        self._dismiss()

    def results(self, pieces: Iterator[Piece]) -> Iterator[tuple[Piece, Any]]:
        """Does the pieces and yields each, or parts of it, with its result, as they are finished.

        The result is None for a piece of one structure that kills its workers. At most twice as many pieces are
        taken as there are workers.

        Raises:
          RuntimeError: If workers die without any structure.
        """
        if self._hire is None:
            for piece in pieces:
                yield piece, self._task(piece.items)
            return
        while True:
            self._submit(pieces)
            if not self._pending:
                return
            is_alone = len(self._pending) == 1
            done = wait(self._pending, return_when=FIRST_COMPLETED).done
            died: list[BaseException] = []
            # One death takes a process pool with all that it has in hand.
            while done:
                for future in done:
                    piece = self._pending.pop(future)
                    try:
                        result = future.result()
                    except (Exception, CancelledError) as error:
                        if not _is_death(error):
                            raise
                        died.append(error)
                        yield from self._bury(replace(piece, deaths=piece.deaths + 1), is_alone)
                    else:
                        self._fruitless = 0
                        yield piece, result
                is_broken = any(not _is_survived(error) for error in died)
                done = wait(self._pending).done if is_broken and self._pending else set()
            if died:
                self._go_on_after(died[-1])

    def _submit(self, pieces: Iterator[Piece]) -> None:
        """Gives the workers something to do; suspects one at a time."""
        self._hired()
        slots = self._slots if isinstance(self._slots, int) else self._slots()
        while not self._suspects and len(self._pending) < 2 * max(slots, 1):
            piece = self._again.popleft() if self._again else next(pieces, None)
            if piece is None or not self._start(piece):
                break
        if not self._pending and self._suspects:
            self._start(self._suspects.popleft())

    def _start(self, piece: Piece) -> bool:
        """Hands a piece in. False if the workers just died: what they had must be seen to first."""
        for _ in range(_DEATHS):
            executor = self._hired()
            try:
                self._pending[executor.submit(self._task, piece.items)] = piece
                return True
            except BrokenExecutor:
                if self._pending:
                    self._again.appendleft(piece)
                    return False
                self._dismiss()
        raise RuntimeError(f"the workers die before they have done anything; {_ADVICE}")

    def _bury(self, piece: Piece, is_alone: bool) -> Iterator[tuple[Piece, None]]:
        """Decides what becomes of a piece whose worker died."""
        if piece.deaths == 1:
            self._again.append(piece)
        elif not is_alone:
            self._suspects.append(piece)
        elif len(piece.items) > 1:
            self._suspects.extendleft(reversed(piece.halves()))
        else:
            yield piece, None

    def _go_on_after(self, error: BaseException) -> None:
        if not _is_survived(error):
            self._dismiss()
        self._fruitless += 1
        if self._fruitless % _DEATHS == 0:
            try:
                self._hired().submit(self._task, ()).result()
            except Exception as second:
                if not _is_death(second):
                    raise
                raise RuntimeError(
                    f"the workers die even without a structure ({type(second).__name__}: {second}); {_ADVICE}"
                ) from second

    def _hired(self) -> Executor:
        if self._executor is None:
            assert self._hire is not None
            self._executor, self._slots = self._hire()
        return self._executor

    def _dismiss(self) -> None:
        if self._executor is not None:
            for future in self._pending:
                future.cancel()
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None


_ADVICE = "have they enough memory? What they wrote before may tell"


def _is_death(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor | CancelledError) or type(error).__name__ in _LOSSES


def _is_survived(error: BaseException) -> bool:
    """Whether the other workers go on."""
    return type(error).__name__ == "KilledWorker"
