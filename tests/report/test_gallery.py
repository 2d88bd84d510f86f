from html.parser import HTMLParser
from pathlib import Path

from cgcnn_jax.report.gallery import Entry, markdown_table, write_pages

ENTRIES = [
    Entry(
        "table_i",
        "Table I",
        caption=["Errors < 1 & more."],
        header=["property", "MAE"],
        rows=[["gap", "0.3"], ["a|b", ""]],
    ),
    Entry("figure_1", "Figure 1", pictures=[("figure_1.png", "Of one run."), ("more.png", "")]),
    Entry("figure_2", "Figure 2", links=[("The study", "../study/index.md")], missing=["no data"]),
]


class Reader(HTMLParser):
    """Collects tags with their attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_both_pages_have_every_entry_in_order(tmp_path: Path) -> None:
    write_pages(tmp_path, "Paper", ["About."], ENTRIES)
    page = Reader()
    page.feed((tmp_path / "index.html").read_text())
    assert not page.open  # every tag is closed where it should be
    assert [a["src"] for tag, a in page.tags if tag == "img"] == ["figure_1.png", "more.png"]
    assert [a["id"] for tag, a in page.tags if tag == "h2"] == ["table_i", "figure_1", "figure_2"]
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["../study/index.md"]
    shown = [text for text in page.text if text]
    assert shown[-2:] == ["Not here:", "no data"] and "Errors < 1 & more." in shown and "Of one run." in shown
    assert [text for text in shown if text in ("gap", "0.3", "a|b")] == ["gap", "0.3", "a|b"]
    markdown = (tmp_path / "index.md").read_text()
    lines = [line for line in markdown.splitlines() if line]
    assert lines[:3] == ["# Paper", "About.", "## Table I"]
    assert lines[3:8] == ["| property | MAE |", "| --- | --- |", "| gap | 0.3 |", "| a\\|b |  |", "Errors < 1 & more."]
    assert lines[8:12] == ["## Figure 1", "![Figure 1](figure_1.png)", "Of one run.", "![Figure 1](more.png)"]
    assert lines[12:] == ["## Figure 2", "[The study](../study/index.md)", "**Not here:** no data"]


def test_a_table_is_a_line_a_row() -> None:
    assert markdown_table(["a"], [["1"], ["2"]]) == "| a |\n| --- |\n| 1 |\n| 2 |\n"
