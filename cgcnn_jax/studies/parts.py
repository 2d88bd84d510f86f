"""The figures and tables of the paper, each made from results; what the data cannot give says why."""

import csv
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cgcnn_jax import config as configs
from cgcnn_jax.data.crystal import Crystal
from cgcnn_jax.data.featurize import Featurizer
from cgcnn_jax.data.neighbors import WholeShells
from cgcnn_jax.data.splits import NAMES
from cgcnn_jax.report.gallery import Entry
from cgcnn_jax.studies.drawing import contents, joint_histograms, roc
from cgcnn_jax.studies.properties import CONVOLUTIONS, CURVES, PROPERTIES, Unavailable
from cgcnn_jax.studies.results import Results, at_hand, crossing, fixed, interval, number, point, told
from cgcnn_jax.workdir import Workdir

_GATED, _SUM = "gated_norm", "sum"
_REGRESSIONS = tuple(name for name in PROPERTIES if name != "metal_classification")


@dataclass(frozen=True)
class Need:
    """Runs that a part shows.

    Attributes:
      name: Of the property.
      is_curve: Those of the learning curve, not only the largest.
      convs: Which convolutions.
    """

    name: str
    is_curve: bool = False
    convs: tuple[str, ...] = (_GATED,)


@dataclass(frozen=True)
class Part:
    """A figure or table.

    Attributes:
      title: As the paper numbers it, and what it shows.
      make: Makes it of what is there.
      needs: Runs that must be there.
    """

    title: str
    make: Callable[[Results, Entry], Entry]
    needs: tuple[Need, ...] = ()


def _table_i(results: Results, entry: Entry) -> Entry:
    header = [
        *("property", "unit", "training crystals", "paper's", "test MAE", "95 %", "paper's test MAE"),
        *("DFT against experiment", "what differs"),
    ]
    rows, missing = [], []
    for name in _REGRESSIONS:
        of = PROPERTIES[name]
        unit, n_train, (error, bounds), reasons = _errors(results, name, (_GATED,))
        missing += reasons
        dft = " to ".join(f"{value:g}" for value in of.dft) if of.dft else ""
        rows.append([of.label, unit, n_train, f"{of.sizes[0]:,}", error, bounds, number(of.published), dft, of.note])
    caption = [
        "The seven regressions with Eq. 5. Errors compare with the paper's only as far as the numbers of training crystals "
        "do. DFT against experiment is as the paper quotes it, where known here."
    ]
    return replace(entry, header=header, rows=rows, caption=caption, missing=missing)


def _table_s4(results: Results, entry: Entry) -> Entry:
    rows, missing = [], []
    for name in _REGRESSIONS:
        of = PROPERTIES[name]
        unit, n_train, cells, reasons = _errors(results, name, (_SUM, _GATED))
        missing += reasons
        rows.append([of.label, unit, n_train, *cells, number(of.published_sum), number(of.published)])
    header = [
        *("property", "unit", "training crystals", "Eq. 4", "95 %", "Eq. 5", "95 %"),
        *("paper's Eq. 4", "paper's Eq. 5"),
    ]
    caption = [
        "Test MAE of both convolutions on the same crystals. The paper's text has 0.136 eV/atom for the formation energy "
        "with Eq. 4 where its Table S4 has 0.112; its other values for Eq. 4 are not known here."
    ]
    return replace(entry, header=header, rows=rows, caption=caption, missing=missing)


def _errors(results: Results, name: str, convs: Sequence[str]) -> tuple[str, str, list[str], list[str]]:
    """Unit, training crystals, error and interval of each convolution, and the reasons of what is not there."""
    unit, n_train, cells, missing = "", "", [], []
    for conv in convs:
        try:
            _, record = results.largest(name, conv)
        except Unavailable as error:
            cells += ["", ""]
            missing.append(f"{PROPERTIES[name].label}, {CONVOLUTIONS[conv]}: {error}")
            continue
        unit, n_train = record["unit"], f"{record['crystals']['train']:,}"
        cells += [number(record["test"]), interval(record)]
    return unit, n_train, cells, missing


