"""Data sets: found in a folder, checked, decoded, augmented.

from evaluators.data import open_data
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluators.data.open import DataSource, open_data

__all__ = ["DataSource", "open_data"]


def __getattr__(name: str) -> Any:
    # Late: a module of this package must not import all others.
    if name in __all__:
        from evaluators.data import open as opening

        return getattr(opening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
