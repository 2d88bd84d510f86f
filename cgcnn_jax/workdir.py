"""A run's folder: what is in it, and how it is written.

config.json       the configuration
split.json        ids of train, val and test
rejected.csv      crystals left out (id, reason); only with data.on_error=skip
duplicates.csv    crystals of val and test that stand in another split too, in whatever cell, with both labels
metrics.jsonl     a line per epoch
checkpoints/      orbax: the latest state, and one before
predictions.csv   the test split, val if there is none, or else train: id, target, prediction, formula, n_atom, and
                  with the report the nearest training crystal and the distance to it
summary.json      metrics, timings, hardware, versions
*.png             pictures
report.html       all of that on a page, docs/report.md
applicability.npz with the report, of up to 200,000 training crystals: how the network sees them, and what is unlike them
.judging          there while the last five are written; what a kill left of them is then made again
"""

import contextlib
import csv
import io
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgcnn_jax import config as configs
from cgcnn_jax.data.crystal import Rejected
from cgcnn_jax.files import file_name, locked, write_figure, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_JUDGING = ".judging"
_WRITTEN = ("config.json", "split.json", "predictions.csv", "summary.json")


class Workdir:
    """The folder of one run. Every file is written whole or not at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def check(self, config: Mapping[str, Any]) -> None:
        """Whether a run of this configuration may use the folder.

        Raises:
          ValueError: If a run of another configuration has checkpoints here, naming the fields that differ. Fields that
            change no result (`config.WITHOUT_EFFECT`) may differ. If the crystals lie here.
        """
        file = self.path / "config.json"
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--workdir={self.path} is a file; name a folder")
        crystals = config.get("data", {}).get("path", "").split(",")
        if not self.has_checkpoints and self.path.resolve() in [
            Path(one).expanduser().resolve() for one in crystals if one
        ]:
            raise ValueError(
                f"--workdir={self.path} is the folder of the crystals (config.data.path), which a run would fill with files "
                "of its own; name another"
            )
        if not (file.exists() and self.has_checkpoints):
            return
        self.check_stored(self.read_json("config.json"), config)

    def check_stored(self, stored: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Whether a run stored with one configuration may go on with another; see `check`."""
        fields = configs.differences(configs.upgraded(stored), config)
        if fields:
            listed = "\n".join(f"  {field}" for field in fields)
            raise ValueError(
                f"{self.path} holds a run with another configuration:\n{listed}\n"
                "Choose another --workdir, or remove this one"
            )

    def claim(self, config: Mapping[str, Any]) -> None:
        """Makes the folder if it is not there, and writes the configuration."""
        self.check(config)
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", config)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in the folder.

        Raises:
          ValueError: If one does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / ".lock", f"another process is training in {self.path}; choose another --workdir"):
            yield

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def has_checkpoints(self) -> bool:
        """Whether a run has saved anything here."""
        return self.checkpoints.is_dir() and any(self.checkpoints.iterdir())

    @property
    def is_finished(self) -> bool:
        """Whether a run was trained to its end and judged here, and what that wrote is still there."""
        is_written = all((self.path / name).exists() for name in _WRITTEN)
        return is_written and not (self.path / _JUDGING).exists()

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """While what tells of a finished training is written; a process that does not come to the end leaves a mark."""
        (self.path / _JUDGING).touch()
        yield
        (self.path / _JUDGING).unlink(missing_ok=True)

    def reopen(self) -> None:
        """Leaves that mark where a finished run is trained on, whose summary is then none of the weights that are there."""
        if self.is_finished:
            (self.path / _JUDGING).touch()

    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        return self.read_json("summary.json")

    def read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path / name}: damaged, not JSON ({error})") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.path / name}: damaged, must hold an object, not {type(content).__name__}")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_text(self.path / name, as_json(content))

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        write_text(self.path / name, as_csv(header, rows))

    def write_rejected(self, rejected: Sequence[Rejected]) -> None:
        self.write_csv("rejected.csv", ("id", "reason"), [(one.id, one.reason) for one in rejected])

    def save_figures(self, figures: "Mapping[str, Figure]") -> None:
        """Writes each to its picture_path."""
        for name, figure in figures.items():
            write_figure(self.picture_path(name), figure)

    def picture_path(self, name: str) -> Path:
        """NAME.png, where a name may hold that of a property."""
        return self.path / f"{file_name(name)}.png"

    def records(self) -> list[dict[str, Any]]:
        """The epochs so far, up to a line that is damaged or was cut short by a kill."""
        file = self.path / "metrics.jsonl"
        found = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict) or not all(type(record.get(key)) is int for key in ("epoch", "step")):
                break
            found.append(record)
        return found

    def last_step(self) -> int:
        """Steps at the end of the last recorded epoch, 0 if there is none."""
        records = self.records()
        return records[-1]["step"] if records else 0

    def keep_records(self, n_epoch: int) -> list[int]:
        """Drops the records of epochs that a resumed run takes again; the epochs of the others."""
        kept = [record for record in self.records() if record["epoch"] < n_epoch]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))
        return [record["epoch"] for record in kept]

    def append_record(self, record: Mapping[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(_finite(record)) + "\n")


def as_json(content: Mapping[str, Any]) -> str:
    """JSON text; null where a number is NaN or infinite."""
    return json.dumps(_finite(content), indent=2) + "\n"


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV text; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def environment() -> dict[str, Any]:
    """Hardware, versions and commit, for the summary of a run."""
    import jax

    devices = jax.devices()
    return {
        "hardware": {
            "devices": [device.device_kind for device in devices],
            "platform": devices[0].platform,
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": platform.platform(),
        },
        "versions": versions(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    names = ("cgcnn-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pymatgen")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    """Commit of the checkout the package runs from; None outside one."""
    # An environment may lie in a checkout of something else, which does not hold this file.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=12") or None


def _git(*arguments: str) -> str | None:
    """What git says in the package's folder; None if it fails."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _finite(value: Any) -> Any:
    """NaN and infinity have no JSON; null says that there is no number."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