def _elements(results: Results, entry: Entry) -> Entry:
    table = results.study.table("formation_energy")
    figure = contents(*_cells(table))["elements"]
    return replace(entry, pictures=[(results.draw(entry.name, figure), "")], caption=[at_hand(table)])


def _distributions(results: Results, entry: Entry) -> Entry:
    from cgcnn_jax.report.histograms import value_histogram

    pictures, missing = [], []
    try:
        table = results.study.table("formation_energy")
        drawn = contents(*_cells(table))
        pictures.append((results.draw("figure_s2_atoms", drawn["atoms"]), f"Atoms in the cell. {at_hand(table)}"))
        pictures.append(
            (results.draw("figure_s2_elements", drawn["occurrence"]), "Crystals that contain each element.")
        )
    except Unavailable as error:
        missing.append(str(error))
    for name in _REGRESSIONS:
        try:
            labels, target, unit = results.study.labels(name)
        except Unavailable as error:
            missing.append(f"{PROPERTIES[name].label}: {error}")
            continue
        in_splits = {split: labels[split] for split in NAMES}
        figure = value_histogram(in_splits, name=target, unit=unit)
        caption = (
            f"{PROPERTIES[name].label} in the splits, of {sum(map(len, labels.values())):,} crystals with a label."
        )
        pictures.append((results.draw(f"figure_s2_{name}", figure), caption))
    return replace(entry, pictures=pictures, missing=missing)


def _cells(table: pd.DataFrame) -> tuple[list[list[str]], list[int]]:
    return [one.split() for one in table["elements"]], table["atoms"].tolist()


def _curves(results: Results, entry: Entry, names: Sequence[str]) -> Entry:
    from cgcnn_jax.report.convergence import Point, convergence

    pictures, missing = [], []
    for name in names:
        of = PROPERTIES[name]
        try:
            curves = {CONVOLUTIONS[conv]: results.curve(name, conv) for conv in (_GATED, _SUM)}
        except Unavailable as error:
            missing.append(f"{of.label}: {error}")
            continue
        missing += [f"the run {path} failed, and has no point" for _, failed in curves.values() for path in failed]
        records = [record for good, _ in curves.values() for record in good]
        if not records:
            continue
        unit = records[0]["unit"]
        series = {convolution: [point(record) for record in good] for convolution, (good, _) in curves.items()}
        published = {"Eq. 5": of.published, "Eq. 4": of.published_sum}
        figure = convergence(
            series,
            name=records[0]["target"],
            unit=unit,
            band=of.dft,
            published={key: Point(of.sizes[0], error) for key, error in published.items() if error is not None},
        )
        caption = (
            f"{of.label}: test MAE on the same {records[0]['crystals']['test']:,} crystals at every training size; a smaller "
            f"training set is part of every larger one (runs/{name}/). {crossing(series, of.dft, unit)}".rstrip()
        )
        pictures.append((results.draw(_picture(entry, name, names), figure), caption))
    return replace(entry, pictures=pictures, missing=missing)


def _parities(results: Results, entry: Entry, names: Sequence[str]) -> Entry:
    pictures, missing = [], []
    for name in names:
        try:
            job, record = results.largest(name, _GATED)
        except Unavailable as error:
            missing.append(f"{PROPERTIES[name].label}: {error}")
            continue
        (figure,) = joint_histograms(results.study.place(job)).values()
        pictures.append((results.draw(_picture(entry, name, names), figure), told(job, record)))
    return replace(entry, pictures=pictures, missing=missing)


def _roc(results: Results, entry: Entry) -> Entry:
    pictures, missing = [], []
    for conv in (_GATED, _SUM):
        try:
            job, record = results.largest("metal_classification", conv)
        except Unavailable as error:
            missing.append(f"{CONVOLUTIONS[conv]}: {error}")
            continue
        figure = roc(results.study.place(job), ("semiconductor", "metal"))
        pictures.append((results.draw(f"{entry.name}_{conv}", figure), told(job, record)))
    return replace(entry, pictures=pictures, missing=missing)


