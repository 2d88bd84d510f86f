"""Documents that our readers read, each small and whole, and what must become of a damaged one."""

import contextlib
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from cgcnn_jax import torchfile
from cgcnn_jax.data.crystal import CrystalError, Rejected
from cgcnn_jax.data.sources import jarvis, matbench, read_input
from tests.fuzz import mutations

SALT = {
    "id": "salt",
    "lattice": (4.0 * np.eye(3)).tolist(),
    "species": ["Cs", "Cl"],
    "frac_coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
    "properties": {"gap": 5.0},
    "split": "train",
}
DICT = {
    "lattice": {"matrix": SALT["lattice"]},
    "sites": [{"species": [{"element": "Cs", "occu": 1}], "abc": [0, 0, 0]}],
}
RECORD = {
    "jid": "JVASP-1",
    "atoms": {"lattice_mat": SALT["lattice"], "coords": [[0, 0, 0]], "elements": ["Cs"], "cartesian": True},
    "gap": 1.0,
}


def outcomes(read: Callable) -> list | None:
    """What a reader yields, each a crystal or a reason; None where it ends in an error of a sentence."""
    found = []
    problem: Exception | None = None
    try:
        for entry in read():
            if not isinstance(entry, Rejected):
                try:
                    entry.id.encode()
                    entry.digest()
                    entry = entry.read()
                    assert np.isfinite(entry.frac_coords).all() and np.isfinite(entry.lattice).all()
                except CrystalError as error:
                    entry = Rejected(entry.id, str(error))
            if isinstance(entry, Rejected):
                assert len(entry.reason) > 5 and entry.reason.encode() and entry.id.encode()
            found.append(entry)
    except (ValueError, OSError) as error:
        problem = error
    if problem is not None:
        check_sentence(problem)
        return None
    return found


def check_sentence(error: Exception) -> None:
    """Whether an error was written for the user: those of the libraries below would not say which file it is."""
    if len(str(error)) <= 10 or isinstance(error, UnicodeError | json.JSONDecodeError):
        raise AssertionError(repr(error)) from error


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", content)
    return buffer.getvalue()


def ase_file(suffix: str, folder: Path) -> bytes:
    ase = pytest.importorskip("ase", reason="the extra ase is not installed")
    path = folder / f"good{suffix}"
    atoms = ase.Atoms("CsCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[4, 4, 4], pbc=True)
    if suffix == ".db":
        from ase.db import connect

        with connect(path) as database:
            database.write(atoms, gap=1.0)
    else:
        atoms.write(path)
    return path.read_bytes()


def tabled(cif: str) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([["material_id", "cif", "gap"], ["a", cif, 1.0], ["b", cif, 2.0]])
    return text.getvalue().encode()


LINES = (json.dumps(SALT) + "\n").encode() * 3
DOCUMENTS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "JSON lines": ("a.jsonl", lambda _: LINES, read_input),
    "JSON lines, gzipped": ("a.jsonl.gz", lambda _: gzip.compress(LINES, mtime=0), read_input),
    "JARVIS": ("a.json.zip", lambda _: zipped(json.dumps([RECORD] * 3).encode()), jarvis.read_jarvis),
    "JARVIS, plain": ("a.json", lambda _: json.dumps([RECORD] * 3).encode(), jarvis.read_jarvis),
    "Matbench": (
        "a.json",
        lambda _: json.dumps({"index": [0, 1], "columns": ["structure", "y"], "data": [[DICT, 1.0]] * 2}).encode(),
        lambda path: matbench.read_matbench(path, "matbench_fuzz"),
    ),
    "Matbench, lines": (
        "a.jsonl",
        lambda _: (json.dumps(SALT | {"meta": {"matbench": {"fuzz": ["a", 0]}}}) + "\n").encode() * 2,
        lambda path: matbench.read_matbench(path, "matbench_fuzz"),
    ),
    "CDVAE": ("train.csv", lambda _: tabled(mutations.calcite()), read_input),
    "extended xyz": ("a.extxyz", lambda folder: ase_file(".extxyz", folder), read_input),
    "ASE database": ("a.db", lambda folder: ase_file(".db", folder), read_input),
    "ASE trajectory": ("a.traj", lambda folder: ase_file(".traj", folder), read_input),
}


@contextlib.contextmanager
def task() -> Iterator[None]:
    """The task that the documents of Matbench belong to."""
    one = matbench.Task("matbench_fuzz", "y", "target", "eV", 2, num_folds=2, power=("power", "GPa"))
    folds = mock.patch.object(matbench, "official_folds", return_value=np.arange(2))
    with mock.patch.dict(matbench.TASKS, {one.name: one}), folds:
        yield


def small_checkpoint(path: Path) -> bytes:
    weights = {f"layer{i}.weight": np.arange(6, dtype=np.float32).reshape(2, 3) for i in range(3)}
    torchfile.write(path, {"state_dict": weights, "epoch": 3})
    return path.read_bytes()
