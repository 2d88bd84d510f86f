"""The figures and tables of the paper and its supplement on one page, made as the runs they show are finished.

FOLDER/index.html, index.md     all parts in the paper's order, and what of them the data at hand cannot give
FOLDER/NAME.png, NAME.csv       the figures and tables
FOLDER/parts/NAME.json          what the pages say of each
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cgcnn_jax.report.gallery import Entry, write_pages
from cgcnn_jax.studies.parts import PARTS
from cgcnn_jax.studies.properties import PROPERTIES, Job, Size, Unavailable
from cgcnn_jax.studies.results import Results
from cgcnn_jax.workdir import Workdir


def find_parts(names: str) -> list[str]:
    """Names of parts, separated by commas, or all of them, in the paper's order.

    Raises:
      ValueError: Listing what there is, if there is no such part.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted or not {*wanted} <= {*PARTS, "all"}:
        raise ValueError(f"--only must be all or some of {', '.join(PARTS)}; got {names!r}")
    return [name for name in PARTS if name in wanted or "all" in wanted]


def find_jobs(results: Results, names: Iterable[str]) -> dict[str, list[Job]]:
    """The runs that parts show, by property and smallest first; those that the data cannot give are left out.

    Properties of one folder of crystals follow one another, so that each is read once.
    """
    found: dict[str, dict[str, Job]] = {}
    for need in (need for name in names for need in PARTS[name].needs):
        try:
            jobs = results.study.jobs(need.name, curve=need.is_curve, convs=need.convs)
        except Unavailable:
            continue
        found.setdefault(need.name, {}).update({job.path: job for job in jobs})
    return {
        name: sorted(found[name].values(), key=lambda job: (job.n_train, job.conv))
        for name in PROPERTIES
        if name in found
    }


def make(results: Results, names: Sequence[str], *, on_part: Callable[[str], None] = lambda name: None) -> bool:
    """Does the missing runs and makes the parts, each as soon as its runs are there.

    Args:
      results: The study and its folder.
      names: Of parts, see find_parts.
      on_part: Called with the name of each part made.

    Returns:
      False if the study's watcher stopped a run; the same call goes on, and repeats no run.

    Raises:
      ValueError: If the folder holds runs of another configuration or of other data.
    """
    waiting = list(names)

    def make_ready() -> None:
        for name in list(waiting):
            jobs = find_jobs(results, [name])
            if all(results.study.record(job) is not None for of_one in jobs.values() for job in of_one):
                _make(results, name)
                on_part(name)
                waiting.remove(name)

    make_ready()
    for jobs in find_jobs(results, names).values():
        if not results.study.run(jobs):
            return False
        make_ready()
    return True


def _make(results: Results, name: str) -> None:
    empty = Entry(name, PARTS[name].title)
    try:
        entry = PARTS[name].make(results, empty)
    # Whatever cannot be drawn, such as the ROC of crystals of one class: it must not keep the other parts from the page.
    except ValueError as error:
        entry = replace(empty, missing=[str(error)])
    if entry.header:
        Workdir(results.folder).write_csv(f"{name}.csv", entry.header, entry.rows)
    (results.folder / "parts").mkdir(exist_ok=True)
    Workdir(results.folder / "parts").write_json(f"{name}.json", vars(entry))
    _write_pages(results)


def _write_pages(results: Results) -> None:
    """The pages of all parts; those not made say so."""
    entries = []
    for name, part in PARTS.items():
        file = results.folder / "parts" / f"{name}.json"
        known = {"name": name, "title": part.title, "missing": [f"not made yet; --only={name} makes it"]}
        entries.append(Entry(**(json.loads(file.read_text()) if file.exists() else known)))
    write_pages(results.folder, "The figures and tables of the CGCNN paper", _about(results.study.size), entries)


def _about(size: Size) -> list[str]:
    largest = max(sum(of.sizes) for of in PROPERTIES.values())
    crystals = (
        "the paper's numbers of crystals, as far as they are at hand"
        if size.max_train > largest
        else f"at most {size.max_train:,} training and {size.max_judge:,} test crystals"
    )
    return [
        "T. Xie and J. C. Grossman, Crystal Graph Convolutional Neural Networks for an Accurate and Interpretable "
        "Prediction of Material Properties, Phys. Rev. Lett. 120, 145301 (2018), from the data at hand.",
        f"Size {size.name}: {crystals}, at least {size.epochs} epochs. Both convolutions are trained and judged alike: the same "
        "crystals, graphs, element table, number and width of layers and epochs. Eq. 5 is taken as released, with batch normalisation; Eq. 4 has none, and takes shorter steps, "
        "or training with many crystals fails. Intervals are 95 % "
        "bootstrap intervals over the test crystals; they hold neither the choice of the training crystals nor the seed.",
    ]
