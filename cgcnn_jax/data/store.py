"""Graphs on disk: built once per content and settings, in parallel, and memory-mapped ever after.

A store is a folder named by a digest of every crystal's content and of the featurizer:
  KEY/           one .npy file per array of CrystalGraphs, atom_node.npy, n_atom.npy, vacuum.npy, index.json with their
                 checksums; whole or absent, and built anew if a checksum differs
  KEY.parts/     finished chunks of a store being built; a stopped build goes on from them, and removes what else it left
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cgcnn_jax.data.crystal import CrystalError, Entry, Rejected, reduced_formula
from cgcnn_jax.data.featurize import Featurize
from cgcnn_jax.files import write_bytes
from cgcnn_jax.graph import CrystalGraphs, PadBudget, concatenate, offsets, select, unpad

# Raise when the arrays change their meaning, or other crystals are refused: old stores are then built anew, never misread.
FORMAT = 7
_CHUNK = 256
# Starting worker processes takes as long as building this many chunks.
_MIN_CHUNKS = 8


class ChangedError(ValueError):
    """Crystals that were others when their graphs were built than when they were looked through."""

    # With an argument, as workers send it.
    def __init__(self, message: str = "the data changed while they were read; start again once they are complete"):
        super().__init__(message)


@dataclass(frozen=True, eq=False)
class GraphStore:
    """Graphs of many crystals, host arrays (memory-mapped when they come from disk).

    Attributes:
      ids: Crystal ids, in order.
      graphs: All graphs, unpadded.
      atom_node: For every atom of every crystal, its node within its own crystal, i32[n_atom in all].
      n_atom: Atoms of each crystal, i32[n_graph].
      vacuum: Thickest empty layer of each, Å, f32[n_graph]; see `vacuum.thickness`.
      rejected: Crystals that have no graph, and why.
    """

    ids: tuple[str, ...]
    graphs: CrystalGraphs
    atom_node: np.ndarray
    n_atom: np.ndarray
    vacuum: np.ndarray
    rejected: tuple[Rejected, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_seen(self) -> int:
        """Crystals with and without a graph."""
        return len(self.ids) + len(self.rejected)

    def take(self, index: np.ndarray) -> CrystalGraphs:
        """The graphs of some crystals, unpadded, in the order of `index`."""
        node, edge = int(self.graphs.n_node[index].sum()), int(self.graphs.n_edge[index].sum())
        return unpad(select(self.graphs, index, PadBudget(node + 1, edge, len(index) + 1)))

    def nodes_of_atoms(self, place: int) -> np.ndarray:
        """The node of `graphs` that stands for each atom of one crystal, i64[n_atom of the crystal]."""
        atoms = slice(self._atom_start[place], self._atom_start[place] + self.n_atom[place])
        return self._node_start[place] + self.atom_node[atoms]

    @cached_property
    def _atom_start(self) -> np.ndarray:
        return np.cumsum(self.n_atom, dtype=np.int64) - self.n_atom

    @cached_property
    def _node_start(self) -> np.ndarray:
        return offsets(self.graphs).node

    def formulas(self) -> list[str]:
        """Reduced formula of each crystal."""
        return formulas(self.graphs)


def formulas(graphs: CrystalGraphs) -> list[str]:
    """Reduced formula of each crystal, from its graph."""
    ends = np.cumsum(graphs.n_node)
    species, weight = graphs.species, graphs.node_weight
    return [
        reduced_formula(species[end - n : end], weight[end - n : end])
        for end, n in zip(ends, graphs.n_node, strict=True)
    ]


def build(
    entries: Iterable[Entry],
    featurizer: Featurize,
    *,
    cache: Path | None = None,
    executor: Executor | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> GraphStore:
    """Builds the graphs of all entries, or takes them from the cache.

    Args:
      entries: Crystals or files; with a cache gone through twice, first for the key. An iterable that makes its entries
        anew each time is never in memory as a whole.
      featurizer: The settings.
      cache: Folder of stores; None keeps nothing.
      executor: Any concurrent.futures executor; None builds in this process.
      on_progress: Called with the number of crystals done since the last call.

    Returns:
      The store, entries that failed in `rejected`.

    Raises:
      ChangedError: If the cache would keep other crystals than those of its key.
      RuntimeError: If a worker died. Chunks that were finished are in the cache, and the same call goes on.
    """
    report = on_progress or (lambda done: None)
    if cache is None:
        parts = {}
        numbered = ((number, chunk, None) for number, chunk in enumerate(_chunks(entries)))
        for number, part in _built(numbered, featurizer, executor):
            parts[number] = part
            report(part.n_seen)
        return _join([parts[number] for number in sorted(parts)])

    key, n_entry, digests = _key(entries, featurizer)
    folder, parts_folder = cache / key, cache / f"{key}.parts"
    if folder.exists():
        try:
            found = _read(folder)
        except _DamagedError:
            # At once, for a kill in the midst of removing it would leave a folder that nothing can take the place of.
            parts_folder.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                folder.rename(Path(tempfile.mkdtemp(dir=parts_folder)) / key)
        else:
            # What a kill left after the store was whole.
            shutil.rmtree(parts_folder, ignore_errors=True)
            report(n_entry)
            return found
    parts_folder.mkdir(parents=True, exist_ok=True)

    def missing() -> Iterator[_Chunk]:
        known = iter(digests)
        for number, chunk in enumerate(_chunks(entries)):
            if (digest := next(known, None)) is None:
                raise ChangedError
            if _is_whole(_part_path(parts_folder, number)):
                report(len(chunk))
            else:
                yield number, chunk, digest
        if next(known, None):
            raise ChangedError

    try:
        for number, part in _built(missing(), featurizer, executor):
            _write_part(_part_path(parts_folder, number), part)
            report(part.n_seen)
        _write(folder, parts_folder, len(digests))
    except FileNotFoundError:
        # Another process has finished the same store and removed the parts they shared.
        if not (folder / "index.json").exists():
            raise
    shutil.rmtree(parts_folder, ignore_errors=True)
    return _read(folder)


def _build_known(entries: Sequence[Entry], featurizer: Featurize, digest: str | None) -> GraphStore:
    """Builds some graphs, of entries with this digest; runs in a worker process. Raises ChangedError."""
    built = _build_chunk(entries, featurizer)
    # Afterwards: a file may have been written, or gone, in the midst of it.
    try:
        is_same = digest is None or _digest(entries) == digest
    except FileNotFoundError:
        is_same = False
    if not is_same:
        raise ChangedError
    return built


def _build_chunk(entries: Sequence[Entry], featurizer: Featurize) -> GraphStore:
    ids, done, rejected = [], [], []
    for entry in entries:
        name = entry.id
        try:
            crystal = entry.read()
            name = crystal.id  # that of an entry may be a number in its place
            done.append(featurizer(crystal))
            ids.append(entry.id)
        except CrystalError as error:
            rejected.append(Rejected(entry.id, str(error)))
        except (MemoryError, OSError, ImportError):
            raise  # of this machine at this moment; not a fault of the crystal to be remembered
        # One crystal that breaks a library below must not end the building of all others.
        except Exception as error:
            rejected.append(Rejected(entry.id, f"{name}: no graph could be built ({type(error).__name__}: {error})"))
    return GraphStore(
        tuple(ids),
        concatenate([one.graphs for one in done]) if done else _EMPTY,
        np.concatenate([one.atom_node for one in done]) if done else np.zeros(0, np.int32),
        np.array([len(one.atom_node) for one in done], np.int32),
        np.array([one.vacuum for one in done], np.float32),
        tuple(rejected),
    )


_EMPTY = CrystalGraphs(
    *(np.zeros(0, dtype) for dtype in (np.int32, *[np.float32] * 3, *[np.int32] * 4, bool, np.float32)),
)._replace(angles=np.zeros((0, 0), np.float32))
_DTYPES = {name: array.dtype for name, array in _EMPTY._asdict().items()} | {
    "atom_node": np.dtype(np.int32),
    "n_atom": np.dtype(np.int32),
    "vacuum": np.dtype(np.float32),
}


def _chunks(entries: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    iterator = iter(entries)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


_Chunk = tuple[int, Sequence[Entry], str | None]  # its number, and a digest of the entries if that is known


def _built(
    chunks: Iterable[_Chunk], featurizer: Featurize, executor: Executor | None
) -> Iterator[tuple[int, GraphStore]]:
    """Builds numbered chunks and yields each as it is finished."""
    chunks = iter(chunks)
    first = list(itertools.islice(chunks, _MIN_CHUNKS))
    if executor is None or len(first) < _MIN_CHUNKS:
        for number, chunk, digest in itertools.chain(first, chunks):
            yield number, _build_known(chunk, featurizer, digest)
        return
    pending: dict[Future[GraphStore], int] = {}
    try:
        for number, chunk, digest in itertools.chain(first, chunks):
            pending[executor.submit(_build_known, chunk, featurizer, digest)] = number
            # A few in hand keep every worker busy without pickling the whole set at once.
            if len(pending) >= 2 * (os.cpu_count() or 1):
                yield from _finished(pending)
        while pending:
            yield from _finished(pending)
    except BrokenExecutor as error:
        raise RuntimeError(
            "a process that builds graphs was killed, perhaps for want of memory; fewer of them (data.workers, or --workers) "
            "need less. Where there is a cache of graphs (data.cache), those that were finished are kept there, and the same command "
            "goes on"
        ) from error


def _finished(pending: dict[Future[GraphStore], int]) -> Iterator[tuple[int, GraphStore]]:
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        yield pending.pop(future), future.result()


def _key(entries: Iterable[Entry], featurizer: Featurize) -> tuple[str, int, list[str]]:
    """Digest of everything that a store depends on, the number of entries, and the digests of the chunks."""
    digests, n_entry = [], 0
    for chunk in _chunks(entries):
        digests.append(_digest(chunk))
        n_entry += len(chunk)
    content = hashlib.sha256("\n".join([f"{FORMAT} {featurizer}", *digests]).encode())
    return content.hexdigest()[:32], n_entry, digests


def _digest(entries: Iterable[Entry]) -> str:
    """Of the entries, as graphs depend on them."""
    content = hashlib.sha256()
    for entry in entries:
        content.update(f"\n{entry.id}\0{entry.digest()}".encode())
    return content.hexdigest()


def _join(parts: list[GraphStore]) -> GraphStore:
    return GraphStore(
        tuple(id for part in parts for id in part.ids),
        # A part without a crystal does not know how many angular features bonds have.
        concatenate([part.graphs for part in parts if part.ids] or [_EMPTY]),
        np.concatenate([part.atom_node for part in parts] or [np.zeros(0, np.int32)]),
        np.concatenate([part.n_atom for part in parts] or [np.zeros(0, np.int32)]),
        np.concatenate([part.vacuum for part in parts] or [np.zeros(0, np.float32)]),
        tuple(one for part in parts for one in part.rejected),
    )


def _arrays(store: GraphStore) -> dict[str, np.ndarray]:
    return {
        **store.graphs._asdict(),
        "atom_node": store.atom_node,
        "n_atom": store.n_atom,
        "vacuum": store.vacuum,
    }


def _index(ids: Sequence[str], rejected: Sequence[Rejected], checksums: Mapping[str, int] | None = None) -> str:
    names = json.dumps({"ids": ids, "rejected": [[one.id, one.reason] for one in rejected]})
    return json.dumps({"names": names, "names_checksum": zlib.crc32(names.encode()), "checksums": checksums})


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            found = zlib.crc32(piece, found)
    return found


def _from_arrays(arrays: dict[str, np.ndarray], index: str) -> GraphStore:
    named = json.loads(json.loads(index)["names"])
    return GraphStore(
        tuple(named["ids"]),
        CrystalGraphs(*(arrays[name] for name in CrystalGraphs._fields)),
        arrays["atom_node"],
        arrays["n_atom"],
        arrays["vacuum"],
        tuple(Rejected(*one) for one in named["rejected"]),
    )


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _write_part(path: Path, part: GraphStore) -> None:
    content = io.BytesIO()
    np.savez(content, index=np.array(_index(part.ids, part.rejected)), **_arrays(part))  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())


def _read_part(path: Path) -> GraphStore:
    with np.load(path) as arrays:
        return _from_arrays(dict(arrays), str(arrays["index"]))


def _is_whole(path: Path) -> bool:
    """Whether a part is there, with the checksums that its file holds."""
    try:
        _read_part(path)
    except FileNotFoundError:
        return False
    except (MemoryError, OSError):
        raise
    except Exception:  # a damaged archive fails in whatever way its bytes lead to
        return False
    return True


def _write(folder: Path, parts_folder: Path, n_part: int) -> None:
    """Joins parts on disk, one at a time in memory."""
    # Within the folder that is removed in the end: a killed process leaves a copy of the whole.
    temporary = Path(tempfile.mkdtemp(dir=parts_folder, suffix=".tmp"))
    try:
        _join_files(temporary, [_part_path(parts_folder, number) for number in range(n_part)])
        # mkdtemp makes folders for its user alone, but a cache may be shared.
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            # Where another process was first, its store is the same.
            if not (folder / "index.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _join_files(folder: Path, parts: Sequence[Path]) -> None:
    ids: list[str] = []
    rejected: list[Rejected] = []
    lengths = dict.fromkeys(_DTYPES, 0)
    n_angle = 0
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.npy").open("wb")) for name in _DTYPES}
        for name, file in files.items():
            file.write(_npy_header(name, 0, 0))
        for path in parts:
            part = _read_part(path)
            ids += part.ids
            rejected += part.rejected
            arrays = _arrays(part)
            n_angle = max(n_angle, part.graphs.angles.shape[1])  # 0 in parts without a crystal
            for name in ("senders", "receivers"):
                arrays[name] = arrays[name] + np.int32(lengths["species"])
            for name, array in arrays.items():
                files[name].write(array.tobytes())
                lengths[name] += len(array)
        for name, file in files.items():
            file.seek(0)
            file.write(_npy_header(name, lengths[name], n_angle))
    checksums = {name: _checksum(folder / f"{name}.npy") for name in _DTYPES}
    (folder / "index.json").write_text(_index(ids, rejected, checksums))


def _npy_header(name: str, length: int, n_angle: int) -> bytes:
    """Of a .npy file of so many rows; numpy leaves room in it, so that every length makes a header of one size."""
    header = io.BytesIO()
    shape = (length, n_angle) if name == "angles" else (length,)
    np.lib.format.write_array_header_1_0(header, {"descr": _DTYPES[name].str, "fortran_order": False, "shape": shape})
    return header.getvalue()


class _DamagedError(ValueError):
    """A store that is not as it was written."""


def _read(folder: Path) -> GraphStore:
    arrays = {}
    try:
        index = (folder / "index.json").read_text()
        stated = json.loads(index)
        if zlib.crc32(stated["names"].encode()) != stated["names_checksum"]:
            raise _DamagedError(f"{folder}: the checksum of index.json differs")
        for name in _DTYPES:
            path = folder / f"{name}.npy"
            # Read once, at a gigabyte a second or more: a bit that a disk has lost would change predictions.
            if _checksum(path) != stated["checksums"][name]:
                raise _DamagedError(f"{folder}: the checksum of {path.name} differs")
            # An empty file cannot be mapped.
            arrays[name] = np.load(path, mmap_mode="r") if path.stat().st_size > 128 else np.load(path)
        return _from_arrays(arrays, index)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{folder}: {error}") from error
