"""A run as one JSON object, from journals written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gpnas.run.journal import Journal
from gpnas.run.summary import summary


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
        "standing": {"name": "rung 2", "trials": [0]},
        "front": [0],
        "best": 0,
        "baselines": [],
    }


def test_the_summary_tells_seeds_and_what_is_ranked(confirmed: Journal) -> None:
    told = summary(Path("runs/a"), confirmed)
    columns = ("id", "rung", "state", "ap", "ap_rung", "seeds", "confirmed")
    assert [tuple(row[name] for name in columns) for row in told["trials"]] == [
        (0, 2, "complete", pytest.approx(0.37), 2, 3, True),
        (1, 0, "complete", 0.06, 0, 1, False),
        (2, 2, "complete", pytest.approx(0.41), 2, 3, True),
        (3, 2, "complete", pytest.approx(0.405), 2, 2, True),  # it explored rungs 0 and 1; a fresh seed failed
        (4, 2, "complete", 0.9, 2, 1, False),
        (5, 1, "complete", 0.19, 1, 1, False),
    ]
    assert told["trials"][2]["deviation"] == pytest.approx(0.01) and told["trials"][4]["deviation"] is None
    # Trial 3 has two evaluations of the search and nine of fresh seeds, of which one failed after half a second.
    assert told["trials"][3]["seconds"] == 10.5
    assert told["standing"] == {"name": "confirmed", "trials": [0, 2, 3]}
    assert (told["front"], told["best"]) == ([3, 2], 3)
    gelan, yolo = told["baselines"]
    assert (gelan["ap"], gelan["seeds"], gelan["confirmed"]) == (pytest.approx(0.37), 3, True)
    assert gelan["deviation"] == pytest.approx(math.sqrt(0.0003)) and (yolo["seeds"], yolo["confirmed"]) == (1, False)
