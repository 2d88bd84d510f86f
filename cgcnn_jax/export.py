"""Export: a finished run as a folder to give away, its network with a card that says what it is and how far to trust it.

The card needs the extra `report`; `Predictor.save` writes the network alone.
"""

import dataclasses
import shlex
from pathlib import Path

import pandas as pd

from cgcnn_jax import config as configs
from cgcnn_jax.applicability import FILE, Applicability
from cgcnn_jax.data import sets, sources
from cgcnn_jax.judging import JudgingPredictor
from cgcnn_jax.predict import Predictor
from cgcnn_jax.report import facts, finished, gallery, panels
from cgcnn_jax.report.finished import FinishedRun
from cgcnn_jax.report.panels import Panel
from cgcnn_jax.scaling import with_units
from cgcnn_jax.workdir import Workdir

CARD = "card.md"


def export(workdir: str | Path, folder: str | Path) -> str:
    """Writes the network of a run without its training, as `Predictor.save`, and with it CARD.

    What the run was trained on goes with it (`Applicability.for_others`) if the run's folder has it.

    Returns:
      Whether that went with it, in a sentence for people.

    Raises:
      FileNotFoundError: If there is no run with a checkpoint.
      ValueError: If the run was not trained to its end, or the folder is there.
    """
    run = Workdir(workdir)
    predictor = Predictor.restore(run.path)
    if not run.is_finished:
        raise ValueError(
            f"{run.path} is no run that was trained to its end, so that nothing says how good its network is; export one "
            "that is (a folder that was exported is given on as it is)"
        )
    files = {CARD: card(finished.read(run.path)).encode()}
    try:
        known = Applicability.load(run.path)
        JudgingPredictor(predictor, known)  # which takes no other weights'
    except (FileNotFoundError, ValueError):
        told = (
            "Nothing in it warns of crystals unlike those it was trained on: `python -m experiments.interpret "
            f"--workdir={shlex.quote(str(workdir))}` notes what they are, and an export after that holds it."
        )
    else:
        some = known.for_others()
        files[FILE] = some.content()
        kept = (
            f"{len(some.ids):,} of {len(known.ids):,}, near which the others lie" if some.is_thinned else "all of them"
        )
        told = (
            f"{FILE} holds ids, formulas and vectors of training crystals, {kept}; they warn of crystals unlike them."
        )
    predictor.save(folder, files)
    return told


def card(run: FinishedRun) -> str:
    """On what a run's network was trained, with what errors, where and by which versions; Markdown."""
    shown = dataclasses.replace(run, name="", config=configs.portable(run.config))
    title = ", ".join(with_units(run.units, run.units.values()))
    machine = pd.concat(list(facts.machine([shown]).tables.values()))
    return "\n\n".join(
        [
            f"# {title}",
            *_origin(run),
            "```bash\npython -m experiments.predict --workdir=FOLDER --input=YOUR_CRYSTALS\n```",
            *(_section(panels.errors([shown], name, unit), f"Errors of {name}") for name, unit in run.units.items()),
            _section(facts.setup([shown])),
            _section(Panel("Hardware and software", tables={"": machine})),
        ]
    )


def _origin(run: FinishedRun) -> list[str]:
    """Of a public set: what it is, how much of it there was, its terms and whom to cite; nothing of other data."""
    data = run.config["data"]
    source = sources.SOURCES[data["source"]]
    task = source.task(data["task"])
    if task is None:
        return []
    # A benchmark is values and splits; its crystals are a set of their own.
    names = dict.fromkeys([task.name, source.fetched(sources.Request(task=task.name)) or task.name])
    found = [sets.SETS[name] for name in names if name in sets.SETS]
    counts = run.summary["crystals"]
    present = sum(counts.get(name, 0) for name in ("train", "val", "test", "unused"))
    more = [name for name in data["target"].split(",") if name not in task.names]
    besides = f", and from {' and '.join(f'`{name}`' for name in more)} of the same crystals" * bool(more)
    lines = [f"Learned from `{task.column}` of {task.name}, {present:,} of its {task.size:,} crystals{besides}."]
    for label, texts in (
        ("What it is", [one.about for one in found]),
        ("Licence of the data", [one.licence for one in found]),
        ("Cite", [one.cite for one in found]),
    ):
        lines += [f"- {label}: {'; '.join(dict.fromkeys(texts))}"] if texts else []
    return ["\n".join([lines[0], "", *lines[1:]])]


def _section(panel: Panel, title: str = "") -> str:
    """The first table of a panel, and what is said of it."""
    table = next(iter(panel.tables.values()))
    rows = [[str(name), *row] for name, row in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n\n".join(
        [f"## {title or panel.title}", gallery.markdown_table(["", *table.columns], rows).strip(), *panel.notes]
    )
