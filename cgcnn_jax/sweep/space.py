"""The language of a sweep file: fields and their values, and the trials they make."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_collections import ConfigDict

Overrides = dict[str, Any]
"""Field -> value, such as {"model.num_convs": 3, "optimizer.l2": 1e-4}."""

MEMBER_FIELDS = (
    *("optimizer.learning_rate", "optimizer.l2", "model.dropout", "model.init_scale", "train.seed"),
    *("split.seed", "data.fold"),
)
"""Fields in which runs of one compiled program may differ (train.population)."""

_DIGITS = 4  # of a drawn number: enough to be what was meant, few enough to read in a table
_TRIES = 1000  # draws in a row that bring nothing new before a space counts as drawn empty
_PATIENCE = 50  # and before a network does


@dataclass(frozen=True)
class Uniform:
    """A number between low and high; with `log` its logarithm is evenly distributed."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"need low < high, and low > 0 with log; got {self}")

    def draw(self, rng: np.random.Generator) -> float:
        low, high = (np.log(self.low), np.log(self.high)) if self.log else (self.low, self.high)
        drawn = rng.uniform(low, high)
        return float(f"{np.exp(drawn) if self.log else drawn:.{_DIGITS}g}")


@dataclass(frozen=True)
class Integers:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"need low < high; got {self}")

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high, endpoint=True))


Space = Mapping[str | tuple[str, ...], Sequence[Any] | Uniform | Integers]
"""Field -> the values it may take; several fields that go together are a tuple, and so is each of their values."""


def grid(space: Space) -> list[Overrides]:
    """Every combination of the values, those of the last field changing fastest.

    >>> grid({"model.num_convs": [1, 2], ("model.atom_layers", "model.crystal_layers"): [(1, 0)]})
    [{'model.num_convs': 1, 'model.atom_layers': 1, 'model.crystal_layers': 0}, {'model.num_convs': 2, ...}]

    Raises:
      ValueError: If a field has a range instead of a list, or no value.
    """
    check_space(space)
    columns = []
    for fields, values in space.items():
        if isinstance(values, Uniform | Integers):
            raise ValueError(f"a grid needs a list of values for {_named(fields)}; got {values}")
        columns.append(values)
    return [assigned(space, chosen) for chosen in itertools.product(*columns)]


def product(*parts: Sequence[Overrides]) -> list[Overrides]:
    """Every combination of a trial of the first list with one of the second, and so on; the last changes fastest.

    Raises:
      ValueError: If two lists set the same field.
    """
    return [_merged(chosen) for chosen in itertools.product(*parts)]


def random(count: int, space: Space, *, seed: int = 0, per_shape: int = 1) -> list[Overrides]:
    """Independent draws, no two alike; the same seed draws the same trials anywhere.

    Args:
      count: How many.
      space: Lists, from which each value is as likely as another, and ranges.
      seed: Of the draws.
      per_shape: Trials in a row that share every field but MEMBER_FIELDS, and so train as one program: the fewer
        different networks a search has, the less of it is compiling.

    Raises:
      ValueError: If the space has fewer different trials, or a list no value.
    """
    check_space(space)
    if count < 1 or per_shape < 1:
        raise ValueError(f"count and per_shape must be at least 1; got {count} and {per_shape}")
    rng = np.random.default_rng(seed)
    found: dict[str, Overrides] = {}
    shape: Overrides = {}
    of_shape, repeated = per_shape, 0
    while len(found) < count and repeated < _TRIES:
        fresh = assigned(space, [_drawn(values, rng) for values in space.values()])
        # A network with few different trials gives way to another once they are drawn.
        if of_shape == per_shape or repeated % _PATIENCE == _PATIENCE - 1:
            shape, of_shape = fresh, 0
        trial = {name: value if name in MEMBER_FIELDS else shape[name] for name, value in fresh.items()}
        if found.setdefault(json.dumps(trial), trial) is trial:
            of_shape, repeated = of_shape + 1, 0
        else:
            repeated += 1
    if len(found) < count:
        raise ValueError(f"the space has {len(found)} different trials, so that {count} cannot be drawn from it")
    return list(found.values())


def check_space(space: Space) -> None:
    """Raises ValueError if a field has no value, stands there twice, or values of several fields do not fit them."""
    names: list[str] = []
    for fields, values in space.items():
        names += [fields] if isinstance(fields, str) else fields
        if isinstance(values, Uniform | Integers):
            if not isinstance(fields, str):
                raise ValueError(f"{_named(fields)} need a list of tuples; got {values}")
            continue
        if not isinstance(values, list | tuple | range | np.ndarray) or not len(values):
            raise ValueError(f"{_named(fields)} needs a list of values, Uniform or Integers; got {values!r}")
        for value in values:
            if not isinstance(fields, str) and (not isinstance(value, tuple | list) or len(value) != len(fields)):
                raise ValueError(f"a value of {_named(fields)} must be {len(fields)} values; got {value!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"a space sets each field once; {twice[0]} stands there twice")


def assigned(space: Space, chosen: Sequence[Any]) -> Overrides:
    """The overrides that a value for each entry of the space makes."""
    return _merged(_assigned(fields, value) for fields, value in zip(space, chosen, strict=True))


def with_overrides(config: ConfigDict, overrides: Overrides) -> ConfigDict:
    """A copy of the configuration with some fields changed.

    Raises:
      ValueError: If there is no such field, or the value is of another type.
    """
    own = config.copy_and_resolve_references()
    for name, value in overrides.items():
        group, has_group, field = name.rpartition(".")
        holder = own.get(group) if has_group else own
        if not isinstance(holder, ConfigDict) or field not in holder or isinstance(holder[field], ConfigDict):
            raise ValueError(f"a trial sets {name}, which is no field of the configuration; configs/base.py lists them")
        try:
            holder[field] = tuple(value) if isinstance(value, list) else value
        except TypeError as error:
            raise ValueError(f"a trial sets {name} to {value!r}, which is of another type than the field's") from error
    return own


def _drawn(values: Sequence[Any] | Uniform | Integers, rng: np.random.Generator) -> Any:
    return values.draw(rng) if isinstance(values, Uniform | Integers) else values[int(rng.integers(len(values)))]


def _assigned(fields: str | tuple[str, ...], value: Any) -> Overrides:
    return {
        field: one.item() if isinstance(one, np.generic) else one  # JSON takes Python's numbers alone
        for field, one in ([(fields, value)] if isinstance(fields, str) else zip(fields, value, strict=True))
    }


def _merged(parts: Any) -> Overrides:
    merged: Overrides = {}
    for part in parts:
        for name, value in part.items():
            if name in merged:
                raise ValueError(f"a trial sets each field once; {name} is set twice")
            merged[name] = value
    return merged


def _named(fields: str | tuple[str, ...]) -> str:
    return fields if isinstance(fields, str) else " and ".join(fields)
