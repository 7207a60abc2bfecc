"""Detectors with levels 2-5 and 3-6 train and detect as those with levels 3-5 do."""

from __future__ import annotations

from typing import Any

import pytest

from evaluators.training.loop import new_network
from evaluators.training.recipe import Recipe
from search_spaces.genotype import Levels
from tests.evaluators.training.short_training import PLAIN, trained
from tests.search_spaces.test_levels import graph_of
from tests.small_detector import rectangles


@pytest.mark.slow
@pytest.mark.parametrize(("levels", "fed", "imgsz"), [("2-5", [4, 16], 64), ("3-6", [16, 64], 128)])
def test_a_detector_of_other_levels_learns_eight_images(levels: Levels, fed: list[int], imgsz: int) -> None:
    graph = graph_of(levels, {"kind": "deep_supervision", "levels": fed, "weight": 0.25})
    rows: list[dict[str, Any]] = []
    records = rectangles(8, imgsz)
    recipe = Recipe(20, imgsz, batch_size=4, lr=1e-2, augmentation=PLAIN, eval_every=0, device="cpu")
    _, result = trained(recipe, graph, records, records, report=rows.append)
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert result.metrics["ap50"] > 0.2


def test_images_must_be_multiples_of_the_deepest_stride() -> None:
    with pytest.raises(ValueError, match=r"imgsz 96 is no multiple of 64, the stride of output head64\.output"):
        new_network(graph_of("3-6"), 3, 96, 0)
    assert new_network(graph_of("2-5"), 3, 96, 0)
