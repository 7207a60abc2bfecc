from __future__ import annotations

import math

import pytest

from evaluators.data.formats.numerals import number, pixels


@pytest.mark.parametrize(
    ("value", "read"),
    [("10", 10), (" 10.25\n", 10.25), ("10,25", 10.25), ("-3,5", -3.5), ("1e2", 100), ("inf", math.inf), (7, 7), (7.5, 7.5)],
)
def test_numbers(value: object, read: float) -> None:
    assert number(value) == read


@pytest.mark.parametrize("value", ["", "ten", "1_0", "1,234.5", "1,2,3", "nan", None, True, [1], {}, math.nan, 10**400])
def test_what_is_no_number(value: object) -> None:
    assert math.isnan(number(value))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("640", 640),
        ("640.0", 640),
        (1, 1),
        (0, 0),
        ("0", 0),
        (-5, 0),
        (0.5, 0),
        ("wide", 0),
        (None, 0),
        (math.inf, 0),
        ("nan", 0),
    ],
)
def test_pixels_are_0_where_they_are_not_known(value: object, read: int) -> None:
    assert pixels(value) == read
