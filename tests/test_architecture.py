"""The structure: which module may import which (design.md, section 2), and what is not loaded until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "nni", "wandb", "numpy", "scipy", "cv2", "sklearn", "pycocotools", "pydantic", "plotly", "moocore")


def modules(package: str) -> list[str]:
    """Dotted names of the modules of a package, without the package itself."""
    files = sorted((ROOT / package).rglob("*.py"))
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.name != "__init__.py"]


def imports(module: str) -> set[str]:
    """Dotted names of everything that `module` imports anywhere, inside functions and for type checking too."""
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    return {name for node in ast.walk(tree) for name in _imported(node, module)}


def _imported(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = module.split(".")[: -node.level] if node.level else []
        source = ".".join([*package, *([node.module] if node.module else [])])
        yield source
        yield from (f"{source}.{alias.name}" for alias in node.names)  # `from gpnas import journal` imports a module


def forbidden(module: str, *packages: str) -> list[str]:
    """What `module` imports out of `packages`."""
    return sorted(name for name in imports(module) if name.startswith(tuple(f"{p}." for p in packages)) or name in packages)


def loaded(statement: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint('|'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split("|"))


BASE = {"gpnas.errors": [], "gpnas.units": ["gpnas.errors"], "gpnas.files": ["gpnas.errors"]}
"""The three files that every room may import, and what they import."""

LAYERS = BASE | {
    "gpnas.graph": [],
    "gpnas.paths": ["gpnas.graph"],
    "gpnas.search": ["gpnas.graph", "gpnas.paths"],
    "gpnas.bench": ["gpnas.graph", "gpnas.paths", "gpnas.search"],
    "gpnas.run": ["gpnas.graph", "gpnas.search"],
    "gpnas.export": ["gpnas.graph"],
    "gpnas.report": ["gpnas.graph", "gpnas.paths", "gpnas.search", "gpnas.run", "gpnas.bench"],
    "search_spaces": ["gpnas.graph", "gpnas.search.trial"],
    "evaluators.device": [],
    "evaluators.data": ["evaluators.device"],
    "evaluators.detector": ["gpnas.graph", "evaluators.data"],
    "evaluators.judge": ["gpnas.graph", "evaluators.data", "evaluators.device", "evaluators.detector"],
    "evaluators.training": [
        *("gpnas.graph", "gpnas.search.trial", "evaluators.data", "evaluators.device", "evaluators.detector"),
        "evaluators.judge",
    ],
    "evaluators.proxy": [
        *("gpnas.graph", "gpnas.search.trial", "evaluators.data", "evaluators.device", "evaluators.judge"),
        "evaluators.training",
    ],
    "evaluators.predict": ["evaluators.data", "evaluators.detector"],
    "evaluators.tabular": ["gpnas.search.trial"],
    "evaluators.zero_cost": ["gpnas.graph", "evaluators.data", "evaluators.detector"],
}
"""What each room may import of ours, besides BASE and its own files. `gpnas.cli` joins them all and stands in no row."""


def room_of(module: str) -> str:
    return next(room for room in LAYERS if module == room or module.startswith(f"{room}."))


def test_every_kind_of_import_statement_is_seen() -> None:
    tree = ast.parse("import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\ndef late():\n    import h\n")
    seen = {name for node in ast.walk(tree) for name in _imported(node, "gpnas.cli")}
    assert seen >= {"a.b", "c.d", "gpnas.e", "gpnas.f", "h"}
    assert "search_spaces.gradient_path.open_space" in imports("gpnas.cli.sources")  # inside a function


OURS = [module for package in ("gpnas", "search_spaces", "evaluators") for module in modules(package)]
FACES = ("gpnas.cli", "gpnas.__main__")


@pytest.mark.parametrize("module", [module for module in OURS if not module.startswith(FACES)])
def test_a_room_imports_only_the_rooms_below_it(module: str) -> None:
    room = room_of(module)
    allowed = (room, *LAYERS[room], *(() if room in BASE else BASE))
    used = [name for name in imports(module) if name.startswith(("gpnas.", "search_spaces.", "evaluators."))]
    assert [name for name in used if not any(name == room or name.startswith(f"{room}.") for room in allowed)] == []


@pytest.mark.parametrize("module", modules("evaluators"))
def test_evaluators_know_neither_nni_nor_wandb(module: str) -> None:
    assert forbidden(module, "nni", "wandb") == []


@pytest.mark.parametrize("module", [module for module in modules("search_spaces") if not module.endswith("__main__")])
def test_search_spaces_know_no_training(module: str) -> None:
    assert forbidden(module, "torch", "wandb") == []


MOST_LINES = 450


@pytest.mark.parametrize("module", [module for module in OURS if module != "gpnas.graph.graph"])
def test_a_file_is_short_enough_to_hold_one_idea(module: str) -> None:
    assert len((ROOT / module.replace(".", "/")).with_suffix(".py").read_text().splitlines()) <= MOST_LINES


def test_the_picture_of_the_rooms_is_the_table() -> None:
    """docs/architecture.md draws every room but the three at the bottom, and an arrow for every import that LAYERS allows."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    lines = text[text.index("flowchart") : text.index("```", text.index("flowchart"))].splitlines()[1:]
    drawn: dict[str, set[str]] = {}
    for line in lines:
        source, _, targets = line.strip().partition(" --> ")
        drawn[source.partition("[")[0]] = set(targets.split(" & ")) - {""}
    rooms = {room: used for room, used in LAYERS.items() if room not in BASE}
    expected = {room.rpartition(".")[2]: {below.rpartition(".")[2] for below in used} for room, used in rooms.items()}
    assert drawn == expected | {"trial": set()}


def test_no_modules_import_each_other_in_a_circle() -> None:
    uses = nx.DiGraph((module, used) for module in OURS for used in imports(module) & set(OURS))
    assert list(nx.simple_cycles(uses)) == []


def test_the_command_line_helps_without_loading_anything_heavy() -> None:
    help_ = "from gpnas.cli.app import app\ntry:\n    app(['--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
    held = loaded(help_)
    assert "gpnas.cli.app" in held
    assert held.isdisjoint(HEAVY)


def test_help_through_the_module_exits_with_0() -> None:
    done = subprocess.run([sys.executable, "-m", "gpnas", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "search" in done.stdout and "analyze" in done.stdout


def test_analysis_needs_no_torch() -> None:
    held = loaded("import gpnas.paths.gradient_paths, gpnas.graph.cost, gpnas.search.trial, gpnas.paths.score")
    assert held.isdisjoint(HEAVY)


def test_a_recipe_needs_no_torch() -> None:
    assert loaded("import evaluators.training.recipe").isdisjoint({"torch", "cv2"})


def test_importing_the_space_does_not_load_nni_or_torch() -> None:
    assert loaded("import search_spaces.gradient_path").isdisjoint({"nni", "torch", "wandb"})


@pytest.mark.slow  # LAYERS says the same of each module
def test_importing_every_evaluator_loads_neither_nni_nor_wandb() -> None:
    held = loaded(f"import {', '.join(modules('evaluators'))}")
    assert set(modules("evaluators")) <= held
    assert held.isdisjoint({"nni", "wandb", "search_spaces", "gpnas.search.controller", "gpnas.run.journal"})
