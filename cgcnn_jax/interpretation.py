"""Interpretation: a folder of tables about structures, made a portion at a time.

parts/KEY/         of each portion that is done: its tables, its structures, and drawn.npz, what the pictures need
NAME.csv           the tables of all portions, and structures/, once all are done; there are no parts then

A portion's folder appears whole or not at all, and its key is a digest of all that its tables depend on. So a call that was
stopped goes on with the portions that are missing, and parts of another model or of changed input are no use to it.
"""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cgcnn_jax import interpret
from cgcnn_jax.applicability import Applicability
from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.data.sources import CrystalLine
from cgcnn_jax.files import locked
from cgcnn_jax.graph import concatenate
from cgcnn_jax.interpret import Explanation
from cgcnn_jax.predict import Predictor
from cgcnn_jax.scaling import with_units
from cgcnn_jax.screen.shard import Item, cut

TABLES = ("embeddings", "sites", "bonds", "neighbours")
_PORTION = 256  # structures that are explained again at most where a call was stopped
_LONGEST = 24  # letters of a name in a picture
_Explained = Sequence[Explanation | Rejected]


class Interpretation:
    """The folder; `open` it, `make` its portions, then `finish` it.

    Attributes:
      path: Where.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._parts: list[Path] = []

    def check(self, inputs: Iterable[str | Path] = ()) -> None:
        """Whether the folder may be written.

        Args:
          inputs: Files and folders of the structures.

        Raises:
          ValueError: If it is a file, holds folders of others that would be replaced, or lies in a folder of the input, whose
            structures its own would then be.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--output={self.path} is a file; name a folder")
        is_ours = (self.path / "embeddings.csv").exists() or (self.path / "parts" / ".lock").exists()
        for name in () if is_ours else ("structures", "parts"):
            if (self.path / name).exists():
                raise ValueError(
                    f"--output={self.path} holds {name}, which is of no interpretation and would be replaced; name another folder"
                )
        for folder in (Path(one).expanduser() for one in inputs):
            if folder.is_dir() and self.path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(
                    f"--output={self.path} lies in --input={folder}, so that structures written there would be read as well; "
                    "name a folder outside of it"
                )

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Makes the folder, and keeps other processes out.

        Raises:
          ValueError: If another process is at it, or the folder is a file.
        """
        self.check()
        (self.path / "parts").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._trash, ignore_errors=True)
        with locked(self.path / "parts" / ".lock", f"another process is writing {self.path}; choose another --output"):
            yield

    def make(
        self,
        predictor: Predictor,
        items: Iterable[Item],
        *,
        known: Applicability | None = None,
        k: int = 5,
        portion: int = _PORTION,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Explains the structures whose portions are missing.

        Args:
          predictor: A trained model.
          items: The structures, gone through once.
          known: What it was trained on, for the table of neighbours.
          k: Nearest training crystals in that.
          portion: Structures that are explained, and kept, together.
          on_progress: Called with the number of structures done since the last call, those of earlier calls included.
        """
        # The first says what a part holds.
        settings = ["with labels and names", predictor.digest(), repr(known and (known.digest(), k))]
        self._parts = []
        for shard in cut(items, portion):
            # The place too: equal portions may stand in the input twice.
            key = _digest([*settings, str(shard.number), shard.digest()])
            part = self.path / "parts" / key
            if not part.exists():
                entries = [item.parse() if isinstance(item, CrystalLine) else item for item in shard.items]
                self._write(part, predictor, list(interpret.explain(predictor, entries)), known, k)
            self._parts.append(part)
            if on_progress:
                on_progress(len(shard.items))

    def drawn(self) -> dict[str, np.ndarray]:
        """What pictures show of all portions; empty if there is none.

        Returns:
          n_done and n_failed [n_portion]; of each structure explained vectors [n, d], values [n] (the first property), ids
          [n] (their first letters) and is_outside [n]; of each bond distances, gates and messages, as in interpret.Bonds.
        """
        found: dict[str, list[np.ndarray]] = {}
        for part in self._parts:
            with np.load(part / "drawn.npz") as arrays:
                for name in arrays:
                    found.setdefault(name, []).append(arrays[name])
        return {name: np.concatenate(pieces) for name, pieces in found.items()}

    def finish(self) -> None:
        """Joins the tables of the portions, puts the structures in place, and removes the parts.

        A table that no portion has is removed, and so are structures where there are none: those of an earlier call would
        be taken for this one's.
        """
        for name in TABLES:
            self._join(name)
        gathered, whole = self.path / "parts" / "structures", self.path / "structures"
        self._gather(gathered)
        shutil.rmtree(whole, ignore_errors=True)
        if gathered.exists():
            gathered.rename(whole)
        # All at once: a call that is stopped here must not leave some of the parts.
        gathered.parent.rename(self._trash)
        shutil.rmtree(self._trash)

    def _write(
        self,
        part: Path,
        predictor: Predictor,
        explained: _Explained,
        known: Applicability | None,
        k: int,
    ) -> None:
        folder = Path(tempfile.mkdtemp(dir=part.parent, prefix=".part-"))
        tables = {"embeddings": embedding_table(predictor, explained)}
        if predictor.model.pool == "site":
            tables["sites"] = interpret.site_table(predictor, explained)
            interpret.write_structures(predictor, _done(explained), folder / "structures")
        if predictor.model.conv != "sum":
            tables["bonds"] = interpret.bond_table(explained)
        if known:
            tables["neighbours"] = neighbour_table(predictor, known, explained, k)
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", float_format="%.8g")
        np.savez(folder / "drawn.npz", **_drawn(predictor, explained, tables))  # type: ignore[arg-type]
        folder.rename(part)

    def _join(self, name: str) -> None:
        pieces = [part / f"{name}.csv" for part in self._parts if (part / f"{name}.csv").exists()]
        if not pieces:
            (self.path / f"{name}.csv").unlink(missing_ok=True)
            return
        whole, header = self.path / "parts" / f"{name}.csv", b""
        with whole.open("wb") as joined:
            for piece in pieces:
                with piece.open("rb") as lines:
                    first, rest = lines.readline(), lines.read()
                # A portion without a row may lack columns.
                if rest and not header:
                    joined.write(header := first)
                joined.write(rest)
            if not header:
                joined.write(first)
        whole.replace(self.path / f"{name}.csv")

    def _gather(self, folder: Path) -> None:
        """The structures of all portions in one folder, where those of one name are numbered."""
        shutil.rmtree(folder, ignore_errors=True)
        used: set[str] = set()
        for part in self._parts:
            if not (part / "structures").exists():
                continue
            folder.mkdir(exist_ok=True)
            of_part: set[str] = set()
            for id in _explained_ids(part):
                here, there = interpret.new_name(id, of_part), interpret.new_name(id, used)
                for ending in (".cif", ".json"):
                    shutil.copyfile(part / "structures" / f"{here}{ending}", folder / f"{there}{ending}")

    @property
    def _trash(self) -> Path:
        return self.path / ".parts"


