"""A sweep's folder: what is in it, and how it is written.

sweep.json        the configuration and the trials, or the space
data.json         digests of the crystals that trials learned from
trials/0012/      the work directory of a trial, and trial.json: how it ended
populations/      populations in training: which trials, and their checkpoints
locks/            held by the processes that train
results.csv       a row per ended trial
hyperparameters.png
"""

import contextlib
import functools
import json
import math
import operator
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgcnn_jax import config as configs
from cgcnn_jax.files import lock_if_free, write_text
from cgcnn_jax.sweep.space import Overrides
from cgcnn_jax.train.loop import Diverged
from cgcnn_jax.workdir import Workdir, as_csv

FINISHED, DIVERGED, PRUNED, FAILED = "finished", "diverged", "pruned", "failed"


class SweepFolder:
    """The folder of one sweep. Every file is written whole or not at all; several processes may share it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def claim(self, config: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Makes the folder if it is not there, and writes what is swept; `trials` of the plan may grow.

        Raises:
          ValueError: If another sweep lies here, saying in what it differs.
        """
        for name in ("trials", "populations", "locks"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        new = {"config": dict(config), **json.loads(json.dumps(plan))}
        file = self.path / "sweep.json"
        if file.exists():
            old = _read(file)
            reasons = configs.differences(configs.upgraded(old["config"]), config)
            reasons += _plan_differences(old, new)
            if reasons:
                listed = "\n".join(f"  {reason}" for reason in reasons)
                raise ValueError(f"{self.path} holds another sweep:\n{listed}\nChoose another --workdir, or remove it")
        write_text(file, json.dumps(new, indent=2) + "\n")

    def check_data(self, key: str, digest: str) -> None:
        """Notes the content of the crystals that trials read.

        Args:
          key: Tells what they read; trials of one key learn from the same.
          digest: Of the crystals.

        Raises:
          ValueError: If trials that have ended learned from others.
        """
        with self.lock("data"):
            file = self.path / "data.json"
            known = _read(file) if file.exists() else {}
            if known.get(key, digest) != digest and self.ended():
                raise ValueError(
                    f"{self.path}: the data changed since trials of this sweep ended, which others would be compared with; "
                    "restore the data, or choose another --workdir"
                )
            write_text(file, json.dumps(known | {key: digest}, indent=2) + "\n")

    def trial(self, number: int) -> Workdir:
        return Workdir(self.path / "trials" / f"{number:04d}")

    def population(self, number: int) -> Path:
        """Folder of the population whose first trial has the number."""
        return self.path / "populations" / f"{number:04d}"

    def lock(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Waits until no other process holds the lock, and holds it."""
        return lock_if_free(self.path / "locks" / name, waits=True)

    def lock_if_free(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Holds the lock unless another process does, which the value tells."""
        return lock_if_free(self.path / "locks" / name)

    def populations(self) -> dict[int, list[int]]:
        """Trials of each population in training, by the number of the first."""
        found = {}
        for file in sorted((self.path / "populations").glob("*/population.json")):
            # Another process may remove it at this moment.
            with contextlib.suppress(FileNotFoundError):
                found[int(file.parent.name)] = _read(file)["trials"]
        return found

    def open_population(self, numbers: Sequence[int]) -> Path:
        """Notes that these trials train together, and gives their folder."""
        place = self.population(numbers[0])
        place.mkdir(exist_ok=True)
        write_text(place / "population.json", json.dumps({"trials": list(numbers)}) + "\n")
        return place

    def close_population(self, number: int) -> None:
        """Removes what only a population in training needs; its trials have ended, or none of it is saved."""
        shutil.rmtree(self.population(number))

    def has_ended(self, number: int) -> bool:
        return (self.trial(number).path / "trial.json").exists()

    def record(self, number: int) -> dict[str, Any]:
        """How an ended trial ended."""
        return self.trial(number).read_json("trial.json")

    def ended(self) -> list[dict[str, Any]]:
        """What is known of each ended trial, by number."""
        return [_read(file) for file in sorted((self.path / "trials").glob("*/trial.json"))]

    def end_finished(self, number: int, overrides: Overrides) -> dict[str, Any]:
        """Notes the errors of a trial whose work directory is finished."""
        place = self.trial(number)
        summary = place.summary()
        records = place.records()
        best = next((record for record in records if record["epoch"] == summary["best_epoch"]), None)
        if best is None:
            raise ValueError(
                f"{place.path / 'metrics.jsonl'}: damaged, it lacks epoch {summary['best_epoch']}. Remove {place.path}"
                + "".join(f" and {self.population(first)}" for first, of in self.populations().items() if number in of)
                + ", and the same command trains again what was in them; all other trials are good"
            )
        return self._end(
            number,
            overrides,
            status=FINISHED,
            val_error=best.get("val_error"),
            **_errors(summary["metrics"]),
            best_epoch=summary["best_epoch"],
            epochs=len(records),
            seconds=summary["seconds_of_all_epochs"],
        )

    def end_diverged(self, number: int, overrides: Overrides, error: Diverged) -> dict[str, Any]:
        """Notes that a trial diverged, and at which step."""
        records = self.trial(number).records()
        seconds = sum(record["seconds"] for record in records)
        return self._end(
            number, overrides, status=DIVERGED, diverged_at=error.step, epochs=len(records), seconds=seconds
        )

    def end_pruned(self, number: int, overrides: Overrides) -> dict[str, Any]:
        """Notes that a search gave a trial up, with the lowest validation error until then."""
        records = self.trial(number).records()
        # What was not finite is written as null.
        best = min(records, key=lambda record: math.inf if record["val_error"] is None else record["val_error"])
        return self._end(
            number,
            overrides,
            status=PRUNED,
            **{key: value for key, value in best.items() if key.startswith("val_")},
            best_epoch=best["epoch"],
            epochs=len(records),
            seconds=sum(record["seconds"] for record in records),
        )

    def end_failed(self, number: int, overrides: Overrides, error: Exception) -> dict[str, Any]:
        """Notes that what a search chose cannot be trained, and why."""
        return self._end(number, overrides, status=FAILED, reason=str(error))

    def write_table(self) -> None:
        """Writes results.csv, a row per ended trial in order, with the value of every field that one of them changes."""
        # One process at a time, or an older list of trials could replace a newer one.
        with self.lock("results"):
            rows, config = self.ended(), configs.upgraded(_read(self.path / "sweep.json")["config"])
            changed = _names(row["overrides"] for row in rows)
            measured = _names({key: None for key in row if key not in _KEYS} for row in rows)
            header = [*measured, *_KEYS[2:]]
            cells = [
                [
                    row["trial"],
                    *(_setting(config, row["overrides"], name) for name in changed),
                    *(_cell(row.get(name)) for name in header),
                ]
                for row in rows
            ]
            write_text(self.path / "results.csv", as_csv(["trial", *changed, *header], cells))

    def draw(self, unit: str) -> None:
        """Draws the validation error of finished trials against each field, where there is something to compare."""
        from cgcnn_jax.report import figures, trials

        table = trials.read(self.path / "results.csv")
        metric, unit = ("val_mae", unit) if "val_mae" in table else ("val_error", "")
        if not trials.varied(table[np.isfinite(trials.errors(table, metric))]):
            return
        figure = trials.hyperparameter_effects(table, unit=unit, metric=metric)
        figures.save(figure, self.path / "hyperparameters.png")

    def _end(self, number: int, overrides: Overrides, *, status: str, **values: Any) -> dict[str, Any]:
        record = {"trial": number, "overrides": overrides, **values, "status": status}
        place = self.trial(number)
        place.path.mkdir(exist_ok=True)
        place.write_json("trial.json", record)
        return record


# What every trial has; the errors stand between the overrides and the last of them.
_KEYS = ("trial", "overrides", "best_epoch", "epochs", "status", "diverged_at", "seconds")


def _read(file: Path) -> dict[str, Any]:
    return Workdir(file.parent).read_json(file.name)


def _errors(metrics: Mapping[str, Any]) -> dict[str, float]:
    """val_mae, test_mae ... of a summary; of several properties val_mae/NAME, of classes val_roc_auc and accuracy."""
    found = {}
    for split in ("val", "test"):
        for name, value in metrics[split].items():
            if isinstance(value, Mapping):
                found[f"{split}_mae/{name}"] = value["mae"]
            elif name in ("mae", "roc_auc", "accuracy"):
                found[f"{split}_{name}"] = value
    return found


def _plan_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What hinders a plan to go on with an older one; it may have more trials."""
    if old.keys() != new.keys():
        return ["one searches a space and the other tries a list"]
    if "space" in new:
        return [] if old["space"] == new["space"] else ["the space is another one"]
    for number, (before, now) in enumerate(zip(old["trials"], new["trials"], strict=False)):
        if before != now:
            return [f"trial {number}: {before} -> {now}"]
    missing = len(old["trials"]) - len(new["trials"])
    return [f"{missing} trials are gone"] if missing > 0 else []


def _names(parts: Any) -> list[str]:
    """All keys, in the order in which they come."""
    return list(dict.fromkeys(name for part in parts for name in part))


def _setting(config: Mapping[str, Any], overrides: Overrides, name: str) -> Any:
    """The cell of a field: what the trial sets it to, or else what it is for all."""
    value = overrides[name] if name in overrides else functools.reduce(operator.getitem, name.split("."), config)
    return repr(value) if value is None or value == "" else _cell(value)


def _cell(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
