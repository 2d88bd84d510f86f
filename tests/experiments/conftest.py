"""Runs entry points as a user does: in a process of their own, from the project's root."""

import subprocess
from pathlib import Path

import pytest

from cgcnn_jax.data.sources import read_demo
from tests.experiments import starts
from tests.experiments.runs import TINY, Run, directory_flags


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """run("train", "--config=...") -> the finished process."""
    cache = tmp_path_factory.mktemp("cache")

    def start(name: str, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = starts.start(name, *arguments, CGCNN_JAX_CACHE=str(cache))
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return start


@pytest.fixture(scope="session")
def cif_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder in the published layout: id_prop.csv and 60 CIFs, the label being the volume per atom in Å³."""
    folder = tmp_path_factory.mktemp("cifs")
    rows = []
    for number, crystal in enumerate(read_demo()):
        if number == 60:
            break
        structure = crystal.to_structure()
        structure.to(str(folder / f"x{number}.cif"))
        rows.append(f"x{number},{structure.volume / len(structure):.6f}")
    (folder / "id_prop.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def trained(run: Run, cif_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a finished tiny run on that folder."""
    workdir = tmp_path_factory.mktemp("runs") / "volume"
    run("train", *directory_flags(cif_folder), f"--workdir={workdir}", *TINY, "--report")
    return workdir
