"""The results of a run, from a journal written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpnas.run.journal import Journal, TrialRow
from gpnas.run.results import (
    TrialResult,
    all_results,
    best_of,
    best_yaml,
    comparisons,
    front_of,
    summary,
    trial_results,
    write_results,
)
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


def known_trial(i: int, origin: Origin) -> TrialRow:
    return TrialRow(i, f"hash{i}", f"width: {i}\n", origin, 0.5, 10 + i, 1000 + i)


@pytest.fixture
def compared(tmp_path: Path) -> Iterator[Journal]:
    """The start, trial 0, failed on rung 1; baselines 1 and 2 climbed to rungs 0 and 2; 3 failed; 4, the best, is on rung 2."""
    origins = [
        Origin("start"),
        *(Origin("baseline", name=name) for name in ("low", "high", "broken")),
        *(Origin("mutate", (2,)), Origin("sample")),
    ]
    aps = {0: (0.21, None), 1: (0.11,), 2: (0.12, 0.22, 0.32), 3: (None,), 4: (0.13, 0.235, 0.34567), 5: (0.4,)}
    with Journal.create(tmp_path / "run", run_settings().to_json()) as journal:
        for i, origin in enumerate(origins):
            journal.add_trial(known_trial(i, origin))
        for i, by_rung in aps.items():
            for rung, ap in enumerate(by_rung):
                journal.start_evaluation(i, rung, FIDELITIES[rung])
                journal.finish_evaluation(i, rung, failure(Cause.OOM, "large") if ap is None else complete(ap))
        yield journal


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
    assert summary(compared.run, compared)["baselines"] == [
        {"name": "start", "trial": 0, "ap": 0.21, "flops": 2000, "params": 10, "rung": 0},
        {"name": "low", "trial": 1, "ap": 0.11, "flops": 2002, "params": 11, "rung": 0},
        {"name": "high", "trial": 2, "ap": 0.32, "flops": 2004, "params": 12, "rung": 2},
        {"name": "broken", "trial": 3, "ap": None, "flops": 2006, "params": 13, "rung": None},
    ]


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
