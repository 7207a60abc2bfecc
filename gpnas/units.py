"""What people write on the command line: 2h, 50trials, 10G, 3M."""

from __future__ import annotations

import re

from gpnas.errors import InputError

_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def parse_count(text: str, option: str) -> float:
    """A number with K, M, G or T. Raises InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)", text.strip().lower())
    if not match or float(match[1]) <= 0:
        raise InputError(f"{option} {text}: not a positive number; write for example 10G, 2.5M or 800K")
    return float(match[1]) * _FACTORS[match[2]]


def brief(value: float) -> str:
    """A count as people write it: 3.98G, 1.64M."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if value >= factor:
            return f"{value / factor:.2f}{unit}"
    return f"{value:g}"


def clock(seconds: float) -> str:
    """12:05 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
