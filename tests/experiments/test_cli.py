import subprocess
import sys

import pytest

from tests.experiments.runs import ROOT

SCRIPT = """
import os, signal, sys
from experiments import cli
cli.run(lambda: os.kill(os.getpid(), signal.{signal}), goes_on={goes_on})
"""


@pytest.mark.parametrize(
    ("goes_on", "signal", "status"),
    [
        (True, "SIGINT", 75),
        (True, "SIGTERM", 75),
        (True, "SIGUSR1", 75),
        (False, "SIGINT", 130),  # 128 + 2, as a shell says it
        (False, "SIGTERM", 143),  # 128 + 15
    ],
)
def test_a_signal_before_training_ends_in_the_status_that_says_whether_to_go_on(
    goes_on: bool, signal: str, status: int
) -> None:
    script = SCRIPT.format(signal=signal, goes_on=goes_on)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert ("the same command goes on" in done.stderr) == goes_on
    assert "Traceback" not in done.stderr
