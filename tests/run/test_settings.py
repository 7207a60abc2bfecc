"""The settings of a run: the journal's JSON, in the form in which earlier versions wrote it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gpnas.errors import JournalError
from gpnas.run.settings import OLDER, RunSettings
from gpnas.search.limits import Limits
from tests.settings import run_settings

STORED: dict[str, Any] = {
    "version": "0.1.0",
    "budget": {"text": "12trials", "kind": "trials", "amount": 12},
    "data": "grid",
    "data_digest": "0123abcd",
    "names": ["cat", "dog"],
    "images": {"train": 10, "val": 5},
    "split": "80/20",
    "val": "",
    "strict": True,
    "space": "gradient-path",
    "start": None,
    "around": None,
    "baselines": {},
    "imgsz": 32,
    "levels": "2-5",
    "max_flops": 4e9,
    "max_params": 3e6,
    "spread": False,
    "ladder": {
        "fidelities": [
            {"epochs": 1, "imgsz": 32, "data_share": 1.0},
            {"epochs": 3, "imgsz": 32, "data_share": 1.0},
            {"epochs": 9, "imgsz": 64, "data_share": 0.5},
        ],
        "wave": 6,
        "pending": 2,
        "seeds": 1,
    },
    "seconds_per_flop": 3e-10,
    "seed": 7,
    "warm_start": True,
    "device": "cpu",
    "slots": 1,
    "wandb": "off",
    "wandb_id": "gpnas-1f",
    "then_train": 40,
}
"""The settings of `run_settings()` as a journal holds them. Version 0.1.0 wrote them without `levels`."""


def test_the_json_of_a_journal_is_that_of_earlier_versions() -> None:
    assert json.loads(json.dumps(run_settings().to_json())) == STORED
    assert list(run_settings().to_json()) == list(STORED)
    assert RunSettings.from_json(STORED) == run_settings()


def test_a_start_and_limits_may_be_absent_or_given() -> None:
    settings = run_settings(start='{"name": "x"}', start_source="yolov9-t", limits=Limits(None, 5.0), warm_start=False)
    stored = settings.to_json()
    assert (stored["start"], stored["around"], stored["max_flops"], stored["max_params"]) == (
        '{"name": "x"}',
        "yolov9-t",
        None,
        5.0,
    )
    assert RunSettings.from_json(stored) == settings


def test_baselines_are_kept_with_their_genotypes_in_their_order() -> None:
    settings = run_settings(baselines={"yolov9-t": '{"name": "y"}', "gelan-t": '{"name": "g"}'})
    stored = json.loads(json.dumps(settings.to_json()))
    assert stored["baselines"] == {"yolov9-t": '{"name": "y"}', "gelan-t": '{"name": "g"}'}
    assert list(RunSettings.from_json(stored).baselines) == ["yolov9-t", "gelan-t"]
    assert RunSettings.from_json(stored) == settings


def test_older_runs_still_open() -> None:
    stored = {key: value for key, value in STORED.items() if key not in OLDER}
    data = replace(run_settings().data, split="", val="", strict=False)
    assert RunSettings.from_json(stored) == run_settings(
        warm_start=False,
        data=data,
        levels="3-5",
        baselines={},
        spread=True,
        seconds_per_flop=1e-10,
        then_train=None,
    )


@pytest.mark.parametrize("key", sorted(STORED.keys() - OLDER.keys()))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(
        JournalError, match=f"the settings in the journal lack the key '{key}'; use the gpnas that made the run"
    ):
        RunSettings.from_json({k: v for k, v in STORED.items() if k != key})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"colour": "red", "age": 3}, r"have unknown keys \(age, colour\)"),
        ({"budget": {"text": "2h", "kind": "seconds"}}, "lack the key 'amount'"),
        (
            {"ladder": {"fidelities": [{"epochs": 0, "imgsz": 32}], "wave": 6, "pending": 2}},
            "hold a wrong value .epochs must be",
        ),
        ({"names": 3}, "hold a wrong value"),
        ({"baselines": 3}, "hold a wrong value"),
    ],
)
def test_unknown_keys_and_wrong_values_are_one_clear_error(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(JournalError, match=problem):
        RunSettings.from_json({**STORED, **changes})


def test_reading_leaves_the_stored_json_as_it_is() -> None:
    before = json.dumps(STORED)
    RunSettings.from_json(STORED)
    assert json.dumps(STORED) == before
