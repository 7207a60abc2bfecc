"""The colour jitter of training images.

Hue, saturation and value are changed by one 3 x 3 matrix on RGB: hue rotates colours about the grey axis (Rodrigues'
formula), saturation moves them towards their luma (ITU-R BT.601) or away from it, value scales them. This is far cheaper
than a conversion to HSV and back, and looks the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation

_LUMA = (0.299, 0.587, 0.114)  # weights of R, G and B


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
