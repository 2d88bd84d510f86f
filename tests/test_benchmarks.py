"""The speed benchmark runs, and says what it lacks; what it measures is for a quiet machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("script", ["speed", "published_code"])
def test_help_tells_every_flag_without_torch_or_data(script: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--help"]
    if script == "speed":
        command = [sys.executable, "-m", "benchmarks.speed", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    flags = set(re.findall(r'add_argument\("(--[\w-]+)"', (ROOT / "benchmarks" / f"{script}.py").read_text()))
    assert "--reference" in flags
    assert flags <= set(re.findall(r"--[\w-]+", done.stdout))


def test_the_other_side_never_imports_this_library() -> None:
    text = (ROOT / "benchmarks" / "published_code.py").read_text()
    assert not re.search(r"^\s*(from|import) (cgcnn_jax|benchmarks|experiments|configs|jax)\b", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only=train,speed",), "no row is called 'speed'"),
        (("--data={empty}",), "no crystals at"),
        (("--data={data}", "--reference={empty}"), "is no checkout of https://github.com/txie-93/cgcnn"),
    ],
)
def test_wrong_arguments_end_before_anything_is_measured(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    empty, data = tmp_path / "empty", tmp_path / "data"
    empty.mkdir()
    (data / "mp_2018_6_1").mkdir(parents=True)
    done = start(*(argument.format(empty=empty, data=data) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
def test_without_the_published_code_it_says_where_that_is_and_measures_this_library(shared_data: Path) -> None:
    done = start(f"--data={shared_data}", "--only=graphs,train,run", "--run-on=drawn", "--crystals=40", "--rounds=2")
    assert done.returncode == 0, done.stderr
    assert "git clone https://github.com/txie-93/cgcnn" in done.stderr
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = {cells[0].removeprefix("| "): cells[1:] for cells in lines[1:]}
    assert {cells[1] for cells in rows.values()} == {"–"}  # nothing of the other side, so no ratio

    def number(row: str, pattern: str) -> float:
        found = re.search(pattern, rows[row][0])
        assert found, rows
        return float(found[1].replace(",", ""))

    assert 0 < number("structure to graph, one core", r"^([\d.]+) ms") < 1000
    assert number("training, quotient graphs", r"^([\d,]+) crystals/s") > 1
    nodes, edges = re.findall(r"([\d.]+)%", rows["padding in an epoch, nodes and edges"][0])
    assert 0 <= float(nodes) < 100
    assert 0 <= float(edges) < 100
    # jax with its libraries alone is larger than 0.1 GB.
    memory = next(row for row in rows if row.startswith("memory of a training run on 40 crystals"))
    assert 0.1 < number(memory, r"^([\d.]+) GB") < 10
    assert rows["compilations in a run of 2 epochs"][0] == "train 1, predict 1"
    # Four convolutions on a few thousand bonds, forwards and backwards: far above 1 MFLOP, far below 1 TFLOP.
    operations = re.search(r"([\d.]+) GFLOP and", done.stdout)
    assert operations
    assert 1e-3 < float(operations[1]) < 1e3
