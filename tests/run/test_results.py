"""The results of a run, from journals written by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from gpnas.run.journal import Journal, TrialRow
from gpnas.run.results import (
    TrialResult,
    all_results,
    best_found,
    best_of,
    best_yaml,
    comparisons,
    front_of,
    highest_of,
    noise_of,
    standing,
    standing_name,
    trial_results,
    write_results,
)
from gpnas.run.summary import summary
from gpnas.search.trial import Origin
from tests.confirmed import RUNGS
from tests.run.rows import FIDELITIES, complete, trial
from tests.settings import run_settings


def test_a_trial_counts_with_its_highest_complete_rung(journal: Journal) -> None:
    results = trial_results(journal)
    assert [(r.trial.id, r.rung, r.fidelity, r.ap) for r in results] == [
        (0, 2, FIDELITIES[2], 0.3125),
        (1, 0, FIDELITIES[0], 0.18754321),
        (2, 0, FIDELITIES[0], 0.5),
        (3, 0, FIDELITIES[0], 0.4375),
    ]
    assert results[1].evaluations == (complete(0.18754321, 2.5),)
    assert [(r.seeds, r.deviation, r.confirmed) for r in results] == [(1, None, False)] * 4


def test_without_confirmed_trials_only_those_on_the_highest_rung_are_ranked(journal: Journal) -> None:
    for results in (trial_results(journal), all_results(journal)):
        assert [(r.trial.id, r.rung) for r in standing(results)] == [(0, 2)]  # trial 2 has a higher AP on rung 0
        assert standing_name(results) == "rung 2"
        assert best_of(results) == best_found(results) == standing(results)[0] and front_of(results) == standing(results)
    assert standing([]) == front_of([]) == [] and best_of([]) is best_found([]) is None and standing_name([]) == ""


def test_the_front_is_by_rising_macs_and_without_other_rungs() -> None:
    rows = [(1, 0.3, 500), (1, 0.1, 100), (0, 0.9, 50), (1, 0.2, 700), (1, 0.25, 300)]
    results = [TrialResult(trial(i, macs), rung, FIDELITIES[rung], (complete(ap),)) for i, (rung, ap, macs) in enumerate(rows)]
    assert [r.trial.id for r in front_of(results)] == [1, 4, 0]


@pytest.mark.parametrize(
    ("rungs", "aps", "macs", "best"),
    [
        ([0, 1, 1], [0.9, 0.2, 0.3], [1, 1, 2], 2),
        ([1, 1, 1], [0.3, 0.3, 0.2], [5, 4, 1], 1),
        ([1, 1, 0], [0.3, 0.3, 0.3], [5, 5, 1], 0),
    ],
)
def test_the_best_is_by_rung_then_ap_then_fewer_macs_then_id(
    rungs: list[int], aps: list[float], macs: list[int], best: int
) -> None:
    rows = zip(rungs, aps, macs, strict=True)
    results = [TrialResult(trial(i, m), rung, FIDELITIES[rung], (complete(ap),)) for i, (rung, ap, m) in enumerate(rows)]
    chosen = best_of(results[::-1])
    assert chosen is not None and chosen.trial.id == best


def test_the_front_is_a_table_and_the_best_a_yaml(journal: Journal) -> None:
    write_results(journal.run, journal, lambda genotype, found: f"{genotype}{json.dumps(found)}")
    assert (journal.run / "pareto.csv").read_text().splitlines() == [
        "id,ap,deviation,seeds,ap50,flops,params,epochs,imgsz,score,hash,origin",
        "0,0.3125,,1,0.12346,600,10,8,128,0.0,hash0,sample",
    ]
    assert (journal.run / "trials.csv").read_text().splitlines() == [
        "id,standing,rung,ap,deviation,seeds,ap50,flops,params,epochs,imgsz,score,hash,origin",
        "0,true,2,0.3125,,1,0.12346,600,10,8,128,0.0,hash0,sample",
        "1,false,0,0.18754,,1,0.0,200,11,2,64,0.1429,hash1,mutate 0",
        "2,false,0,0.5,,1,0.75,1000,12,2,64,0.2857,hash2,mutate 1",
        "3,false,0,0.4375,,1,0.0,1400,13,2,64,0.4286,hash3,mutate 2",
    ]
    genotype, found = (journal.run / "best.yaml").read_text().splitlines()
    assert genotype == "width: 0"
    assert json.loads(found) == {
        "trial": 0,
        "origin": "sample",
        "hash": "hash0",
        "measured": {"ap": 0.3125, "ap50": 0.1235, "epochs": 8, "imgsz": 128},
        "cost": {"flops": 600, "params": 10, "imgsz": 32},
        "score": 0.0,
        "data": "grid",
        "names": ["cat", "dog"],
        "seed": 7,
        "space": "gradient-path",
    }


def test_the_yaml_of_any_trial_holds_its_own_origin_and_score(journal: Journal) -> None:
    result = trial_results(journal)[2]
    found = json.loads(best_yaml(result, run_settings(), lambda genotype, found: json.dumps(found)))
    assert (found["trial"], found["origin"], found["score"]) == (2, "mutate 1", 0.2857)


@pytest.mark.parametrize(
    ("found", "pairs"),
    [
        (4, [(0, 0, 0.21, 0.13, False), (1, 0, 0.11, 0.13, False), (2, 2, 0.32, 0.34567, True)]),
        (5, [(0, 0, 0.21, 0.4, True), (1, 0, 0.11, 0.4, True), (2, 0, 0.12, 0.4, False)]),
        (2, [(0, 0, 0.21, 0.12, False), (1, 0, 0.11, 0.12, False)]),
        (3, []),
    ],
)
def test_known_trials_are_compared_on_the_highest_rung_that_both_completed(
    compared: Journal, found: int, pairs: list[tuple[int, int, float, float, bool]]
) -> None:
    met = comparisons(all_results(compared), found)
    assert [(c.known.trial.id, c.known.rung, c.known.ap, c.found.ap, c.full) for c in met] == pairs
    assert all(c.found.trial.id == found and c.found.rung == c.known.rung for c in met)


def test_best_yaml_and_the_summary_name_the_baselines(compared: Journal) -> None:
    write_results(compared.run, compared, lambda genotype, found: json.dumps(found))
    found = json.loads((compared.run / "best.yaml").read_text())
    assert found["trial"] == 4
    assert [(row["name"], row["found_ap"], row["difference"]) for row in found["baselines"]] == [
        ("start", 0.13, -0.08),
        ("low", 0.13, 0.02),
        ("high", 0.3457, 0.0257),
    ]
    assert found["baselines"][2] == {
        "name": "high",
        "trial": 2,
        "ap": 0.32,
        "found_ap": 0.3457,
        "difference": 0.0257,
        "flops": 2004,
        "params": 12,
        "epochs": 8,
        "imgsz": 128,
    }
    once = {"seeds": 1, "deviation": None, "confirmed": False}
    assert summary(compared.run, compared)["baselines"] == [
        {"name": "start", "trial": 0, "ap": 0.21, **once, "flops": 2000, "params": 10, "rung": 0},
        {"name": "low", "trial": 1, "ap": 0.11, **once, "flops": 2002, "params": 11, "rung": 0},
        {"name": "high", "trial": 2, "ap": 0.32, **once, "flops": 2004, "params": 12, "rung": 2},
        {"name": "broken", "trial": 3, "ap": None, **once, "seeds": 0, "flops": 2006, "params": 13, "rung": None},
    ]


def test_without_a_result_no_file_is_written(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "run", run_settings().to_json()) as journal:
        write_results(tmp_path / "run", journal, lambda genotype, found: pytest.fail("nothing was measured"))
        assert summary(tmp_path / "run", journal)["best"] is None
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"journal.sqlite", "journal.lock"}


def result(i: int, mean: float, macs: int, *, known: bool = False, spread: float = 0.01) -> TrialResult:
    """Confirmed by two fresh seeds, `spread` above and below the mean: variance 2 spread^2."""
    row = TrialRow(i, f"hash{i}", "", Origin("baseline", name="b") if known else Origin("sample"), 0.5, 10, macs)
    return TrialResult(row, 2, FIDELITIES[2], (complete(mean - spread), complete(mean + spread)), confirmed=True)


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        # The standard error of each difference is the root of .0002 (1/2 + 1/2), .01414.
        ([(0.40, 1000), (0.39, 900)], 1),
        ([(0.40, 1000), (0.39, 950)], 1),
        ([(0.40, 1000), (0.39, 951)], 0),  # it saves less than 5 %
        ([(0.40, 1000), (0.385, 500)], 0),  # no tie
        ([(0.40, 1000), (0.3859, 500)], 1),
        ([(0.40, 1000), (0.395, 800), (0.39, 700), (0.38, 100)], 2),  # the last ties with trials 1 and 2, not with the highest
        ([(0.40, 1000), (0.39, 700), (0.395, 700)], 2),
        ([(0.40, 1000), (0.395, 700), (0.395, 700)], 1),
        ([(0.39, 1100), (0.40, 1000)], 1),
        ([(0.40, 1000), (0.40, 999)], 1),  # equal means: the cheaper, however little it saves
    ],
)
def test_of_confirmed_trials_that_tie_with_the_highest_the_cheapest_is_best(rows: list[tuple[float, int]], best: int) -> None:
    results = [result(i, mean, macs) for i, (mean, macs) in enumerate(rows)]
    for order in (results, results[::-1]):
        chosen = best_of(order)
        assert chosen is not None and chosen.trial.id == best


def test_the_number_of_seeds_decides_what_is_a_tie() -> None:
    """With a third seed at its mean, trial 1 has the variance .0001, all .0004 / 3 together, and the error is the root of
    .0004 / 3 x 5 / 6: .01054."""
    first, other = result(0, 0.40, 1000), result(1, 0.389, 500)
    assert best_of([first, other]) == other
    third = TrialResult(other.trial, 2, FIDELITIES[2], (*other.evaluations, complete(0.389)), confirmed=True)
    assert best_of([first, third]) == first
    noise = noise_of([first, third])
    assert noise is not None and noise.error(2, 3) == pytest.approx(math.sqrt(0.0004 / 3 * 5 / 6))


def test_trials_that_are_not_confirmed_do_not_tie() -> None:
    rows = [(0.40, 1000), (0.3999, 100)]
    results = [TrialResult(trial(i, macs), 1, FIDELITIES[1], (complete(ap),)) for i, (ap, macs) in enumerate(rows)]
    assert best_of(results) == results[0]


def test_the_best_found_is_the_best_unless_that_was_known() -> None:
    gelan = result(0, 0.41, 1000, known=True)
    tied = result(1, 0.40, 900)
    assert best_of([gelan, tied]) == best_found([gelan, tied]) == tied
    cheap = result(0, 0.41, 500, known=True)
    cheaper = result(2, 0.395, 600)
    assert best_of([cheap, tied, cheaper]) == cheap and best_found([cheap, tied, cheaper]) == cheaper
    assert best_found([cheap]) is None
    apart = TrialResult(trial(3, 50), 1, FIDELITIES[1], (complete(0.9),))
    assert best_of([cheap, apart]) == cheap and best_found([cheap, apart]) == apart


def test_a_result_has_the_means_over_its_seeds() -> None:
    evaluations = complete(0.2, ap50=0.4, ap_small=0.1), complete(0.4, ap50=0.7), complete(0.6, ap50=0.4)
    of_three = TrialResult(trial(0, 1), 2, FIDELITIES[2], evaluations, confirmed=True)
    assert of_three.metrics == {"ap": pytest.approx(0.4), "ap50": pytest.approx(0.5)}  # ap_small is not that of all seeds
    assert (of_three.ap, of_three.seeds, of_three.deviation) == pytest.approx((0.4, 3, 0.2))
    assert of_three.point.ap == of_three.ap


def test_a_confirmed_result_needs_two_seeds() -> None:
    with pytest.raises(ValueError, match="the result of trial 0 needs 2 evaluations, got 1"):
        TrialResult(trial(0, 1), 2, FIDELITIES[2], (complete(0.5),), confirmed=True)
    with pytest.raises(ValueError, match="needs 1 evaluations, got 0"):
        TrialResult(trial(0, 1), 2, FIDELITIES[2], ())


def test_fresh_seeds_on_the_top_rung_alone_confirm_and_alone_count(confirmed: Journal) -> None:
    results = trial_results(confirmed)
    assert [(r.trial.id, r.rung, r.seeds, r.confirmed) for r in results] == [
        (0, 2, 3, True),
        (1, 0, 1, False),
        (2, 2, 3, True),
        (3, 2, 2, True),  # one of three seeds failed
        (4, 2, 1, False),  # one fresh seed confirms nothing, and does not count
        (5, 1, 1, False),  # its fresh seeds did not reach the top
    ]
    assert [r.ap for r in results] == [pytest.approx(ap) for ap in (0.37, 0.06, 0.41, 0.405, 0.9, 0.19)]
    deviations = math.sqrt(0.0006 / 2), None, math.sqrt(0.0002 / 2), math.sqrt(0.00005), None, None
    assert [r.deviation for r in results] == [d if d is None else pytest.approx(d) for d in deviations]
    assert {r.fidelity for r in results if r.rung == 2} == {RUNGS[2]}  # with seed 0
    everything = [(r.trial.id, r.rung, r.confirmed) for r in all_results(confirmed) if r.trial.id in (2, 5)]
    assert everything == [(2, 0, False), (2, 1, False), (2, 2, False), (2, 2, True), (5, 0, False), (5, 1, False)]


def test_confirmed_trials_alone_are_ranked(confirmed: Journal) -> None:
    for results in (trial_results(confirmed), all_results(confirmed)):
        assert [r.trial.id for r in standing(results)] == [0, 2, 3] and standing_name(results) == "confirmed"
        assert all(r.confirmed for r in standing(results))
        assert [r.trial.id for r in front_of(results)] == [3, 2]
        best, highest = best_of(results), highest_of(results)
        assert best is not None and best.trial.id == 3 and highest is not None and highest.trial.id == 2
        noise = noise_of(results)
        assert noise is not None and (noise.deviation, noise.freedom) == pytest.approx((math.sqrt(0.00017), 5))


def test_confirmed_trials_are_compared_by_fresh_seeds_and_others_by_what_the_search_explored(confirmed: Journal) -> None:
    gelan, yolo = comparisons(all_results(confirmed), 3)
    assert gelan.difference == pytest.approx(0.405 - 0.37) and not gelan.is_tie
    half = 2.01505 * math.sqrt(0.00017 * 5 / 6)  # Student's t with 5 degrees of freedom, 5 % on each side
    assert gelan.interval == pytest.approx((0.035 - half, 0.035 + half), abs=1e-6)
    assert (yolo.known.trial.id, yolo.known.ap, yolo.found.ap, yolo.known.rung, yolo.full) == (1, 0.06, 0.11, 0, False)
    assert yolo.interval is None and not yolo.is_tie


def test_the_files_hold_means_and_seeds_and_say_what_is_ranked(confirmed: Journal) -> None:
    write_results(confirmed.run, confirmed, lambda genotype, found: json.dumps(found))
    assert (confirmed.run / "pareto.csv").read_text().splitlines()[1:] == [
        "3,0.405,0.00707,2,0.2025,1200,13,28,192,0.5,hash3,sample",
        "2,0.41,0.01,3,0.205,1800,12,28,192,0.5,hash2,mutate 0",
    ]
    with (confirmed.run / "trials.csv").open() as file:
        rows = [(row["id"], row["standing"], row["rung"], row["ap"], row["seeds"]) for row in csv.DictReader(file)]
    assert rows == [
        ("0", "true", "2", "0.37", "3"),
        ("1", "false", "0", "0.06", "1"),
        ("2", "true", "2", "0.41", "3"),
        ("3", "true", "2", "0.405", "2"),
        ("4", "false", "2", "0.9", "1"),
        ("5", "false", "1", "0.19", "1"),
    ]
    found = json.loads((confirmed.run / "best.yaml").read_text())
    assert found["trial"] == 3
    measured = {"ap": 0.405, "ap50": 0.2025, "fresh_seeds": 2, "deviation": 0.0071, "epochs": 28, "imgsz": 192}
    assert found["measured"] == measured
    assert found["baselines"][0] == {
        "name": "gelan-t",
        "trial": 0,
        "ap": 0.37,
        "found_ap": 0.405,
        "difference": 0.035,
        "interval": [0.011, 0.059],
        "tie": False,
        "deviation": 0.0173,
        "found_deviation": 0.0071,
        "fresh_seeds": 3,
        "found_fresh_seeds": 2,
        "flops": 2000,
        "params": 10,
        "epochs": 28,
        "imgsz": 192,
    }
    assert "interval" not in found["baselines"][1]
