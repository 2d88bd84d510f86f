"""screen: structures and models in, a folder of predictions out; the same call goes on where it was stopped."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cgcnn_jax.ensemble import Ensemble
from cgcnn_jax.judging import JudgingPredictor
from cgcnn_jax.predict import Predictor
from cgcnn_jax.screen import worker
from cgcnn_jax.screen.crew import Crew, Hire, Piece
from cgcnn_jax.screen.output import FORMATS, Format, Output, is_told, pyarrow
from cgcnn_jax.screen.shard import Item, Shard, cut
from cgcnn_jax.workdir import versions

Place = Literal["worker", "parent"]


@dataclass(frozen=True)
class Top:
    """Which structures are the best.

    Attributes:
      k: How many.
      by: Column to rank by; may be empty where there is one of numbers.
      highest: Whether high values are good.
    """

    k: int
    by: str = ""
    highest: bool = False

    def column_of(self, columns: Mapping[str, str]) -> str:
        """The column, of those of a manifest. Raises ValueError if it is not there, or not clear."""
        known = [name for name, kind in columns.items() if kind == "number"]
        if self.k < 1:
            raise ValueError(f"the best {self.k} structures are none; ask for at least 1")
        if self.by and self.by not in known:
            raise ValueError(f"no column {self.by!r} to rank by (--by); choose one of {', '.join(known)}")
        if not self.by and len(known) > 1:
            raise ValueError(f"name the column to rank by with --by=COLUMN; there are {', '.join(known)}")
        return self.by or known[0]


@dataclass(frozen=True)
class Screening:
    """How a screening stands.

    Attributes:
      output: Its folder.
      is_finished: False if it was stopped; the same call goes on.
      shards: Finished ones.
      rows: Structures in them.
      predicted: Of these, with a prediction.
      failed: Of these, without; each has a reason.
      new_rows: Of these, by this call.
      seconds: Taken by this call.
    """

    output: Output
    is_finished: bool
    shards: int
    rows: int
    predicted: int
    failed: int
    new_rows: int
    seconds: float


def screen(
    items: Iterable[Item],
    models: Sequence[str | Path | Sequence[str | Path]],
    output: str | Path,
    *,
    described: Sequence[str] = (),
    hire: Hire | None = None,
    predict: Place = "worker",
    shard_size: int = 1000,
    format: Format = "parquet",
    time_limit: float = 60.0,
    top: Top | None = None,
    judge: bool = False,
    on_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Screening:
    """Predicts for any number of structures with one or several models.

    Args:
      items: The structures, in the same order in every call; gone through once.
      models: Work directories of training runs, which workers must see too; several in one place are an Ensemble.
      output: Folder of the result; see screen.output.
      described: Names the input in the manifest.
      hire: Gives an executor of processes and the number of tasks it does at a time, or a function that tells it; called
        again when the executor breaks. None works in this process, which a structure can then take with it.
      predict: "worker" leaves all of the work to the workers; "parent" has them build the graphs, and predicts in this
        process, for a machine with one accelerator.
      shard_size: Structures that are sent to a worker at a time. What is in flight when something fails is done again.
      format: Of the parts.
      time_limit: Seconds for reading a structure, and again for its graph; it has a reason instead if it takes longer.
      top: Writes top.csv at the end; None writes none.
      judge: Adds the column `outside` of each model, by its applicability.npz; see JudgingPredictor.
      on_progress: Called with the number of structures done since the last call, those of earlier calls included.
      should_stop: Asked before each shard; True finishes those in flight and returns.

    Returns:
      Counts. The rows lie in the folder, and `Screening.output` reads them.

    Raises:
      ValueError: If a setting is wrong, the folder belongs to another screening, the input changed since the shards in
        it were made, or a model did.
      FileNotFoundError: If a model or an input is not there.
      OSError: If the folder cannot be written.
      RuntimeError: If workers die whatever they are given.
    """
    began = time.monotonic()
    _check(models, predict, shard_size, format, time_limit)
    places = [(model,) if isinstance(model, str | Path) else tuple(model) for model in models]
    predictors = [worker.restore(place, judges=judge) for place in places]
    named = _named(places, predictors)
    columns = _columns(named, predictors)
    ranked_by = top.column_of(columns) if top else ""
    manifest = {
        "models": [{"name": model.name, "digest": model.digest} for model in named],
        "workdirs": [", ".join(model.workdirs) for model in named],
        "input": list(described),
        "shard_size": shard_size,
        "format": format,
        "columns": columns,
        "versions": versions(),
    }
    featurizers = tuple(dict.fromkeys(predictor.featurizer for predictor in predictors))
    build = worker.Build(featurizers, time_limit, hire is not None)
    in_parent = predict == "parent" or hire is None

    def rows_of(result: Any) -> pd.DataFrame:
        return worker.predict(named, predictors, featurizers, result) if in_parent else result

    task = build if in_parent else worker.BuildAndPredict(build, named)
    folder, report = Output(output), on_progress or (lambda done: None)
    source = _Source(cut(items, shard_size), should_stop or (lambda: False))
    with folder.open(manifest), Crew(hire, task) as crew:
        before = folder.count()["rows"]
        gathered = _Gathered()
        for piece, result in crew.results(source.pieces(folder, report)):
            table = _killed(piece, columns) if result is None else rows_of(result)
            shard, digest = source.in_flight[piece.shard]
            whole = gathered.add(shard, piece, table)
            if whole is not None:
                del source.in_flight[piece.shard]
                folder.write(piece.shard, whole, digest)
                report(len(whole))
        counts = folder.count()
        done = Screening(
            folder,
            is_finished=not source.is_stopped,
            **counts,
            new_rows=counts["rows"] - before,
            seconds=time.monotonic() - began,
        )
        if done.is_finished:
            source.check_end(folder)
            folder.write_summary(counts)
            if top:
                folder.write_best(ranked_by, top.k, highest=top.highest)
    return done


class _Source:
    """The shards that are still to be done, and those under way."""

    def __init__(self, shards: Iterator[Shard], should_stop: Callable[[], bool]) -> None:
        # With its digest from before it is read: a file may be written meanwhile.
        self.in_flight: dict[int, tuple[Shard, str]] = {}
        self.is_stopped = False
        self._shards = shards
        self._should_stop = should_stop
        self._n_shard = 0

    def pieces(self, folder: Output, report: Callable[[int], None]) -> Iterator[Piece]:
        """Raises ValueError if a finished shard is not what the input now holds."""
        total = folder.total
        for shard in self._shards:
            if total is not None and shard.number >= total:
                raise ValueError(
                    f"{folder.path}: the input grew since this screening was finished with {folder.count()['rows']} "
                    "structures. Choose another --output, or restore the input"
                )
            self._n_shard = shard.number + 1
            finished = folder.finished.get(shard.number)
            if finished is not None:
                if finished["digest"] != shard.digest():
                    raise ValueError(f"{folder.path}: {_CHANGED.format(shard.number, len(shard.items))}")
                report(len(shard.items))
                continue
            if self._should_stop():
                self.is_stopped = True
                return
            self.in_flight[shard.number] = shard, shard.digest()
            yield Piece(shard.number, 0, shard.items)

    def check_end(self, folder: Output) -> None:
        """Raises ValueError if there are more finished shards than the input has."""
        beyond = [number for number in folder.finished if number >= self._n_shard]
        if beyond:
            raise ValueError(f"{folder.path}: {_CHANGED.format(min(beyond), 0)}")


_CHANGED = (
    "the input changed since this screening began: shard {} was made of other structures than the {} that now stand "
    "there. Choose another --output, or restore the input"
)


class _Gathered:
    """Rows of shards that were taken apart."""

    def __init__(self) -> None:
        self._tables: dict[int, dict[int, pd.DataFrame]] = {}

    def add(self, shard: Shard, piece: Piece, table: pd.DataFrame) -> pd.DataFrame | None:
        """The rows of the shard once all are there."""
        tables = self._tables.setdefault(shard.number, {})
        tables[piece.start] = table
        if sum(len(one) for one in tables.values()) < len(shard.items):
            return None
        del self._tables[shard.number]
        # Empty columns have no type of their own.
        ordered = [tables[start].astype(object) if len(tables) > 1 else tables[start] for start in sorted(tables)]
        return pd.concat(ordered, ignore_index=True)


def _check(models: Sequence[object], predict: str, shard_size: int, format: str, time_limit: float) -> None:
    if not models:
        raise ValueError("screening needs a model; name the work directory of a training run")
    if predict not in ("worker", "parent"):
        raise ValueError(f"predict must be worker or parent; got {predict!r}")
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1; got {shard_size}")
    if time_limit <= 0:
        raise ValueError(f"time_limit must be above 0 s; got {time_limit:g}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    if format == "parquet":
        pyarrow()


def _named(
    models: Sequence[Sequence[str | Path]], predictors: Sequence[Predictor | Ensemble | JudgingPredictor]
) -> tuple[worker.Model, ...]:
    """The models, named by their first folders, or by the paths of all where two would have one name."""
    paths = [tuple(Path(place).expanduser().absolute() for place in places) for places in models]
    if len(set(paths)) < len(paths):
        raise ValueError(f"the same model is named twice among {', '.join(str(places[0]) for places in models)}")
    names = [first.name for first, *_ in paths]
    if len(set(names)) < len(names):
        names = [", ".join(map(str, places)) for places in models]
    return tuple(
        worker.Model(name, tuple(map(str, own)), predictor.digest(), isinstance(predictor, JudgingPredictor))
        for name, own, predictor in zip(names, paths, predictors, strict=True)
    )


def _columns(
    models: Sequence[worker.Model], predictors: Sequence[Predictor | Ensemble | JudgingPredictor]
) -> dict[str, str]:
    """Name -> text or number, of the parts."""
    found = {"id": "text", "formula": "text"}
    for model, predictor in zip(models, predictors, strict=True):
        lead = f"{model.name}:" if len(models) > 1 else ""
        found |= {f"{lead}{name}": "text" if name in ("unit", "outside") else "number" for name in predictor.columns()}
    return found | {"reason": "text"}


def _killed(piece: Piece, columns: Mapping[str, str]) -> pd.DataFrame:
    """The row of a structure that no worker survives."""
    id = piece.items[0].id
    row = {name: "" if is_told(name) else None for name in columns} | {
        "id": id,
        "reason": f"{id}: killed its worker, alone and in company",
    }
    return pd.DataFrame([row])
