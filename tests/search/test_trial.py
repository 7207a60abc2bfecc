"""Values of a search: what they refuse, and the text of origins."""

from __future__ import annotations

import math

import pytest

from gpnas.graph.cost import deployed_cost
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, Trial, TrialState, failure
from tests.grid import grid_candidate

TEXTS = {
    "sample": Origin("sample"),
    "smallest": Origin("smallest"),
    "mutate smallest": Origin("mutate smallest"),
    "start": Origin("start"),
    "baseline gelan-t": Origin("baseline", name="gelan-t"),
    "baseline 3": Origin("baseline", name="3"),
    "mutate 7": Origin("mutate", (7,)),
    "cross 3 15": Origin("cross", (3, 15)),
    "mutate 7 warm 3": Origin("mutate", (7,), 3),
    "cross 10 4 warm 0": Origin("cross", (10, 4), 0),
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_of_an_origin_can_be_parsed(text: str) -> None:
    assert str(TEXTS[text]) == text
    assert Origin.parse(text) == TEXTS[text]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "sampled",
            "Sample",
            " sample",
            "sample ",
            "mutate",
            "mutate 1 2",
            "cross 3",
            "cross 1 2 3",
            "mutate x",
            "mutate -1",
        ),
        *(
            "sample 3",
            "start warm 3",
            "mutate smallest warm 1",
            "mutate 7 warm",
            "mutate 7 warm 3 4",
            "mutate 7warm 3",
            "warm 3",
        ),
        *("mutate  7", "mutate 7 warm  3", "mutate 7\n"),
        *("baseline", "baseline ", "baseline gelan t", "baseline gelan-t warm 3", "baselines gelan-t", "baseline gelan-t\n"),
    ],
)
def test_other_text_is_no_origin_and_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="not an origin") as error:
        Origin.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "parents", "lender", "message"),
    [
        (
            "drawn",
            (),
            None,
            "must be one of sample, smallest, start, baseline, mutate smallest, mutate sample, mutate, cross, got 'drawn'",
        ),
        ("mutate", (), None, r"kind 'mutate' has 1 parents, got \(\)"),
        ("cross", (1, 2, 3), None, r"kind 'cross' has 2 parents, got \(1, 2, 3\)"),
        ("sample", (1,), None, r"kind 'sample' has 0 parents, got \(1,\)"),
        ("sample", (), 0, "only a child of trials has a lender, got kind 'sample' with lender 0"),
        ("baseline", (1,), None, r"kind 'baseline' has 0 parents, got \(1,\)"),
        ("baseline", (), 0, "only a child of trials has a lender, got kind 'baseline' with lender 0"),
        ("baseline", (), None, "a baseline has a name without spaces, got ''"),
    ],
)
def test_an_origin_has_the_parents_of_its_kind(kind: str, parents: tuple[int, ...], lender: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Origin(kind, parents, lender)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("start", "gelan-t", "only a baseline has a name, got kind 'start' with name 'gelan-t'"),
        ("baseline", "gelan t", "a baseline has a name without spaces, got 'gelan t'"),
        ("baseline", " ", "a baseline has a name without spaces, got ' '"),
    ],
)
def test_baselines_alone_have_names(kind: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Origin(kind, name=name)


def test_baselines_and_the_start_were_known_before_the_search() -> None:
    assert {kind for kind in TEXTS if Origin.parse(kind).is_known} == {"start", "baseline gelan-t", "baseline 3"}


def test_a_trial_has_the_lender_of_its_origin() -> None:
    candidate = grid_candidate(8, 2)
    cost = deployed_cost(candidate.graph, 32)
    assert Trial(9, candidate, Origin("mutate", (7,), 0), {}, cost).lender == 0
    assert Trial(9, candidate, Origin("mutate", (7,)), {}, cost).lender is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 64, 0.5), "epochs must be at least 1, got 0"),
        ((1, 16, 0.5), "imgsz must be a positive multiple of 32, got 16"),
        ((1, 0, 0.5), "multiple of 32, got 0"),
        ((1, -32, 0.5), "multiple of 32, got -32"),
        ((1, 72, 0.5), "multiple of 32, got 72"),
        ((1, 64, 0.0), r"data_share must lie in \(0, 1\], got 0.0"),
        ((1, 64, 1.25), r"data_share must lie in \(0, 1\], got 1.25"),
        ((1, 64, math.nan), r"data_share must lie in \(0, 1\], got nan"),
    ],
)
def test_a_fidelity_refuses_what_cannot_be_trained(values: tuple[int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fidelity(*values)


def test_a_fidelity_may_be_the_least_and_is_ordered_by_epochs_first() -> None:
    assert Fidelity(1, 32, 0.01) < Fidelity(1, 32) == Fidelity(1, 32, 1.0) < Fidelity(1, 64) < Fidelity(2, 32)


@pytest.mark.parametrize(
    ("state", "metrics", "cause", "message"),
    [
        (TrialState.COMPLETE, {"ap": math.nan}, None, "metrics must be finite, got {'ap': nan}"),
        (TrialState.COMPLETE, {"ap": 0.5, "ap50": math.inf}, None, "metrics must be finite, got {'ap50': inf}"),
        (TrialState.COMPLETE, {"ap50": 0.5}, None, "a complete evaluation needs the metric 'ap'"),
        (TrialState.RUNNING, {"ap": 0.5}, None, "its state cannot be running"),
        (TrialState.QUEUED, {}, None, "its state cannot be queued"),
        (TrialState.FAILED, {}, None, "failed evaluations have a cause, others have none; got failed with cause None"),
        (TrialState.PRUNED, {}, Cause.OOM, "got pruned with cause oom"),
    ],
)
def test_an_evaluation_refuses_a_wrong_state(
    state: TrialState, metrics: dict[str, float], cause: Cause | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(state, metrics, cause=cause)


def test_a_failure_has_a_cause_and_no_metrics() -> None:
    expected = Evaluation(TrialState.FAILED, {}, seconds=2.5, epochs=3, cause=Cause.OOM, message="too large")
    assert failure(Cause.OOM, "too large", 2.5, 3) == expected
    assert failure(Cause.NAN, "nan") == Evaluation(TrialState.FAILED, cause=Cause.NAN, message="nan")


def test_all_states_but_two_are_finished() -> None:
    assert [state.value for state in TrialState if state.is_finished] == ["complete", "pruned", "infeasible", "failed"]
