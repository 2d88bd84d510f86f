"""Which pieces are done again when workers die, counted on an executor whose deaths are known."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import pytest

from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.screen.crew import Crew, Piece


class KilledWorker(Exception):
    """Named as Dask's."""


class Pool(Executor):
    """Runs a task when it is handed in; breaks as a process pool does, with all that is pending, if one is deadly."""

    def __init__(self, is_deadly: Callable[[Sequence[str]], bool], calls: Counter[tuple[str, ...]], slots: int) -> None:
        self.is_deadly, self.calls, self.slots = is_deadly, calls, slots
        self.most = 0
        self._waiting: list[tuple[Future[Any], tuple[str, ...]]] = []
        self._is_broken = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._is_broken:
            raise BrokenProcessPool("broken")
        future: Future[Any] = Future()
        ids = tuple(item.id for item in args[0])
        self._waiting.append((future, ids))
        # Everything is begun when as much is in hand as the crew gives at most, or only one piece.
        if len(self._waiting) == 2 * self.slots or not ids:
            self.work(fn)
        else:
            self._fn = fn
        return future

    def work(self, fn: Any) -> None:
        self.most = max(self.most, len(self._waiting))
        for number, (future, ids) in enumerate(self._waiting):
            self.calls[ids] += 1
            if self.is_deadly(ids):
                self._is_broken = True
                for left, _ in self._waiting[number:]:
                    left.set_exception(BrokenProcessPool("a process was terminated abruptly"))
                break
            future.set_result(fn([Rejected(id, "") for id in ids]))
        self._waiting = []

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._waiting = []


def names(items: Sequence[Rejected]) -> list[str]:
    return [item.id for item in items]


def pieces(n: int, size: int) -> Iterator[Piece]:
    for shard in range(n):
        yield Piece(shard, 0, tuple(Rejected(f"{shard}.{place}", "") for place in range(size)))


class Works:
    """A crew on such pools, and what came of it."""

    def __init__(self, is_deadly: Callable[[Sequence[str]], bool], slots: int = 1) -> None:
        self.calls: Counter[tuple[str, ...]] = Counter()
        self.pools: list[Pool] = []
        self._is_deadly, self._slots = is_deadly, slots

    def hire(self) -> tuple[Executor, int]:
        self.pools.append(Pool(self._is_deadly, self.calls, self._slots))
        return self.pools[-1], self._slots

    def results(self, given: Iterable[Piece], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Id -> done or killed; each id once."""
        from cgcnn_jax.screen import crew as module

        real = module.wait

        def wait(pending: Any, **more: Any) -> Any:
            # What is left when the crew has no more to give begins now.
            for pool in self.pools:
                if pool._waiting:
                    pool.work(pool._fn)
            return real(pending, **more)

        monkeypatch.setattr(module, "wait", wait)
        found: dict[str, str] = {}
        with Crew(self.hire, names) as crew:
            for piece, result in crew.results(iter(given)):
                ids = [item.id for item in piece.items]
                assert not found.keys() & set(ids)
                assert result is None or result == ids
                found |= dict.fromkeys(ids, "killed" if result is None else "done")
        return found


def test_without_deaths_every_piece_is_done_once_and_few_are_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works(lambda ids: False, slots=3)
    found = works.results(pieces(20, 4), monkeypatch)
    assert set(found.values()) == {"done"}
    assert len(found) == 80
    assert set(works.calls.values()) == {1}
    assert len(works.pools) == 1
    assert works.pools[0].most == 6  # twice the tasks they do at a time


def test_workers_that_die_while_more_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Pool):
        """Two of its pieces are pending when the third finds it broken."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if len(self._waiting) == 2 and len(works.pools) == 1:
                self._is_broken = True
                for future, _ in self._waiting:
                    future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
                self._waiting = []
            return super().submit(fn, *args, **kwargs)

    works = Works(lambda ids: False, slots=2)

    def hire() -> tuple[Executor, int]:
        works.pools.append(Dying(lambda ids: False, works.calls, 2))
        return works.pools[-1], 2

    monkeypatch.setattr(works, "hire", hire)
    found = works.results(pieces(8, 2), monkeypatch)
    assert set(found.values()) == {"done"} and len(found) == 16
    assert len(works.pools) == 2
    assert set(works.calls.values()) == {1}


def test_a_cluster_that_grows_gets_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1, 1, *[3] * 20])
    works = Works(lambda ids: False, slots=3)
    hire = works.hire
    monkeypatch.setattr(works, "hire", lambda: (hire()[0], lambda: next(sizes)))
    assert len(works.results(pieces(20, 4), monkeypatch)) == 80
    assert works.pools[0].most == 6


