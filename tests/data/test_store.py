"""Graphs are built once, whoever builds them and however often they are stopped."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import multiprocessing
import re
import weakref

import numpy as np
import pytest

from cgcnn_jax.data import store
from cgcnn_jax.data.crystal import Crystal, CrystalFile
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK
from cgcnn_jax.data.store import GraphStore
from cgcnn_jax.graph import validate
from tests.screen.items import Odd

FEATURIZER = Featurizer()


@pytest.fixture
def crystals(random_crystals) -> list[Crystal]:
    """20 good ones with two bad ones among them."""
    lonely = Crystal.from_arrays("lonely", 20 * np.eye(3), ["Ar"], [[0, 0, 0]])
    overlap = Crystal.from_arrays("overlap", 4 * np.eye(3), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]])
    return [*random_crystals[:7], lonely, *random_crystals[7:], overlap]


@pytest.fixture
def chunks_of_4(monkeypatch) -> None:
    monkeypatch.setattr(store, "_CHUNK", 4)
    monkeypatch.setattr(store, "_MIN_CHUNKS", 2)


@pytest.fixture
def builds(monkeypatch) -> list[list[str]]:
    """Ids of each chunk that is built from now on."""
    calls: list[list[str]] = []
    original = store._build_chunk

    def counted(entries, featurizer):
        calls.append([entry.id for entry in entries])
        return original(entries, featurizer)

    monkeypatch.setattr(store, "_build_chunk", counted)
    return calls


def assert_same(a: GraphStore, b: GraphStore) -> None:
    assert a.ids == b.ids and a.rejected == b.rejected
    for name, array in store._arrays(a).items():
        other = store._arrays(b)[name]
        assert array.dtype == other.dtype, name
        np.testing.assert_array_equal(array, other, err_msg=name)


def test_graphs_are_those_of_the_featurizer_in_order(crystals):
    built = store.build(crystals, FEATURIZER)
    validate(built.graphs)
    assert len(built) == 20
    node = atom = 0
    for number, crystal in enumerate(c for c in crystals if c.id not in ("lonely", "overlap")):
        alone = FEATURIZER(crystal)
        n_node, n_atom = int(alone.graphs.n_node[0]), len(crystal.species)
        assert built.ids[number] == crystal.id
        np.testing.assert_array_equal(built.graphs.species[node : node + n_node], alone.graphs.species)
        np.testing.assert_array_equal(built.atom_node[atom : atom + n_atom], alone.atom_node)
        assert built.n_atom[number] == n_atom
        assert built.vacuum[number] == np.float32(alone.vacuum) > 0
        np.testing.assert_array_equal(built.take(np.array([number])).distances, alone.graphs.distances)
        node, atom = node + n_node, atom + n_atom
    assert built.formulas()[0] == crystals[0].formula


def test_what_has_no_graph_is_rejected_with_its_reason(crystals):
    rejected = store.build(crystals, FEATURIZER).rejected
    assert [one.id for one in rejected] == ["lonely", "overlap"]
    assert re.search(r"lonely: site 0 \(Ar\) has no neighbour", rejected[0].reason)
    assert re.search(r"overlap: sites 0 \(Na\) and 1 \(Cl\) overlap", rejected[1].reason)


def test_take_gives_the_chosen_crystals_in_order(crystals):
    built = store.build(crystals, FEATURIZER)
    taken = built.take(np.array([5, 2, 5]))
    np.testing.assert_array_equal(taken.n_node, built.graphs.n_node[[5, 2, 5]])
    validate(taken)
    none = built.take(np.arange(0))
    assert len(none.n_node) == len(none.species) == len(none.receivers) == 0


def test_worker_processes_build_the_same(crystals, chunks_of_4):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        parallel = store.build(crystals, FEATURIZER, executor=executor)
    assert_same(parallel, store.build(crystals, FEATURIZER))


def test_chunks_that_finish_out_of_order_are_joined_in_order(crystals, chunks_of_4, monkeypatch):
    monkeypatch.setattr(store.os, "cpu_count", lambda: 100)  # all six chunks are in hand at once
    waiting: list = []

    class Backwards(concurrent.futures.Executor):
        """Runs the last chunk first."""

        def submit(self, fn, /, *args, **kwargs):
            future: concurrent.futures.Future = concurrent.futures.Future()
            waiting.append((future, fn, args))
            if len(waiting) == 6:
                for one, function, values in reversed(waiting):
                    one.set_result(function(*values))
            return future

    assert_same(store.build(crystals, FEATURIZER, executor=Backwards()), store.build(crystals, FEATURIZER))


def test_the_second_time_nothing_is_built_and_arrays_are_mapped(crystals, chunks_of_4, builds, tmp_path):
    first = store.build(crystals, FEATURIZER, cache=tmp_path)
    assert list(itertools.chain(*builds)) == [crystal.id for crystal in crystals]
    builds.clear()
    progress: list[int] = []
    second = store.build(crystals, FEATURIZER, cache=tmp_path, on_progress=progress.append)
    assert builds == [] and progress == [len(crystals)]
    assert_same(second, first)
    assert_same(second, store.build(crystals, FEATURIZER))
    assert isinstance(second.graphs.distances, np.memmap)
    assert len(list(tmp_path.iterdir())) == 1  # no parts, nothing temporary


def test_another_order_content_or_setting_is_another_store(crystals, tmp_path):
    def n_store(entries, featurizer) -> int:
        store.build(entries, featurizer, cache=tmp_path)
        return len(list(tmp_path.iterdir()))

    c = crystals[0]
    moved = Crystal.from_arrays(c.id, c.lattice * (1 + 1e-12), c.species, c.frac_coords)
    renamed = Crystal.from_arrays("other", c.lattice, c.species, c.frac_coords)
    labelled = Crystal.from_arrays(c.id, c.lattice, c.species, c.frac_coords, {"gap": 1.0}, "test")
    assert n_store(crystals, FEATURIZER) == 1
    assert n_store([labelled, *crystals[1:]], FEATURIZER) == 1  # labels are read anew each time
    assert n_store(crystals[::-1], FEATURIZER) == 2
    assert n_store([moved, *crystals[1:]], FEATURIZER) == 3
    assert n_store([renamed, *crystals[1:]], FEATURIZER) == 4
    assert n_store(crystals, Featurizer(NearestK())) == 5
    assert n_store(crystals, Featurizer(tolerance=0.0)) == 6


def test_a_stopped_build_goes_on_where_it_was(crystals, chunks_of_4, builds, tmp_path, monkeypatch):
    counted = store._build_chunk

    def stopping(entries, featurizer):
        if len(builds) == 3:
            raise KeyboardInterrupt
        return counted(entries, featurizer)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_build_chunk", stopping)
        with pytest.raises(KeyboardInterrupt):
            store.build(crystals, FEATURIZER, cache=tmp_path)
    finished = list(itertools.chain(*builds))
    builds.clear()
    progress: list[int] = []
    built = store.build(crystals, FEATURIZER, cache=tmp_path, on_progress=progress.append)
    assert finished + list(itertools.chain(*builds)) == [crystal.id for crystal in crystals]
    assert progress[:3] == [4, 4, 4] and sum(progress) == len(crystals)
    assert_same(built, store.build(crystals, FEATURIZER))


@pytest.mark.parametrize("moment", ["_build_chunk", "_write_part", "_read_part", "_write"])
def test_another_process_that_finishes_first_does_no_harm(crystals, chunks_of_4, tmp_path, monkeypatch, moment):
    """A whole build of the same store runs just before one step of this one."""
    expected = store.build(crystals, FEATURIZER)
    original = getattr(store, moment)

    def overtaken(*args):
        monkeypatch.setattr(store, moment, original)
        store.build(crystals, FEATURIZER, cache=tmp_path)
        return original(*args)

    monkeypatch.setattr(store, moment, overtaken)
    assert_same(store.build(crystals, FEATURIZER, cache=tmp_path), expected)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("lost", ["index.json", "species.npy", "all but one"])
def test_a_store_that_lost_a_file_is_built_anew(crystals, tmp_path, lost):
    whole = store.build(crystals, FEATURIZER)
    store.build(crystals, FEATURIZER, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    for file in place.iterdir() if lost == "all but one" else [place / lost]:
        if file.name != "n_edge.npy":
            file.unlink()
    assert_same(store.build(crystals, FEATURIZER, cache=tmp_path), whole)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_what_a_killed_build_left_is_removed(crystals, chunks_of_4, tmp_path):
    store.build(crystals, FEATURIZER, cache=tmp_path)
    (place,) = tmp_path.iterdir()
    parts = tmp_path / f"{place.name}.parts"
    (parts / "killed.tmp").mkdir(parents=True)
    (parts / "killed.tmp" / "species.npy").write_bytes(bytes(1000))
    store.build(crystals, FEATURIZER, cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_worker_that_is_killed_ends_the_build_with_a_sentence_and_costs_no_finished_chunk(
    crystals, chunks_of_4, tmp_path
):
    deadly = [*crystals, Odd("deadly", "kill")]
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor,
        pytest.raises(RuntimeError, match=r"a process that builds graphs was killed.*data\.workers.* goes on"),
    ):
        store.build(deadly, FEATURIZER, cache=tmp_path, executor=executor)
    assert len(list(tmp_path.glob("*.parts/*.npz"))) >= 2


def test_a_source_that_starts_anew_is_never_in_memory_as_a_whole(crystals, chunks_of_4, tmp_path):
    alive: weakref.WeakSet[Crystal] = weakref.WeakSet()
    most = 0

    class Source:
        def __iter__(self):
            nonlocal most
            for crystal in crystals * 5:
                copy = dataclasses.replace(crystal)
                alive.add(copy)
                most = max(most, len(alive))
                yield copy

    built = store.build(Source(), FEATURIZER, cache=tmp_path)
    assert built.n_seen == 110
    assert most <= 4 * 4  # two chunks ahead, one being built and one being read, of 4 crystals each; 110 in all


@pytest.fixture
def cubes(tmp_path) -> list[CrystalFile]:
    """Five files of a cubic crystal each."""
    files = [CrystalFile(f"cube-{number}", tmp_path / f"cube-{number}.vasp") for number in range(5)]
    for number, file in enumerate(files):
        _write_cube(file, 3.0 + 0.2 * number)
    return files


def _write_cube(file: CrystalFile, length: float) -> None:
    cell = "\n".join(f"{a} {b} {c}" for a, b, c in length * np.eye(3))
    file.path.write_text(f"cube\n1.0\n{cell}\nCu\n1\ndirect\n0 0 0\n")


def _is_lost(files: list[CrystalFile]) -> None:
    del files[3:]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        lambda files: _write_cube(files[3], 9.0),
        lambda files: files[3].path.unlink(),
        lambda files: files.append(files[0]),
        lambda files: files.extend(files),
        _is_lost,
        lambda files: files.reverse(),
    ],
    ids=["another file", "a file less", "an entry more", "chunks more", "entries less", "another order"],
)
def test_data_that_change_while_they_are_read_leave_nothing_wrong_in_the_cache(
    cubes, tmp_path, monkeypatch, change, workers
):
    monkeypatch.setattr(store, "_CHUNK", 2)
    monkeypatch.setattr(store, "_MIN_CHUNKS", 1)
    expected = store.build(cubes, FEATURIZER)
    kept, contents, key = list(cubes), [file.path.read_bytes() for file in cubes], store._key

    def changing(entries, featurizer):
        found = key(entries, featurizer)
        change(cubes)
        return found

    with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(store, "_key", changing)
        executor = None
        if workers:
            context = multiprocessing.get_context("spawn")
            executor = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, mp_context=context))
        with pytest.raises(store.ChangedError, match="the data changed while they were read; start again"):
            store.build(cubes, FEATURIZER, cache=tmp_path / "cache", executor=executor)
    for file, content in zip(kept, contents, strict=True):
        file.path.write_bytes(content)
    assert_same(store.build(kept, FEATURIZER, cache=tmp_path / "cache"), expected)


def test_progress_without_a_cache_comes_chunk_by_chunk(crystals, chunks_of_4):
    progress: list[int] = []
    store.build(crystals, FEATURIZER, on_progress=progress.append)
    assert progress == [4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize("cached", [True, False])
def test_nothing_but_rejected_crystals_is_an_empty_store(crystals, tmp_path, cached):
    for entries in ([crystals[7]], []):
        built = store.build(entries, FEATURIZER, cache=tmp_path if cached else None)
        assert len(built) == 0 and len(built.rejected) == len(entries)
        assert built.graphs.species.dtype == np.int32
