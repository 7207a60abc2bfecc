"""What a search found beside its start and its baselines, as lines for a person.

    found 0.409 +- 0.012 (trial 12, 52.00M FLOPs), gelan-t 0.371 +- 0.015 (58.00M FLOPs): +0.038, 90 % interval +0.014 to
    +0.062; 3 fresh seeds each on rung 2 (28 epochs, 192 px)

(This is one line.) `+-` is the standard deviation between seeds. Where a side is not confirmed, each side is one training, and
no interval is claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gpnas.run.journal import TrialRow
from gpnas.run.noise import LEVEL
from gpnas.run.results import (
    Comparison,
    TrialResult,
    best_found,
    best_of,
    comparisons,
    highest_of,
    noise_of,
    standing,
)
from gpnas.units import brief


def comparison_lines(
    results: Sequence[TrialResult],  # of `all_results`
    trials: Sequence[TrialRow],
    *,
    is_over: bool,
) -> list[str]:
    """Lines about the best of a search: whether a known architecture won, whether a tie decided, what the search found beside
    each known trial, and whether anything was confirmed. Empty before anything is measured.

    is_over: whether the budget is spent; before that a confirmation may still come.
    """
    best, found = best_of(results), best_found(results)
    if best is None:
        return []
    lines = [_known_is_best(best, found)] if best.trial.origin.is_known else []
    lines += _tie(results, best)
    if found is not None:
        # Beside a confirmed AP, the AP of one training is not the best.
        head = "found" if found.confirmed else "best found" if best.trial.origin.is_known else "best"
        lines += [_line(comparison, head) for comparison in comparisons(results, found.trial.id)]
    measured = {result.trial.id for result in results}
    lines += [f"{t.origin}: not measured" for t in trials if t.origin.is_known and t.id not in measured]
    return lines if best.confirmed else [*lines, _NOTHING_CONFIRMED if is_over else "nothing is confirmed with fresh seeds yet"]


_NOTHING_CONFIRMED = (
    "nothing was confirmed with fresh seeds, so chance may have decided; a larger --budget helps, and so does a lower "
    "--max-flops where the budget is a time"
)


def standing_line(
    results: Sequence[TrialResult],  # of `trial_results`
) -> str:
    """How many trials are ranked, and on which rungs the others stand apart. "" without results."""
    ranked = standing(results)
    if not ranked:
        return ""
    if ranked[0].confirmed:
        head = f"ranked: {_trials(len(ranked))} confirmed by fresh seeds on {rung_text(ranked[0])}"
    else:
        head = f"ranked: {_trials(len(ranked))} on {rung_text(ranked[0])}, the highest that was completed"
    ids = {result.trial.id for result in ranked}
    apart = Counter(result.rung for result in results if result.trial.id not in ids)
    return head + ("; apart: " if apart else "") + ", ".join(f"{apart[rung]} on rung {rung}" for rung in sorted(apart)[::-1])


def ap_text(result: TrialResult) -> str:
    """Such as "0.409", or with the standard deviation between seeds "0.409 +- 0.012"."""
    return f"{result.ap:.3f}" + ("" if result.deviation is None else f" +- {result.deviation:.3f}")


def rung_text(result: TrialResult) -> str:
    """Such as "rung 2 (28 epochs, 192 px)"."""
    return f"rung {result.rung} ({result.fidelity.epochs} epochs, {result.fidelity.imgsz} px)"


def _trials(count: int) -> str:
    return f"{count} trial" + ("" if count == 1 else "s")


def _known_is_best(best: TrialResult, found: TrialResult | None) -> str:
    """Plain words for a search that a known architecture won, be it for want of a rival that is confirmed."""
    name = f"{best.trial.origin.name or 'its start'}, which is trial {best.trial.id}"
    seeds = f", {best.seeds} fresh seeds" if best.confirmed else ""
    measured = f"AP {ap_text(best)}, {brief(best.trial.flops)} FLOPs{seeds}, {rung_text(best)}"
    if best.confirmed and not (found is not None and found.confirmed):
        return f"nothing that the search found was confirmed, so {name}, stays the best: {measured}"
    return f"the search found nothing better than {name}: {measured}"


def _tie(results: Sequence[TrialResult], best: TrialResult) -> list[str]:
    """A line when the best is not the trial with the highest mean."""
    top, noise = highest_of(results), noise_of(results)
    if top is None or noise is None or top.trial.id == best.trial.id:
        return []
    return [
        f"trial {best.trial.id} (AP {ap_text(best)}, {brief(best.trial.flops)} FLOPs) ties with trial {top.trial.id} "
        f"(AP {ap_text(top)}, {brief(top.trial.flops)} FLOPs): the difference is below its standard error of "
        f"{noise.error(top.seeds, best.seeds):.3f}, so the cheaper one is taken"
    ]


def _line(comparison: Comparison, head: str) -> str:
    known, found = comparison.known, comparison.found
    # Of the numbers as they are printed, so that a reader who subtracts them gets the same.
    difference = f"{round(found.ap, 3) - round(known.ap, 3):+.3f}"
    if comparison.interval is not None:
        low, high = (round(end, 3) + 0.0 for end in comparison.interval)  # + 0.0: no end is -0.000
        return (
            f"found {ap_text(found)} (trial {found.trial.id}, {brief(found.trial.flops)} FLOPs), {_name(known.trial)} "
            f"{ap_text(known)} ({brief(known.trial.flops)} FLOPs): {difference}, {100 * LEVEL:.0f} % interval {low:+.3f} to "
            f"{high:+.3f}{_verdict(comparison)}; {_seeds(found, known)} on {rung_text(found)}"
        )
    highest = "" if comparison.full else ", the highest that both completed"
    warm = "" if found.trial.origin.lender is None else f", trial {found.trial.id} from weights of another trial"
    return (
        f"{head} {found.ap:.3f} (trial {found.trial.id}, {brief(found.trial.flops)} FLOPs); {known.trial.origin} "
        f"{known.ap:.3f} ({brief(known.trial.flops)} FLOPs): {difference}, on {rung_text(found)}{highest}; "
        f"{_trainings(found, known)}{warm}"
    )


def _trainings(found: TrialResult, known: TrialResult) -> str:
    return "one training each" if found.seeds == known.seeds == 1 else f"{found.seeds} and {known.seeds} trainings"


def _name(known: TrialRow) -> str:
    return known.origin.name or known.origin.kind


def _verdict(comparison: Comparison) -> str:
    """What noise says of a difference, where it says anything against it."""
    assert comparison.interval is not None  # both are confirmed
    low, high = comparison.interval
    if comparison.is_tie:
        return ": a tie, the difference is within noise"
    return ": the difference is within noise" if low <= 0 <= high else ""


def _seeds(found: TrialResult, known: TrialResult) -> str:
    if found.seeds == known.seeds:
        return f"{found.seeds} fresh seeds each"
    return f"{found.seeds} and {known.seeds} fresh seeds"
