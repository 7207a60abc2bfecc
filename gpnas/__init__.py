"""Neural architecture search for object detectors over the gradient-path design space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpnas.paths.profile import Profile as Profile
    from gpnas.paths.profile import profile as profile

__version__ = "0.1.0"
__all__ = ["Profile", "__version__", "profile"]


def __getattr__(name: str) -> Any:
    """`profile` when it is asked for, so that `import gpnas` stays quick."""
    if name in ("profile", "Profile"):
        from gpnas.paths import profile as profiling

        return getattr(profiling, name)
    raise AttributeError(f"module 'gpnas' has no attribute {name!r}")