def _picture(entry: Entry, name: str, names: Sequence[str]) -> str:
    """Name of a picture: the part's, and the property's if there are several."""
    return entry.name if len(names) == 1 else f"{entry.name}_{name}"


def _worked_example(results: Results, entry: Entry) -> Entry:
    from cgcnn_jax.report.crystal_graph import crystal_graphs

    # Six neighbours and all that are as near as the sixth.
    featurize = Featurizer(WholeShells(6), use_quotient=False)
    graphs = {one.id: featurize(one).graphs for one in worked_example()}
    caption = [
        "The crystal graphs of the supplement's worked example, of the primitive cells. Na and Cl have 6 neighbours each; "
        "K and Cl have 8, as in the CsCl type that the supplement gives KCl."
    ]
    return replace(entry, pictures=[(results.draw(entry.name, crystal_graphs(graphs)), "")], caption=caption)


def worked_example() -> tuple[Crystal, Crystal]:
    """NaCl (rock salt, a = 5.64 Å) and KCl in the CsCl type (a = 3.75 Å, as under pressure), primitive cells."""
    faces = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    ends = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return (
        Crystal.from_arrays("NaCl, rock salt", 5.64 / 2 * faces, ["Na", "Cl"], ends),
        Crystal.from_arrays("KCl, CsCl type", 3.75 * np.eye(3), ["K", "Cl"], ends),
    )


def _hyperparameters(results: Results, entry: Entry) -> Entry:
    from cgcnn_jax.report.trials import hyperparameter_effects, read

    if results.trials is None:
        raise Unavailable(
            "no table of trials was named; experiments.sweep writes one, and --trials=results.csv names it"
        )
    try:
        trials = read(results.trials)
        figure = hyperparameter_effects(trials, unit=_unit_of(results.trials))
    except OSError as error:
        raise Unavailable(f"--trials={results.trials}: {error.strerror}") from error
    except ValueError as error:
        raise Unavailable(f"--trials={results.trials}: {error}") from error
    caption = [
        f"Validation error of the {len(trials)} trials of {results.trials.name} against each hyperparameter that varies; the "
        "line joins the lowest of each value."
    ]
    return replace(entry, pictures=[(results.draw(entry.name, figure), "")], caption=caption)


def _unit_of(trials: Path) -> str:
    """That of the errors, where a sweep's configuration lies beside its table."""
    if not (trials.parent / "sweep.json").exists():
        return ""
    stored = Workdir(trials.parent).read_json("sweep.json").get("config", {})
    return next(iter(configs.learned(configs.from_dict(stored))[1]), "")


def _perovskite_parity(model: str, published: float) -> Callable[[Results, Entry], Entry]:
    def make(results: Results, entry: Entry) -> Entry:
        place = Workdir(_perovskites(results) / "models" / model)
        if not place.is_finished:
            raise Unavailable(f"{place.path} has no finished run")
        summary, used = place.summary(), place.read_json("config.json")["model"]
        ((name, figure),) = joint_histograms(place).items()
        caption = (
            f"Heat of formation, {used['conv']} convolution and {used['pool']} pool, {summary['crystals']['train']:,} training "
            f"and {summary['crystals']['test']:,} test crystals: test MAE {number(summary['metrics']['test']['mae'])} "
            f"{summary['properties'][name]}. The paper has {number(published)} "
            "and calls the unit eV/atom; its labels are those of the 5-atom cell (docs/paper.md)."
        )
        return replace(entry, pictures=[(results.draw(entry.name, figure), caption)])

    return make


def _perovskite_elements(results: Results, entry: Entry) -> Entry:
    return _linked(results, entry, ("a_site.png", "b_site.png"), "Mean site energy of every element on A and on B.")


