"""Neural architecture search for object detectors over the gradient-path design space.

The names in `__all__` are the public API. Each is imported when it is first used, so `import gpnas` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpnas.cli.loading import load as load
    from gpnas.graph.cost import Cost as Cost
    from gpnas.graph.cost import cost as cost
    from gpnas.graph.graph import Branch as Branch
    from gpnas.graph.graph import Graph as Graph
    from gpnas.graph.graph import GraphBuilder as GraphBuilder
    from gpnas.graph.network import Network as Network
    from gpnas.graph.trace import trace as trace
    from gpnas.paths.gradient_paths import GradientPaths as GradientPaths
    from gpnas.paths.gradient_paths import gradient_paths as gradient_paths
    from gpnas.paths.profile import Profile as Profile
    from gpnas.paths.profile import profile as profile

__version__ = "0.1.0"

_MODULES = {
    "Branch": "gpnas.graph.graph",
    "Cost": "gpnas.graph.cost",
    "GradientPaths": "gpnas.paths.gradient_paths",
    "Graph": "gpnas.graph.graph",
    "GraphBuilder": "gpnas.graph.graph",
    "Network": "gpnas.graph.network",
    "Profile": "gpnas.paths.profile",
    "cost": "gpnas.graph.cost",
    "gradient_paths": "gpnas.paths.gradient_paths",
    "load": "gpnas.cli.loading",
    "profile": "gpnas.paths.profile",
    "trace": "gpnas.graph.trace",
}
"""The module of each public name. No name may be that of a package of gpnas, such as `graph`, which would hide it."""

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gpnas' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
