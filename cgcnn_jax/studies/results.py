"""What the runs of `studies.properties` reached, for figures, tables and the sentences beside them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cgcnn_jax.studies.properties import CONVOLUTIONS, PROPERTIES, Job, PropertyStudy, Unavailable
from cgcnn_jax.workdir import Workdir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cgcnn_jax.report.convergence import Point

Record = dict[str, Any]


class Results:
    """Finished runs, other studies, and the folder of the pictures.

    Attributes:
      study: The runs.
      folder: Where pictures go.
      perovskites: Folder of the perovskite study; None without one.
      trials: Table of trials of hyperparameters (CSV); None without one.
    """

    def __init__(
        self, study: PropertyStudy, folder: Path, perovskites: Path | None = None, trials: Path | None = None
    ) -> None:
        self.study, self.folder, self.perovskites, self.trials = study, folder, perovskites, trials

    def largest(self, name: str, conv: str) -> tuple[Job, Record]:
        """The run with all training crystals, and its record. Raises Unavailable, saying why, if it has no number."""
        (job,) = self.study.jobs(name, convs=(conv,))
        record = self.study.record(job)
        if record is None:
            raise Unavailable(f"the run {job.path} is not done")
        if "failed" in record:
            raise Unavailable(f"the run {job.path} failed: {record['failed']}")
        return job, record

    def curve(self, name: str, conv: str) -> tuple[list[Record], list[str]]:
        """Records of a learning curve, and the paths of runs that failed. Raises Unavailable."""
        found = [(job, self.study.record(job)) for job in self.study.jobs(name, curve=True, convs=(conv,))]
        good = [record for _, record in found if record is not None and "failed" not in record]
        return good, [job.path for job, record in found if record is not None and "failed" in record]

    def draw(self, name: str, figure: "Figure") -> str:
        """Saves NAME.png, and returns its name."""
        Workdir(self.folder).save_figures({name: figure})
        return f"{name}.png"


def number(value: float | None) -> str:
    """Three decimals, as the paper has; empty if there is no number."""
    return "" if value is None else f"{value:.3f}"


def fixed(value: float, digits: int = 2) -> str:
    """So many decimals, two as the paper's Table S5 has; no -0.00."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def interval(record: Record) -> str:
    """The 95 % interval of the test error."""
    low, high = record["test_interval_95"]
    return f"{number(low)} to {number(high)}"


def point(record: Record) -> "Point":
    """A run in a learning curve."""
    from cgcnn_jax.report.convergence import Point

    low, high = record["test_interval_95"]
    return Point(record["crystals"]["train"], record["test"], (low, high))


def told(job: Job, record: Record) -> str:
    """What a run reached, and what the paper did."""
    metric = "area under the ROC curve" if record["metric"] == "roc_auc" else "test MAE"
    unit = f" {record['unit']}" * bool(record["unit"])
    note = f" What differs: {job.of.note}." if job.of.note else ""
    published = ""
    if CONVOLUTIONS[job.conv] == "Eq. 5":
        published = f" The paper has {job.of.published:.3f}{unit} from {job.of.sizes[0]:,}."
    return (
        f"{job.of.label}, {CONVOLUTIONS[job.conv]}: {metric} {number(record['test'])} ({interval(record)}){unit} on "
        f"{record['crystals']['test']:,} crystals, from {record['crystals']['train']:,} training crystals and "
        f"{record['epochs']} epochs (runs/{job.path}, commit {record['commit']}).{published}{note}"
    )


def crossing(series: "Mapping[str, Sequence[Point]]", band: tuple[float, float] | None, unit: str) -> str:
    """Which networks come below the error of DFT against experiment, and from how many crystals on."""
    if band is None:
        return ""
    sentences = []
    for convolution, points in series.items():
        if not points:  # no run of it ended well
            continue
        by_size = sorted(points, key=lambda one: -one.n_train)
        below = [*itertools.takewhile(lambda one: one.error < band[1], by_size)]
        if below:
            sentences.append(f"{convolution} is below {band[1]:g} {unit} from {below[-1].n_train:,} crystals on")
        else:
            how = "end" if any(one.error < band[1] for one in points) else "come"
            sentences.append(f"{convolution} does not {how} below {band[1]:g} {unit}")
    told = f": {', '.join(sentences)}" if sentences else ""
    return f"The band is DFT against experiment as the paper quotes it{told}."


def at_hand(table: pd.DataFrame) -> str:
    """How many crystals of the paper's list of formation energies there are."""
    symbols = {symbol for one in table["elements"] for symbol in one.split()}
    return (
        f"{len(table):,} crystals of {len(symbols)} elements are at hand for the formation energy, of the paper's "
        f"{sum(PROPERTIES['formation_energy'].sizes):,} (crystals/formation_energy.csv)."
    )
