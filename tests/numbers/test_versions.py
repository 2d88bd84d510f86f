"""Two processes, of one version or of two: the same bits, or the same numbers. Minutes, so none of it is default."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cgcnn_jax import Predictor
from tests.numbers.cases import CASES, case
from tests.numbers.digest import COMMITTED, differences

ROOT = Path(__file__).parents[2]


def start(python: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [python, "-m", "tests.numbers.digest", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def other_python() -> str:
    """An interpreter with other versions of everything."""
    found = os.environ.get("CGCNN_OTHER_PYTHON")
    if not found:
        pytest.skip("set CGCNN_OTHER_PYTHON to an interpreter with another jax to compare versions with each other")
    return found


@pytest.mark.slow
def test_checkpoints_of_one_version_predict_the_same_in_another(other_python, tmp_path):
    for number, writer in enumerate((sys.executable, other_python)):
        folder = tmp_path / str(number)
        start(writer, f"--train={folder}")
        found = [json.loads(start(reader, f"--predict={folder}")) for reader in (sys.executable, other_python)]
        one, other = (np.array(list(of["values"].values())) for of in found)
        assert found[0]["versions"]["jax"] != found[1]["versions"]["jax"]
        # Two layers, sums over some twelve bonds and twenty atoms.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        assert np.std(one) > 0.01


@pytest.mark.slow
def test_another_version_computes_the_numbers_of_the_oldest(other_python, tmp_path):
    start(other_python, f"--output={tmp_path / 'digest.json'}")
    committed, found = (json.loads(file.read_text())["cases"] for file in (COMMITTED, tmp_path / "digest.json"))
    off = {name: differences(found[name], committed[name], case(name).admitted) for name in CASES}
    assert not any(off.values()), off


@pytest.mark.slow
def test_a_run_repeated_gives_the_same_bits(tmp_path):
    # Two processes; metrics of every epoch, predictions, and the weights as they stand in the checkpoint.
    for name in ("one", "other"):
        start(sys.executable, f"--train={tmp_path / name}")

    def records(name: str) -> list[dict]:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert records("one") == records("other")
    assert len(records("one")) == 3
    tables = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("one", "other")]
    assert tables[0] == tables[1]
    weights = [jax.tree.leaves(Predictor.restore(tmp_path / name).weights) for name in ("one", "other")]
    for left, right in zip(*weights, strict=True):
        np.testing.assert_array_equal(left, right)
