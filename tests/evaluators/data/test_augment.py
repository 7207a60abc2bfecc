"""Augmentations refuse what cannot be."""

from __future__ import annotations

import pytest

from evaluators.data.augment import Augmentation


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mosaic": 1.5}, "mosaic is a probability, got 1.5"),
        ({"flip": -0.1}, "flip is a probability, got -0.1"),
        ({"scale": 1.0}, r"scale must lie in \[0, 1\), got 1.0"),
        ({"hue": float("nan")}, "hue must lie in"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Augmentation(**change)


def test_the_default_strengths() -> None:
    defaults = Augmentation(mosaic=1.0, scale=0.5, translate=0.1, flip=0.5, hue=0.015, saturation=0.7, value=0.4)
    assert Augmentation() == defaults
