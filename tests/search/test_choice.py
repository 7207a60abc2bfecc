"""The choice of a new candidate, by a surrogate whose predictions are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpnas.graph.cost import Cost
from gpnas.search import choice
from gpnas.search.choice import Fit, most_promising
from gpnas.search.pool import Proposal
from gpnas.search.surrogate import Floats, Surrogate, normal_scores
from gpnas.search.trial import Origin, Trial
from tests.grid import grid_candidate

CANDIDATE = grid_candidate(4, 1)
LARGE = 1024  # MACs; sizes count from 128 up


def a_proposal(name: str, x: float, macs: int) -> Proposal:
    return Proposal("{}", name, Origin("sample"), Cost(1, macs, 1), {"x": x})


def a_trial(i: int, x: float, macs: int, origin: Origin | None = None) -> Trial:
    return Trial(i, CANDIDATE, origin or Origin("sample"), {"x": x}, Cost(1, macs, 1))


class Given(Surrogate):
    """Predicts the rank of the feature as the mean, with one deviation for all."""

    deviation = 0.5

    def predict(self, features: Floats, prior: Floats) -> tuple[Floats, Floats]:
        assert not prior.any()
        return features[:, 0], np.full(len(features), self.deviation)

    def believing(self, features: Floats) -> Surrogate:
        return self


class Fitted:
    """A `fit` that keeps what it is given."""

    def __init__(self) -> None:
        self.features: Any = None
        self.scores: Any = None
        self.noise: Any = None

    def __call__(self, features: Floats, prior: Floats, scores: Floats, relative_noise: Floats) -> Surrogate:
        self.features, self.scores, self.noise = features, scores.copy(), relative_noise
        return Given(None, 0.0, 0.0, len(scores))  # type: ignore[arg-type]


def chosen(
    proposals: Sequence[Proposal],
    *,
    trained: Sequence[tuple[Trial, float]] = ((a_trial(0, 0.0, 128), 0.1), (a_trial(1, 1.0, 512), 0.3)),
    running: Sequence[Trial] = (),
    for_best: bool = False,
    fit: Fit | None = None,
) -> str:
    noise = [0.5, *[1.0] * len(trained)][: len(trained)]
    fitted = fit or Fitted()
    return most_promising(proposals, trained, noise, running, large_macs=LARGE, for_best=for_best, fit=fitted).hash


def test_for_the_best_accuracy_the_highest_prediction_is_chosen_whatever_it_costs() -> None:
    proposals = [a_proposal("a", 3.0, 128), a_proposal("b", 5.0, 1024), a_proposal("c", 4.0, 128)]
    assert chosen(proposals, for_best=True) == "b"


def test_for_the_area_a_cheaper_one_of_equal_prediction_is_chosen() -> None:
    proposals = [a_proposal("a", 3.0, 512), a_proposal("b", 3.0, 256), a_proposal("c", 3.0, 1024)]
    assert chosen(proposals) == "b"


@pytest.mark.parametrize("for_best", [False, True])
def test_of_equal_gains_the_first_hash_is_chosen(for_best: bool) -> None:
    proposals = [a_proposal(name, 3.0, 256) for name in ("c", "a", "b")]
    assert chosen(proposals, for_best=for_best) == "a"


def test_sizes_below_an_eighth_of_the_large_macs_count_as_equal() -> None:
    assert chosen([a_proposal("a", 3.0, 128), a_proposal("b", 3.0, 2)]) == "a"
    assert chosen([a_proposal("a", 3.0, 129), a_proposal("b", 3.0, 2)]) == "b"


def test_the_largest_candidate_still_gains_area() -> None:
    """Beyond `large_macs` too: the area ends at twice the largest MACs."""
    proposals = [a_proposal("a", 0.0, 128), a_proposal("b", 9.0, 4096)]
    trained = [(a_trial(0, 8.0, 128), 0.9), (a_trial(1, 1.0, 512), 0.3)]
    assert chosen(proposals, trained=trained) == "b"


def test_a_running_trial_counts_with_the_accuracy_that_is_predicted_for_it() -> None:
    """Alone, "a" gains most: a high mean at the least cost. While a twin of it runs, "b" gains more, at a higher mean."""
    proposals = [a_proposal("a", 5.0, 128), a_proposal("b", 6.0, 512)]
    assert chosen(proposals) == "a"
    assert chosen(proposals, running=[a_trial(2, 5.0, 128)]) == "b"


def test_a_running_trial_is_believed() -> None:
    believed: list[Floats] = []

    class Believing(Given):
        def believing(self, features: Floats) -> Surrogate:
            believed.append(features)
            return Given(None, 0.0, 0.0, 2)  # type: ignore[arg-type]

    def fit(features: Floats, prior: Floats, scores: Floats, relative_noise: Floats) -> Surrogate:
        return Believing(None, 0.0, 0.0, 2)  # type: ignore[arg-type]

    chosen([a_proposal("a", 3.0, 128)], running=[a_trial(2, 7.0, 128)], fit=fit)
    assert [rows.shape for rows in believed] == [(1, 1)]
    # Ranks 1 to 4 of the features 0, 1, 3 and 7, over 5.
    assert believed[0][0, 0] == pytest.approx((4 / 5 - 0.5) * 12**0.5)


def test_the_surrogate_learns_ranks_and_normal_scores_of_the_trained() -> None:
    fit = Fitted()
    chosen([a_proposal("a", 0.5, 128), a_proposal("b", 9.0, 128)], fit=fit)
    assert fit.features[:, 0] == pytest.approx([(1 / 5 - 0.5) * 12**0.5, (3 / 5 - 0.5) * 12**0.5])
    assert fit.scores == pytest.approx(normal_scores(np.array([0.1, 0.3])))
    assert fit.noise.tolist() == [0.5, 1.0]


def test_the_head_start_is_taken_from_the_scores_of_the_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[list[bool], list[float]]] = []

    def head_start(features: Floats, warm: Any, scores: Floats) -> float:
        assert len(features) == 3
        given.append((warm.tolist(), scores.tolist()))
        return 0.75

    monkeypatch.setattr(choice, "head_start", head_start)
    trained = [
        (a_trial(0, 0.0, 128), 0.1),
        (a_trial(1, 1.0, 512), 0.3),
        (a_trial(2, 2.0, 256, Origin("mutate", (0,), 0)), 0.4),
    ]
    fit = Fitted()
    chosen([a_proposal("a", 0.5, 128)], trained=trained, fit=fit)
    scores = normal_scores(np.array([0.1, 0.3, 0.4]))
    assert given == [([False, False, True], scores.tolist())]
    assert fit.scores == pytest.approx(scores - [0, 0, 0.75])


def test_without_warm_trials_there_is_no_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "head_start", None)  # a call would fail
    assert chosen([a_proposal("a", 0.5, 128)]) == "a"


def test_gains_that_would_underflow_are_not_ties() -> None:
    """With a deviation of .001, all proposals are hundreds of deviations below the best: "c" has the highest mean, not "a"."""

    class Sure(Given):
        deviation = 0.001

    def fit(features: Floats, prior: Floats, scores: Floats, relative_noise: Floats) -> Surrogate:
        return Sure(None, 0.0, 0.0, 2)  # type: ignore[arg-type]

    proposals = [a_proposal("a", -3.0, 256), a_proposal("b", -2.0, 256), a_proposal("c", -1.0, 256)]
    assert chosen(proposals, fit=fit, for_best=True) == "c"
    assert chosen(proposals, fit=fit) == "c"


def test_the_detector_score_is_the_prior_where_candidates_have_one() -> None:
    """Ranks 1 to 3 of the scores 3, 5 and 9, over 4; the surrogate expects a slope of .9 for each unit of a prior, not .6."""
    given: list[Floats] = []

    class Recording(Given):
        def predict(self, features: Floats, prior: Floats) -> tuple[Floats, Floats]:
            given.append(prior)
            return features[:, 0], np.full(len(features), 0.5)

    def fit(features: Floats, prior: Floats, scores: Floats, relative_noise: Floats) -> Surrogate:
        given.append(prior)
        return Recording(None, 0.0, 0.0, 2)  # type: ignore[arg-type]

    def scored(thing: Any, score: float) -> Any:
        return replace(thing, features={"x": 0.0, "detector_score": score})

    trained = [(scored(a_trial(0, 0.0, 128), 5.0), 0.1), (scored(a_trial(1, 1.0, 512), 3.0), 0.3)]
    chosen([scored(a_proposal("a", 0.5, 128), 9.0)], trained=trained, fit=fit)
    unit = 12**0.5 * 0.6 / 0.9
    assert given[0] == pytest.approx([0.0, -unit / 4]) and given[1] == pytest.approx([unit / 4])
    given.clear()
    chosen([a_proposal("a", 0.5, 128)], fit=fit)
    assert [prior.tolist() for prior in given] == [[0.0, 0.0], [0.0]]
