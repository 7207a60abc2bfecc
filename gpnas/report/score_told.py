"""What the trials of a run tell about the score that candidates had before training.

    score before training against AP on rung 0 (62 trials that started from scratch): Kendall 0.31, p 0.001

It is the score of `gpnas.paths.score.detector_score`. It was fitted to short trainings of small detectors, so each run checks
whether it holds for its own data.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpnas.run.results import TrialResult

FEWEST_TRIALS = 8
"""Trials from which the run says something about the score."""


def score_lines(results: Sequence[TrialResult]) -> list[str]:
    """One line about the lowest rung, which has most trials; none with fewer than FEWEST_TRIALS there, or when all have the
    same AP. results: of `all_results`."""
    from scipy.stats import kendalltau  # late: it loads a compiled library

    lowest = [r for r in results if r.rung == 0 and not r.confirmed and r.trial.origin.lender is None]
    if len(lowest) < FEWEST_TRIALS:
        return []
    found = kendalltau([r.trial.score for r in lowest], [r.ap for r in lowest])
    if found.statistic != found.statistic:  # NaN: all are equal
        return []
    return [
        f"score before training against AP on rung 0 ({len(lowest)} trials that started from scratch): "
        f"Kendall {found.statistic:.2f}, p {found.pvalue:.2g}"
    ]
