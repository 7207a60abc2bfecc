"""Mutation testing: change one operator, constant or statement at a time and see whether a test fails.

    python tests/mutants.py gpnas/graph gpnas/paths --count 40        # files or folders; tests of the same rooms
    python tests/mutants.py evaluators/detector/ap.py --tests tests/evaluators/detector --seed 1
    python tests/mutants.py gpnas/graph --quick                       # without slow tests: more mutants may survive

The mutants are sampled by the seed. Each is written into a copy of the checkout, and the tests run in a forked process that
has the heavy libraries loaded, up to the first failure: first the tests that are not marked slow, those of the file that
mirrors the mutated module before the others of its room, then the slow ones in the same order. A mutant that no test notices
*survives*. The last line counts them; exit code 1 says that more than MOST_SURVIVING of them survived.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("gpnas", "evaluators", "search_spaces", "tests", "benchmarks", "docs")
MOST_SURVIVING = 0.05

HANGS, LEAST_SECONDS = 4, 30
"""A mutant hangs, which is noticed, when its tests take HANGS times as long as without a mutant and LEAST_SECONDS more."""

MOST_MEMORY = 8 * 2**30
"""Bytes of address space of a mutant's tests: an endless loop that fills a list ends with a MemoryError."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}


class Mutant(NamedTuple):
    """`number` is the position of the mutation among all mutations of the file, in the order of `mutations`."""

    path: Path
    number: int
    line: int
    change: str


