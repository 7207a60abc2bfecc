"""`gpnas show` of a search that confirmed its leaders."""

from __future__ import annotations

from pathlib import Path

from gpnas.run.journal import Journal
from tests.cli.conftest import Gpnas
from tests.cli.untrained import trials
from tests.confirmed import write_confirmed


def test_a_confirmed_search_is_shown_with_its_ranks_its_tie_and_its_interval(gpnas: Gpnas, tmp_path: Path) -> None:
    """The figures of tests/confirmed.py; half of the interval is 2.015 x .0119 = .0240."""
    run = tmp_path / "run"
    write_confirmed(run).close()
    code, out, err = gpnas("show", run)
    assert code == 0, err
    assert "interrupted, 0:00 spent of 12trials, 6 of 6 candidates measured" in out
    assert [line for line in out.splitlines()[1:] if not line.startswith(("Pareto", "┏", "┃", "┡", "│", "└"))] == [
        "ranked: 3 trials confirmed by fresh seeds on rung 2 (28 epochs, 192 px); apart: 1 on rung 2, 1 on rung 1, 1 on rung 0",
        "trial 3 (AP 0.405 +- 0.007, 1.20K FLOPs) ties with trial 2 (AP 0.410 +- 0.010, 1.80K FLOPs): "
        "the difference is below its standard error of 0.012, so the cheaper one is taken",
        "found 0.405 +- 0.007 (trial 3, 1.20K FLOPs), gelan-t 0.370 +- 0.017 (2.00K FLOPs): +0.035, "
        "90 % interval +0.011 to +0.059; 2 and 3 fresh seeds on rung 2 (28 epochs, 192 px)",
        "found 0.110 (trial 3, 1.20K FLOPs); baseline yolov9-t 0.060 (2.00K FLOPs): +0.050, on rung 0 (7 epochs, 96 px), "
        "the highest that both completed; one training each",
    ]
    shown = trials(gpnas, run)
    assert (shown["best"], shown["front"], shown["standing"]["name"]) == (3, [3, 2], "confirmed")


def test_a_search_that_goes_on_is_not_called_too_short(gpnas: Gpnas, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with write_confirmed(run) as journal:
        rows, settings = journal.trials(), journal.settings
        first = journal.evaluations()[0]
    assert first.evaluation is not None
    for state, line in [("running", "nothing is confirmed with fresh seeds yet"), ("done", "nothing was confirmed with fresh")]:
        other = tmp_path / state
        with Journal.create(other, settings) as journal:
            journal.add_trial(rows[0])
            journal.start_evaluation(0, 0, first.fidelity)
            journal.finish_evaluation(0, 0, first.evaluation)
            if state == "done":
                journal.set_state("done")
            assert any(shown.startswith(line) for shown in gpnas("show", other)[1].splitlines())
