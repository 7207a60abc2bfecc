"""The budget of a search, as users write it: 90s, 30m, 2h, 1d, 50trials or 400epochs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpnas.errors import InputError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Budget:
    """kind: "seconds" (of wall clock), "trials" (candidates that are trained) or "epochs" (over all candidates)."""

    kind: str
    amount: int


def parse_budget(text: str) -> Budget:
    """90s, 30m, 2h, 1d (wall clock), 50trials or 400epochs. Raises InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|trials?|epochs?)", text.strip().lower())
    if match:
        number, unit = float(match[1]), match[2]
        if unit in _SECONDS and number * _SECONDS[unit] >= 1:
            return Budget("seconds", round(number * _SECONDS[unit]))
        if unit not in _SECONDS and number >= 1 and number == int(number):
            return Budget("trials" if unit.startswith("trial") else "epochs", int(number))
    raise InputError(f"--budget {text}: not a budget; write 90s, 30m, 2h or 1d (wall clock), 50trials or 400epochs")