def mutations(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """(node, what takes its place, what changes) for every mutation of a module."""
    for node in _executed(tree):
        for other in _changed(node):
            yield node, other, f"{ast.unparse(node):.70} -> {ast.unparse(other):.70}"


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that decide what the code computes: no annotations, documentation, error messages and imports."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        if isinstance(node, ast.ExceptHandler) and name != "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            skipped = isinstance(child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert)
            checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            types = isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id in ("isinstance", "cast")
            if isinstance(child, ast.AST) and not (skipped or checking or types):
                yield child
                yield from _executed(child)


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[i] = COMPARISONS[type(operator)]()
            yield other
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        changed = copy.deepcopy(node)
        changed.op = ARITHMETIC[type(node.op)]()
        yield changed
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], node.is_async)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and _two_names(node.elts):
        yield ast.Tuple(list(reversed(node.elts)), node.ctx)
    elif isinstance(node, ast.Call) and _two_names(node.args[:2]) and not isinstance(node.func, ast.Call):
        swapped = copy.deepcopy(node)
        swapped.args[:2] = swapped.args[1], swapped.args[0]
        yield swapped
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def _constants(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(1.5 * value if value else 1.0)


def _two_names(nodes: Sequence[ast.expr]) -> bool:
    return (
        len(nodes) == 2 and all(isinstance(n, ast.Name | ast.Attribute) for n in nodes) and len(set(map(ast.dump, nodes))) == 2
    )


class _Replaced(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self._new if node is self._old else self.generic_visit(node)


def mutated(source: str, number: int) -> str:
    """The source of a module with one of its mutations."""
    tree = ast.parse(source)
    old, new, _ = next(mutation for i, mutation in enumerate(mutations(tree)) if i == number)
    return ast.unparse(ast.fix_missing_locations(_Replaced(old, new).visit(tree)))


def sampled(files: Sequence[Path], count: int, seed: int) -> list[Mutant]:
    everything = [
        Mutant(path, number, getattr(node, "lineno", 0), change)
        for path in files
        for number, (node, _, change) in enumerate(mutations(ast.parse(path.read_text())))
    ]
    return random.Random(seed).sample(everything, min(count, len(everything)))


def tests_of(path: Path, root: Path) -> list[str]:
    """The test file that mirrors a module, then the others of its room (of its name alone where tests are not in rooms)."""
    below = path.relative_to(root)
    parts = below.parts[1:-1] if below.parts[0] == "gpnas" else below.parts[:-1]
    room = root.joinpath("tests", *parts)
    mirror = [file for file in (room / f"test_{below.stem}.py", root / "tests" / f"test_{below.stem}.py") if file.exists()]
    others = sorted(file for file in room.glob("**/test_*.py" if parts else f"test_{below.stem}*.py") if file not in mirror)
    return [str(file.relative_to(root)) for file in [*mirror, *others]]


class SlowLast:
    """A pytest plugin that puts the tests marked slow behind all others: most mutants die before one of them starts."""

    @staticmethod
    @pytest.hookimpl(trylast=True)  # after pytest's own grouping by fixtures
    def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def run(tests: Sequence[str], folder: Path, timeout: float, *, quick: bool = False, keep_bytecode: bool = False) -> str:
    """ "passed", "failed" or "timeout" of pytest in a forked process.

    quick: leave out the tests marked slow.
    keep_bytecode: write compiled modules into `folder`. Python knows a compiled module by the size of its source and by the
    second of its last change, which two mutants may share; so only the run without a mutant writes them.
    """
    child = os.fork()
    if not child:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        if not keep_bytecode:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--override-ini=addopts=", "-W", "ignore"]
        if quick:
            options += ["-m", "not slow"]
        os._exit(1 if pytest.main([*options, *tests], plugins=[SlowLast()]) else 0)
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "failed" if status else "passed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def preload() -> None:
    """Import what takes long and is not ours, once for all forked processes."""
    import cv2  # noqa: F401
    import hypothesis  # noqa: F401
    import moocore  # noqa: F401
    import networkx  # noqa: F401
    import pycocotools.cocoeval  # noqa: F401
    import pydantic  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.gaussian_process  # noqa: F401
    import torch

    torch.export.export(torch.nn.ReLU(), (torch.zeros(1),))  # imports the rest of torch.export, which is most of it
    assert not any(name.split(".")[0] in ("gpnas", "evaluators", "search_spaces") for name in sys.modules), "loaded too early"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="modules to mutate, or folders of them")
    parser.add_argument("--tests", nargs="+", help="tests to run for every mutant (default: those of the module's room)")
    parser.add_argument("--quick", action="store_true", help="leave out the tests marked slow, which might notice a survivor")
    parser.add_argument("--count", type=int, default=25, help="mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout")
    parser.add_argument("--timeout", type=float, default=1200.0, help="seconds for the tests of a room without a mutant")
    options = parser.parse_args()
    root = options.root.resolve()
    named = [root / path for path in options.paths]
    files = [file for path in named for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    preload()
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        there = Path(folder, "main")
        for name in COPIED:
            shutil.copytree(root / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in root.glob("*"):
            if file.is_file():
                shutil.copy(file, there)
        if (root.parent / "shared").exists():
            Path(folder, "shared").symlink_to(root.parent / "shared")
        chosen = sampled(files, options.count, options.seed)
        longest = 0.0
        for tests in {tuple(sorted(options.tests or tests_of(mutant.path, root))) for mutant in chosen}:
            began = time.monotonic()
            if not tests or run(tests, there, options.timeout, quick=options.quick, keep_bytecode=True) != "passed":
                parser.error(f"the tests {' '.join(tests)} do not pass without a mutant in {options.timeout:.0f} s")
            longest = max(longest, time.monotonic() - began)
        for mutant in chosen:
            target = there / mutant.path.relative_to(root)
            source = target.read_text()
            target.write_text(mutated(source, mutant.number))
            tests = tuple(options.tests or tests_of(mutant.path, root))
            outcome = run(tests, there, HANGS * longest + LEAST_SECONDS, quick=options.quick)
            target.write_text(source)
            survivors += outcome == "passed"
            state = {"passed": "SURVIVED", "failed": "killed", "timeout": "hung"}[outcome]
            print(f"{state:8}  {mutant.path.relative_to(root)}:{mutant.line}  {mutant.change}", flush=True)
    print(f"{survivors} of {len(chosen)} mutants survived ({survivors / max(1, len(chosen)):.0%})")
    return int(survivors > MOST_SURVIVING * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
