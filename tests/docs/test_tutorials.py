"""The Python of every tutorial runs: its blocks in their order, in an empty folder, as a reader would type them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line and text of every python block."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text[: block.start()].count("\n") + 1, block[1]) for block in found]


def trains(page: Path) -> bool:
    """Whether the page trains a network, which takes a quarter of a minute or more."""
    return any(re.search(r"\brun\(", text) for _, text in blocks(page))


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * trains(page)) for page in TUTORIALS]
)
def test_the_blocks_of_the_tutorial_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    found = blocks(page)
    assert found, f"{page.name} shows no Python"
    (tmp_path / "here").mkdir()
    if any("cgcnn/pre-trained" in text for _, text in found):
        # Laid out as the clone of the published code that the page asks for; skips where there is none.
        published = request.getfixturevalue("shared_data") / "cgcnn_reference"
        (tmp_path / "here" / "cgcnn").mkdir()
        for name, target in (("pre-trained", published / "pre-trained"), ("data", published)):
            (tmp_path / "here" / "cgcnn" / name).symlink_to(target.resolve())
    monkeypatch.setenv("CGCNN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "here")
    names: dict[str, object] = {"__name__": page.stem}
    for line, text in found:
        # Blank lines before it, so that an error is shown with its line in the page.
        exec(compile("\n" * line + text, str(page), "exec"), names)


def test_there_are_tutorials_to_run() -> None:
    assert {"explain", "published_model", "train_on_your_cifs"} <= {page.stem for page in TUTORIALS}
    assert blocks(ROOT / "docs" / "tutorials" / "explain.md")[0][1].count("\n") > 1
