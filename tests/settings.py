"""Settings of a run for tests: no default of a field is also the default of another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gpnas.run.settings import DataFacts, RunSettings
from gpnas.search.budget import Budget
from gpnas.search.ladder import Ladder
from gpnas.search.limits import Limits
from gpnas.search.trial import Fidelity

_SETTINGS = RunSettings(
    version="0.1.0",
    budget=Budget("trials", 12),
    budget_text="12trials",
    data=DataFacts("grid", "0123abcd", ("cat", "dog"), {"train": 10, "val": 5}, split="80/20", strict=True),
    space="gradient-path",
    start=None,
    start_source=None,
    baselines={},
    imgsz=32,
    levels="2-5",
    limits=Limits(4e9, 3e6),
    spread=False,
    ladder=Ladder((Fidelity(1, 32), Fidelity(3, 32), Fidelity(9, 64, 0.5)), wave=6, pending=2),
    seconds_per_flop=3e-10,
    seed=7,
    warm_start=True,
    device="cpu",
    slots=1,
    wandb="off",
    wandb_id="gpnas-1f",
    then_train=40,
)


def run_settings(**changes: Any) -> RunSettings:
    return replace(_SETTINGS, **changes)
