"""The results of a run, from a journal written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpnas.run.journal import Journal, TrialRow
from gpnas.run.results import TrialResult, best_of, best_yaml, front_of, summary, trial_results, write_results
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState, failure
from tests.settings import run_settings

FIDELITIES = Fidelity(2, 64), Fidelity(4, 96), Fidelity(8, 128, 0.5)


def trial(i: int, macs: int) -> TrialRow:
    return TrialRow(i, f"hash{i}", f"width: {i}\n", Origin("mutate", (i - 1,)) if i else Origin("sample"), i / 7, 10 + i, macs)


def complete(ap: float, seconds: float = 1.25, **metrics: float) -> Evaluation:
    return Evaluation(TrialState.COMPLETE, {"ap": ap, **metrics}, seconds, 2)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Trial 0 climbed to rung 2; 1 to rung 1, which it failed to complete; 2 has the highest AP, but on rung 0; 3 is dominated
    by 2; 4 runs; 5 waits."""
    evaluations = [
        (0, 0, complete(0.125)),
        (1, 0, complete(0.18754321, 2.5)),
        (0, 1, complete(0.25, 3.0)),
        (2, 0, complete(0.5, ap50=0.75)),
        (3, 0, complete(0.4375)),
        (1, 1, failure(Cause.NAN, "loss is nan", 0.5)),
        (0, 2, complete(0.3125, 4.0, ap50=0.123456)),
    ]
    with Journal.create(tmp_path / "run", run_settings().to_json()) as journal:
        for i, macs in enumerate([300, 100, 500, 700, 900, 1100]):
            journal.add_trial(trial(i, macs))
        for trial_id, rung, evaluation in evaluations:
            journal.start_evaluation(trial_id, rung, FIDELITIES[rung])
            journal.finish_evaluation(trial_id, rung, evaluation)
        journal.start_evaluation(4, 0, FIDELITIES[0])
        journal.add_elapsed(12.345)
        yield journal


def test_a_trial_counts_with_its_highest_complete_rung(journal: Journal) -> None:
    results = trial_results(journal)
    assert [(r.trial.id, r.rung, r.fidelity, r.ap) for r in results] == [
        (0, 2, FIDELITIES[2], 0.3125),
        (1, 0, FIDELITIES[0], 0.18754321),
        (2, 0, FIDELITIES[0], 0.5),
        (3, 0, FIDELITIES[0], 0.4375),
    ]
    assert results[1].evaluation.seconds == 2.5


def test_the_best_is_on_the_highest_rung_and_the_front_is_by_rising_macs(journal: Journal) -> None:
    results = trial_results(journal)
    best = best_of(results)
    assert best is not None and best.trial.id == 0
    assert [r.trial.id for r in front_of(results)] == [1, 0, 2]
    assert best_of([]) is None and front_of([]) == []


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
    results = [TrialResult(trial(i, m), rung, FIDELITIES[rung], complete(ap)) for i, (rung, ap, m) in enumerate(rows)]
    chosen = best_of(results[::-1])
    assert chosen is not None and chosen.trial.id == best


def test_the_front_is_a_table_and_the_best_a_yaml(journal: Journal) -> None:
    write_results(journal.run, journal, lambda genotype, found: f"{genotype}{json.dumps(found)}")
    assert (journal.run / "pareto.csv").read_text().splitlines() == [
        "id,ap,ap50,flops,params,epochs,imgsz,score,hash,origin",
        "1,0.18754,0.0,200,11,2,64,0.1429,hash1,mutate 0",
        "0,0.3125,0.12346,600,10,8,128,0.0,hash0,sample",
        "2,0.5,0.75,1000,12,2,64,0.2857,hash2,mutate 1",
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


def test_without_a_result_no_file_is_written(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "run", run_settings().to_json()) as journal:
        write_results(tmp_path / "run", journal, lambda genotype, found: pytest.fail("nothing was measured"))
        assert summary(tmp_path / "run", journal)["best"] is None
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"journal.sqlite", "journal.lock"}


def test_the_summary_holds_every_trial_with_its_latest_state(journal: Journal) -> None:
    told = summary(Path("runs/a"), journal)
    columns = ("id", "hash", "rung", "state", "cause", "ap", "flops", "params", "seconds")
    assert [tuple(row[name] for name in columns) for row in told.pop("trials")] == [
        (0, "hash0", 2, "complete", None, 0.3125, 600, 10, 8.25),
        (1, "hash1", 1, "failed", "nan", 0.18754321, 200, 11, 3.0),
        (2, "hash2", 0, "complete", None, 0.5, 1000, 12, 1.25),
        (3, "hash3", 0, "complete", None, 0.4375, 1400, 13, 1.25),
        (4, "hash4", 0, "running", None, None, 1800, 14, 0.0),
        (5, "hash5", None, "queued", None, None, 2200, 15, 0.0),
    ]
    assert told == {
        "run": "runs/a",
        "state": "running",
        "budget": {"text": "12trials", "kind": "trials", "amount": 12, "elapsed_seconds": 12.3},
        "front": [1, 0, 2],
        "best": 0,
        "baselines": [],
    }
