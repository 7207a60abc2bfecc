"""What a search found beside its baselines: trials and their APs by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gpnas.report.comparison import comparison_lines
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


def lines(aps: Mapping[int, tuple[float, ...]], *trials: TrialRow) -> list[str]:
    """aps: by trial id, on the rungs that it completed, lowest first."""
    results = [
        TrialResult(trial, rung, FIDELITIES[rung], Evaluation(TrialState.COMPLETE, {"ap": ap}))
        for trial in trials
        for rung, ap in enumerate(aps.get(trial.id, ()))
    ]
    return comparison_lines(results, trials)


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
def test_without_known_trials_or_results_nothing_is_said(aps: dict[int, tuple[float, ...]]) -> None:
    assert lines(aps, SMALL) == []
    assert lines({}, GELAN, SMALL) == []
