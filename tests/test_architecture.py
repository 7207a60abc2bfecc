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


def test_every_kind_of_import_statement_is_seen() -> None:
    tree = ast.parse("import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\ndef late():\n    import h\n")
    seen = {name for node in ast.walk(tree) for name in _imported(node, "gpnas.cli")}
    assert seen >= {"a.b", "c.d", "gpnas.e", "gpnas.f", "h"}
    assert "search_spaces.space.open_space" in imports("gpnas.cli")  # inside a function


@pytest.mark.parametrize("module", [module for module in modules("gpnas") if module != "gpnas.cli"])
def test_the_core_knows_neither_spaces_nor_evaluators(module: str) -> None:
    assert forbidden(module, "search_spaces", "evaluators") == []


@pytest.mark.parametrize("module", modules("evaluators"))
def test_evaluators_know_neither_spaces_nor_the_search(module: str) -> None:
    assert forbidden(module, "search_spaces", "nni", "wandb", "gpnas.controller", "gpnas.journal", "gpnas.cli") == []


@pytest.mark.parametrize("module", modules("search_spaces"))
def test_search_spaces_know_no_evaluators_and_no_training(module: str) -> None:
    assert forbidden(module, "evaluators", "torch", "wandb", "gpnas.controller", "gpnas.journal", "gpnas.cli") == []


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("errors", set()),
        ("graph", {"errors"}),
        ("gradient_paths", {"graph"}),
        ("cost", {"errors", "graph"}),
        ("trial", {"errors", "graph"}),
        ("network", {"errors", "graph"}),
        ("score", {"gradient_paths", "cost", "graph"}),
        ("journal", {"errors", "trial"}),
        ("workers", {"errors", "trial"}),
    ],
)
def test_the_foundation_stands_on_what_the_design_names(module: str, allowed: set[str]) -> None:
    used = {name.split(".")[1] for name in imports(f"gpnas.{module}") if name.startswith("gpnas.")}
    assert used <= allowed


def test_no_modules_import_each_other_in_a_circle() -> None:
    ours = {module for package in ("gpnas", "search_spaces", "evaluators") for module in modules(package)}
    uses = nx.DiGraph((module, used) for module in ours for used in imports(module) & ours)
    late = ("evaluators.data", "evaluators.scenes")  # data.py opens the built-in scenes on demand
    if uses.has_edge(*late):
        uses.remove_edge(*late)
    assert list(nx.simple_cycles(uses)) == []


def test_the_command_line_helps_without_loading_anything_heavy() -> None:
    help_ = "from gpnas.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
    held = loaded(help_)
    assert "gpnas.cli" in held
    assert held.isdisjoint(HEAVY)


def test_help_through_the_module_exits_with_0() -> None:
    done = subprocess.run([sys.executable, "-m", "gpnas.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "search" in done.stdout and "analyze" in done.stdout


def test_analysis_needs_no_torch() -> None:
    held = loaded("import gpnas.gradient_paths, gpnas.cost, gpnas.trial, gpnas.score")
    assert held.isdisjoint(HEAVY)


def test_importing_the_space_does_not_load_nni_or_torch() -> None:
    assert loaded("import search_spaces.space").isdisjoint({"nni", "torch", "wandb"})


def test_importing_every_evaluator_loads_neither_nni_nor_wandb() -> None:
    held = loaded(f"import {', '.join(modules('evaluators'))}")
    assert set(modules("evaluators")) <= held
    assert held.isdisjoint({"nni", "wandb", "search_spaces", "gpnas.controller", "gpnas.journal"})
