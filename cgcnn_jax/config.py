"""The only reader of a ConfigDict: checks it, and builds what it describes."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cgcnn_jax.data import elements, sources, splits
from cgcnn_jax.data.angles import NUM_ANGLES
from cgcnn_jax.data.dataset import Dataset
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import NearestK, NeighborRule, Radius, VoronoiBonds, WholeShells
from cgcnn_jax.data.splits import Split
from cgcnn_jax.files import user_cache
from cgcnn_jax.nn.basis import Basis, BinnedBasis, GaussianBasis, ReciprocalBasis
from cgcnn_jax.nn.conv import CONVOLUTIONS
from cgcnn_jax.nn.model import CGCNN
from cgcnn_jax.nn.ops import PRECISIONS
from cgcnn_jax.nn.pool import POOLS
from cgcnn_jax.scaling import TargetScaler
from cgcnn_jax.train.feed import FEEDS
from cgcnn_jax.train.loop import TrainSettings
from cgcnn_jax.train.losses import LOSSES
from cgcnn_jax.train.optimizer import OPTIMIZERS, SCHEDULES, OptimizerSettings
from cgcnn_jax.train.parallel import WAYS

_CHOICES: dict[str, tuple[str, ...]] = {
    "data.source": tuple(sources.SOURCES),
    "data.on_error": ("error", "skip"),
    "split.kind": ("auto", "ratio", "size", "source", "files", "k_fold"),
    "graph.fidelity": ("", "published"),
    "graph.neighbors": ("shells", "nearest", "radius", "voronoi"),
    "atoms.properties": (2, 3, 9),  # type: ignore[dict-item]
    "bonds.basis": ("gaussian", "reciprocal", "bins"),
    "model.task": ("regression", "classification"),
    "model.conv": tuple(CONVOLUTIONS),
    "model.pool": POOLS,
    "model.precision": PRECISIONS,
    "optimizer.name": OPTIMIZERS,
    "train.feed": FEEDS,
    "train.parallel": WAYS,
    "optimizer.schedule": SCHEDULES,
}
_POSITIVE = (
    "split.num_folds",
    "graph.num_neighbors",
    "graph.cutoff",
    "bonds.cutoff",
    "bonds.spacing",
    "bonds.num_bins",
    "model.features",
    "model.crystal_features",
    "optimizer.learning_rate",
    "optimizer.factor",
    "train.epochs",
    "train.batch_size",
)
_NOT_NEGATIVE = (
    "data.workers",
    "data.fold",
    "graph.shell_tolerance",
    "graph.quotient_tolerance",
    "graph.bond_tolerance",
    "model.num_convs",
    "model.atom_layers",
    "model.crystal_layers",
    "optimizer.l2",
    "optimizer.clip_norm",
    "optimizer.warmup_epochs",
    "train.patience",
    "train.save_seconds",
    "train.devices",
)
# Length if it is fixed, type of the values, and what they are.
_TUPLES: dict[str, tuple[int | None, type, str]] = {
    "split.ratios": (3, float, "shares of train, val and test"),
    "split.sizes": (3, int, "numbers of crystals in train, val and test"),
    "split.files": (3, str, "names of the files of train, val and test"),
    "optimizer.milestones": (None, int, "epochs"),
}

# A sphere of 100 Å holds 10^5 neighbours of every atom; a typing error must not take all memory.
_MAX_CUTOFF = 100.0
_MAX_BOND_FEATURES = 10_000
# Kinds of splits that take what says how they are drawn; with others it would change nothing.
_OF_SPLITS = {
    "data.fold": ("k_fold", "source"),
    "split.files": ("files",),
    "split.sizes": ("size",),
    "split.by_composition": ("ratio", "k_fold"),
    "split.by_structure": ("ratio", "k_fold"),
}


def validate(config: ConfigDict) -> None:
    """Checks what can be checked before any data are read.

    Raises:
      ValueError: Naming the field, the rule, the value and the choices.
    """
    try:
        _validate(config)
    except (KeyError, AttributeError, TypeError) as error:
        cause = str(error.args[0] if error.args else error).splitlines()[0].strip("'\"")
        raise ValueError(f"config lacks a field, or one has a wrong type ({cause}); configs/base.py has all") from error


def _validate(config: ConfigDict) -> None:
    for name, choices in _CHOICES.items():
        if _get(config, name) not in choices:
            listed = ", ".join(str(choice) or "''" for choice in choices)
            raise ValueError(f"config.{name} must be one of {listed}; got {_get(config, name)!r}")
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = _get(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"config.{name} must be a finite number; got {value!r}")
    for name in _POSITIVE:
        if not _get(config, name) > 0:
            raise ValueError(f"config.{name} must be greater than 0; got {_get(config, name)}")
    for name in _NOT_NEGATIVE:
        if not _get(config, name) >= 0:
            raise ValueError(f"config.{name} must not be negative; got {_get(config, name)}")
    for name in _TUPLES:
        _check_tuple(name, _get(config, name))
    for name in ("model.dropout", "train.average_decay", "optimizer.momentum", "split.val_ratio"):
        if not 0 <= _get(config, name) < 1:
            raise ValueError(f"config.{name} must be at least 0 and below 1; got {_get(config, name)}")
    scale = config.model.init_scale
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"config.model.init_scale must be greater than 0 and finite, or None; got {scale}")
    if config.graph.cutoff > _MAX_CUTOFF:
        raise ValueError(f"config.graph.cutoff must be at most {_MAX_CUTOFF:g} Å; got {config.graph.cutoff}")
    for name, rule in (("fidelity", "nearest"), ("share_last_shell", "shells")):
        if config.graph[name] and config.graph.neighbors != rule:
            raise ValueError(
                f"config.graph.{name} goes with graph.neighbors={rule}; got {config.graph[name]} with {config.graph.neighbors}"
            )
    if (
        config.bonds.basis in ("gaussian", "reciprocal")
        and config.graph.cutoff > config.bonds.cutoff
        and not config.graph.fidelity
    ):
        raise ValueError(
            f"config.bonds.cutoff must be at least graph.cutoff, {config.graph.cutoff:g} Å, or longer bonds would look alike; "
            f"got {config.bonds.cutoff:g}"
        )
    source = sources.SOURCES[config.data.source]
    if config.data.source == "matbench" and not config.data.task:
        raise ValueError("config.data.task must name the Matbench task, as in --config.data.task=matbench_log_kvrh")
    if not target_names(config):
        raise ValueError("config.data.target must name the property to learn, as in --config.data.target=band_gap")
    if config.data.source != "demo" and not config.data.path and not source.fetched(_request(config)):
        raise ValueError(f"config.data.path must say where the {config.data.source} crystals lie")
    task = source.task(config.data.task)
    if task and task.kind and task.kind != config.model.task:
        raise ValueError(f"config.model.task must be {task.kind} for {task.name}; got {config.model.task}")
    if task and not set(task.names) & set(target_names(config)):
        raise ValueError(
            f"config.data.target must name what {task.name} judges, {' or '.join(dict.fromkeys(task.names))}; got "
            f"{config.data.target!r}. --config.data.target= takes the task's own"
        )
    if config.data.source == "demo" and config.data.wanted:
        raise ValueError(
            f"this experiment has no embedded data. It wants {config.data.wanted}; "
            "docs/data.md tells where to get them. Start it with --config.data.source=jsonl --config.data.path=PATH (or source=directory for id_prop.csv and "
            "CIFs) and, if the property has another name there, --config.data.target=NAME"
        )
    if config.graph.angles and config.graph.fidelity:
        raise ValueError(
            f"config.graph.angles must be False with graph.fidelity={config.graph.fidelity}: the bonds that the published "
            "code invents have no direction"
        )
    for name, kinds in _OF_SPLITS.items():
        value = _get(config, name)
        is_set = any(value) if isinstance(value, tuple | list) else bool(value)
        if is_set and split_kind(config) not in kinds:
            raise ValueError(
                f"config.{name} needs split.kind {' or '.join(kinds)}; got {value} with {split_kind(config)}"
            )
    # Whether a source has folds, which val_ratio divides, or a split of its own is known of tasks; of others, later.
    is_folds = task is not None and task.num_folds > 1
    is_known = is_folds or config.split.redraw_val or split_kind(config) != "source"
    if config.split.redraw_val and (is_folds or split_kind(config) != "source"):
        kind = "a task of folds, which draws val anyway" if is_folds else f"split.kind {split_kind(config)}"
        raise ValueError(_redrawn_without_val(kind))
    if config.train.patience and is_known and not _wants_val(config, split_kind(config), is_folds):
        raise ValueError(_patience_without_val(config))
    for name in ("train", "split"):
        # As large as a compiled program takes it.
        if not 0 <= config[name].seed < 2**31:
            raise ValueError(f"config.{name}.seed must be 0 to {2**31 - 1}; got {config[name].seed}")
    if config.model.task == "classification" and len(target_names(config)) != 1:
        raise ValueError(f"config.data.target must be one property in classification; got {config.data.target!r}")
    losses = ("auto", *LOSSES[config.model.task])
    if config.train.loss not in losses:
        raise ValueError(
            f"config.train.loss must be one of {', '.join(losses)} in {config.model.task}; got {config.train.loss!r}"
        )
    if config.model.task == "classification" and config.model.num_classes < 2:
        raise ValueError(f"config.model.num_classes must be at least 2; got {config.model.num_classes}")
    if config.model.pool == "site" and config.model.crystal_layers:
        raise ValueError(
            "config.model.pool=site predicts a number per atom, so it has no layers after pooling; set "
            "config.model.crystal_layers=0 (and atom_layers instead)"
        )
    if config.bonds.basis == "gaussian" and config.bonds.spacing >= config.bonds.cutoff:
        raise ValueError(f"config.bonds.spacing must be below bonds.cutoff; got {config.bonds.spacing}")
    if config.bonds.basis == "gaussian" and config.bonds.cutoff / config.bonds.spacing > _MAX_BOND_FEATURES:
        raise ValueError(
            f"config.bonds.spacing must give at most {_MAX_BOND_FEATURES} Gaussians up to bonds.cutoff "
            f"({config.bonds.cutoff} Å); got {config.bonds.spacing}"
        )
    for name in ("num_gaussians", "num_bins"):
        if config.bonds[name] > _MAX_BOND_FEATURES:
            raise ValueError(f"config.bonds.{name} must be at most {_MAX_BOND_FEATURES}; got {config.bonds[name]}")
    if config.bonds.basis == "reciprocal" and not 0 < config.bonds.low < config.bonds.cutoff:
        raise ValueError(
            f"config.bonds.low must lie between 0 and bonds.cutoff ({config.bonds.cutoff} Å); got {config.bonds.low}"
        )
    if config.bonds.num_gaussians < 2:
        raise ValueError(f"config.bonds.num_gaussians must be at least 2; got {config.bonds.num_gaussians}")
    if (config.optimizer.schedule == "milestones") != bool(config.optimizer.milestones):
        raise ValueError(
            "config.optimizer.milestones, epochs after which the learning rate falls, go with optimizer.schedule=milestones, "
            f"and it with some; got {config.optimizer.milestones} with {config.optimizer.schedule}"
        )
    if config.optimizer.warmup_epochs and config.optimizer.schedule != "cosine":
        raise ValueError(
            f"config.optimizer.warmup_epochs goes with optimizer.schedule=cosine; got {config.optimizer.warmup_epochs} with "
            f"{config.optimizer.schedule}"
        )
    if config.optimizer.warmup_epochs >= config.train.epochs:
        raise ValueError(
            f"config.optimizer.warmup_epochs must be below train.epochs; got {config.optimizer.warmup_epochs} of "
            f"{config.train.epochs}"
        )
    if config.bonds.low >= config.bonds.high:
        raise ValueError(f"config.bonds.low must be below bonds.high; got {config.bonds.low} and {config.bonds.high}")
    if len(units(config)) != len(target_names(config)):
        raise ValueError(
            f"config.data.unit must name a unit for each target; got {config.data.unit!r} for {config.data.target!r}"
        )


def target_names(config: ConfigDict) -> tuple[str, ...]:
    """Properties to learn, as the source names them; those of the benchmark's task if none are given."""
    task = sources.SOURCES[config.data.source].task(config.data.task)
    return _listed(config.data.target) or ((task.target,) if task else ())


