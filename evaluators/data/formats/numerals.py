"""Numbers as annotation files write them: "10", "10.5", and "10,5" from a tool that runs in a German or French Windows."""

from __future__ import annotations

import math


def number(value: object) -> float:
    """The number, or math.nan for what is none. A comma stands for a decimal point where no point stands too."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    if isinstance(value, str):
        if "_" in value:  # Python reads "1_0" as 10
            return math.nan
        value = value if "." in value else value.replace(",", ".")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def pixels(value: object) -> int:
    """Width or height of an image; 0, not known, for what is no positive number."""
    told = number(value)
    return int(told) if math.isfinite(told) and told >= 1 else 0
