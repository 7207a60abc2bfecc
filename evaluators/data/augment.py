"""How strongly training images are varied, and the colour jitter.

Hue, saturation and value are changed by one 3 x 3 matrix on RGB: hue rotates colours about the grey axis (Rodrigues'
formula), saturation moves them towards their luma (ITU-R BT.601) or away from it, value scales them. This is far cheaper
than a conversion to HSV and back, and looks the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B


@dataclass(frozen=True)
class Augmentation:
    """How strongly training images are varied; with all values at zero they stay as they are.

    mosaic: probability that an output shows four images. flip: probability that an image is mirrored.
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

    def __post_init__(self) -> None:
        for name in ("mosaic", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("scale", "translate", "hue", "saturation", "value"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


def draw_colour_matrices(batch: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor | None:
    """float32 (batch, 3, 3) on the CPU, by which rows of RGB are multiplied from the right; None if colours do not vary."""
    limits = torch.tensor([augmentation.hue, augmentation.saturation, augmentation.value])
    if not limits.any():
        return None
    drawn = torch.rand((batch, 3), generator=generator, device=generator.device).cpu() * 2 - 1
    turn, saturation, value = (drawn * limits).view(batch, 3, 1, 1).unbind(1)
    angle = 2 * math.pi * turn
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    hues = angle.cos() * torch.eye(3) + (1 - angle.cos()) / 3 + angle.sin() * cross
    saturations = (1 + saturation) * torch.eye(3) - saturation * torch.tensor(_LUMA).expand(3, 3)
    return ((1 + value) * saturations @ hues).transpose(1, 2).contiguous()
