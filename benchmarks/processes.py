"""Processes beside this one: the published code's worker, and commands timed from start to end."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Published:
    """The worker process of published_code.py."""

    def __init__(self, python: str, checkout: Path, folder: Path, cuda: bool, log: Path) -> None:
        script = Path(__file__).with_name("published_code.py")
        command = [python, str(script), f"--reference={checkout}", f"--data={folder}", *["--cuda"] * cuda]
        self._log = log
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            env=foreign_environment(),
            cwd=log.parent,
            text=True,
        )
        self.about = self.ask("about")

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """One request. Raises RuntimeError, with the end of what the process said, if it has died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        reply = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the published code failed at {do!r}:\n{self._log.read_text()[-2000:]}")
        return json.loads(reply)

    def measure(self, do: str, **more: Any) -> tuple[float, int]:
        reply = self.ask(do, **more)
        return reply["seconds"], reply["crystals"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def checked(command: Sequence[str], folder: Path, *, foreign: bool = False) -> float:
    """Seconds that a command takes. Raises RuntimeError, with the end of what it said, if it fails."""
    environment = foreign_environment() if foreign else our_environment()
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds


def our_environment() -> dict[str, str]:
    # A cache of compiled programs would hide what a cold start costs.
    return {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}


def foreign_environment() -> dict[str, str]:
    # Another interpreter must not find this one's packages.
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
