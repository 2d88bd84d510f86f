"""The campaign of faults: some kills here, of the work that takes the least; all with -m slow (tests.faults.campaign)."""

import subprocess
import sys

import pytest

from tests.experiments.runs import ROOT
from tests.faults import disk


def campaign(*arguments: str) -> str:
    """In a process of its own, because one in which jax has computed cannot be forked."""
    command = [sys.executable, "-m", "tests.faults.campaign", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    print(done.stdout)
    return done.stdout.splitlines()[-1]


def test_killed_builds_and_downloads_end_as_undisturbed_ones():
    assert int(campaign("--kind=graphs,download", "--count=5", "--seed=2").split()[0]) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "training with report", "sweep", "benchmark", "screening"])
def test_killed_work_ends_as_undisturbed_work(kind):
    campaign(f"--kind={kind}", "--count=30", "--seed=3")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["pairs", "signals", "workers", "memory"])
def test_disturbed_work_ends_as_undisturbed_work(fault):
    campaign(f"--fault={fault}", "--count=6", "--seed=4")


@pytest.mark.slow
def test_a_full_disk_is_told_and_costs_nothing_that_was_finished(tmp_path):
    if not disk.can_mount(tmp_path / "disk"):
        pytest.skip("a small file system is mounted for this, which takes root")
    campaign("--fault=disk", "--count=10")
