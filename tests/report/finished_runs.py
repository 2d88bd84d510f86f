"""Folders of finished runs, written as cgcnn_jax.run writes them but without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgcnn_jax import config as configs
from cgcnn_jax import evaluation
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.workdir import Workdir
from configs import base

FORMULAS = ("NaCl", "H2O", "Fe2O3", "NaN", "SiO2", "TiN", "BaTiO3", "GaAs", "C", "MgO")


def regression(n: int = 40, seed: int = 0, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions [n, 1]."""
    random = np.random.default_rng(seed)
    targets = np.random.default_rng(7).normal(size=(n, 1))
    return targets, targets + spread * random.normal(size=(n, 1))


def classes(n: int = 60, num_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n, 1] and probabilities [n, num_classes], right more often than not."""
    random = np.random.default_rng(3)
    labels = random.integers(num_classes, size=n)
    weights = random.gamma(1.0, size=(n, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    return labels[:, None].astype(float), weights / weights.sum(axis=1, keepdims=True)


def write_run(
    folder: Path,
    targets: np.ndarray,
    values: np.ndarray,
    *,
    names: Sequence[str] = ("formation_energy_eV_per_atom",),
    units: Sequence[str] = ("eV/atom",),
    ids: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    task: str = "regression",
    epochs: int = 5,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """A finished run whose test split has these labels and predictions.

    Args:
      folder: Where.
      targets: [n, n_target].
      values: [n, n_target], or probabilities.
      names: Properties.
      units: Theirs.
      ids: Of the crystals.
      columns: More columns of predictions.csv; formula, n_atom, nearest and distance if not given.
      task: Of the network.
      epochs: In metrics.jsonl.
      changes: Fields of the configuration, by dotted name.
    """
    folder.mkdir(parents=True)
    n = len(targets)
    config = base.get_config()
    config.data.target, config.data.unit, config.model.task = ",".join(names), ",".join(units), task
    for name, value in (changes or {}).items():
        group, field = name.split(".")
        config[group][field] = value
    scaler = (
        TargetScaler.for_classes(targets, names[0], values.shape[1])
        if task == "classification"
        else TargetScaler("regression", tuple(names), tuple(units), (0.0,) * len(names), (1.0,) * len(names))
    )
    if task == "classification":
        config.model.num_classes = values.shape[1]
    workdir = Workdir(folder)
    workdir.write_json("config.json", configs.to_dict(config))
    ids = [f"crystal-{number}" for number in range(n)] if ids is None else list(ids)
    if columns is None:
        columns = {
            "formula": [FORMULAS[number % len(FORMULAS)] for number in range(n)],
            "n_atom": [1 + number % 30 for number in range(n)],
            "nearest": [f"train-{number}" for number in range(n)],
            "distance": [round(0.01 * number, 4) for number in range(n)],
        }
    workdir.write_csv("predictions.csv", *evaluation.prediction_table(scaler, ids, targets, values, columns))
    measured = evaluation.measure(scaler, targets, values)
    workdir.write_json(
        "summary.json",
        {
            "metrics": {"train": measured, "val": measured, "test": measured},
            "intervals_95": {"test": _around(measured)},
            "properties": dict(zip(scaler.names, scaler.units, strict=True)),
            "best_epoch": epochs - 1,
            "parameters": 96641,
            "crystals": {"train": 300, "val": 100, "test": n, "unused": 3, "left_out": 0},
            "seconds": {"data": 1.5, "training": 90.0, "evaluation": 0.5, "rest": 8.0, "total": 100.0},
            "seconds_of_all_epochs": 90.0,
            "train_crystals_per_second": 1234.0,
            "inference_crystals_per_second": 5678.0,
            "padding": {"nodes": 0.05, "edges": 0.04},
            "command": "python -m experiments.train --config=configs/formation_energy.py",
            "finished": "2026-11-21T10:00:00+00:00",
            "hardware": {
                "devices": ["cpu"],
                "platform": "cpu",
                "processor": "a processor",
                "cores": 2,
                "system": "Linux",
            },
            "versions": {"python": "3.11.7", "jax": "0.9.2"},
            "commit": "abc123",
        },
    )
    keys = {
        "classification": ("train_accuracy", "val_accuracy", "val_roc_auc"),
        "regression": [f"{part}_mae{f'/{name}' * (len(names) > 1)}" for name in names for part in ("train", "val")],
    }[task]
    for epoch in range(epochs):
        error = 1.0 / (1 + epoch)
        value = 1 - error / 2 if task == "classification" else error
        rates = {"learning_rate": 0.01 * error, **dict.fromkeys(keys, value), "seconds": 18.0}
        workdir.append_record({"epoch": epoch, "step": 10 * (epoch + 1), **rates})
    return folder


def _around(measured: Mapping[str, Any]) -> dict[str, Any]:
    """An interval of 2 % about every number; true ones take long."""
    return {
        key: _around(value) if isinstance(value, Mapping) else [0.99 * value, 1.01 * value]
        for key, value in measured.items()
    }


def edit_json(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
