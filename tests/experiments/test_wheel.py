"""The wheel, unpacked far from the checkout, predicts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from cgcnn_jax import Predictor
from tests.experiments.runs import ROOT

SCRIPT = """
import pathlib, sys
import cgcnn_jax, numpy as np
from pymatgen.core import Lattice, Structure
assert pathlib.Path(cgcnn_jax.__file__).is_relative_to(sys.argv[1]), cgcnn_jax.__file__
from cgcnn_jax.data import sources
assert len(list(sources.read_demo())) > 2000
salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
print(cgcnn_jax.Predictor.restore(sys.argv[2]).predict([salt])["prediction"][0])
"""


def test_wheel_installs_and_predicts_outside_the_checkout(tmp_path: Path, trained: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}", str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("cgcnn_jax-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", str(wheel)], check=True)
    assert (site / "cgcnn_jax" / "py.typed").exists()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(site), str(trained)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    here = Predictor.restore(trained).predict([salt])["prediction"][0]
    assert float(done.stdout) == pytest.approx(here, rel=1e-6)
