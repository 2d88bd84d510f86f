"""The import rule: a module imports lower levels only, data and nn never each other, and the device stays out of data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = {
    "graph": 0,
    "scaling": 0,
    "files": 0,
    "memory": 0,
    "torchfile": 1,
    "data": 1,
    "nn": 1,
    "train": 2,
    "config": 3,
    "predict": 4,
    "ensemble": 4,
    "workdir": 4,
    "evaluation": 4,
    "applicability": 4,
    "judging": 4,
    "interpret": 4,
    "interpretation": 4,
    "reference": 4,
    "screen": 4,
    "report": 4,
    "preparation": 4,
    "export": 5,
    "run": 5,
    "together": 6,
    "benchmark": 7,
    "studies": 7,
    "sweep": 7,
}
FORBIDDEN = {
    "data": {"jax", "jaxlib", "flax", "optax", "orbax"},
    "nn": {"pymatgen"},
    "graph": {"jax", "flax", "pymatgen"},
    "scaling": {"jax", "flax", "pymatgen"},
    "torchfile": {"jax", "flax", "torch"},
}
EVERYWHERE = {"absl", "experiments", "configs", "tests"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            # `from cgcnn_jax import config` names a module, `from cgcnn_jax.graph import pad` does not.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(module: str, source: str) -> list[str]:
    """What the module ("cgcnn_jax.nn.conv") breaks of the rule."""
    tree = ast.parse(source)
    found = [
        f"{module} calls print"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    unit = (module.split(".") + [""])[1]
    for name in imports(tree):
        package, _, rest = name.partition(".")
        if package in EVERYWHERE | FORBIDDEN.get(unit, set()):
            found.append(f"{module} imports {name}")
        # cgcnn_jax/__init__.py lists public names of every level.
        if package != "cgcnn_jax" or not unit:
            continue
        other = rest.split(".")[0]
        if other not in LEVELS:
            found.append(f"{module} imports {name}, which has no level")
        # Level 4 holds tools that may use one another; that none goes in circles is a test of its own.
        elif other != unit and LEVELS[other] >= LEVELS[unit] and not LEVELS[other] == LEVELS[unit] == 4:
            found.append(f"{module} (level {LEVELS[unit]}) imports {name} (level {LEVELS[other]})")
    return found


def library() -> dict[str, str]:
    """Module name -> source. The scripts beside the assets make those assets and are not part of the library."""
    files = [path for path in (ROOT / "cgcnn_jax").rglob("*.py") if path.parent.name != "assets"]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path.read_text()
        for path in files
    }


@pytest.mark.parametrize("module", sorted(library()))
def test_a_module_imports_lower_levels_only(module):
    assert violations(module, library()[module]) == []


def test_every_module_has_a_level():
    units = {module.split(".")[1] for module in library() if "." in module}
    assert {"graph", "data", "nn", "train"} <= units <= LEVELS.keys()


def test_the_tools_of_level_4_do_not_import_in_circles():
    tools = {unit for unit, level in LEVELS.items() if level == 4}
    uses: dict[str, set[str]] = {tool: set() for tool in tools}
    for module, source in library().items():
        unit = (module.split(".") + [""])[1]
        if unit in tools:
            used = {name.split(".")[1] for name in imports(ast.parse(source)) if name.startswith("cgcnn_jax.")}
            uses[unit] |= (used & tools) - {unit}
    while uses:
        free = {unit for unit, used in uses.items() if not used & uses.keys()}
        assert free, f"a circle among {sorted(uses)}: {uses}"
        uses = {unit: used for unit, used in uses.items() if unit not in free}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cgcnn_jax.nn.conv", "from cgcnn_jax.data.crystal import Crystal"),
        ("cgcnn_jax.nn.conv", "from cgcnn_jax.data import crystal"),
        ("cgcnn_jax.nn.conv", "def f():\n    import cgcnn_jax.train.loop"),
        ("cgcnn_jax.nn.conv", "from pymatgen.core import Structure"),
        ("cgcnn_jax.data.crystal", "import jax.numpy as jnp"),
        ("cgcnn_jax.data.crystal", "from jax import Array"),
        ("cgcnn_jax.data.crystal", "from cgcnn_jax.nn.model import CGCNN"),
        ("cgcnn_jax.graph", "from cgcnn_jax.scaling import Task"),
        ("cgcnn_jax.train.loop", "from cgcnn_jax import config"),
        ("cgcnn_jax.config", "import cgcnn_jax.predict"),
        ("cgcnn_jax.predict", "from absl import logging"),
        ("cgcnn_jax.predict", "from experiments import cli"),
        ("cgcnn_jax.predict", "from cgcnn_jax.assets import make_demo"),
        ("cgcnn_jax.report.figures", "if True:\n    print('drawn')"),
    ],
)
def test_the_check_finds_a_made_up_violation(module, line):
    assert len(violations(module, f"import numpy as np\n{line}\n")) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("cgcnn_jax.nn.conv", "from cgcnn_jax.graph import CrystalGraphs"),
        ("cgcnn_jax.nn.conv", "from cgcnn_jax.nn.ops import softplus"),
        ("cgcnn_jax.train.loop", "from cgcnn_jax.data import batching"),
        ("cgcnn_jax.report.figures", "from cgcnn_jax.train.metrics import regression_metrics"),
        ("cgcnn_jax.evaluation", "from cgcnn_jax.report import figures"),
        ("cgcnn_jax", "from cgcnn_jax.predict import Predictor as Predictor"),
    ],
)
def test_the_check_admits_lower_levels(module, line):
    assert violations(module, line) == []
