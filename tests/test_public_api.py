"""The names that `gpnas` re-exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gpnas
from gpnas.graph.graph import Graph
from gpnas.paths.profile import profile

ROOT = Path(__file__).parent.parent


def test_public_names_are_those_of_their_modules() -> None:
    assert gpnas.Graph is Graph
    assert gpnas.profile is profile
    for name in gpnas.__all__:
        assert name in dir(gpnas)
        assert name == "__version__" or getattr(gpnas, name).__name__ == name


def test_no_public_name_hides_a_package_or_module() -> None:
    parts = {file.stem for file in (ROOT / "gpnas").glob("*.py")} | {d.name for d in (ROOT / "gpnas").iterdir() if d.is_dir()}
    assert parts >= {"graph", "paths", "errors"}
    assert parts.isdisjoint(gpnas.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'gpnas' has no attribute 'profiles'$"):
        gpnas.profiles  # noqa: B018


def test_importing_gpnas_imports_none_of_its_modules() -> None:
    code = "import sys, gpnas\nprint([name for name in sys.modules if name.startswith('gpnas.')], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
