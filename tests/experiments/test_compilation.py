"""Compiled programs are kept in the user's cache, apart for every kind of processor, unless told otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import compilation

ROOT = Path(__file__).parents[2]
# Prints how many of its programs the cache gave; one is small, as those of the initial weights are.
PROGRAM = """
from experiments import compilation
folder = compilation.keep_compiled_programs()
import jax, jax.numpy as jnp
found = []
jax.monitoring.register_event_listener(lambda event, **of: found.append(event) if event.endswith("cache_hits") else None)
print(folder, len(found), float(jax.jit(lambda x: 2 * x)(3.0)), len(found))
"""


def start(**environment: str) -> list[str]:
    base = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "CGCNN_JAX", "TF_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=base | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cpu_aot_loader" not in done.stderr
    return done.stdout.split()


def test_the_second_start_takes_the_program_from_the_cache(tmp_path):
    first, second = (start(CGCNN_JAX_CACHE=str(tmp_path)) for _ in range(2))
    assert first[0] == second[0] and Path(first[0]).parent == tmp_path / "compiled"
    assert (first[3], first[2]) == ("0", second[2])
    assert int(second[3]) > 0


@pytest.mark.parametrize("variable", ["CGCNN_JAX_COMPILED", "JAX_COMPILATION_CACHE_DIR"])
def test_nothing_is_kept_where_the_user_says_so(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("CGCNN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv(variable, "none")
    assert compilation.keep_compiled_programs() is None
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("CGCNN_JAX_COMPILED", str(tmp_path / "file"))
    assert compilation.keep_compiled_programs() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_another_processor_has_another_folder(monkeypatch):
    here = compilation._processor()
    cpuinfo = "model name\t: Another\nflags\t\t: fpu avx\n\nmodel name\t: Another\n"
    monkeypatch.setattr(Path, "read_text", lambda path: cpuinfo)
    other = compilation._processor()
    monkeypatch.setattr(Path, "read_text", lambda path: cpuinfo.replace("avx", "avx512f"))
    assert len({here, other, compilation._processor()}) == 3
