"""A folder of figures and tables with index pages: index.html and index.md, static, with relative links."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cgcnn_jax.files import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
figure { margin: 1rem 0; }
img { max-width: min(100%, 45rem); display: block; }
p, figcaption { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: 0.25rem 0.8rem 0.25rem 0; text-align: left; vertical-align: top; }
.missing { color: #8a4b00; }
"""


@dataclass(frozen=True)
class Entry:
    """A figure or a table.

    Attributes:
      name: Of its files, and of the entry in the page.
      title: Its heading.
      caption: What it shows; paragraphs.
      pictures: Files beside the page, each with a caption of its own, which may be empty.
      header: Of the table, if there is one.
      rows: Of the table; cells as they are to be read.
      links: Names and addresses relative to the page.
      missing: What of it could not be made, and why; empty if nothing.
    """

    name: str
    title: str
    caption: Sequence[str] = ()
    pictures: Sequence[tuple[str, str]] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    links: Sequence[tuple[str, str]] = ()
    missing: Sequence[str] = ()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def write_pages(folder: Path, title: str, about: Sequence[str], entries: Sequence[Entry]) -> None:
    """Writes index.md and index.html: a heading, paragraphs, and the entries in order.

    Args:
      folder: Where the pictures are.
      title: Of the page.
      about: Paragraphs before the entries.
      entries: In order.
    """
    write_text(folder / "index.md", _markdown(title, about, entries))
    write_text(folder / "index.html", _html(title, about, entries))


def _markdown(title: str, about: Sequence[str], entries: Sequence[Entry]) -> str:
    parts = [f"# {title}", *about]
    for entry in entries:
        parts.append(f"## {entry.title}")
        for name, caption in entry.pictures:
            parts += [f"![{entry.title}]({name})", *([caption] if caption else [])]
        if entry.header:
            parts.append(markdown_table(entry.header, entry.rows).rstrip())
        parts += entry.caption
        parts += [f"[{name}]({address})" for name, address in entry.links]
        parts += [f"**Not here:** {reason}" for reason in entry.missing]
    return "\n\n".join(parts) + "\n"


def _html(title: str, about: Sequence[str], entries: Sequence[Entry]) -> str:
    text = html.escape
    parts = [f"<h1>{text(title)}</h1>", *(f"<p>{text(one)}</p>" for one in about)]
    for entry in entries:
        parts.append(f'<h2 id="{text(entry.name)}">{text(entry.title)}</h2>')
        for name, caption in entry.pictures:
            below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
            parts.append(f'<figure><img src="{text(name)}" alt="{text(entry.title)}">{below}</figure>')
        if entry.header:
            parts.append(_html_table(entry.header, entry.rows))
        parts += [f"<p>{text(one)}</p>" for one in entry.caption]
        parts += [f'<p><a href="{text(address)}">{text(name)}</a></p>' for name, address in entry.links]
        parts += [f'<p class="missing"><b>Not here:</b> {text(reason)}</p>' for reason in entry.missing]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{text(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = [line("th", header), *(line("td", row) for row in rows)]
    return "\n".join(['<div class="scroll"><table>', *lines, "</table></div>"])
