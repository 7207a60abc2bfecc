"""The journal of a search that confirmed three of its six trials, written by hand.

| trial | MACs | explored on rungs 0, 1, 2 | fresh seeds on rung 2 | |
|---|---|---|---|---|
| 0 | 1000 | .10 .20 .30 | .36 .39 .36 | gelan-t: mean .37, squares about it .0006 |
| 1 | 1001 | .06 | | yolov9-t |
| 2 | 900 | .12 .22 .44 | .40 .42 .41 | mean .41, the highest; squares .0002 |
| 3 | 600 | .11 .21 | .40, out of memory, .41 | mean .405; squares .00005 |
| 4 | 1100 | .13 .25 .90 | .20 | a lucky one, with one fresh seed alone |
| 5 | 100 | .09 .19 | | two fresh seeds ended on rung 1 |

The pooled variance is (.0006 + .0002 + .00005) / (2 + 2 + 1) = .00017. Trial 3 ties with trial 2: their means differ by .005,
and the standard error of the difference is the root of .00017 (1/2 + 1/3), .0119. It is cheaper, so it is the best.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gpnas.run.journal import CONFIRM, Journal, TrialRow
from gpnas.search.trial import FIRST_FRESH, Cause, Evaluation, Fidelity, Origin, TrialState, failure
from tests.settings import run_settings

RUNGS = Fidelity(7, 96), Fidelity(14, 128), Fidelity(28, 192)

ORIGINS = (
    *(Origin("baseline", name=name) for name in ("gelan-t", "yolov9-t")),
    *(Origin("mutate", (0,)), Origin("sample"), Origin("sample"), Origin("mutate", (2,))),
)
MACS = (1000, 1001, 900, 600, 1100, 100)
EXPLORED = ((0.1, 0.2, 0.3), (0.06,), (0.12, 0.22, 0.44), (0.11, 0.21), (0.13, 0.25, 0.9), (0.09, 0.19))
FRESH: dict[int, tuple[float | None, ...]] = {
    0: (0.36, 0.39, 0.36),
    2: (0.4, 0.42, 0.41),
    3: (0.4, None, 0.41),
    4: (0.2,),
}


def write_confirmed(run: Path) -> Journal:
    """The journal, open for writing. On rungs below the top, fresh seeds have an AP of .95: nothing may count it."""
    journal = Journal.create(run, run_settings(baselines={"gelan-t": "{}", "yolov9-t": "{}"}).to_json())
    journal.add_event(CONFIRM, {"trials": [2, 3, 0, 4, 5], "seeds": 3, "rungs": 3, "budget": 12, "late": []})
    for i, (origin, macs) in enumerate(zip(ORIGINS, MACS, strict=True)):
        journal.add_trial(TrialRow(i, f"hash{i}", f"width: {i}\n", origin, 0.5, 10 + i, macs))
    for i, explored in enumerate(EXPLORED):
        for rung, once in enumerate(explored):
            _evaluate(journal, i, rung, 0, once)
    for i, of_seeds in FRESH.items():
        for number, ap in enumerate(of_seeds):
            for rung in (0, 1):
                _evaluate(journal, i, rung, FIRST_FRESH + number, 0.95)
            _evaluate(journal, i, 2, FIRST_FRESH + number, ap)
    for number in (0, 1):
        for rung in (0, 1):
            _evaluate(journal, 5, rung, FIRST_FRESH + number, 0.95)
    return journal


def _evaluate(journal: Journal, trial_id: int, rung: int, seed: int, ap: float | None) -> None:
    journal.start_evaluation(trial_id, rung, replace(RUNGS[rung], seed=seed))
    done = Evaluation(TrialState.COMPLETE, {"ap": ap, "ap50": ap / 2}, 1.0, 1) if ap is not None else None
    journal.finish_evaluation(trial_id, rung, done or failure(Cause.OOM, "too large", 0.5), seed)
