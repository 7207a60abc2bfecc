"""How strongly training images are varied."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """How strongly training images are varied; with all values at zero they stay as they are.

    mosaic: probability that an output shows four images. mixup: probability that such an output is blended with another one
    of four images, and has the boxes of both (arXiv:1710.09412). flip: probability that an image is mirrored.
    scale: each output is scaled by a factor in 1 +- scale.
    translate: each output is shifted in either direction by up to this share of its size.
    hue: colours rotate in either direction by up to this share of a full turn.
    saturation, value: factors in 1 +- saturation and 1 +- value.
    Raises ValueError for a probability outside [0, 1] or another value outside [0, 1).
    """

    mosaic: float = 1.0
    scale: float = 0.5
    translate: float = 0.1
    flip: float = 0.5
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mosaic", "mixup", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("scale", "translate", "hue", "saturation", "value"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