def _perovskite_search(results: Results, entry: Entry) -> Entry:
    linked = _linked(
        results, entry, (), "The search for stable perovskites: found.csv of the study, whose page tells more."
    )
    header, *rows = csv.reader((_perovskites(results) / "found.csv").read_text().splitlines())
    return replace(
        linked, header=[_energy_column(name) for name in header], rows=[[*map(_energy, row)] for row in rows]
    )


def _energy_column(name: str) -> str:
    """e_form_eV_per_cell -> e_form (eV/cell)."""
    quantity, is_energy, _ = name.partition("_eV_per_cell")
    return f"{quantity} (eV/cell)" if is_energy else name


def _energy(cell: str) -> str:
    try:
        return fixed(float(cell))
    except ValueError:
        return cell


def _linked(results: Results, entry: Entry, pictures: Sequence[str], what: str) -> Entry:
    """Copies of the study's pictures, and the way to its page."""
    folder = _perovskites(results)
    page = folder / "index.md"
    lacking = [name for name in ("index.md", "found.csv", *pictures) if not (folder / name).exists()]
    if lacking:
        raise Unavailable(f"{folder} has no {', '.join(lacking)}; the study there is not finished")
    for name in pictures:
        shutil.copyfile(folder / name, results.folder / f"{entry.name}_{name}")
    copies = [(f"{entry.name}_{name}", "") for name in pictures]
    link = Path(os.path.relpath(page.resolve(), results.folder.resolve())).as_posix()
    return replace(entry, pictures=copies, caption=[what], links=[("The perovskite study", link)])


def _perovskites(results: Results) -> Path:
    if results.perovskites is None:
        raise Unavailable(
            "no perovskite study was named, and the data have no matbench_perovskites to make one of; "
            "--perovskites=DIR names the folder of one that experiments.perovskites made"
        )
    return results.perovskites


def _of(make: Callable[..., Entry], *names: str) -> Callable[[Results, Entry], Entry]:
    return lambda results, entry: make(results, entry, names)


def _both(name: str, *, is_curve: bool = False) -> Need:
    return Need(name, is_curve, tuple(CONVOLUTIONS))


_GATED_RUNS = tuple(Need(name) for name in _REGRESSIONS)
_S4 = tuple(name for name in _REGRESSIONS if name != "formation_energy")
PARTS: dict[str, Part] = {
    "table_i": Part("Table I: errors of Eq. 5", _table_i, _GATED_RUNS),
    "figure_2a": Part("Figure 2a: number of elements", _elements),
    "figure_2b": Part(
        "Figure 2b: error against training size", _of(_curves, CURVES[0]), (_both(CURVES[0], is_curve=True),)
    ),
    "figure_2c": Part(
        "Figure 2c: predicted against calculated formation energy", _of(_parities, CURVES[0]), (Need(CURVES[0]),)
    ),
    "figure_2d": Part("Figure 2d: metals and semiconductors", _roc, (_both("metal_classification"),)),
    "figure_3b": Part(
        "Figure 3b: perovskites, pooling that is linear in the sites",
        _perovskite_parity("linear", 0.130),
    ),
    "figure_3cd": Part("Figure 3c, d: site energies by element", _perovskite_elements),
    "figure_s1": Part("Figure S1: crystal graphs of NaCl and KCl", _worked_example),
    "figure_s2": Part("Figure S2: what the data hold", _distributions),
    "figure_s3": Part("Figure S3: hyperparameters", _hyperparameters),
    "figure_s4": Part("Figure S4: the other properties", _of(_parities, *_S4), tuple(Need(name) for name in _S4)),
    "figure_s5": Part(
        "Figure S5: error against training size, elastic moduli",
        _of(_curves, *CURVES[1:]),
        tuple(_both(name, is_curve=True) for name in CURVES[1:]),
    ),
    "figure_s6": Part("Figure S6: perovskites, full pooling", _perovskite_parity("full", 0.099)),
    "table_s4": Part("Table S4: both convolutions", _table_s4, tuple(_both(name) for name in _REGRESSIONS)),
    "table_s5": Part("Table S5: perovskites found", _perovskite_search),
}
"""Figures and tables by name, in the paper's order."""
