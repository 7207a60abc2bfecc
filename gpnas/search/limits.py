"""Hard limits on the FLOPs and parameters of the fused network. Candidates that exceed one are never trained."""

from __future__ import annotations

from dataclasses import dataclass

from gpnas.errors import LimitError
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.search.trial import Space

NEAR = 1.4
"""A candidate is near the limits when it costs at least a limit divided by this."""


@dataclass(frozen=True)
class Limits:
    """The most that the fused network may cost on one image of the run's size. FLOPs = 2 x MACs. None: no limit."""

    max_flops: float | None = None
    max_params: float | None = None

    def allows(self, cost: Cost) -> bool:
        """Whether `cost` is at most equal to each limit."""
        return (self.max_flops is None or cost.flops <= self.max_flops) and (
            self.max_params is None or cost.params <= self.max_params
        )

    def nearly_met(self, cost: Cost) -> bool:
        """Whether `cost` comes near a limit, by the factor NEAR. Without limits every cost does."""
        limits = [(cost.flops, self.max_flops), (cost.params, self.max_params)]
        bounded = [value * NEAR >= limit for value, limit in limits if limit is not None]
        return any(bounded) or not bounded


def check_limits(space: Space, limits: Limits, imgsz: int) -> None:
    """Raises LimitError when even the smallest architecture of the space exceeds a limit at `imgsz` pixels."""
    smallest = space.smallest()
    cost = deployed_cost(smallest.graph, imgsz)
    if limits.allows(cost):
        return
    over = []
    if limits.max_flops is not None and cost.flops > limits.max_flops:
        over.append(f"--max-flops {limits.max_flops:.4g}")
    if limits.max_params is not None and cost.params > limits.max_params:
        over.append(f"--max-params {limits.max_params:.4g}")
    raise LimitError(
        f"{' and '.join(over)}: nothing in the space is that small; its smallest architecture ({smallest.hash}) has "
        f"{cost.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and {cost.params / 1e6:.3f}M parameters: raise the limit to at "
        "least that or lower --imgsz"
    )
