"""Boxes around outlines, against points on the outline itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data.formats.outlines import extent, polygon_area, turned_box, turned_ellipse

lengths = st.floats(0.5, 100)
angles = st.floats(-7, 7)


def test_an_extent_is_that_of_the_points() -> None:
    assert extent([3, 1, 2], [5, 9, 4]) == [1, 4, 3, 9]


@pytest.mark.parametrize(("xs", "ys"), [([], []), ([1, 2], [3]), ([1, math.nan], [2, 3]), ([1, 2], [3, math.inf])])
def test_what_has_no_points_is_nowhere(xs: list[float], ys: list[float]) -> None:
    assert all(map(math.isnan, extent(xs, ys)))


def test_an_angle_that_is_none_is_nowhere() -> None:
    assert all(map(math.isnan, turned_box(1, 2, 3, 4, math.nan) + turned_ellipse(1, 2, 3, 4, math.inf)))


def test_the_area_of_a_polygon_does_not_depend_on_its_direction() -> None:
    xs, ys = [0.0, 4.0, 4.0, 0.0, 1.0], [0.0, 0.0, 3.0, 3.0, 1.5]  # a rectangle of 12 with a notch of 1.5
    assert polygon_area(xs, ys) == polygon_area(xs[::-1], ys[::-1]) == 10.5


@given(cx=lengths, cy=lengths, width=lengths, height=lengths, angle=angles)
def test_a_turned_box_is_around_its_four_corners(cx: float, cy: float, width: float, height: float, angle: float) -> None:
    corners = [(sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    xs = [cx + x * math.cos(angle) - y * math.sin(angle) for x, y in corners]
    ys = [cy + x * math.sin(angle) + y * math.cos(angle) for x, y in corners]
    assert turned_box(cx, cy, width, height, angle) == pytest.approx(extent(xs, ys))


@given(cx=lengths, cy=lengths, rx=lengths, ry=lengths, angle=angles)
def test_a_turned_ellipse_is_around_its_rim(cx: float, cy: float, rx: float, ry: float, angle: float) -> None:
    rim = [(rx * math.cos(t / 500 * math.pi), ry * math.sin(t / 500 * math.pi)) for t in range(1000)]
    xs = [cx + x * math.cos(angle) - y * math.sin(angle) for x, y in rim]
    ys = [cy + x * math.sin(angle) + y * math.cos(angle) for x, y in rim]
    assert turned_ellipse(cx, cy, rx, ry, angle) == pytest.approx(extent(xs, ys), abs=1e-4 * max(rx, ry))
