"""What a search found beside its baselines: trials and their APs by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gpnas.report.comparison import ap_text, comparison_lines, standing_line
from gpnas.run.journal import TrialRow
from gpnas.run.results import TrialResult
from gpnas.search.trial import Evaluation, Fidelity, Origin, TrialState

FIDELITIES = (Fidelity(7, 96), Fidelity(14, 128), Fidelity(28, 192))
GELAN = TrialRow(0, "g", "", Origin("baseline", name="gelan-t"), 0.5, 381_000, 29_000_000)
YOLO = TrialRow(1, "y", "", Origin("baseline", name="yolov9-t"), 0.5, 380_000, 28_500_000)
START = TrialRow(2, "s", "", Origin("start"), 0.5, 300_000, 21_000_000)
SMALL = TrialRow(5, "a", "", Origin("sample"), 0.5, 120_000, 13_000_000)
FOUND = TrialRow(12, "b", "", Origin("mutate", (0,)), 0.5, 280_000, 26_000_000)
WARM = TrialRow(13, "c", "", Origin("mutate", (5,), 5), 0.5, 280_000, 26_000_000)


def complete(ap: float) -> Evaluation:
    return Evaluation(TrialState.COMPLETE, {"ap": ap})


def explored(aps: Mapping[int, tuple[float, ...]], *trials: TrialRow) -> list[TrialResult]:
    """aps: by trial id, on the rungs that it completed, lowest first."""
    return [
        TrialResult(trial, rung, FIDELITIES[rung], (complete(ap),))
        for trial in trials
        for rung, ap in enumerate(aps.get(trial.id, ()))
    ]


NOTHING_CONFIRMED = (
    "nothing was confirmed with fresh seeds, so chance may have decided; a larger --budget helps, and so does a lower "
    "--max-flops where the budget is a time"
)


def lines(aps: Mapping[int, tuple[float, ...]], *trials: TrialRow) -> list[str]:
    """The lines of a search that confirmed nothing, without the last one, which says so."""
    told = comparison_lines(explored(aps, *trials), trials, is_over=True)
    if told:
        assert told.pop() == NOTHING_CONFIRMED
    return told


def test_the_best_is_compared_with_each_baseline_on_the_highest_rung_that_both_completed() -> None:
    aps = {0: (0.07, 0.3, 0.371), 1: (0.0604,), 5: (0.05, 0.28), 12: (0.0666, 0.31, 0.409)}
    assert lines(aps, GELAN, YOLO, SMALL, FOUND) == [
        "best 0.409 (trial 12, 52.00M FLOPs); baseline gelan-t 0.371 (58.00M FLOPs): +0.038, on rung 2 (28 epochs, 192 px); "
        "one training each",
        "best 0.067 (trial 12, 52.00M FLOPs); baseline yolov9-t 0.060 (57.00M FLOPs): +0.007, on rung 0 (7 epochs, 96 px), "
        "the highest that both completed; one training each",
    ]


def test_a_baseline_that_wins_is_named_and_the_best_that_was_found_stands_beside_it() -> None:
    aps = {0: (0.07, 0.3, 0.371), 1: (0.06, 0.29), 5: (0.05, 0.28)}
    assert lines(aps, GELAN, YOLO, SMALL) == [
        "the search found nothing better than gelan-t, which is trial 0: AP 0.371, 58.00M FLOPs, rung 2 (28 epochs, 192 px)",
        "best found 0.280 (trial 5, 26.00M FLOPs); baseline gelan-t 0.300 (58.00M FLOPs): -0.020, "
        "on rung 1 (14 epochs, 128 px), "
        "the highest that both completed; one training each",
        "best found 0.280 (trial 5, 26.00M FLOPs); baseline yolov9-t 0.290 (57.00M FLOPs): -0.010, "
        "on rung 1 (14 epochs, 128 px); "
        "one training each",
    ]


def test_the_start_is_one_of_them() -> None:
    assert lines({2: (0.25,), 5: (0.125,)}, START, SMALL)[0] == (
        "the search found nothing better than its start, which is trial 2: AP 0.250, 42.00M FLOPs, rung 0 (7 epochs, 96 px)"
    )
    assert lines({2: (0.125,), 5: (0.25,)}, START, SMALL) == [
        "best 0.250 (trial 5, 26.00M FLOPs); start 0.125 (42.00M FLOPs): +0.125, on rung 0 (7 epochs, 96 px); one training each"
    ]


def test_a_baseline_without_a_result_is_not_passed_over() -> None:
    assert lines({5: (0.25,)}, GELAN, SMALL) == ["baseline gelan-t: not measured"]
    assert lines({0: (0.25,)}, GELAN, YOLO) == [
        "the search found nothing better than gelan-t, which is trial 0: AP 0.250, 58.00M FLOPs, rung 0 (7 epochs, 96 px)",
        "baseline yolov9-t: not measured",
    ]


def test_a_warm_start_is_said_because_it_trained_longer() -> None:
    (line,) = lines({0: (0.25,), 13: (0.5,)}, GELAN, WARM)
    assert line.endswith("+0.250, on rung 0 (7 epochs, 96 px); one training each, trial 13 from weights of another trial")


@pytest.mark.parametrize(
    ("found", "known", "shown"),
    [(0.4004, 0.3996, "+0.000"), (0.3996, 0.4004, "+0.000"), (0.4006, 0.3994, "+0.002"), (0.1, 0.25, "-0.150")],
)
def test_the_difference_is_that_of_the_numbers_that_are_printed(found: float, known: float, shown: str) -> None:
    line = lines({0: (known,), 5: (found,)}, GELAN, SMALL)[-1]
    assert f"(58.00M FLOPs): {shown}, on rung 0" in line


@pytest.mark.parametrize("aps", [{}, {5: (0.25,)}])
def test_without_known_trials_or_results_nothing_is_compared(aps: dict[int, tuple[float, ...]]) -> None:
    assert lines(aps, SMALL) == []
    assert comparison_lines([], [GELAN, SMALL], is_over=True) == []


def test_before_the_end_a_confirmation_may_still_come() -> None:
    results = explored({5: (0.25,)}, SMALL)
    assert comparison_lines(results, [SMALL], is_over=False) == ["nothing is confirmed with fresh seeds yet"]


def fresh(trial: TrialRow, *aps: float) -> TrialResult:
    return TrialResult(trial, 2, FIDELITIES[2], tuple(map(complete, aps)), confirmed=True)


def confirmed(*results: TrialResult, others: Mapping[int, tuple[float, ...]] | None = None) -> list[str]:
    """The lines of a search that confirmed these. Every trial explored rung 0 with an AP of .1, `others` as they say."""
    trials = [*dict.fromkeys([result.trial for result in results]), *([YOLO] if others else [])]
    aps = {trial.id: (0.1,) for trial in trials} | dict(others or {})
    return comparison_lines([*explored(aps, *trials), *results], trials, is_over=True)


def test_confirmed_trials_are_compared_with_an_interval() -> None:
    """Variances .0001 and .0003, .0002 together. The error is the root of .0002 x 2 / 3, .011547, and Student's t with 4
    degrees of freedom 2.1318: half of the interval is .0246."""
    found, gelan = fresh(FOUND, 0.40, 0.42, 0.41), fresh(GELAN, 0.36, 0.39, 0.36)
    assert confirmed(gelan, found) == [
        "found 0.410 +- 0.010 (trial 12, 52.00M FLOPs), gelan-t 0.370 +- 0.017 (58.00M FLOPs): +0.040, "
        "90 % interval +0.015 to +0.065; 3 fresh seeds each on rung 2 (28 epochs, 192 px)"
    ]


def test_a_difference_whose_interval_holds_zero_is_within_noise() -> None:
    """As above with a mean of .39: .02 is more than the error of .0115, and less than half of the interval."""
    (line,) = confirmed(fresh(FOUND, 0.38, 0.40, 0.39), fresh(GELAN, 0.36, 0.39, 0.36))
    assert "+0.020, 90 % interval -0.005 to +0.045: the difference is within noise; 3 fresh seeds each" in line


def test_a_tie_is_called_one_and_the_cheaper_one_is_taken() -> None:
    """SMALL ties with FOUND: .01 is less than .0141, the root of .0002 (1/2 + 1/2). It costs half, so it is the best."""
    found, small, gelan = fresh(FOUND, 0.42, 0.40), fresh(SMALL, 0.41, 0.39), fresh(GELAN, 0.40, 0.38)
    choice, line = confirmed(gelan, small, found)
    assert choice == (
        "trial 5 (AP 0.400 +- 0.014, 26.00M FLOPs) ties with trial 12 (AP 0.410 +- 0.014, 52.00M FLOPs): "
        "the difference is below its standard error of 0.014, so the cheaper one is taken"
    )
    assert line.startswith("found 0.400 +- 0.014 (trial 5, 26.00M FLOPs), gelan-t 0.390 +- 0.014 (58.00M FLOPs): +0.010, ")
    assert ": a tie, the difference is within noise; 2 fresh seeds each on rung 2" in line


def test_a_baseline_that_wins_by_its_fresh_seeds_is_named() -> None:
    told = confirmed(fresh(GELAN, 0.42, 0.40), fresh(SMALL, 0.31, 0.29, 0.30))
    assert told[0] == (
        "the search found nothing better than gelan-t, which is trial 0: AP 0.410 +- 0.014, 58.00M FLOPs, 2 fresh seeds, "
        "rung 2 (28 epochs, 192 px)"
    )
    assert told[1].startswith("found 0.300 +- 0.010 (trial 5, ") and "): -0.110, 90 % interval -0.1" in told[1]
    assert told[1].endswith("; 3 and 2 fresh seeds on rung 2 (28 epochs, 192 px)") and "noise" not in told[1] and len(told) == 2


def test_a_baseline_without_a_confirmed_rival_has_not_won() -> None:
    told = comparison_lines([*explored({0: (0.1,), 5: (0.2,)}, GELAN, SMALL), fresh(GELAN, 0.42, 0.40)], [GELAN], is_over=True)
    assert told == [
        "nothing that the search found was confirmed, so gelan-t, which is trial 0, stays the best: AP 0.410 +- 0.014, "
        "58.00M FLOPs, 2 fresh seeds, rung 2 (28 epochs, 192 px)",
        "best found 0.200 (trial 5, 26.00M FLOPs); baseline gelan-t 0.100 (58.00M FLOPs): +0.100, on rung 0 (7 epochs, 96 px); "
        "one training each",
    ]


def test_a_baseline_that_was_not_confirmed_is_compared_by_one_training_each() -> None:
    told = confirmed(fresh(GELAN, 0.32, 0.30), fresh(FOUND, 0.42, 0.40), others={12: (0.07, 0.9), 1: (0.06,)})
    assert told[1] == (
        "found 0.070 (trial 12, 52.00M FLOPs); baseline yolov9-t 0.060 (57.00M FLOPs): +0.010, on rung 0 (7 epochs, 96 px), "
        "the highest that both completed; one training each"
    )
    assert told[0].startswith("found 0.410") and len(told) == 2


def test_an_interval_has_no_minus_zero() -> None:
    """Variance 8e-8 with 2 degrees of freedom, t 2.9200: .0004 - 2.92 x .000283 is -.0004."""
    (line,) = confirmed(fresh(FOUND, 0.3004, 0.3000), fresh(GELAN, 0.2996, 0.3000))
    assert "90 % interval +0.000 to +0.001: the difference is within noise" in line


def test_what_is_ranked_and_what_stands_apart_is_counted_by_rung() -> None:
    by_trial = [TrialResult(t, rung, FIDELITIES[rung], (complete(0.2),)) for t, rung in ((GELAN, 1), (YOLO, 0), (SMALL, 0))]
    assert standing_line(by_trial) == (
        "ranked: 1 trial on rung 1 (14 epochs, 128 px), the highest that was completed; apart: 2 on rung 0"
    )
    assert standing_line([fresh(FOUND, 0.4, 0.5), fresh(START, 0.4, 0.5), *by_trial]) == (
        "ranked: 2 trials confirmed by fresh seeds on rung 2 (28 epochs, 192 px); apart: 1 on rung 1, 2 on rung 0"
    )
    assert standing_line(by_trial[1:]).endswith("2 trials on rung 0 (7 epochs, 96 px), the highest that was completed")
    assert standing_line([]) == ""


def test_an_ap_stands_beside_the_deviation_of_several_seeds() -> None:
    assert ap_text(fresh(FOUND, 0.40, 0.42, 0.41)) == "0.410 +- 0.010"
    assert ap_text(explored({5: (0.25,)}, SMALL)[0]) == "0.250"
