"""The study as one page of Markdown; every sentence with a number is made from the tables."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cgcnn_jax.studies.perovskites.energies import D_B, LARGE_A, SMALL, least_stable
from cgcnn_jax.studies.perovskites.search import HEAT_ALL, THRESHOLD
from cgcnn_jax.studies.results import fixed

if TYPE_CHECKING:
    from cgcnn_jax.studies.perovskites.study import Study


def markdown(
    study: "Study",
    *,
    label: str,
    unit: str,
    expected: Mapping[str, Any] | None,
    summary: Mapping[str, Any],
    command: str,
) -> str:
    """index.md of the study's folder.

    Args:
      study: What was found.
      label: The label trained on.
      unit: Its unit.
      expected: Of `search.expected_below` and `search.disagreement`, where there is a second label.
      summary: Of the linear model's run, for hardware and commit.
      command: What the user typed.
    """
    hardware = summary["hardware"]
    sections = [
        "# Perovskites",
        "The section on perovskites of Xie & Grossman (2018): Figure 3, Eqs. S14-S15, Table S5.\n"
        f"{len(study.crystals):,} crystals ABX₃, {int(study.crystals[label].notna().sum()):,} with the label "
        f"`{label}` ({unit}).",
        f"`{command}`\n\n{hardware['processor']}, cores: {hardware['cores']} ({hardware['platform']}), commit "
        f"{summary['commit']}. Tables: errors.csv, crystals.csv, elements.csv, trends.csv, counts.csv, found.csv.",
        "## Errors",
        _errors(study, unit),
        "![Linear pooling](parity_linear.png) ![Full pooling](parity_full.png)",
        "## Energies of the sites",
        _sites(study, unit),
        "![A site](a_site.png)\n![B site](b_site.png)",
        "## What they follow",
        paragraph(study.elements, study.trends, unit=unit),
        _trends(study.trends),
        "![Trends](trends.png)",
        "## The search",
        _search(study, label, unit, expected),
    ]
    return "\n\n".join(sections) + "\n"


def paragraph(elements_table: pd.DataFrame, trends: pd.DataFrame, *, unit: str) -> str:
    """What is seen of the claims of the paper, in sentences.

    Args:
      elements_table: Of `energies.by_element`.
      trends: `Study.trends`.
      unit: Of the energies.
    """
    by_name = trends.set_index(["site", "name"])
    lowest = {site: _symbols(part.head(10)) for site, part in elements_table.groupby("site")}
    highest = {site: _symbols(part.tail(5).iloc[::-1]) for site, part in elements_table.groupby("site")}
    a, b = (elements_table[elements_table["site"] == site] for site in ("A", "B"))
    places = least_stable(elements_table, "A", SMALL)
    groups = b.groupby("group")["energy"].mean().sort_values()
    among = len(set(b.head(len(D_B))["element"]) & set(D_B))
    among_a = len(set(a.head(len(a) // 2)["element"]) & set(LARGE_A))

    def said(site: str, name: str) -> str:
        row = by_name.loc[(site, name)]
        return (
            f"{row['statistic'].split(' (')[0]} {_number(row['value'])}, of the labels "
            f"{_number(row['value_of_labels'])}, p = {_p(row['p'])}: {row['verdict']}"
        )

    return (
        f"**A site.** Lowest: {lowest['A']}; highest: {highest['A']}. The paper finds large cations stable there: "
        f"{said('A', 'atom')}; with ions, "
        f"{said('A', 'ion')}. It finds the small elements Be, B and Si least stable: "
        f"they take places {_listed([f'{place} ({symbol})' for symbol, place in places.items()])} of {len(a)} from the "
        f"top ({said('A', 'small')}). Stable there are, it says, groups 1 to 3 "
        f"({said('A', 'early')}) and large atoms of groups 13 to 15 "
        f"({said('A', 'late')}; {among_a} of the {len(LARGE_A)} in the lower half).\n\n"
        f"**B site.** Lowest: {lowest['B']}; highest: {highest['B']}. The paper finds groups 4 to 6 the most stable "
        f"throughout, and explains it by the d electrons that octahedra favour: {among} of the {len(D_B)} are among the "
        f"{len(D_B)} lowest ({said('B', 'd groups')}). The mean of a group is lowest for groups "
        f"{_listed([f'{group:.0f} ({energy:.2f} {unit})' for group, energy in groups.head(4).items()])}. From group 4 to "
        f"12 the energy rises with the number of d electrons: "
        f"{said('B', 'd electrons')}. With size: rank correlation "
        f"{_number(by_name.loc[('B', 'atom'), 'value'])}, against "
        f"{_number(by_name.loc[('A', 'atom'), 'value'])} on A."
    )


def _trends(trends: pd.DataFrame) -> str:
    rows = [
        [
            row.site,
            row.claim,
            row.statistic,
            _number(row.value),
            _p(row.p),
            row.verdict,
            _number(row.value_of_labels),
        ]
        for row in trends.itertuples()
    ]
    return (
        _table(["site", "claim", "number", "value", "p", "verdict", "of the labels"], rows)
        + "\n\nA rank correlation is Spearman's. *Lower than others* is the probability that an element of the group has a "
        "lower energy than one that is not of it (Mann and Whitney): 1 if all have, 0.5 if the group means nothing. "
        "A claim is undecided where p is above 0.05. *Of the labels*: the same number of the mean labels, without a network."
    )


def _errors(study: "Study", unit: str) -> str:
    rows = [
        [
            row.model,
            row.pooling,
            row.convolution,
            f"**{row.mae:.4f}** ({row.low:.4f} to {row.high:.4f})",
            _number(row.published, 3),
            f"{row.rmse:.4f}",
            f"{row.r2:.3f}",
            _number(row.val_mae, 4),
            _number(row.train_mae, 4),
            f"{row.parameters:,}",
            f"{row.seconds_to_train:.0f}",
        ]
        for row in study.errors.itertuples()
    ]
    sizes = study.crystals["split"].value_counts()
    headers = ["model", "pooling", "convolution", f"test MAE, {unit} (95 %)", "paper", "RMSE", "R²", "val MAE"]
    return (
        f"{_table([*headers, 'train MAE', 'parameters', 'seconds'], rows)}\n\n"
        f"Split: {_listed([f'{sizes.get(name, 0):,} {name}' for name in ('train', 'val', 'test')])}.\n"
        "The paper's errors stand in eV/atom there, but its Table S5 lists the energies of these 5-atom cells as they are "
        "in the source, eV a cell, so they compare with errors a cell, not a fifth of them. What differs: the paper "
        "trained on heat_all, this on the label named above; its split is not published; its neighbours are those of a "
        "Voronoi construction, and the layers, widths and epochs of its models may be others."
    )


def _sites(study: "Study", unit: str) -> str:
    fewest, most = study.elements["crystals"].min(), study.elements["crystals"].max()
    counted = str(most) if fewest == most else f"{fewest} to {most}"
    means = study.crystals[["energy_A", "energy_B", "energy_X"]].mean()
    both = [
        part["energy"].corr(part["mean_label"], method="spearman")
        for _, part in study.elements.dropna(subset=["mean_label"]).groupby("site")
    ]
    return (
        "The linear model predicts a number for every atom, and their mean is the energy of the cell (Eq. S15). The tables "
        f"show its mean over the crystals with an element on a site ({counted} crystals an element); "
        "spreads are in elements.csv. The training fixes the mean of the five atoms only: a constant could move from one "
        "kind of site to another, so compare elements on one site, not A with B. Over all crystals the means are "
        f"{_listed([f'{value:.2f} ({name[-1]})' for name, value in means.items()])} {unit}.\n\n"
        "A check that needs no network: every cation is combined with every other, so the mean label of the crystals with "
        "an element on a site ranks the elements too. Its rank correlation with the site energies is "
        f"{_listed([f'{value:.2f} ({site})' for value, site in zip(both, 'AB', strict=False)])}."
    )


def _search(study: "Study", label: str, unit: str, expected: Mapping[str, Any] | None) -> str:
    rows = []
    for row in study.counts.to_dict("records"):
        rows.append(
            [
                row["label"],
                f"{row['below']} of {row['candidates']}",
                f"{row['all below']} of {row['all']}",
                f"{row['factor']:.2f}",
                f"{row['test below']} of {row['test candidates']}",
            ]
        )
    headers = ["label", f"candidates below {THRESHOLD}", "of all", "factor", "test split: candidates below"]
    lines = [
        f"A in {', '.join(LARGE_A)}; B in {', '.join(D_B)}; all seven sets of anions. The sets of elements are inferred "
        f"from the paper's number of candidates. Below {THRESHOLD} {unit} a perovskite might be made.",
        _table(headers, rows),
    ]
    if expected is not None:
        lines.append(
            f"The paper counts by heat_all, which is known of {study.counts.iloc[2]['all']:,} crystals here, so its counts "
            f"cannot be had exactly. `{label}` differs from it for {expected['differ']:,} of the {expected['both']:,} crystals "
            f"that have both ({', '.join(expected['anions']) or 'none'}). Where heat_all is unknown, take the share of "
            f"crystals with the same anions, and on the same side of the threshold by `{label}`, that are below it by "
            f"heat_all: then {expected['below']:.1f} candidates and {expected['all below']:.1f} crystals are expected below, "
            "against the paper's 33 and 228. The paper's 8 of 58 in its test set cannot be had: its split is not published; "
            "58 is taken to be the candidates in it."
        )
    elif label != HEAT_ALL:
        lines.append("The paper counts by heat_all, which these data do not have, so its counts cannot be had exactly.")
    else:
        lines.append(
            "The paper counts by heat_all as well, of all crystals; the counts above are of those that have it here."
        )
    numbers = [name for name in study.found.columns if name not in ("formula", "split", "paper")]
    lines.append(f"The candidates below, as in Table S5 ({unit}):")
    lines.append(
        _table(
            ["perovskite", *numbers, "split", "Table S5"],
            [
                [row["formula"], *(_number(row[name]) for name in numbers), row["split"], _number(row["paper"])]
                for row in study.found.to_dict("records")
            ],
        )
    )
    return "\n\n".join(lines)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, ["---"] * len(headers), *rows))


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or math.isnan(value) else fixed(value, digits)


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1g}"


def _symbols(table: pd.DataFrame) -> str:
    return ", ".join(table["element"])


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
