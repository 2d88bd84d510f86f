"""Targets as the network sees them: scaled by the training split, and back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

Task = Literal["regression", "classification"]


def with_units(names: Iterable[str], units: Iterable[str]) -> list[str]:
    """Each name with its unit, "gap (eV)", or alone where it has none."""
    return [f"{name} ({unit})" if unit else name for name, unit in zip(names, units, strict=True)]


@dataclass(frozen=True)
class TargetScaler:
    """scaled = (value - mean) / std, per target, from the known labels of the training split alone.

    In classification nothing is scaled: targets are class numbers.

    Attributes:
      task: regression or classification.
      names: Property names, one per target.
      units: Their units.
      mean: Per target, in its unit.
      std: Per target, in its unit; 1 where all labels are equal.
      num_classes: Classes of a classification, 0 in regression.
    """

    task: Task
    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int = 0

    @property
    def described(self) -> str:
        """What is predicted, for people: "gap (eV), energy (eV/atom)" or "2 classes of is_metal"."""
        if self.task == "classification":
            return f"{self.num_classes} classes of {self.names[0]}"
        return ", ".join(with_units(self.names, self.units))

    @classmethod
    def fit(cls, targets: np.ndarray, names: tuple[str, ...], units: tuple[str, ...]) -> "TargetScaler":
        """From training labels f64[n_graph, n_target], NaN where unknown.

        Raises:
          ValueError: If a target has no label in the training split, or labels that cannot be scaled.
        """
        unlabelled = np.flatnonzero(np.isnan(targets).all(axis=0))
        if len(unlabelled):
            raise ValueError(f"target {names[unlabelled[0]]!r} has no label in the training split")
        # Not std > 0: equal labels have a standard deviation of rounding, as 1e-17 for three times 0.1.
        is_constant = np.nanmax(targets, axis=0) == np.nanmin(targets, axis=0)
        with np.errstate(all="ignore"):
            mean, std = np.nanmean(targets, axis=0), np.where(is_constant, 1.0, np.nanstd(targets, axis=0))
            scaled = ((targets - mean) / std).astype(np.float32)
        fits = np.isfinite(mean + std) & (std > 0) & ~np.isinf(scaled).any(axis=0)
        if len(bad := np.flatnonzero(~fits)):
            of = targets[:, bad[0]]
            raise ValueError(
                f"target {names[bad[0]]!r} has labels from {np.nanmin(of):g} to {np.nanmax(of):g}, which cannot be scaled to mean 0 and "
                "deviation 1 in floating point; is one a mark for unknown values? Leave those empty, or take another unit"
            )
        return cls("regression", names, units, tuple(mean.tolist()), tuple(std.tolist()))

    @classmethod
    def for_classes(cls, targets: np.ndarray, name: str, num_classes: int) -> "TargetScaler":
        """For class labels f64[n_graph, 1], NaN where unknown.

        Raises:
          ValueError: If a label is not one of 0 .. num_classes - 1.
        """
        labels = targets[~np.isnan(targets)]
        wrong = labels[~np.isin(labels, np.arange(num_classes))]
        if len(wrong):
            raise ValueError(
                f"target {name!r} holds the label {wrong[0]:g}; {num_classes} classes are numbered "
                f"0 to {num_classes - 1} (model.num_classes)"
            )
        return cls("classification", (name,), ("class",), (0.0,), (1.0,), num_classes)

    @property
    def n_output(self) -> int:
        """Outputs of the network: targets, or classes."""
        return self.num_classes if self.task == "classification" else len(self.names)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that hold the predictions in tables: `class` and `probability_k`, or `prediction` and `unit`
        of one property, or each of several with its unit."""
        if self.task == "classification":
            return ["class", *(f"probability_{k}" for k in range(self.num_classes))]
        return ["prediction", "unit"] if len(self.names) == 1 else with_units(self.names, self.units)

    def cells(self, values: np.ndarray) -> list[Any]:
        """What stands in those columns for the values of a crystal, [n_output]."""
        if self.task == "classification":
            return [int(values.argmax()), *values.tolist()]
        return [float(values[0]), self.units[0]] if len(self.names) == 1 else values.tolist()

    def places(self, names: Iterable[str]) -> list[int]:
        """Which outputs are these, properties by name; in classification all, which belong to one property."""
        if self.task == "classification":
            return list(range(self.n_output))
        return [self.names.index(name) for name in names]

    def only(self, names: tuple[str, ...]) -> "TargetScaler":
        """That of some of the properties of a regression."""
        kept = self.places(names)
        return replace(
            self,
            names=names,
            units=tuple(self.units[k] for k in kept),
            mean=tuple(self.mean[k] for k in kept),
            std=tuple(self.std[k] for k in kept),
        )

    def as_in(self, other: "TargetScaler") -> "TargetScaler":
        """That of the other's properties, in its order, if this regression has them all; itself if not."""
        is_part = self.task == other.task == "regression" and set(other.names) <= set(self.names)
        return self.only(other.names) if is_part else self

    def scale(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scaled targets f32[n_graph, n_target], 0 where unknown, and bool[n_graph, n_target], True where known."""
        known = ~np.isnan(targets)
        return np.where(known, (targets - self.mean) / self.std, 0.0).astype(np.float32), known

    def unscale(self, outputs: np.ndarray) -> np.ndarray:
        """Network outputs [n_graph, n_output] -> values in units, or class probabilities (softmax)."""
        outputs = np.asarray(outputs, np.float64)
        if self.task == "classification":
            exponent = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
            return exponent / exponent.sum(axis=-1, keepdims=True)
        return outputs * self.std + self.mean

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TargetScaler":
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        # The logarithm of a number without a known unit had none before.
        fields["units"] = tuple(
            unit or ("log10" if name.startswith("log10(") else "")
            for name, unit in zip(fields["names"], fields["units"], strict=True)
        )
        return cls(**fields)
