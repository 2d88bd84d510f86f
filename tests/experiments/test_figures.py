import shutil
from pathlib import Path

from cgcnn_jax.data.crystal import Crystal
from tests.experiments.runs import Run


def test_figures_of_a_run_lie_in_its_folder(run: Run, trained: Path, tmp_path: Path) -> None:
    # A copy, because other tests look at what training leaves in the folder.
    workdir = shutil.copytree(trained, tmp_path / "run")
    done = run("figures", "--figure=contents", f"--workdir={workdir}")
    drawn = [workdir / f"{name}.png" for name in ("elements", "atoms", "occurrence")]
    assert done.stdout.split() == [str(file) for file in drawn] and all(file.exists() for file in drawn)


def test_graphs_are_drawn_of_files(run: Run, rock_salt: Crystal, tmp_path: Path) -> None:
    rock_salt.to_structure().to(str(tmp_path / "salt.cif"))
    run("figures", "--figure=graphs", f"--input={tmp_path / 'salt.cif'}", f"--output={tmp_path / 'out'}")
    assert (tmp_path / "out" / "graphs.png").exists()


def test_what_a_figure_needs_is_told(run: Run) -> None:
    done = run("figures", "--figure=roc", status=1)
    assert "--figure=roc needs one run in --workdir" in done.stderr and "Traceback" not in done.stderr
