"""The surrogate and the strategies on tables whose truth is known by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from gpnas.bench.cell_strategies import STRATEGIES, Table, encodings, one_hot, random_search, regrets, skill
from gpnas.search.surrogate import fit, head_start, normal_scores, ranks


def made_table(noise: float = 0.0) -> Table:
    """Four choices of five values each; what is known before training is a bent sum of them, accuracy another one."""
    choices = list(itertools.product("01234", repeat=4))
    values = np.array([[float(v) for v in choice] for choice in choices])
    known = np.column_stack([values.sum(1) ** 2, values[:, 0] * values[:, 1], values[:, 2] - values[:, 3]])
    features = ranks(known)
    accuracy = 10 * features[:, 0] + 3 * np.sin(2 * features[:, 1]) + 2 * features[:, 2]
    accuracy += noise * np.random.default_rng(0).standard_normal(len(choices))
    return Table(choices, features, one_hot(choices), features[:, 0], accuracy)


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


def test_a_surrogate_of_noiseless_features_ranks_the_rest_and_knows_how_sure_it_is() -> None:
    table = made_table()
    found = skill(table.features, table.score, table, 50, draws=5)
    assert found.spearman > 0.97
    noisy = made_table(noise=4.0)
    told = skill(noisy.features, noisy.score, noisy, 80, draws=10)
    assert 0.7 < told.coverage < 0.92


def test_one_hot_and_counts_by_hand() -> None:
    assert one_hot([("a", "x"), ("b", "x"), ("a", "y")]).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    names = {name: features.shape[1] for name, (features, _) in encodings(made_table()).items()}
    assert names["one-hot encoding"] == 20 and names["operation counts"] == 5 and names["gradient paths"] == 3


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_repeatable_and_its_regret_never_rises(name: str) -> None:
    table = made_table()
    a, b = (regrets(STRATEGIES[name], table, 25, 2) for _ in range(2))
    assert np.array_equal(a, b) and a.shape == (2, 25)
    assert (np.diff(a, axis=1) <= 0).all() and (a >= 0).all()


def test_a_model_never_asks_twice_and_ends_with_the_table() -> None:
    whole = made_table()
    part = Table(whole.choices[:20], whole.features[:20], whole.encoding[:20], whole.score[:20], whole.accuracy[:20])
    search = STRATEGIES["ours"](part, np.random.default_rng(0))
    asked = [next(search)]
    for _ in range(19):
        asked.append(search.send(float(part.accuracy[asked[-1]])))
    assert sorted(asked) == list(range(20))
    with pytest.raises(StopIteration):
        search.send(0.0)


def test_ours_beats_random_where_features_tell_the_truth() -> None:
    table = made_table(noise=1.0)
    ours, chance = (regrets(STRATEGIES[name], table, 40, 6)[:, -1].mean() for name in ("ours", "random"))
    assert ours < 0.5 * chance


def test_random_search_finds_what_chance_finds() -> None:
    """Regret after n draws without replacement has a known mean: the sum over order statistics."""
    table = made_table()
    values = np.sort(table.accuracy)
    n, total = 10, len(values)
    weights = np.array([float(np.prod([(k - i) / (total - i) for i in range(n)])) for k in range(1, total + 1)])
    best = float(values @ np.diff(np.concatenate([[0.0], weights])))
    found = regrets(random_search, table, n, 2000)[:, -1]
    assert found.mean() == pytest.approx(values[-1] - best, abs=4 * found.std() / 2000**0.5)
