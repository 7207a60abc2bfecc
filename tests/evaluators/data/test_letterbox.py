"""Images in the middle of a square."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.data.letterbox import GREY, letterbox


@pytest.mark.parametrize(
    ("height", "width", "left", "top", "inside"),
    [(20, 40, 0, 7, (15, 30)), (60, 20, 10, 0, (30, 10)), (28, 30, 0, 1, (28, 30)), (27, 30, 0, 1, (27, 30))],
)
def test_an_image_lies_in_the_middle(height: int, width: int, left: int, top: int, inside: tuple[int, int]) -> None:
    """An odd row of grey lies below."""
    box = letterbox(np.full((height, width, 3), 200, np.uint8), 30)
    assert (box.left, box.top, (box.height, box.width)) == (left, top, inside)
    assert box.scale == 30 / max(height, width) and box.pixels.shape == (30, 30, 3)
    expected = np.full((30, 30, 3), GREY, np.uint8)
    expected[top : top + inside[0], left : left + inside[1]] = 200
    assert np.array_equal(box.pixels, expected) and GREY == 114
