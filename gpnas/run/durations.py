"""How long evaluations take on this machine, learned from those that ended.

    durations = Durations(fidelities, nominal=2e-9)
    durations.record(suggestion, evaluation)
    durations.estimate(suggestion)                       # seconds

Time is proportional to training FLOPs, at a rate that differs between candidates (layers of few channels are slow) and between
rungs (each evaluation builds a network and validates it, which weighs more where little is trained).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from gpnas.graph.cost import cost
from gpnas.search.controller import Suggestion
from gpnas.search.trial import Evaluation, Fidelity


class Durations:
    """Seconds for each training FLOP, by trial and rung.

    flops_so_far: training FLOPs, for each image of the training split, of all evaluations that were recorded.
    """

    def __init__(
        self,
        fidelities: Sequence[Fidelity],
        nominal: float,  # seconds for one training FLOP on each image of the training split, before anything is measured
    ) -> None:
        self._fidelities, self._nominal = tuple(fidelities), nominal
        self._measured: dict[int, dict[int, list[float]]] = {}  # seconds of each evaluation, by rung, then trial
        self._rates: dict[int, dict[int, float]] = {}  # seconds a FLOP, by rung, then trial
        self._usual: dict[int, float] = {}  # their median, by rung
        self._macs: dict[tuple[int, int], int] = {}  # of the train form, by trial and image size
        self.flops_so_far = 0.0

    def record(self, suggestion: Suggestion, evaluation: Evaluation) -> None:
        """Learn from an evaluation that ended; one that trained nothing teaches nothing."""
        trial, rung = suggestion.trial.id, suggestion.rung
        if evaluation.epochs:
            self.flops_so_far += self.flops(suggestion) * evaluation.epochs / self.new_epochs(suggestion)
        if evaluation.epochs == self.new_epochs(suggestion) and evaluation.seconds > 0:
            self._measured.setdefault(rung, {}).setdefault(trial, []).append(evaluation.seconds)
            self._rates.setdefault(rung, {})[trial] = evaluation.seconds / self.flops(suggestion)
            self._usual[rung] = statistics.median(self._rates[rung].values())

    def estimate(self, suggestion: Suggestion) -> float:
        """Seconds that an evaluation will take: the median of the trial's own evaluations on the rung; else by the rates of the
        trial on lower rungs and of other trials, on the rung and below; else by the nominal rate."""
        trial, rung = suggestion.trial.id, suggestion.rung
        if own := self._measured.get(rung, {}).get(trial):
            return statistics.median(own)
        return self.flops(suggestion) * self._rate(trial, rung)

    def _rate(self, trial: int, rung: int) -> float:
        if not self._usual:
            return self._nominal
        rate = self._usual[min(self._usual, key=lambda r: (abs(r - rung), -r))]
        own = max((r for r, rates in self._rates.items() if trial in rates), default=None)
        return rate if own is None else rate * self._rates[own][trial] / self._usual[own]

    def flops(self, suggestion: Suggestion) -> float:
        """Training FLOPs for each image of the training split: three passes of the train form, 2 FLOPs a MAC."""
        fidelity = suggestion.fidelity
        key = suggestion.trial.id, fidelity.imgsz
        if key not in self._macs:
            self._macs[key] = cost(suggestion.trial.candidate.graph, fidelity.imgsz, fidelity.imgsz, fused=False).macs
        return 6.0 * self._macs[key] * self.new_epochs(suggestion) * fidelity.data_share

    def new_epochs(self, suggestion: Suggestion) -> int:
        """Epochs that the checkpoint of the rung below does not have yet."""
        below = self._fidelities[suggestion.rung - 1].epochs if suggestion.rung else 0
        return suggestion.fidelity.epochs - below
