from __future__ import annotations

import pytest
import torch

from evaluators.data import batches
from evaluators.data.batches import Renderer
from evaluators.data.gather import gathered_images
from evaluators.data.warp import warped_images


@pytest.fixture(params=[warped_images, gathered_images])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with the pixels made as on a CPU, and as on a GPU."""

    def renderer_for(device: torch.device) -> Renderer:
        renderer: Renderer = request.param
        return renderer

    monkeypatch.setattr(batches, "renderer_for", renderer_for)
