"""Counts and durations by hand."""

from __future__ import annotations

import pytest

from gpnas.errors import InputError
from gpnas.units import brief, clock, parse_count


@pytest.mark.parametrize(
    ("text", "value"),
    [("10G", 10e9), ("2.5m", 2.5e6), ("800K", 8e5), ("3t", 3e12), ("1", 1.0), ("0.5", 0.5), ("1e9", 1e9), ("2e3 k", 2e6)],
)
def test_counts_are_parsed(text: str, value: float) -> None:
    assert parse_count(text, "--max-flops") == value


@pytest.mark.parametrize("text", ["", "0", "0.0G", "-1G", "many", "10X", "nan", "inf"])
def test_other_text_is_no_count_and_is_named(text: str) -> None:
    with pytest.raises(InputError, match=f"^--max-flops {text}: not a positive number; write for example 10G"):
        parse_count(text, "--max-flops")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((2.5e12, "2.50T"), (1e12, "1.00T"), (3.984e9, "3.98G"), (1e9, "1.00G"), (1_640_000, "1.64M"), (1e6, "1.00M")),
        *((1000, "1.00K"), (45_678, "45.68K"), (999, "999"), (512.5, "512.5"), (0, "0")),
    ],
)
def test_brief_counts(value: float, text: str) -> None:
    assert brief(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "0:05"),
        (59.9, "0:59"),
        (65, "1:05"),
        (754, "12:34"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (3723, "1:02:03"),
        (90_061, "25:01:01"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert clock(seconds) == text