def units(config: ConfigDict) -> tuple[str, ...]:
    """Units of the targets: as given, or as the source knows them; empty strings where neither does."""
    known = sources.SOURCES[config.data.source].units
    given = config.data.unit
    if "," in given:  # some of several may have none
        return tuple(part.strip() for part in given.split(","))
    return _listed(given) or tuple(known.get(name, "") for name in target_names(config))


def learned(config: ConfigDict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of what the network learns: the targets, or their logarithms (data.log10).

    The unit of a logarithm says that it is one, log10(GPa), or log10 where the unit of the number is not known.
    """
    names, of = target_names(config), units(config)
    if config.data.log10:
        return tuple(f"log10({name})" for name in names), tuple(f"log10({unit})" if unit else "log10" for unit in of)
    return names, of


def split_kind(config: ConfigDict) -> str:
    """What `split.kind` means: auto is the official split of data that have one, a shuffle of others."""
    if config.split.kind != "auto":
        return config.split.kind
    return "source" if sources.SOURCES[config.data.source].has_split(_request(config)) else "ratio"


def build_entries(config: ConfigDict) -> sources.Entries:
    """The crystals of the configured source, read anew whenever they are gone through.

    Going through them raises FileNotFoundError for a set that has not been fetched.
    """
    return sources.Entries(partial(sources.read, config.data.source, _request(config)))


def _request(config: ConfigDict) -> sources.Request:
    data = config.data
    return sources.Request(data.path, target_names(config), _listed(data.columns), data.task)


def build_featurizer(config: ConfigDict, atom_table: np.ndarray) -> Featurizer:
    """Graph settings; elements whose row of the table is zero are refused."""
    graph = config.graph
    rules: dict[str, NeighborRule] = {
        "shells": WholeShells(graph.num_neighbors, graph.cutoff, graph.shell_tolerance, graph.share_last_shell),
        "nearest": NearestK(graph.num_neighbors, graph.cutoff, graph.fidelity == "published"),
        "radius": Radius(graph.cutoff),
        "voronoi": VoronoiBonds(graph.cutoff, graph.bond_tolerance),
    }
    known = tuple(np.flatnonzero(atom_table.any(axis=1)).tolist())
    return Featurizer(rules[graph.neighbors], graph.quotient, graph.quotient_tolerance, known, graph.angles)


def atom_table_name(config: ConfigDict) -> str:
    """The table that `atoms.table` means: a name, or the path of an atom_init.json."""
    if config.atoms.table != "auto":
        return config.atoms.table
    beside = Path(config.data.path).expanduser() / "atom_init.json"
    return str(beside) if config.data.source == "directory" and beside.is_file() else "released"


def build_atom_table(config: ConfigDict) -> np.ndarray:
    """Element features, f32[n_species, n_column]."""
    name = atom_table_name(config)
    if name in elements.TABLES:
        return elements.atom_features(name, properties=config.atoms.properties)
    if name.endswith(".json"):
        every = max(_CHOICES["atoms.properties"])
        if config.atoms.properties != every:
            raise ValueError(
                f"config.atoms.properties chooses among the properties of the tables {' and '.join(elements.TABLES)}, and "
                f"{name} has columns of its own. Set config.atoms.table to one of those, or this to {every}; got "
                f"{config.atoms.properties}"
            )
        return elements.read_atom_init(Path(name).expanduser())
    raise ValueError(
        f"config.atoms.table must be one of auto, {', '.join(elements.TABLES)} or the path of an atom_init.json; "
        f"got {name!r}"
    )


def build_model(config: ConfigDict, table_shape: tuple[int, int], n_output: int) -> CGCNN:
    """The network."""
    bonds, model = config.bonds, config.model
    bases: dict[str, Basis] = {
        "gaussian": GaussianBasis(bonds.cutoff, bonds.spacing),
        "reciprocal": ReciprocalBasis(bonds.low, bonds.cutoff, bonds.num_gaussians),
        "bins": BinnedBasis(bonds.low, bonds.high, bonds.num_bins),
    }
    return CGCNN(
        n_output=n_output,
        table_shape=table_shape,
        features=model.features,
        conv=model.conv,
        num_convs=model.num_convs,
        basis=bases[bonds.basis],
        n_angle=NUM_ANGLES if config.graph.angles else 0,
        pool=model.pool,
        activate_pooled=model.activate_pooled,
        atom_layers=model.atom_layers,
        crystal_layers=model.crystal_layers,
        crystal_features=model.crystal_features,
        dropout=model.dropout,
        init_scale=model.init_scale,
        precision=model.precision,
    )


def build_split(config: ConfigDict, dataset: Dataset) -> Split:
    """Indices of train, val and test.

    Raises:
      ValueError: If the split cannot be made, train is empty, or val is without being asked for.
    """
    chosen, fold = config.split, config.data.fold
    groups = None
    if chosen.by_composition:  # twins have one composition
        groups = dataset.formulas()
    elif chosen.by_structure:
        groups = dataset.families()
    kind = split_kind(config)
    is_folds = kind == "source" and splits.are_folds(dataset.source_split)
    if is_folds and chosen.redraw_val:
        raise ValueError(_redrawn_without_val("a source of folds, which draws val anyway"))
    if kind == "source" and fold and not is_folds:
        raise ValueError(f"config.data.fold must be 0 for a source without folds; got {fold}")
    match kind:
        case "ratio":
            split = splits.by_ratio(dataset.ids, chosen.ratios, chosen.seed, groups)
        case "size":
            split = splits.by_size(dataset.ids, chosen.sizes, chosen.seed)
        case "source" if is_folds:
            split = splits.from_folds(dataset.ids, dataset.source_split, fold, chosen.val_ratio, chosen.seed)
        case "source" if chosen.redraw_val:
            split = splits.from_test(dataset.ids, dataset.source_split, chosen.val_ratio, chosen.seed)
        case "source":
            split = splits.from_source(dataset.source_split)
        case "files":
            split = splits.from_files(dataset.ids, dict(zip(splits.NAMES, chosen.files, strict=True)))
        case "k_fold":
            split = splits.k_fold(dataset.ids, chosen.num_folds, fold, chosen.val_ratio, chosen.seed, groups)
    for name in ("train", "val") if _wants_val(config, kind, is_folds) else ("train",):
        if not len(split[name]):
            raise ValueError(f"config.split gives {name} no crystal of {len(dataset)}; training needs {name}")
    if config.train.patience and not len(split["val"]):
        raise ValueError(_patience_without_val(config))
    return split


def _wants_val(config: ConfigDict, kind: str, is_folds: bool) -> bool:
    """Whether the split asks for crystals that choose the weights; a source without val does not."""
    match kind:
        case "ratio":
            return config.split.ratios[1] > 0
        case "size":
            return config.split.sizes[1] > 0
        case "files":
            return bool(config.split.files[1])
        case "k_fold":
            return config.split.val_ratio > 0
        case _:
            return (is_folds or config.split.redraw_val) and config.split.val_ratio > 0


def _redrawn_without_val(kind: str) -> str:
    return (
        "config.split.redraw_val joins train and val of a source that records its split (split.kind source); it must be "
        f"False with {kind}"
    )


def _patience_without_val(config: ConfigDict) -> str:
    return (
        "config.train.patience must be 0 where config.split leaves no crystal to validate on: training then takes the "
        f"number of epochs that train.epochs says; got {config.train.patience}"
    )


def build_scaler(config: ConfigDict, targets: np.ndarray, train: np.ndarray) -> TargetScaler:
    """Fitted on the training split.

    Args:
      config: The configuration.
      targets: Labels of all crystals [n_graph, n_target]; classes are checked in every split.
      train: Indices of the training split.
    """
    if config.model.task == "classification":
        return TargetScaler.for_classes(targets, target_names(config)[0], config.model.num_classes)
    return TargetScaler.fit(targets[train], *learned(config))


def build_optimizer_settings(config: ConfigDict) -> OptimizerSettings:
    """Updates."""
    return OptimizerSettings(**{key: config.optimizer[key] for key in OptimizerSettings.__dataclass_fields__})


def build_train_settings(config: ConfigDict) -> TrainSettings:
    """Portions."""
    return TrainSettings(**{key: config.train[key] for key in TrainSettings.__dataclass_fields__})


def cache_folder(config: ConfigDict) -> Path | None:
    """Folder of built graphs, None if none is kept."""
    if config.data.cache == "auto":
        return user_cache() / "graphs"
    return Path(config.data.cache).expanduser() if config.data.cache else None


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """As plain JSON values, with what is left to the data or the task filled in."""

    def plain(value: Any) -> Any:
        if isinstance(value, ConfigDict | Mapping):
            return {key: plain(value[key]) for key in value}
        return list(value) if isinstance(value, tuple) else value

    values = plain(config)
    # What a task or a source filled in stands there too: the values do not change their meaning with other data.
    values["split"]["kind"] = split_kind(config)
    values["data"]["target"] = ",".join(target_names(config))
    if all(units(config)):
        values["data"]["unit"] = ",".join(units(config))
    return values


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """From what `to_dict` gave, in this or an earlier version. Raises ValueError if it cannot be that."""

    def typed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return ConfigDict({key: typed(inner) for key, inner in value.items()})
        return tuple(value) if isinstance(value, list) else value

    config = typed(upgraded(values))
    assert isinstance(config, ConfigDict)
    return config


# Fields that change no result: data that moved or changed, or of which more were left out, are noticed by their content.
WITHOUT_EFFECT = (
    *("data.path", "data.cache", "data.workers", "data.wanted", "data.on_error"),
    *("train.save_seconds", "train.feed", "train.devices", "train.parallel"),
)
# Fields that came later, with the value that does what was done before.
_CAME_LATER = {
    "graph.share_last_shell": False,
    "graph.angles": False,
    "data.task": "",
    "data.fold": 0,
    "split.by_structure": False,
    "split.redraw_val": False,
    "bonds.num_gaussians": 128,
    "model.precision": "default",
    "train.loss": "auto",
    "train.feed": "auto",
    "train.devices": 1,
    "train.parallel": "shard",
}


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the fields that it is too old to have. Raises ValueError if it is none."""
    groups = {name.split(".")[0] for name in (*_CHOICES, *_CAME_LATER)}
    missing = [
        name for name in sorted(groups) if not isinstance(values, Mapping) or not isinstance(values.get(name), Mapping)
    ]
    if missing:
        raise ValueError(f"not a configuration: it has no {', '.join(missing)}")
    new = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    if "fold" in new["split"]:
        new["data"]["fold"] = new["split"].pop("fold")
    for name, value in _CAME_LATER.items():
        group, field = name.split(".")
        new[group].setdefault(field, value)
    return new


def portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A `to_dict` result for other machines: without the data's place, and of other paths the names alone."""
    new = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    new["init_from"] = Path(str(new.get("init_from", ""))).name
    new["data"] |= {"path": "", "cache": "auto"}
    new["split"]["files"] = [Path(name).name for name in new["split"]["files"]]
    new["atoms"]["table"] = Path(new["atoms"]["table"]).name
    return new


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields with an effect in which two `to_dict` results differ, as 'train.epochs: 30 -> 50'."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        if f"{prefix}{key}" in WITHOUT_EFFECT:
            continue
        left, right = one.get(key), other.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return found


def _check_tuple(name: str, value: Any) -> None:
    """Raises ValueError unless it is a tuple as _TUPLES says, of numbers that are not negative."""
    length, kind, what = _TUPLES[name]

    def fits(one: Any) -> bool:
        if kind is str:
            return isinstance(one, str)
        is_number = isinstance(one, int | kind) and not isinstance(one, bool)
        return is_number and 0 <= one < math.inf

    is_long = isinstance(value, tuple | list) and len(value) == (length or len(value))
    if not is_long or not all(map(fits, value)):
        number = f"{length} " if length else ""
        raise ValueError(f"config.{name} must be a tuple of {number}{what}; got {value!r}")


def _get(config: ConfigDict, name: str) -> Any:
    group, field = name.split(".")
    return config[group][field]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
