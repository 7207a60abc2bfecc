"""Several evaluations on one GPU: which of them fit into its memory together, by what the ones before were measured to need.

    table = MemoryTable(total=80 * 2**30)
    if table.fits(analytic):                    # bytes of activations that a training step keeps, by the cost model
        table.take(key, analytic)
    table.release(key, measured)                # the peak that the evaluation reported

What a process needs is a base (its CUDA context and libraries) and a multiple of the analytic bytes; the multiple is the
largest that was measured so far, and a cautious one before.
"""

from __future__ import annotations

from typing import Any

BASE_BYTES = 700 * 2**20
"""Of a process that uses CUDA, before any tensor."""

FIRST_MULTIPLE = 4.0
"""Activations, their gradients, weights and workspace, as multiples of float32 activations."""

USABLE = 0.92
"""Share of the memory that may be promised: allocators keep some more than they use."""


class MemoryTable:
    """total: bytes of the GPU that evaluations may share."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.multiple: float | None = None
        self._taken: dict[Any, tuple[int, int]] = {}

    def need(self, analytic: int) -> int:
        """Bytes that an evaluation with so many analytic bytes will take."""
        return BASE_BYTES + int(analytic * (FIRST_MULTIPLE if self.multiple is None else self.multiple))

    def fits(self, analytic: int) -> bool:
        """Whether one more fits beside what runs. Alone everything may try: what does not fit trains in smaller pieces."""
        promised = sum(need for _, need in self._taken.values())
        return not self._taken or promised + self.need(analytic) <= USABLE * self.total

    def take(self, key: Any, analytic: int) -> None:
        self._taken[key] = analytic, self.need(analytic)

    def release(self, key: Any, measured: float | None) -> None:
        """measured: the peak of an evaluation that ended well, bytes; None when it is not known."""
        analytic, _ = self._taken.pop(key)
        if measured and analytic:
            self.multiple = max(self.multiple or 0.0, measured / analytic)
