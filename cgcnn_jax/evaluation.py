"""Judging predictions against labels: metrics with confidence intervals, a table, pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.duplicates import Twins
from cgcnn_jax.data.store import formulas
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train import metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(scaler: TargetScaler, targets: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Metrics of one split.

    Args:
      scaler: Names the task and the properties.
      targets: Labels in units [n, n_target], NaN where unknown.
      values: Predictions in units [n, n_target], or class probabilities [n, num_classes].

    Returns:
      Metric -> value; with several properties, property -> metric -> value. Empty without a known label.
    """
    return _of_each(scaler, targets, values, lambda metric, *columns: metric(*columns))


def measure_intervals(scaler: TargetScaler, targets: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """95 % bootstrap intervals of the metrics, shaped as `measure`."""
    return _of_each(
        scaler,
        targets,
        values,
        lambda metric, *columns: {name: list(pair) for name, pair in metrics.intervals(metric, *columns).items()},
    )


def headline(scaler: TargetScaler, measured: dict[str, Any], bounds: dict[str, Any]) -> list[str]:
    """A line per property for people, of what `measure` and `measure_intervals` gave."""
    if scaler.task == "classification":
        return [
            f"{label} {measured[key]:.4f} (95 %: {bounds[key][0]:.4f} to {bounds[key][1]:.4f})"
            for label, key in (("accuracy", "accuracy"), ("ROC AUC", "roc_auc"))
        ]
    several = len(scaler.names) > 1
    lines = []
    for name, unit in zip(scaler.names, scaler.units, strict=True):
        one = measured.get(name) if several else measured
        if one:
            low, high = (bounds[name] if several else bounds)["mae"]
            lines.append(
                f"{name}: MAE {one['mae']:.4g}{' ' * bool(unit)}{unit} (95 %: {low:.4g} to {high:.4g}), R² {one['r2']:.3f}, "
                f"{one['mad_over_mae']:.1f} times better than guessing the mean"
            )
    return lines


def prediction_table(
    scaler: TargetScaler,
    ids: Sequence[str],
    targets: np.ndarray,
    values: np.ndarray,
    crystals: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and rows of predictions.csv: id, target, prediction; with several properties a pair of columns each.

    Args:
      scaler: Names the task and the properties.
      ids: Of the crystals.
      targets: Labels in units [n, n_target], NaN where unknown.
      values: Predictions in units [n, n_target], or class probabilities [n, num_classes].
      crystals: More columns, name -> a value per crystal; they come last.
    """
    more = crystals or {}
    if scaler.task == "classification":
        header = ["id", "target", "prediction", *(f"probability_{k}" for k in range(scaler.num_classes))]
        cells = np.column_stack([targets[:, 0], values.argmax(axis=1), values])
    elif len(scaler.names) == 1:
        header = ["id", "target", "prediction"]
        cells = np.column_stack([targets, values])
    else:
        header = ["id", *(f"{kind}:{name}" for name in scaler.names for kind in ("target", "prediction"))]
        cells = np.stack([targets, values], axis=2).reshape(len(targets), -1)
    rows = (
        [
            id,
            *(None if np.isnan(cell) else float(f"{cell:.8g}") for cell in row),
            *(column[n] for column in more.values()),
        ]
        for n, (id, row) in enumerate(zip(ids, cells, strict=True))
    )
    return [*header, *more], rows


def crystal_columns(crystals: Dataset, index: np.ndarray) -> dict[str, list[Any]]:
    """What predictions.csv says of the crystals themselves: reduced formula, and atoms in the cell as it was given."""
    return {"formula": formulas(crystals.store.take(index)), "n_atom": crystals.store.n_atom[index].tolist()}


def twin_table(crystals: Dataset, twins: Twins, names: Sequence[str]) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and rows of duplicates.csv: both crystals of each pair, Å between their fingerprints, and their labels."""
    header = ["id", "split", "twin", "twin_split", "apart"]
    for name in names:
        of = "" if len(names) == 1 else f":{name}"
        header += [f"target{of}", f"twin_target{of}"]
    labels = np.stack([crystals.targets[twins.crystal], crystals.targets[twins.twin]], axis=2)
    rows = (
        [
            *(crystals.ids[one], split, crystals.ids[other], other_split, float(f"{apart:.3g}")),
            *(None if np.isnan(label) else float(f"{label:.8g}") for label in values),
        ]
        for one, other, (split, other_split), apart, values in zip(
            *twins, labels.reshape(len(labels), 2 * len(names)), strict=True
        )
    )
    return header, rows


def pictures(scaler: TargetScaler, targets: np.ndarray, values: np.ndarray, split: str) -> "dict[str, Figure]":
    """Name -> figure: parity plots, or the ROC and the confusion matrix."""
    from cgcnn_jax.report import figures

    if scaler.task == "classification":
        found = {"confusion": figures.confusion_matrix(targets[:, 0], values, split=split)}
        if len(np.unique(targets[~np.isnan(targets)])) > 1:
            found["roc"] = figures.roc_curve(targets[:, 0], values, split=split)
        return found
    return {
        "parity" if len(scaler.names) == 1 else f"parity_{name}": figures.parity_plot(
            targets[:, column], values[:, column], name=name, unit=scaler.units[column], split=split
        )
        for column, name in enumerate(scaler.names)
        if not np.isnan(targets[:, column]).all()
    }


def learning_curves(scaler: TargetScaler, records: Sequence[Mapping[str, Any]], best_epoch: int) -> "dict[str, Figure]":
    """Name -> figure of the error against the epoch, counted from 1 as in the progress that people see."""
    from cgcnn_jax.report import figures

    records, best_epoch = [{**record, "epoch": record["epoch"] + 1} for record in records], best_epoch + 1

    def drawn(metric: str, unit: str) -> "Figure":
        # The best epoch is that of all targets together, and one of them may have no label in val.
        known = {record["epoch"] for record in records if record.get(f"val_{metric}") is not None}
        best = best_epoch if best_epoch in known else None
        return figures.learning_curve(records, metric=metric, unit=unit, best_epoch=best)

    if scaler.task == "classification":
        return {"learning_curve": drawn("roc_auc" if _has(records, "val_roc_auc") else "accuracy", "")}
    if len(scaler.names) == 1:
        return {"learning_curve": drawn("mae", scaler.units[0])}
    return {
        f"learning_curve_{name}": drawn(f"mae/{name}", unit)
        for name, unit in zip(scaler.names, scaler.units, strict=True)
        if _has(records, f"train_mae/{name}")
    }


def _has(records: Sequence[Mapping[str, Any]], key: str) -> bool:
    return any(record.get(key) is not None for record in records)


def _of_each(scaler: TargetScaler, targets: np.ndarray, values: np.ndarray, apply: Any) -> dict[str, Any]:
    if scaler.task == "classification":
        known = ~np.isnan(targets).all()
        return apply(metrics.classification_metrics, targets[:, 0], values) if known else {}
    found = {
        name: apply(metrics.regression_metrics, targets[:, column], values[:, column])
        for column, name in enumerate(scaler.names)
        if not np.isnan(targets[:, column]).all()
    }
    return found if len(scaler.names) > 1 else found.get(scaler.names[0], {})
