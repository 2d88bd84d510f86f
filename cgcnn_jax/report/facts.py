"""What was trained on what, how long it took and on which machine: tables with a column per run."""

import json
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from cgcnn_jax.data.splits import NAMES
from cgcnn_jax.preparation import SEEN
from cgcnn_jax.report.finished import FinishedRun, differing_fields
from cgcnn_jax.report.panels import Panel

_PHASES = {
    "data": "data: reading, graphs",
    "compiling": "compiling",
    "training": "training",
    "validating": "validation and prediction",
    "saving": "checkpoints",
    "evaluation": "evaluation: metrics, intervals",
    "rest": "rest: start, imports",
    "total": "total",
}


def setup(runs: Sequence[FinishedRun]) -> Panel:
    """Crystals, split, network and training."""
    table = _table(
        runs,
        {
            "property": lambda run: ", ".join(run.units),
            "unit": lambda run: ", ".join(unit or "none" for unit in run.units.values()),
            "crystals from": _source,
            "train / val / test": lambda run: " / ".join(f"{run.summary['crystals'][name]:,}" for name in NAMES),
            "split": _split,
            "with a twin in train": lambda run: (
                ", ".join(f"{name} {number:,}" for name, number in run.summary.get("twins_in_train", {}).items())
                or "not recorded"
            ),
            **(
                {"seen by the network it started from": _seen}
                if any(run.config.get("init_from") for run in runs)
                else {}
            ),
            "unused, in no split": lambda run: _count(run.summary["crystals"].get("unused")),
            "left out": lambda run: _count(run.summary["crystals"].get("left_out")),
            "graph": _graph,
            "network": _network,
            "parameters": lambda run: f"{run.summary['parameters']:,}",
            "training": _training,
            "epochs": lambda run: (
                f"{len(run.records)} of {run.config['train']['epochs']}; weights of epoch "
                f"{run.summary['best_epoch'] + 1} kept"
            ),
            "seeds": lambda run: f"split {run.config['split']['seed']}, training {run.config['train']['seed']}",
            "started from": lambda run: run.config.get("init_from") or "random weights",
            "finished": lambda run: run.summary.get("finished") or "not recorded",
        },
    )
    tables = {"": table}
    for run in runs:
        if len(run.rejected):
            tables[f"Crystals left out{f' of {run.name}' * (len(runs) > 1)}"] = _reasons(run)
    return Panel("What was trained on what", (), tables, is_wide=True)


def configurations(runs: Sequence[FinishedRun]) -> Panel:
    """Fields in which the runs differ."""
    table = differing_fields(runs)
    notes = () if len(table) else ("The configurations are the same.",)
    return Panel("What sets the runs apart", notes, {"": table} if len(table) else {}, is_wide=True)


def times(runs: Sequence[FinishedRun]) -> Panel:
    """Where the time went, and throughput."""
    phases = {
        label: _time_of(phase)
        for phase, label in _PHASES.items()
        if any(phase in run.summary["seconds"] for run in runs)
    }
    rates = {
        "training, crystals/s": lambda run: _rate(run.summary.get("train_crystals_per_second")),
        "inference, crystals/s": lambda run: _rate(run.summary.get("inference_crystals_per_second")),
        "all epochs, all sessions": lambda run: duration(run.summary.get("seconds_of_all_epochs")),
        "padding of nodes / edges": lambda run: " / ".join(
            "not recorded" if share is None else f"{share:.1%}" for share in run.summary.get("padding", {}).values()
        ),
    }
    notes = (
        "Times are of the session that finished the run. Throughput leaves compilation out; inference is that of graphs "
        "that are already made, on the hardware below.",
    )
    return Panel("Time", notes, {"": _table(runs, phases), "Throughput": _table(runs, rates)})


def machine(runs: Sequence[FinishedRun]) -> Panel:
    """Hardware and versions."""

    def hardware(key: str) -> Callable[[FinishedRun], str]:
        return lambda run: str(run.summary.get("hardware", {}).get(key) or "not recorded")

    rows: dict[str, Callable[[FinishedRun], str]] = {
        "devices": lambda run: _devices(run.summary.get("hardware", {}).get("devices", [])),
        **{name: hardware(name) for name in ("platform", "processor", "cores", "system")},
        "commit": lambda run: str(run.summary.get("commit") or "not recorded"),
    }
    names = dict.fromkeys(name for run in runs for name in run.summary.get("versions", {}))
    versions = {name: _version(name) for name in names}
    return Panel("Hardware and software", (), {"": _table(runs, rows), "Versions": _table(runs, versions)})


def commands(runs: Sequence[FinishedRun]) -> dict[str, tuple[str, str]]:
    """Run -> the command that made it, and its configuration as JSON."""
    return {
        run.name: (run.summary.get("command") or "not started from the command line", json.dumps(run.config, indent=2))
        for run in runs
    }


