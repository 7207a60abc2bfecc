"""Counts and durations as people read and write them: 10G, 1.64M, 1:02:03."""

from __future__ import annotations

import re

from gpnas.errors import InputError

_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def parse_count(text: str, option: str) -> float:
    """The value of a positive number with an optional K, M, G or T. Raises InputError that names the `option`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)", text.strip().lower())
    if not match or float(match[1]) <= 0:
        raise InputError(f"{option} {text}: not a positive number; write for example 10G, 2.5M or 800K")
    return float(match[1]) * _FACTORS[match[2]]


def brief(value: float) -> str:
    """A count with two decimals and its unit, 3.98G or 1.64M; below 1000 as it is."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= factor:
            return f"{value / factor:.2f}{unit}"
    return f"{value:g}"


def clock(seconds: float) -> str:
    """A duration as minutes and seconds (12:05), or with hours (1:02:03)."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