def test_a_worker_killed_from_outside_costs_what_was_in_hand_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = iter([True])
    works = Works(lambda ids: "5.0" in ids and next(deaths, False), slots=2)
    found = works.results(pieces(12, 4), monkeypatch)
    assert set(found.values()) == {"done"} and len(found) == 48
    # Four were in hand. The deadly one was begun twice, those behind it in the broken pool only afterwards.
    assert sum(works.calls.values()) == 12 + 1
    assert len(works.pools) == 2


@pytest.mark.parametrize("slots", [1, 2])
def test_a_structure_that_kills_is_found_and_its_neighbours_are_done(
    slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Works(lambda ids: "2.5" in ids, slots)
    found = works.results(pieces(6, 8), monkeypatch)
    assert {id for id, what in found.items() if what == "killed"} == {"2.5"}
    assert len(found) == 48
    # Whole shard with others, again with others, alone; its halves of 4, 2 and 1 that hold the structure.
    assert sum(count for ids, count in works.calls.items() if "2.5" in ids) == 6


def test_killers_side_by_side_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works(lambda ids: any(id.startswith("1.") for id in ids))
    found = works.results(pieces(3, 8), monkeypatch)
    assert {id for id, what in found.items() if what == "killed"} == {f"1.{place}" for place in range(8)}
    assert len(found) == 24


def test_workers_that_die_without_a_structure_are_an_error_not_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works(lambda ids: True)
    with pytest.raises(RuntimeError, match="die even without a structure"):
        works.results(pieces(4, 1000), monkeypatch)
    assert sum(works.calls.values()) < 10


def test_dask_goes_on_with_other_workers_when_a_task_killed_some(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cluster(Pool):
        def work(self, fn: Any) -> None:
            for future, ids in self._waiting:
                self.calls[ids] += 1
                if self.is_deadly(ids):
                    future.set_exception(KilledWorker("task", "worker"))
                else:
                    future.set_result(fn([Rejected(id, "") for id in ids]))
            self._waiting = []

    works = Works(lambda ids: "0.3" in ids)

    def hire() -> tuple[Executor, int]:
        works.pools.append(Cluster(lambda ids: "0.3" in ids, works.calls, 1))
        return works.pools[-1], 1

    monkeypatch.setattr(works, "hire", hire)
    found = works.results(pieces(4, 4), monkeypatch)
    assert [id for id, what in found.items() if what == "killed"] == ["0.3"]
    assert len(found) == 16
    assert len(works.pools) == 1


def test_an_error_of_the_task_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(ids: Sequence[str]) -> bool:
        raise ValueError("the model changed")

    with pytest.raises(ValueError, match="the model changed"):
        Works(fail).results(pieces(2, 2), monkeypatch)


def _sleep(items: Sequence[Rejected]) -> None:
    time.sleep(1000)


def test_whoever_interrupts_waits_for_no_worker() -> None:
    pool, begun = ProcessPoolExecutor(1, mp_context=get_context("spawn")), []

    def interrupting() -> Iterator[Piece]:
        yield Piece(0, 0, (Rejected("a", ""),))
        begun.extend(pool._processes.values())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Crew(lambda: (pool, 1), _sleep) as crew:
        list(crew.results(interrupting()))
    (process,) = begun
    process.join(60)
    assert process.exitcode == -signal.SIGTERM


def test_without_executor_the_work_is_done_here() -> None:
    with Crew(None, names) as crew:
        assert [result for _, result in crew.results(pieces(2, 2))] == [["0.0", "0.1"], ["1.0", "1.1"]]