def duration(seconds: float | None) -> str:
    """43.2 s, 12 min 05 s or 3 h 20 min."""
    if seconds is None:
        return "not recorded"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _table(runs: Sequence[FinishedRun], rows: Mapping[str, Callable[[FinishedRun], str]]) -> pd.DataFrame:
    return pd.DataFrame(
        [[value(run) for run in runs] for value in rows.values()], index=list(rows), columns=[run.name for run in runs]
    )


def _source(run: FinishedRun) -> str:
    data = run.config["data"]
    words = [data["source"], *([data["task"]] if data["task"] else []), *([data["path"]] if data["path"] else [])]
    return ", ".join(words) + (" (labels of a machine-learned potential)" if data["source"] == "demo" else "")


def _seen(run: FinishedRun) -> str:
    if not run.config.get("init_from"):
        return "none"
    if (seen := run.summary.get(SEEN)) is None:
        return "not recorded"
    least = "" if seen["looks_compared_with"] == "all" else "at least "
    return least + ", ".join(f"{name} {seen[name]:,}" for name in NAMES[1:])


def _split(run: FinishedRun) -> str:
    split, fold = run.config["split"], run.config["data"]["fold"]
    match split["kind"]:
        case "ratio":
            text = "shuffled, " + " / ".join(f"{share:g}" for share in split["ratios"])
        case "size":
            text = "shuffled, given sizes"
        case "k_fold":
            text = f"fold {fold} of {split['num_folds']}"
        case "files":
            text = "files of ids"
        case _:
            # Runs of earlier versions do not say; Matbench's have folds.
            is_fold = run.summary.get("split_is_fold", run.config["data"]["source"] == "matbench")
            text = "the data's own" + f", fold {fold}" * is_fold
            text += f" test, val {split['val_ratio']:g} of the others" * bool(split.get("redraw_val"))
    if split["by_composition"]:
        return text + ", no composition in two parts"
    return text + ", no twins in two parts" * bool(split.get("by_structure"))


def _graph(run: FinishedRun) -> str:
    graph = run.config["graph"]
    last = "equals of the last sharing its places" if graph.get("share_last_shell") else "whole shells"
    rules = {
        "shells": f"{graph['num_neighbors']} nearest, {last}",
        "nearest": f"{graph['num_neighbors']} nearest",
        "radius": "all",
        "voronoi": "Voronoi neighbours",
    }
    text = f"{rules[graph['neighbors']]}, within {graph['cutoff']:g} Å" + ", with angles" * bool(graph.get("angles"))
    return text + ", quotient" * bool(graph["quotient"])


def _network(run: FinishedRun) -> str:
    model, bonds = run.config["model"], run.config["bonds"]
    layers = (
        (model["atom_layers"], model["features"], "before"),
        (model["crystal_layers"], model["crystal_features"], "after"),
    )
    hidden = ", ".join(f"{number} × {width} {where} it" for number, width, where in layers if number)
    return (
        f"{model['num_convs']} × {model['conv']}, {model['features']} features, {model['pool']} pooling, "
        f"{hidden or 'no hidden layers'}; bonds {bonds['basis']}, "
        f"atoms {run.config['atoms']['table']}"
    )


def _training(run: FinishedRun) -> str:
    optimizer, train = run.config["optimizer"], run.config["train"]
    return (
        f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}, {optimizer['schedule']}, "
        f"batch {train['batch_size']}, loss {train['loss']}"
    )


def _reasons(run: FinishedRun) -> pd.DataFrame:
    """The commonest reasons, without the ids they begin with."""
    bare = [
        reason.removeprefix(f"{id}: ") for id, reason in zip(run.rejected["id"], run.rejected["reason"], strict=True)
    ]
    counts = pd.Series(bare).str.slice(0, 200).value_counts()
    rows = {reason: f"{count:,}" for reason, count in counts.head(10).items()}
    if len(counts) > 10:
        rows[f"{len(counts) - 10:,} other reasons: rejected.csv"] = f"{counts.iloc[10:].sum():,}"
    return pd.DataFrame.from_dict(rows, orient="index", columns=["crystals"])


def _time_of(phase: str) -> Callable[[FinishedRun], str]:
    def text(run: FinishedRun) -> str:
        seconds = run.summary["seconds"]
        if seconds.get(phase) is None:
            return "not recorded"
        share = "" if phase == "total" else f" ({seconds[phase] / seconds['total']:.0%})"
        return duration(seconds[phase]) + share

    return text


def _version(name: str) -> Callable[[FinishedRun], str]:
    return lambda run: run.summary.get("versions", {}).get(name, "not recorded")


def _devices(kinds: Sequence[str]) -> str:
    return ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds)) or "not recorded"


def _count(number: int | None) -> str:
    return "not recorded" if number is None else f"{number:,}"


def _rate(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:,.0f}"