def embedding_table(predictor: Predictor, explained: _Explained) -> pd.DataFrame:
    """A row per structure: id, formula, v_0, v_1, ... (the pooled vector), reason."""
    width = predictor.model.features
    rows = [
        [one.id, *[None] * (1 + width), one.reason]
        if isinstance(one, Rejected)
        else [one.id, one.crystal.formula, *one.vector, ""]
        for one in explained
    ]
    return pd.DataFrame(rows, columns=["id", "formula", *(f"v_{k}" for k in range(width)), "reason"])


def neighbour_table(predictor: Predictor, known: Applicability, explained: _Explained, k: int) -> pd.DataFrame:
    """A row per structure: id, formula, prediction, is_outside, outside (why), threshold, nearest training crystals, reason.

    Each of the k nearest has its id, formula, distance and, if they are known, its labels.
    """
    done = _done(explained)
    k = min(k, len(known.ids))
    scaler, has_labels = predictor.scaler, known.labels.shape[1] > 0
    columns = [*predictor.columns(), "is_outside", "outside", "threshold"]
    for n in range(1, k + 1):
        columns += [f"neighbour_{n}", f"formula_{n}", f"distance_{n}"]
        columns += with_units([f"{name}_{n}" for name in scaler.names], scaler.units) if has_labels else []
    judged = {}
    if done:
        empty = np.array([one.vacuum for one in done])
        found = known.judge(concatenate([one.graphs for one in done]), empty, np.stack([one.vector for one in done]), k)
        for one, distances, places, reason in zip(done, *found, strict=True):
            cells = [*predictor.scaler.cells(one.values), bool(reason), reason, known.threshold]
            for place, distance in zip(places, distances, strict=True):
                cells += [known.ids[place], known.formulas[place], distance, *known.labels[place]]
            judged[id(one)] = cells
    rows = [
        [one.id, None, *[None] * len(columns), one.reason]
        if isinstance(one, Rejected)
        else [one.id, one.crystal.formula, *judged[id(one)], ""]
        for one in explained
    ]
    return pd.DataFrame(rows, columns=["id", "formula", *columns, "reason"])


def _drawn(predictor: Predictor, explained: _Explained, tables: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """See Interpretation.drawn."""
    done = _done(explained)
    bonds = [one.bonds for one in done if one.bonds is not None]
    found = {
        "n_done": np.array([len(done)]),
        "n_failed": np.array([len(explained) - len(done)]),
        "vectors": np.array([one.vector for one in done], np.float32).reshape(-1, predictor.model.features),
        "values": np.array([one.values[0] for one in done]),
        "ids": np.array([one.id[:_LONGEST] for one in done], str),
    }
    if "neighbours" in tables:
        table = tables["neighbours"]
        found["is_outside"] = table.loc[table["reason"] == "", "is_outside"].to_numpy(bool)
    for name in ("distances", "gates", "messages") if bonds else ():
        found[name] = np.concatenate([getattr(one, name) for one in bonds])
    return found


def _done(explained: _Explained) -> list[Explanation]:
    return [one for one in explained if not isinstance(one, Rejected)]


def _explained_ids(part: Path) -> list[str]:
    """Of a portion, those that could be explained."""
    # Nothing is missing there: an id may be called null.
    table = pd.read_csv(part / "embeddings.csv", usecols=["id", "reason"], dtype=str, keep_default_na=False)
    return table.loc[table["reason"] == "", "id"].tolist()


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()[:32]
