"""The run report: one HTML page of one or several finished runs that works from a file, without network.

page.write(["runs/demo"], "report.html")
html = page.page(finished.read_all(["runs/a", "runs/b"]))
"""

from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from cgcnn_jax.files import write_text
from cgcnn_jax.report import facts, finished, panels
from cgcnn_jax.report.figures import axis_label
from cgcnn_jax.report.finished import FinishedRun
from cgcnn_jax.report.panels import Panel

# isort: split
# After the figures, which say what to install.
import jinja2
from bokeh.embed import components
from bokeh.resources import Resources
from markupsafe import Markup


def write(workdirs: Sequence[str | Path], output: str | Path) -> Path:
    """Writes the report of finished runs, whole or not at all.

    Args:
      workdirs: Their folders; several are set side by side, the first being the one others are compared to.
      output: The HTML file.

    Raises:
      FileNotFoundError: If one holds no finished run.
      ValueError: If one stands twice, or its files do not fit together.
    """
    path = Path(output).expanduser()
    write_text(path, page(finished.read_all(workdirs)))
    return path


def page(runs: Sequence[FinishedRun]) -> str:
    """The report as one HTML text, below 3 MB whatever the size of the splits."""
    sections = [("Setup", [facts.setup(runs), *([facts.configurations(runs)] if len(runs) > 1 else [])])]
    groups = panels.properties(runs)
    n_parity = sum(len(group) for (_, _, is_class), group in groups.items() if not is_class)
    budget = panels.BYTES_OF_POINTS / max(n_parity, 1)
    for (name, unit, is_class), group in groups.items():
        first = panels.orders(group, name) if is_class else [panels.predictions(group, name, unit, budget)]
        sections.append(
            (
                axis_label(name, unit),
                [
                    panels.errors(group, name, unit),
                    panels.learning(group, name, unit),
                    *first,
                    panels.by_element(group, name, unit),
                    panels.along(group, name, unit, "n_atom"),
                    panels.along(group, name, unit, "distance"),
                    panels.extremes(group, name, unit),
                ],
            )
        )
    sections.append(("Time and machine", [facts.times(runs), facts.machine(runs)]))
    script, places = _embedded([panel for _, shown in sections for panel in shown])
    names = [run.name for run in runs]
    return _template().render(
        title=" and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} other runs",
        names=names,
        headline=panels.headline(runs),
        sections=sections,
        places=places,
        commands=facts.commands(runs),
        version=metadata.version("cgcnn-jax"),
        # Bokeh's own code and its JSON, in which it escapes texts; all else goes through jinja's escaping.
        library=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        script=Markup(script),
    )


def _embedded(shown: Sequence[Panel]) -> tuple[str, dict[int, Markup]]:
    """The script that draws all figures, and the place of each by its `id()`."""
    figures = {str(id(figure)): figure for panel in shown for figure in panel.figures.values()}
    if not figures:
        return "", {}
    script, divs = components(figures)
    return script, {int(key): Markup(div) for key, div in divs.items()}


def _template() -> Any:
    text = (resources.files("cgcnn_jax") / "report" / "page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["id"] = id
    return environment.from_string(text)
