"""What a run notes of its surroundings."""

import subprocess
from pathlib import Path

import pytest

from cgcnn_jax import workdir


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_commit_is_that_of_a_checkout_of_the_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Somebody's project, whose environment holds the package.
    package = tmp_path / ".venv" / "cgcnn_jax"
    package.mkdir(parents=True)
    (package / "workdir.py").touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=a project")
    monkeypatch.setattr(workdir, "__file__", str(package / "workdir.py"))
    assert workdir.environment()["commit"] is None
    git(tmp_path, "add", "--force", package)
    git(tmp_path, "commit", "--quiet", "--message=the package itself")
    assert git(tmp_path, "rev-parse", "HEAD").startswith(workdir.environment()["commit"])
