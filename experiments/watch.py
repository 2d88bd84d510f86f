"""How entry points show a run: lines on stdout, a bar on a terminal's stderr, and signals that end it in good order."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from cgcnn_jax.run import Watcher
from cgcnn_jax.scaling import TargetScaler
from experiments import cli

_SECONDS = 1.0  # between two lines of a log file


class Terminal(Watcher):
    """Prints and draws bars, or, without a terminal, prints a line an epoch; Ctrl-C, SIGTERM and SIGUSR1 stop the training."""

    def __init__(self) -> None:
        self._bar = tqdm(disable=True)
        self._unit, self._epochs, self._said = "", 0, -math.inf
        self._signals: list[int] = []

    def message(self, text: str) -> None:
        say(text)

    @contextlib.contextmanager
    def training(self, first: int, epochs: int, scaler: TargetScaler) -> Iterator[None]:
        self._unit, self._epochs = scaler.units[0], epochs
        with (
            cli.stop_requests(self._signals),
            cli.bar(total=epochs, initial=first, desc="training", unit="epoch") as self._bar,
        ):
            yield

    def step(self, epoch: int, done: int, of: int) -> None:
        self._bar.n = round(epoch + done / of, 2)
        self._bar.refresh()

    def epoch(self, record: Mapping[str, Any]) -> None:
        # Of several targets, or classes, there is no one error in a unit; without validation there is the training's.
        shown = next(key for key in ("val_mae", "val_error", "train_mae", "train_loss") if key in record)
        text = f"{shown} {record[shown]:.4g} {self._unit if shown.endswith('_mae') else ''}".rstrip()
        number, now = record["epoch"] + 1, time.monotonic()
        if self._bar.disable:
            if now - self._said >= _SECONDS or number == self._epochs:
                say(f"epoch {number} of {self._epochs}: {text}")
                self._said = now
        else:
            self._bar.set_postfix_str(text)

    def should_stop(self) -> bool:
        return bool(self._signals)


def watch_trials() -> Any:
    """A Terminal that prints a line per trial of a sweep."""
    # Imported here: other commands have no trials.
    from cgcnn_jax.sweep.runner import SweepWatcher

    class Trials(Terminal, SweepWatcher):
        def ended(self, record: Mapping[str, Any], n_ended: int, n_trial: int) -> None:
            changes = ", ".join(f"{name}={value}" for name, value in record["overrides"].items())
            error = record.get("val_mae", record.get("val_error"))
            reached = record["status"] if error is None else f"{record['status']}, validation error {error:.4g}"
            say(f"trial {record['trial']} ({n_ended} of {n_trial} ended): {reached}; {changes}")

    return Trials()


class Silent(Watcher):
    """Says nothing, and stops at the signals that Terminal stops at: for processes beside the first."""

    def __init__(self) -> None:
        self._signals: list[int] = []

    @contextlib.contextmanager
    def training(self, first: int, epochs: int, scaler: TargetScaler) -> Iterator[None]:
        with cli.stop_requests(self._signals):
            yield

    def should_stop(self) -> bool:
        return bool(self._signals)


def say(text: str) -> None:
    """Prints a line without breaking a bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
