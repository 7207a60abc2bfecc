"""The surrogate on values whose truth is known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from gpnas.search.surrogate import fit, head_start, normal_scores, ranks


def test_ranks_have_mean_0_and_variance_1_and_keep_ties_and_order() -> None:
    found = ranks(np.array([[1.0, 5.0], [2.0, 5.0], [-np.inf, 1.0], [1e9, 5.0]]))
    assert found[:, 0].argsort().tolist() == [2, 0, 1, 3]
    assert found[0, 1] == found[1, 1] == found[3, 1] > found[2, 1]
    column = ranks(np.random.default_rng(0).random((2000, 1)))
    assert column.mean() == pytest.approx(0, abs=1e-9) and column.var() == pytest.approx(1, abs=2e-3)


def test_normal_scores_by_hand() -> None:
    assert normal_scores(np.array([30.0, 10.0, 20.0])) == pytest.approx(norm.ppf([0.75, 0.25, 0.5]))


def test_a_surrogate_that_believes_is_surer_there_and_no_surer_far_away() -> None:
    features = np.linspace(-1.7, 1.7, 40)[:, None]
    none = np.zeros(40)
    model = fit(features[:8], none[:8], normal_scores(np.sin(3 * features[:8, 0])))
    believing = model.believing(features[30:31])
    (mean, before), (same, after) = (m.predict(features, none) for m in (model, believing))
    assert after[30] < 0.8 * before[30] and after[3] == pytest.approx(before[3], rel=0.05)
    assert same[30] == pytest.approx(mean[30], abs=0.05)


@pytest.mark.parametrize("truth", [lambda x: 0.5 * x[:, 0], lambda x: np.sin(1.5 * x[:, 0]) + np.sin(1.5 * x[:, 1])])
def test_the_head_start_of_the_warm_is_told_from_what_they_are_worth(truth) -> None:
    rng, found = np.random.default_rng(0), {0.0: [], 1.0: []}
    for _ in range(5):
        features = ranks(rng.random((40, 4)))
        warm = np.arange(40) >= 25
        features[warm, 0] += 0.5  # other candidates besides
        scores = truth(features) + rng.normal(0, 0.1, 40)
        for bonus, of in found.items():
            of.append(head_start(features, warm, scores + bonus * warm))
    for bonus, of in found.items():
        assert np.mean(of) == pytest.approx(bonus, abs=0.25)


def test_with_few_trials_the_prior_speaks_and_with_many_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    features = ranks(rng.random((300, 2)))
    prior, accuracy = features[:, 0], -features[:, 0]  # the prior is wrong
    few, many = (fit(features[:n], prior[:n], normal_scores(accuracy[:n])) for n in (2, 100))
    assert few.slope > 0 > many.slope
    mean, deviation = many.predict(features[100:], prior[100:])
    assert np.corrcoef(mean, accuracy[100:])[0, 1] > 0.95 and (deviation > 0).all()
    equal = fit(features[:3], prior[:3], normal_scores(np.ones(3)))  # nothing to tell apart is no error
    assert np.isfinite(equal.predict(features, prior)[0]).all()
