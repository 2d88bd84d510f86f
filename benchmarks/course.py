"""The course of a long run: its memory and CPU time against what is done, as figures, a table and a picture."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks import footprint
from cgcnn_jax.files import write_figure, write_text

Quantity = Literal["anonymous", "resident"]
_TENTHS = 10


@dataclass(frozen=True)
class Look:
    """What was seen at one moment; memory in bytes, of the command and of all processes below it together.

    Attributes:
      seconds: Since the run began.
      cpu: CPU seconds so far, of all processes.
      done: Items done.
      anonymous: Resident memory that stands for no file: of the command, of those below.
      resident: Resident memory (RSS): of the command, of those below.
    """

    seconds: float
    cpu: float
    done: int
    anonymous: tuple[int, int]
    resident: tuple[int, int]


@dataclass
class Course:
    """All looks at a run, in order.

    Attributes:
      name: Of what was run.
      items: What is counted, such as "structures".
    """

    name: str
    items: str
    looks: list[Look] = field(default_factory=list)

    def watch(
        self,
        process: subprocess.Popen[bytes],
        done: Callable[[], int | None],
        *,
        every: float = 1.0,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Looks until the process ends, or `until` is true; done() is None while nothing is counted."""
        began = time.monotonic()
        while process.poll() is None and not until():
            count = done()
            if count is not None:
                self.looks.append(_look(process.pid, time.monotonic() - began, count))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(every)
        self.trim()

    def save(self, folder: Path) -> None:
        """Keeps the looks in NAME.json."""
        write_text(folder / f"{self.name}.json", json.dumps([asdict(look) for look in self.looks]))

    def trim(self) -> None:
        """Leaves out what was seen before the count first grew, and once it was at its end: processes that start and end."""
        if not self.looks:
            raise RuntimeError(f"{self.name} was over before it was looked at; take more {self.items}, or see its log")
        counts = [look.done for look in self.looks]
        self.looks = self.looks[counts.count(counts[0]) : counts.index(counts[-1]) + 1]

    def per_item(self, quantity: Quantity, start: float, stop: float) -> np.ndarray:
        """Memory of all processes (bytes) at the looks where a share of the items from start to stop was done."""
        done = np.array([look.done for look in self.looks])
        chosen = (done >= start * done[-1]) & (done <= stop * done[-1])
        return np.array([sum(getattr(look, quantity)) for look in self.looks])[chosen]

    def growth(self, quantity: Quantity) -> float:
        """Mean memory while the last quarter was done, against that of the second quarter: 1 is flat."""
        return float(self.per_item(quantity, 0.75, 1).mean() / self.per_item(quantity, 0.25, 0.5).mean())

    def slope(self, quantity: Quantity) -> float:
        """Bytes a 100,000 items, of a line fitted to all looks after the first quarter of the items."""
        looks = [look for look in self.looks if look.done >= 0.25 * self.looks[-1].done]
        done = np.array([look.done for look in looks], float)
        memory = np.array([sum(getattr(look, quantity)) for look in looks], float)
        return float(1e5 * np.polyfit(done, memory, 1)[0]) if np.ptp(done) else 0.0

    def rates(self, of: Literal["cpu", "seconds"] = "cpu") -> np.ndarray:
        """Items a second (of CPU time, or by the clock) in each tenth of the items, [10]."""
        # The first look at each count: between two counts nothing is known to be done.
        first = {look.done: look for look in reversed(self.looks)}
        looks = [first[count] for count in sorted(first)]
        done = np.array([look.done for look in looks], float)
        marks = np.linspace(done[0], done[-1], _TENTHS + 1)
        return np.diff(marks) / np.diff(np.interp(marks, done, [getattr(look, of) for look in looks]))

    def slowdown(self, of: Literal["cpu", "seconds"] = "cpu") -> float:
        """The rate of the last tenth against the mean of the first three: 1 is as fast as in the beginning."""
        rates = self.rates(of)
        return float(rates[-1] / rates[:3].mean())

    def rows(self) -> list[tuple[str, str]]:
        """Of a table: what, and its figure."""
        last = self.looks[-1]
        peaks = {name: max(sum(getattr(look, name)) for look in self.looks) / 1e6 for name in ("anonymous", "resident")}
        return [
            (f"{self.name}: {self.items}", f"{last.done - self.looks[0].done:,}"),
            (
                "time; CPU time",
                f"{last.seconds - self.looks[0].seconds:,.0f} s; {last.cpu - self.looks[0].cpu:,.0f} s",
            ),
            ("anonymous memory, peak", f"{peaks['anonymous']:,.0f} MB"),
            ("... mean of the last quarter / of the second", f"{self.growth('anonymous'):.3f}"),
            ("... slope", f"{self.slope('anonymous') / 1e6:+.1f} MB per 100,000"),
            ("resident memory with pages of files, peak", f"{peaks['resident']:,.0f} MB"),
            (
                f"{self.items}/s of CPU time: first three tenths; last",
                f"{self.rates()[:3].mean():,.0f}; {self.rates()[-1]:,.0f} ({self.slowdown():.2f})",
            ),
            (
                f"{self.items}/s by the clock: first three tenths; last",
                f"{self.rates('seconds')[:3].mean():,.0f}; {self.rates('seconds')[-1]:,.0f} "
                f"({self.slowdown('seconds'):.2f})",
            ),
        ]


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Markdown."""
    return "\n".join(["| what | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)])


def draw(courses: Sequence[Course], file: Path) -> None:
    """A column a course: memory above, rate below, both against what is done."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(courses), 5.6), layout="constrained")
    axes = figure.subplots(2, len(courses), squeeze=False)
    lines: Mapping[str, tuple[Quantity, int]] = {
        "anonymous, command": ("anonymous", 0),
        "anonymous, workers": ("anonymous", 1),
        "with pages of files, command": ("resident", 0),
    }
    for (above, below), course in zip(axes.T, courses, strict=True):
        done = np.array([look.done for look in course.looks]) / 1e3
        for label, (quantity, which) in lines.items():
            memory = np.array([getattr(look, quantity)[which] for look in course.looks]) / 1e6
            if memory.any():
                above.plot(done, memory, label=label, linewidth=1)
        above.set(title=course.name, ylabel="memory (MB)", ylim=(0, None))
        above.legend(fontsize="small")
        middle = np.linspace(done[0], done[-1], 2 * _TENTHS + 1)[1::2]
        below.plot(middle, course.rates("cpu"), "o-", markersize=3, label="of CPU time")
        below.plot(middle, course.rates("seconds"), "o-", markersize=3, label="by the clock")
        below.set(xlabel=f"{course.items} done (thousands)", ylabel=f"{course.items} per second", ylim=(0, None))
        below.legend(fontsize="small")
        for one in (above, below):
            one.set_xlim(0, done[-1])
            one.grid(alpha=0.3)
    write_figure(file, figure)


def _look(pid: int, seconds: float, done: int) -> Look:
    below = footprint.tree(pid)[1:]
    return Look(
        seconds,
        sum(footprint.cpu_seconds(one) for one in (pid, *below)),
        done,
        (footprint.anonymous(pid), sum(map(footprint.anonymous, below))),
        (footprint.resident(pid), sum(map(footprint.resident, below))),
    )
