"""The study from its crystals to its folder, so that a stopped one goes on where it was.

models/linear, models/full   work directories as experiments.train makes them
index.md                     the report, with the tables and pictures below
errors.csv                   errors of the models beside the paper's
crystals.csv                 every crystal: sites, labels, predictions, site energies
elements.csv                 site energies by element
trends.csv                   what the paper says of them, beside a number
counts.csv, found.csv        the search
rejected.csv                 crystals left out, and why
*.png                        Figure 3b, c, d, and what the energies follow
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from cgcnn_jax import config as configs
from cgcnn_jax.data import store
from cgcnn_jax.data.crystal import Entry, Rejected
from cgcnn_jax.data.dataset import Dataset, settle
from cgcnn_jax.files import write_text
from cgcnn_jax.predict import Predictor
from cgcnn_jax.run import Watcher, load_dataset, run
from cgcnn_jax.studies.perovskites import report
from cgcnn_jax.studies.perovskites.crystals import tabulate
from cgcnn_jax.studies.perovskites.energies import by_element, site_energies, trends
from cgcnn_jax.studies.perovskites.search import HEAT_ALL, count, disagreement, expected_below, found
from cgcnn_jax.workdir import Workdir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Load = Callable[[ConfigDict, np.ndarray, Sequence[Entry | Rejected]], Dataset]


@dataclass(frozen=True)
class Model:
    """A network of the study.

    Attributes:
      name: Of its folder and its column.
      pool: `model.pool`.
      conv: `model.conv`.
      published: Test error in the paper; None if it has no such model.
    """

    name: str
    pool: str
    conv: str
    published: float | None = None


MODELS = (Model("linear", "site", "sum", 0.130), Model("full", "mean", "sum", 0.099))
"""Linear pooling (S14-S15) and full pooling (S16), both with Eq. 4."""
GATED = (Model("linear_gated", "site", "gated"), Model("full_gated", "mean", "gated"))
"""The same with Eq. 5."""


@dataclass(frozen=True)
class Study:
    """What the study found.

    Attributes:
      folder: Where it lies.
      errors: A row per model: mae, its 95 % interval (low, high), rmse, r2, and the paper's error.
      crystals: A row per crystal: formula, A, B, X, split (empty where it has no label), labels, predictions by model,
        energy_A, energy_B and energy_X.
      elements: `energies.by_element` of them.
      trends: `energies.trends` of those, and value_of_labels, the same statistic of the mean labels.
      counts: `search.count`.
      found: `search.found`.
      figures: Name -> figure.
    """

    folder: Path
    errors: pd.DataFrame
    crystals: pd.DataFrame
    elements: pd.DataFrame
    trends: pd.DataFrame
    counts: pd.DataFrame
    found: pd.DataFrame
    figures: "Mapping[str, Figure]"


def run_study(
    config: ConfigDict,
    folder: Path,
    *,
    models: Sequence[Model] = MODELS,
    limit: int = 0,
    load: Load = load_dataset,
    watcher: Watcher | None = None,
    command: str = "",
) -> Study | None:
    """Trains the models that are not trained yet, and writes what they tell.

    Args:
      config: Data, graphs, network and training; pool, convolution and the layers before and after pooling are set here.
      folder: Of the study.
      models: To train; "linear" and "full" must be among them.
      limit: Takes so many crystals, evenly spaced; 0 takes all.
      load: Loads crystals.
      watcher: Told of the progress.
      command: What the user typed, for the report.

    Returns:
      What was found; None if the watcher stopped it, and the same call goes on.

    Raises:
      ValueError: If the configuration is wrong or of several properties, there is no perovskite or none to test on, or the
        folder holds models of another configuration or of other data.
    """
    watcher = watcher or Watcher()
    settings = {model.name: _settings(config, model) for model in models}
    places = {model.name: Workdir(folder / "models" / model.name) for model in models}
    for name, place in places.items():
        configs.validate(settings[name])
        place.check(configs.to_dict(settings[name]))
    targets = configs.target_names(settings["linear"])
    if len(targets) != 1 or config.model.task != "regression" or config.data.log10:
        raise ValueError("the study is of one energy: set data.target to one property, task=regression and log10=False")

    entries = _thinned(list(configs.build_entries(config)), limit)
    crystals, sites, rejected = tabulate(entries)
    if not sites:
        raise ValueError(f"none of {len(entries)} crystals is a cubic ABX3 perovskite; the first: {rejected[0].reason}")
    settle(rejected, len(entries), config.data.on_error)
    perovskites = [entry for entry in entries if not isinstance(entry, Rejected) and entry.id in sites]
    labelled = load(settings["linear"], configs.build_atom_table(settings["linear"]), perovskites)
    split = configs.build_split(settings["linear"], labelled)
    if not len(split["test"]):
        raise ValueError("the study judges its models on test crystals, and the split has none (config.split)")
    for name, place in places.items():
        if watcher.should_stop():
            return None
        watcher.message(f"\n{name}: {settings[name].model.pool} pooling, Eq. {_equation(settings[name])}")
        result = run(settings[name], place.path, data=labelled, split=split, watcher=watcher, command=command)
        if not result.is_finished:
            return None
        for line in result.headline:
            watcher.message(f"{result.judged} {line}")

    label = targets[0]
    judged, without_graph = _judged(places, perovskites, labelled, sites)
    rejected = [*rejected, *without_graph]
    crystals = crystals.join(judged, how="inner")
    part = {labelled.ids[i]: name for name, index in split.items() for i in index}
    crystals.insert(4, "split", [part.get(id, "") for id in crystals.index])
    unit = configs.units(settings["linear"])[0]
    return _write(folder, crystals, label, unit, models, places, rejected, command)


def _judged(
    places: Mapping[str, Workdir], entries: Sequence[Entry], labelled: Dataset, sites: Mapping[str, Any]
) -> tuple[pd.DataFrame, Sequence[Rejected]]:
    """Predictions of every model and site energies of the linear one, also of the crystals without a label.

    Returns:
      A row per crystal, and the crystals that have no graph.
    """
    predictors = {name: Predictor.restore(place.path) for name, place in places.items()}
    known = set(labelled.ids)
    others = store.build([entry for entry in entries if entry.id not in known], predictors["linear"].featurizer)
    parts = []
    for graphs in (labelled.store, others):
        if len(graphs):
            part = site_energies(predictors["linear"], graphs, sites)
            for number, (name, predictor) in enumerate(predictors.items()):
                part.insert(number, name, pd.Series(predictor.predict_graphs(graphs.graphs)[:, 0], list(graphs.ids)))
            parts.append(part)
    return pd.concat(parts), others.rejected


def _write(
    folder: Path,
    crystals: pd.DataFrame,
    label: str,
    unit: str,
    models: Sequence[Model],
    places: Mapping[str, Workdir],
    rejected: Sequence[Rejected],
    command: str,
) -> Study:
    """The tables, the pictures and the report."""
    from cgcnn_jax.studies.perovskites.figures import draw

    errors = pd.DataFrame([_error(model, places[model.name].summary()) for model in models])
    elements_table = by_element(crystals, label)
    labels = {label: label}
    expected = None
    if HEAT_ALL in crystals and label != HEAT_ALL:
        crystals["heat_all_or_label"] = crystals[HEAT_ALL].fillna(crystals[label])
        labels |= {HEAT_ALL: HEAT_ALL, f"{HEAT_ALL}, else {label}": "heat_all_or_label"}
        expected = expected_below(crystals, HEAT_ALL, label) | disagreement(crystals, HEAT_ALL, label)
    shown = {column: column for column in (label, HEAT_ALL) if column in crystals} | {
        model.name: model.name for model in models
    }
    study = Study(
        folder,
        errors,
        crystals,
        elements_table,
        trends(elements_table).assign(value_of_labels=trends(elements_table, "mean_label")["value"]),
        count(crystals, labels),
        found(crystals, label, shown),
        draw(crystals, elements_table, label=label, unit=unit),
    )
    place = Workdir(folder)
    for name in ("errors", "elements", "trends", "counts", "found"):
        write_text(folder / f"{name}.csv", getattr(study, name).to_csv(index=False, float_format="%.6g"))
    write_text(folder / "crystals.csv", crystals.to_csv(float_format="%.6g"))
    place.write_rejected(rejected)
    place.save_figures(study.figures)
    summary = places["linear"].summary()
    write_text(
        folder / "index.md",
        report.markdown(study, label=label, unit=unit, expected=expected, summary=summary, command=command),
    )
    return study


def _settings(config: ConfigDict, model: Model) -> ConfigDict:
    """The configuration of one model."""
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.model.pool, own.model.conv = model.pool, model.conv
        # As many hidden layers in both: before the site pool, per atom, or after the full one.
        layers = own.model.atom_layers + own.model.crystal_layers
        own.model.atom_layers, own.model.crystal_layers = (layers, 0) if model.pool == "site" else (0, layers)
    return own


def _equation(config: ConfigDict) -> int:
    return 4 if config.model.conv == "sum" else 5


def _thinned(entries: list[Entry | Rejected], limit: int) -> list[Entry | Rejected]:
    if not 0 < limit < len(entries):
        return entries
    return [entries[place] for place in np.linspace(0, len(entries) - 1, limit).round().astype(int)]


def _error(model: Model, summary: Mapping[str, Any]) -> dict[str, Any]:
    test, bounds = summary["metrics"]["test"], summary["intervals_95"]["test"]["mae"]
    return {
        "model": model.name,
        "pooling": "linear (S14-S15)" if model.pool == "site" else "full (S16)",
        "convolution": "Eq. 4" if model.conv == "sum" else "Eq. 5",
        "mae": test["mae"],
        "low": bounds[0],
        "high": bounds[1],
        "rmse": test["rmse"],
        "r2": test["r2"],
        "published": model.published,
        "val_mae": summary["metrics"]["val"].get("mae"),
        "train_mae": summary["metrics"]["train"].get("mae"),
        "parameters": summary["parameters"],
        "best_epoch": summary["best_epoch"],
        "seconds_to_train": summary["seconds_of_all_epochs"],
    }
