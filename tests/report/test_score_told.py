"""What the trials tell about the score before training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpnas.report.score_told import FEWEST_TRIALS, score_lines
from gpnas.run.journal import TrialRow
from gpnas.run.results import TrialResult
from gpnas.search.trial import Evaluation, Fidelity, Origin, TrialState


def result(number: int, score: float, ap: float, rung: int = 0, origin: str = "sample") -> TrialResult:
    trial = TrialRow(number, f"h{number}", "{}", Origin.parse(origin), score, 5, 7)
    return TrialResult(trial, rung, Fidelity(2, 32), (Evaluation(TrialState.COMPLETE, {"ap": ap}, 1.0, 2),))


SCORES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
APS = (0.2, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def test_kendall_is_of_the_lowest_rung_and_of_trials_from_scratch() -> None:
    """27 of 28 pairs are in order, one is not: 26 / 28 = 0.93. A warm trial, a higher rung and fresh seeds do not count."""
    results = [result(i, score, ap) for i, (score, ap) in enumerate(zip(SCORES, APS, strict=True))]
    warm = result(8, 9.0, 0.0, origin="mutate 0 warm 0")
    fresh = replace(result(0, 1.0, 0.9), evaluations=2 * results[0].evaluations, confirmed=True)
    lines = score_lines([*results, result(0, 1.0, 0.9, rung=1), warm, fresh])
    assert len(lines) == 1
    assert lines[0].startswith(
        "score before training against AP on rung 0 (8 trials that started from scratch): Kendall 0.93, p "
    )
    assert float(lines[0].rpartition(" ")[2]) < 0.001


@pytest.mark.parametrize(("count", "lines"), [(FEWEST_TRIALS - 1, 0), (FEWEST_TRIALS, 1)])
def test_few_trials_tell_nothing(count: int, lines: int) -> None:
    assert len(score_lines([result(i, SCORES[i], APS[i]) for i in range(count)])) == lines


def test_equal_aps_tell_nothing() -> None:
    assert score_lines([result(i, SCORES[i], 0.0) for i in range(8)]) == []
