"""What README and docs tell a reader to type exists."""

import re
from pathlib import Path

import pytest

from configs import base

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", *(p for place in ("docs", "cgcnn_jax", "pretrained") for p in (ROOT / place).rglob("*.md"))]
)
# Commands stand there too.
SOURCES = PAGES + sorted((ROOT / "configs").glob("*.py")) + sorted((ROOT / "experiments").glob("*.py"))


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Entry point and flags of every `python -m experiments.name ...`, continued lines joined."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    found = re.findall(r"python -m experiments\.([a-z]\w*)([^\n`|]*)", joined)
    return [(name, re.findall(r"--[\w.]+(?:=[^\s\]]+)?", rest)) for name, rest in found]


def flags_of(name: str) -> set[str]:
    """Flags that an entry point defines; read, not imported, for absl allows one of a name in a process."""
    text = (ROOT / "experiments" / f"{name}.py").read_text()
    shared = re.findall(r"\w+", " ".join(re.findall(r"^from experiments import (.*)", text, re.MULTILINE)))
    text += "".join((ROOT / "experiments" / f"{module}.py").read_text() for module in {"cli", *shared})
    return {"help", *re.findall(r'^[A-Z_]+ = \w+\.DEFINE_\w+\(\s*"(\w+)"', text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_commands_name_flags_and_fields_that_exist(source: Path) -> None:
    config = base.get_config()
    for name, arguments in commands(source.read_text()):
        for argument in arguments:
            flag, _, value = argument.removeprefix("--").partition("=")
            first, *path = flag.split(".")
            if path and path != [""]:
                assert path[-1] in (config[path[0]] if len(path) == 2 else config), argument
            else:
                assert first in flags_of(name) or (name == "evaluate" and first == "config"), argument
            if flag == "config" and value.startswith("configs/"):
                assert (ROOT / value.partition(":")[0]).is_file(), argument


def test_the_readme_has_the_commands_that_ci_and_make_know() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text() + (ROOT / ".ci" / "run").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_pages_compiles(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(block, page.name, "exec")


def test_the_route_to_a_new_atom_feature_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "atom_features.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "atom_features.md", "exec"), names)


def test_the_checks_above_have_commands_to_check() -> None:
    assert sum(len(commands(source.read_text())) for source in SOURCES) > 25
    assert commands("python -m experiments.train --config=configs/x.py \\\n  --config.a.b=3 --nosuch `x`") == [
        ("train", ["--config=configs/x.py", "--config.a.b=3", "--nosuch"])
    ]
