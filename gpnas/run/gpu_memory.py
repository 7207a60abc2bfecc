"""Which evaluations fit into the memory of one GPU together, by the measured needs of earlier ones.

    table = MemoryTable(total=80 * 2**30)
    if table.fits(activations):                 # bytes of the activations of a training step, by the cost model
        table.take(key, activations)
    table.release(key, measured)                # bytes: the peak that the evaluation reported

A process needs a CUDA context and its libraries, a part that is the same for every candidate (the images, workspaces), and a
multiple of the bytes of its activations. The last two are fitted to what was measured: need = BASE_BYTES + base + slope *
activations. A line through few measurements, or through measurements of like size, may have any slope. So the fit starts from
FIRST_SLOPE, and the line never lies below a measurement.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

BASE_BYTES = 700 * 2**20
"""GPU memory of a process that uses CUDA, before its first tensor."""

FIRST_SLOPE = 4.0
"""A cautious multiple for activations, their gradients, weights and workspace."""

USABLE = 0.92
"""Share of the memory that evaluations may take: what else lies there grows too."""

_FIRST_WEIGHT = 0.1
"""Of FIRST_SLOPE in the fit: it counts as much as measurements whose activations deviate from their mean by 32 % in all."""


class Line(NamedTuple):
    """Bytes that torch reserves in a process: base + slope * activations."""

    base: float
    slope: float


def fitted(measured: list[tuple[float, float]]) -> Line:
    """The line of least squares, drawn towards FIRST_SLOPE and raised until no measurement lies above it.

    measured: bytes of activations, and bytes that were reserved.
    """
    if not measured:
        return Line(0.0, FIRST_SLOPE)
    mean, mean_bytes = (statistics.fmean(column) for column in zip(*measured, strict=True))
    spread = sum((x - mean) ** 2 for x, _ in measured)
    together = sum((x - mean) * (y - mean_bytes) for x, y in measured)
    prior = _FIRST_WEIGHT * mean**2
    slope = max(0.0, (together + prior * FIRST_SLOPE) / (spread + prior)) if spread + prior else FIRST_SLOPE
    base = max(y - slope * x for x, y in measured)
    # Above every measurement even without a base: then the steepest of them says enough.
    return Line(base, slope) if base >= 0 else Line(0.0, max(y / x for x, y in measured if x))


class MemoryTable:
    """The needs of the running evaluations. line: as `fitted` to all measurements so far."""

    def __init__(self, total: int) -> None:
        """total: bytes of GPU memory that evaluations share."""
        self.total = total
        self.line = fitted([])
        self._measured: list[tuple[float, float]] = []
        self._taken: dict[Any, int] = {}  # bytes of activations, by key
        self._processes = 0  # that have run an evaluation; each keeps its context and its images

    def need(self, activations: int) -> int:
        """Bytes of GPU memory for an evaluation with `activations` bytes of activations."""
        return BASE_BYTES + int(self.line.base + activations * self.line.slope)

    def fits(self, activations: int) -> bool:
        """Whether one more evaluation fits beside those that run. Without others everything fits, because a training that
        runs out of memory splits its batches."""
        running = [*self._taken.values(), activations]
        idle = max(0, self._processes - len(running)) * self.need(0)
        return not self._taken or idle + sum(map(self.need, running)) <= USABLE * self.total

    def take(self, key: Any, activations: int) -> None:
        """Count an evaluation that starts."""
        self._taken[key] = activations
        self._processes = max(self._processes, len(self._taken))

    def release(self, key: Any, measured: float | None) -> None:
        """Count an evaluation that ended. measured: its peak in bytes; None when it is not known."""
        activations = self._taken.pop(key)
        if measured:
            self._measured.append((activations, measured))
            self.line = fitted(self._measured)
