"""What a search found beside its start and its baselines, as lines for a person.

    best 0.409 (trial 12, 52.00M FLOPs); baseline gelan-t 0.371 (58.00M FLOPs): +0.038, on rung 2 (28 epochs, 192 px); one
    training each

(This is one line.) No interval is claimed: each side of a comparison is one training with one seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpnas.run.journal import TrialRow
from gpnas.run.results import Comparison, TrialResult, best_of, comparisons
from gpnas.units import brief


def comparison_lines(
    results: Sequence[TrialResult],  # of `all_results`
    trials: Sequence[TrialRow],
) -> list[str]:
    """One line for each known trial, compared with the best of what the search found; before them, whether a known one is best.

    Empty for a search without a start and baselines, and before anything is measured.
    """
    best = best_of(results)
    if best is None or not any(trial.origin.is_known for trial in trials):
        return []
    lines = [_nothing_better(best)] if best.trial.origin.is_known else []
    found = best_of([result for result in results if not result.trial.origin.is_known])
    if found is not None:
        head = "best found" if best.trial.origin.is_known else "best"
        lines += [_line(comparison, head) for comparison in comparisons(results, found.trial.id)]
    measured = {result.trial.id for result in results}
    return lines + [f"{t.origin}: not measured" for t in trials if t.origin.is_known and t.id not in measured]


def _nothing_better(best: TrialResult) -> str:
    """Plain words for a search that a known architecture won."""
    name = best.trial.origin.name or "its start"
    return (
        f"the search found nothing better than {name}, which is trial {best.trial.id}: AP {best.ap:.3f}, "
        f"{brief(best.trial.flops)} FLOPs, {_rung(best)}"
    )


def _line(comparison: Comparison, head: str) -> str:
    known, found = comparison.known, comparison.found
    # Of the numbers as they are printed, so that a reader who subtracts them gets the same.
    difference = round(found.ap, 3) - round(known.ap, 3)
    highest = "" if comparison.full else ", the highest that both completed"
    warm = "" if found.trial.origin.lender is None else f", trial {found.trial.id} from weights of another trial"
    return (
        f"{head} {found.ap:.3f} (trial {found.trial.id}, {brief(found.trial.flops)} FLOPs); {known.trial.origin} "
        f"{known.ap:.3f} ({brief(known.trial.flops)} FLOPs): {difference:+.3f}, on {_rung(found)}{highest}; "
        f"one training each{warm}"
    )


def _rung(result: TrialResult) -> str:
    return f"rung {result.rung} ({result.fidelity.epochs} epochs, {result.fidelity.imgsz} px)"
