"""Cost and gradient-path figures of any torch.nn.Module, in one call.

    import gpnas
    print(gpnas.profile(model, torch.zeros(1, 3, 224, 224)))

It needs torch and no other package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import gradient_paths

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Profile:
    """params: number of parameters of the fused form, with normalisations folded into their layers.
    macs: multiply-accumulates of the layers, for one image of the size that was given. flops: 2 x macs.
    layers: number of weighted layers. live_params: parameters of the layers that see the image and reach a loss.
    figures: by the names of `gradient_paths.FIGURES`. graph: the traced graph, from which all this is computed.
    left_out: the parameters that are not in the graph, because the outputs are not computed from them: name and number.
    """

    params: int
    macs: int
    layers: int
    live_params: int
    figures: dict[str, float]
    graph: Graph
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def __str__(self) -> str:
        cells = {"params": self.params, "macs": self.macs, "flops": self.flops, "layers": self.layers, **self.figures}
        lines = [f"{name:26} {value if isinstance(value, int) else round(value, 4)}" for name, value in cells.items()]
        return "\n".join([*lines, *([f"{'left out':26} {left_out_text(self.left_out)}"] if self.left_out else [])])


def left_out_text(left_out: Mapping[str, int], most: int = 4) -> str:
    """The number of parameters that an analysis leaves out, and the names of the first of them."""
    names = [*list(left_out)[:most], *([f"{len(left_out) - most} more"] if len(left_out) > most else [])]
    return f"{sum(left_out.values())} parameters that the outputs do not use: {', '.join(names)}"


def profile(
    model: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],  # one image, (batch, channels, height, width), or features, (batch, channels)
    *,
    outputs: Sequence[str] | None = None,
    auxiliary: Sequence[str] = (),
) -> Profile:
    """Trace `model` on `inputs` and analyse the graph. `outputs` and `auxiliary` are those of `trace.trace`.

    Raises TraceError where `trace.trace` does.
    """
    from gpnas.graph.trace import trace_module  # torch.export is slow to import

    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    traced = trace_module(model, arguments, outputs=outputs, auxiliary=auxiliary)
    graph = traced.graph
    shape = arguments[0].shape
    height, width = (shape[2] if len(shape) > 2 else 1), (shape[3] if len(shape) > 3 else 1)
    whole = cost(graph, height, width)
    figures = gradient_paths(graph).figures()
    return Profile(
        whole.params, whole.macs, len(graph.layers), int(figures["live_params"]), figures, graph, dict(traced.left_out)
    )
