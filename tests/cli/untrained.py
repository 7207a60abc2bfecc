"""Searches that train nothing: a scripted evaluator in place of the proxy, and workers in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpnas.graph.cost import deployed_cost
from gpnas.run.workers import Done, Progress
from gpnas.search.trial import Candidate, Cause, Evaluation, Fidelity, Report, TrialState, failure
from tests.cli.conftest import Gpnas
from tests.run.inline_workers import InlineWorkers


class Untrained:
    """In place of the proxy: AP at once, by the candidate's MACs and epochs."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.broken = False

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        if self.broken:
            return failure(Cause.NAN, "loss is nan")
        ap = deployed_cost(candidate.graph, 64).macs % 97 / 1000 + fidelity.epochs / 1000
        return Evaluation(TrialState.COMPLETE, {"ap": ap, "ap50": 2 * ap}, 0.5, fidelity.epochs)


class ContextWorkers(InlineWorkers):
    """A context manager as LocalWorkers is one; Ctrl-C comes before poll number `interrupt_at`."""

    interrupt_at = -1

    def __enter__(self) -> ContextWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def poll(self, timeout: float) -> list[Done | Progress]:
        if len(self.submitted) == self.interrupt_at:
            raise KeyboardInterrupt
        return super().poll(timeout)


def scripted_evaluators(monkeypatch: pytest.MonkeyPatch) -> list[Untrained]:
    """Searches train nothing and look at few candidates; the evaluators that they make."""
    made: list[Untrained] = []

    def make(**options: Any) -> Untrained:
        made.append(Untrained(**options))
        return made[-1]

    monkeypatch.setattr("evaluators.proxy.ProxyEvaluator", make)
    monkeypatch.setattr("gpnas.run.workers.LocalWorkers", ContextWorkers)
    monkeypatch.setattr("evaluators.training.speed.seconds_per_flop", lambda *_, **__: 1e-10)
    monkeypatch.setattr("gpnas.cli.planning.SAMPLES", 12)
    monkeypatch.setattr("gpnas.search.pool.FIRST_POOL", 10)
    monkeypatch.setattr("gpnas.search.pool.GROWTH", 1)
    return made


def searching(run: Path, *options: object) -> tuple[object, ...]:
    common = ("--imgsz", "64", "--seed", "5", "--wandb", "off", "--device", "cpu", "--workers", "local:2", "--out", run)
    return ("search", *common, *options)


def search(gpnas: Gpnas, run: Path, *options: object) -> tuple[int, str, str]:
    return gpnas(*searching(run, *options))


def trials(gpnas: Gpnas, run: Path) -> dict[str, Any]:
    code, out, _ = gpnas("show", run, "--json")
    assert code == 0
    shown: dict[str, Any] = json.loads(out)
    return shown
