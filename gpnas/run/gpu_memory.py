"""Which evaluations fit into the memory of one GPU together, by the measured needs of earlier ones.

    table = MemoryTable(total=80 * 2**30)
    if table.fits(activations):                 # bytes of the activations of a training step, by the cost model
        table.take(key, activations)
    table.release(key, measured)                # bytes: the peak that the evaluation reported

A process needs a base (its CUDA context and libraries) and a multiple of the bytes of its activations. The multiple is the
largest that was measured so far, and FIRST_MULTIPLE before any was measured.
"""

from __future__ import annotations

from typing import Any

BASE_BYTES = 700 * 2**20
"""GPU memory of a process that uses CUDA, before its first tensor."""

FIRST_MULTIPLE = 4.0
"""A cautious multiple for activations, their gradients, weights and workspace."""

USABLE = 0.92
"""Share of the memory that evaluations may take, because allocators reserve more than they use."""


class MemoryTable:
    """The needs of the running evaluations. multiple: the largest measured multiple, None before the first."""

    def __init__(self, total: int) -> None:
        """total: bytes of GPU memory that evaluations share."""
        self.total = total
        self.multiple: float | None = None
        self._taken: dict[Any, tuple[int, int]] = {}  # by key: bytes of activations, bytes that it needs

    def need(self, activations: int) -> int:
        """Bytes of GPU memory for an evaluation with `activations` bytes of activations."""
        return BASE_BYTES + int(activations * (FIRST_MULTIPLE if self.multiple is None else self.multiple))

    def fits(self, activations: int) -> bool:
        """Whether one more evaluation fits beside those that run. Without others everything fits, because a training that
        runs out of memory splits its batches."""
        taken = sum(need for _, need in self._taken.values())
        return not self._taken or taken + self.need(activations) <= USABLE * self.total

    def take(self, key: Any, activations: int) -> None:
        """Count an evaluation that starts."""
        self._taken[key] = activations, self.need(activations)

    def release(self, key: Any, measured: float | None) -> None:
        """Count an evaluation that ended. measured: its peak in bytes; None when it is not known."""
        activations, _ = self._taken.pop(key)
        if measured and activations:
            self.multiple = max(self.multiple or 0.0, measured / activations)
