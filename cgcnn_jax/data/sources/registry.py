"""The sources by name: how each reads what a configuration asks for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cgcnn_jax.data import sets
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.sources import ase, cdvae, demo, directory, files, jarvis, jsonl, matbench
from cgcnn_jax.data.splits import NAMES
from cgcnn_jax.data.tasks import Task


@dataclass(frozen=True)
class Request:
    """What a configuration asks of a source.

    Attributes:
      path: File or folder; empty for the embedded demo, or for a set that experiments.fetch has brought.
      targets: Properties to learn.
      columns: Names of columns that have none of their own.
      task: A benchmark's task.
    """

    path: str = ""
    targets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    task: str = ""

    @property
    def place(self) -> Path:
        return Path(self.path).expanduser()


@dataclass(frozen=True)
class Source:
    """A source.

    Attributes:
      read: Reads a request whose path is not empty, the demo's excepted.
      fetched: The set (data.sets) that an empty path means; None if there is none.
      units: Of the targets whose unit the source knows.
      task: A task by its name, None for an empty one; raises ValueError for a name it does not know.
      has_split: Whether its crystals come with an official split.
    """

    read: Callable[[Request], Iterator[Entry | Rejected]]
    fetched: Callable[[Request], str | None] = lambda request: None
    units: Mapping[str, str] = field(default_factory=dict)
    task: Callable[[str], Task | None] = lambda name: None
    has_split: Callable[[Request], bool] = lambda request: False


def _read_demo(request: Request) -> Iterator[Entry | Rejected]:
    if request.path:
        raise ValueError(
            f"config.data.path={request.path} names crystals, and config.data.source=demo takes the embedded ones; set "
            "config.data.source (directory, jsonl, ...; docs/data.md) to that of the crystals, or config.data.path to nothing"
        )
    return demo.read_demo()


def _read_files(request: Request) -> Iterator[Entry | Rejected]:
    names = (name.strip() for name in request.path.split(","))
    return files.read_files(Path(name).expanduser() for name in names if name)


def _read_jarvis(request: Request) -> Iterator[Entry | Rejected]:
    benchmark = None
    if request.task:
        if request.task in sets.SETS and jarvis.is_lines(request.place):
            return jarvis.read_task_lines(request.place, jarvis.task_of(request.task), request.targets)
        benchmark = sets.locate(request.task) if request.task in sets.SETS else Path(request.task).expanduser()
        if not benchmark.is_file():
            known = ", ".join(one.name for one in sets.SETS.values() if one.benchmark)
            raise FileNotFoundError(f"data.task={request.task}: no such file, and no benchmark among {known}")
    return jarvis.read_jarvis(request.place, benchmark, request.targets)


SOURCES: dict[str, Source] = {
    "demo": Source(_read_demo),
    "jsonl": Source(lambda request: jsonl.read_jsonl(request.place)),
    "directory": Source(
        lambda request: directory.read_directory(request.place, request.columns or request.targets, request.targets)
    ),
    "files": Source(_read_files),
    "matbench": Source(
        lambda request: matbench.read_matbench(request.place, request.task),
        fetched=lambda request: matbench.task_of(request.task).name,
        units=matbench.UNITS,
        task=lambda name: matbench.task_of(name) if name else None,
        has_split=lambda request: True,
    ),
    "jarvis": Source(
        _read_jarvis,
        # The leaderboard was made of the set of 2021.
        fetched=lambda request: (
            "jarvis_megnet" if jarvis.task_of(request.task).suite == "mp_2018_6_1" else "jarvis_dft_3d_2021"
        ),
        units=jarvis.UNITS,
        task=lambda name: jarvis.task_of(name) if name else None,
        has_split=lambda request: bool(request.task),
    ),
    "cdvae": Source(
        lambda request: cdvae.read_cdvae(request.place),
        fetched=lambda request: request.task or None,
        units=cdvae.UNITS,
        # Of a folder; a table of another name has none.
        has_split=lambda request: request.place.suffix != ".csv" or request.place.stem in NAMES,
    ),
    "ase": Source(lambda request: ase.read_ase(request.place), units={"energy": "eV", "energy_per_atom": "eV/atom"}),
}


def read(name: str, request: Request) -> Iterator[Entry | Rejected]:
    """The crystals of a source; an empty path means the fetched set. Raises FileNotFoundError if that is not there."""
    source = SOURCES[name]
    if not request.path and (wanted := source.fetched(request)):
        request = Request(str(sets.locate(wanted)), request.targets, request.columns, request.task)
    return source.read(request)
