import signal
import time
from pathlib import Path

import pytest

from tests.experiments.runs import Run
from tests.experiments.starts import begin
from tests.studies.paper_data import write_data
from tests.studies.perovskite_cells import write_cells


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), n_crystal=60, n_listed=60)


def test_the_plan_names_the_runs_and_their_time(run: Run, data: Path, tmp_path: Path) -> None:
    (data / "matbench_perovskites").mkdir()
    only = "--only=table_s4,figure_3b,figure_s3"
    done = run("paper", f"--data={data}", f"--workdir={tmp_path}", "--size=quick", only, "--plan")
    (data / "matbench_perovskites").rmdir()
    lines = done.stdout.splitlines()
    runs = [line.split()[0] for line in lines if "epochs" in line]
    assert len(runs) == 14 and runs[:2] == ["formation_energy/gated_norm_36", "formation_energy/sum_36"]
    assert [line.split() for line in lines if line.endswith("about 1 minutes")] == [
        [name, "about", "1", "minutes"] for name in ("perovskites", "sweep")
    ]
    # Properties of one folder follow one another; 14 runs take 12 s to start each, and no time beside that.
    assert [line for line in lines if line.startswith("14 runs to do, about 5 minutes on a core")]
    assert len([line for line in lines if line.startswith("reading ")]) == 3
    assert not (tmp_path / "runs").exists()


def test_parts_without_runs_take_no_data_and_no_time(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run("paper", f"--data={tmp_path / 'data'}", f"--workdir={tmp_path / 'out'}", "--only=figure_s1,figure_2a")
    assert "0 runs to do" in done.stdout and "made figure_s1" in done.stdout
    assert (tmp_path / "out" / "figure_s1.png").exists()
    assert "no such folder; Formation energy has its crystals there" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_one_command_makes_the_perovskites_and_the_search_too(run: Run, tmp_path: Path) -> None:
    write_cells(tmp_path / "data")
    only = "--only=figure_3b,figure_3cd,figure_s3,figure_s6,table_s5"
    command = ("paper", f"--data={tmp_path / 'data'}", f"--workdir={tmp_path / 'out'}", "--size=quick", only)
    done = run(*command)
    page = (tmp_path / "out" / "index.md").read_text()
    assert "0 runs to do, about 2 minutes" in done.stdout
    shown = [line.split("](")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert shown == [
        *("figure_3b.png", "figure_3cd_a_site.png", "figure_3cd_b_site.png", "figure_s3.png", "figure_s6.png")
    ]
    assert "[The perovskite study](perovskites/index.md)" in page and "| formula | e_form (eV/cell) |" in page
    assert "Validation error of the 2 trials" in page
    again = run(*command)
    assert "0 runs to do, about 0 minutes" in again.stdout and "epoch" not in again.stdout


@pytest.mark.slow
def test_a_signal_ends_in_the_status_that_says_go_on(data: Path, tmp_path: Path) -> None:
    process = begin("paper", f"--data={data}", f"--workdir={tmp_path}", "--size=full", "--only=figure_2c")
    for _ in range(6000):
        if any(file.read_text() for file in tmp_path.glob("runs/*/*/metrics.jsonl")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "the same command goes on" in out
