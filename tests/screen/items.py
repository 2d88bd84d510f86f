"""Structures that do what no structure should. In a module of their own, which a worker can import."""

import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cgcnn_jax.data.crystal import Crystal


@dataclass(frozen=True)
class Odd:
    """A structure whose reading does something first.

    Attributes:
      id: Name.
      does: kill: ends its process. sleep: takes long, in Python. stuck: takes long, below Python.
      memory, permission: raises. "": is read as any other.
      once: File that says it has been done; it is done only once where there is one.
    """

    id: str
    does: str = ""
    once: Path | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    split: str | None = None

    def digest(self) -> str:
        return f"{self.id} {self.does}"

    def read(self) -> Crystal:
        if self.once is None or not self.once.exists():
            if self.once is not None:
                self.once.touch()
            self._do()
        return Crystal.from_arrays(self.id, 4.12 * np.eye(3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])

    def _do(self) -> None:
        match self.does:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                began = time.monotonic()
                while time.monotonic() - began < 60:
                    try:
                        time.sleep(0.01)
                    except Exception:
                        continue
            case "stuck":
                # Years of backtracking, during which no other thread of Python runs.
                re.match("(a+)+$", "a" * 60 + "b")
            case "memory":
                np.zeros(2**46)
            case "permission":
                raise PermissionError(13, "Permission denied", self.id)
