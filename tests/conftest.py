"""Shared fixtures: where the real data lie, and crystals with known answers."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cgcnn_jax.data.crystal import Crystal

ROOT = Path(__file__).parents[1]


def _share_compiled_programs() -> None:
    """One cache of compiled programs for this session: for pytest's own processes, and for those that tests start.

    Before jax is imported, which reads this. The first process makes the folder and removes it; pytest-xdist's workers
    inherit the environment.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # as experiments.compilation does


_share_compiled_programs()
import jax  # noqa: E402

from tests import compiling  # noqa: E402

# Shapes that broadcast by accident are bugs.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, from CGCNN_DATA; skips, and says so, where it is absent."""
    folder = Path(os.environ.get("CGCNN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CGCNN_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def quick_compiling() -> Iterator[None]:
    """For tests of loops around a network, populations among them."""
    with compiling.without_optimizations():
        yield


@pytest.fixture(scope="module")
def quicker_compiling() -> Iterator[None]:
    """For those without populations."""
    with compiling.the_faster_way():
        yield


@pytest.fixture(scope="session")
def on_devices() -> Callable[..., str]:
    """on_devices(8, program, *arguments): what it prints in a process of its own with so many simulated CPU devices.

    quick=True compiles as in tests of loops around a network.
    """

    def run(count: int, program: str, *arguments: str | Path, quick: bool = False) -> str:
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        if quick:
            environment |= compiling.quick()
        flags = (environment.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={count}")
        environment["XLA_FLAGS"] = " ".join(flags).strip()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    return run


@pytest.fixture(scope="session")
def rock_salt() -> Crystal:
    """NaCl, conventional cell, a = 5.64 Å: 6 neighbours at 2.82 Å, 12 at 3.988 Å."""
    face_centers = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    coords = np.concatenate([face_centers, (face_centers + [0.5, 0, 0]) % 1])
    return Crystal.from_arrays("NaCl", 5.64 * np.eye(3), ["Na"] * 4 + ["Cl"] * 4, coords)
