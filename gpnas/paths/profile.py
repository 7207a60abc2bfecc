"""`gpnas.profile(model, inputs)`: cost and gradient-path figures of any torch.nn.Module, as easily as thop's.

import gpnas
print(gpnas.profile(model, torch.zeros(1, 3, 224, 224)))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import gradient_paths

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Profile:
    """params: those of the fused form (normalisation folded into its layer), for all outputs that carry a loss.
    macs: multiply-accumulates of its layers on the one image given, of batch size one; flops: 2 x macs.
    layers: weighted layers; live_params: parameters of the layers that see the image and reach a loss.
    figures: by the names of gradient_paths.FIGURES. graph: what all this was read from.
    """

    params: int
    macs: int
    layers: int
    live_params: int
    figures: dict[str, float]
    graph: Graph

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def __str__(self) -> str:
        cells = {"params": self.params, "macs": self.macs, "flops": self.flops, "layers": self.layers, **self.figures}
        return "\n".join(f"{name:26} {value if isinstance(value, int) else round(value, 4)}" for name, value in cells.items())


def profile(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    *,
    outputs: Sequence[str] | None = None,
    auxiliary: Sequence[str] = (),
) -> Profile:
    """Trace `model` on `inputs` and analyse it; outputs and auxiliary as in `trace.trace`, whose TraceError it raises."""
    from gpnas.graph.trace import trace  # torch.export is slow to import

    given = inputs if isinstance(inputs, tuple) else (inputs,)
    graph = trace(model, given, outputs=outputs, auxiliary=auxiliary)
    shape = given[0].shape
    height, width = (shape[2] if len(shape) > 2 else 1), (shape[3] if len(shape) > 3 else 1)
    whole = cost(graph, height, width)
    figures = gradient_paths(graph).figures()
    return Profile(whole.params, whole.macs, len(graph.layers), int(figures["live_params"]), figures, graph)
