"""A small space, and an evaluator that knows the true AP, to test a search without training."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpnas.graph.graph import GraphBuilder
from gpnas.search.trial import Candidate, Cause, Evaluation, Fidelity, Report, TrialState, failure

WIDTHS = range(4, 68, 4)


def grid_candidate(width: int, depth: int) -> Candidate:
    """A plain chain of `depth` 3x3 layers of `width` channels."""
    b = GraphBuilder()
    x = b.image
    for _ in range(depth):
        x = b.conv(x, width, 3)
    b.output(b.conv(x, 4, act="", norm=False, bias=True), "output", stride=1)
    return Candidate(json.dumps({"width": width, "depth": depth}), f"w{width}d{depth}", b.build())


class GridSpace:
    """Chains of 1 to 12 layers of 4 to 64 channels: 192 candidates."""

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        if not parents:
            return grid_candidate(rng.choice(WIDTHS), rng.randint(1, 12))
        choices = [json.loads(parent.genotype) for parent in parents]
        if len(choices) == 2:
            return grid_candidate(choices[0]["width"], choices[1]["depth"])
        return grid_candidate(choices[0]["width"], max(1, min(12, choices[0]["depth"] + rng.choice((-1, 1)))))

    def read(self, text: str) -> Candidate:
        return grid_candidate(**json.loads(text))

    def smallest(self) -> Candidate:
        return grid_candidate(4, 1)


def true_ap(candidate: Candidate, fidelity: Fidelity) -> float:
    """Grows with depth and epochs, falls with width beyond 32."""
    choice = json.loads(candidate.genotype)
    return (choice["depth"] / 12) * (1 - abs(choice["width"] - 32) / 64) * (1 - 1 / (1 + fidelity.epochs))


@dataclass(frozen=True)
class GridEvaluator:
    """Returns `true_ap` and leaves a checkpoint, as a real evaluator does. It appends a line to the file `log` for each
    evaluation, sleeps for `seconds`, and fails for chains of `broken_depth` layers."""

    log: str
    seconds: float = 0.0
    broken_depth: int = 0

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        time.sleep(self.seconds)
        report({"epoch": fidelity.epochs, "epochs": fidelity.epochs, "loss": 1.0})
        with Path(self.log).open("a") as file:
            file.write(f"{candidate.hash} {fidelity.epochs}{f' seed {fidelity.seed}' if fidelity.seed else ''}\n")
        if json.loads(candidate.genotype)["depth"] == self.broken_depth:
            return failure(Cause.NAN, "loss is nan", seconds=self.seconds)
        (trial_dir / "checkpoint.pt").write_text("weights")
        ap = true_ap(candidate, fidelity)
        epochs = fidelity.epochs - (fidelity.epochs // 3)  # the rung below trained a third
        return Evaluation(TrialState.COMPLETE, {"ap": ap, "ap50": ap}, max(self.seconds, 1e-3), epochs)
