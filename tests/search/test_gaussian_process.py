"""The Gaussian process against scikit-learn's with the same kernel, and a process of one value worked out by hand."""

from __future__ import annotations

import math
import warnings
from dataclasses import astuple, replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from gpnas.search.gaussian_process import JITTER, Floats, Kernel, Likelihood, condition, most_likely
from gpnas.search.surrogate import BOUNDS, start_kernel

RNG = np.random.default_rng(0)
WAVES = RNG.uniform(-1.7, 1.7, (40, 5))
LINES = RNG.uniform(-1.7, 1.7, (23, 30))

CASES: dict[str, tuple[Floats, Floats]] = {
    "waves": (WAVES, np.sin(2 * WAVES[:, 0]) + WAVES[:, 1] * WAVES[:, 2] + RNG.normal(0, 0.2, 40)),
    "lines": (LINES, LINES[:, 3] - 0.5 * LINES[:, 7] + RNG.normal(0, 0.3, 23)),
    "noise": (RNG.uniform(-1.7, 1.7, (31, 2)), RNG.normal(0, 1, 31)),
    "one point": (np.array([[0.3, -1.2]]), np.array([0.7])),
    "two points": (np.array([[0.3, -1.2], [0.1, 0.4]]), np.array([0.7, -0.7])),
    "duplicated rows": (np.repeat(WAVES[:9], 3, axis=0), RNG.normal(0, 1, 27)),
    "constant targets": (WAVES[:17], np.zeros(17)),
    "constant features": (np.full((12, 4), 0.25), RNG.normal(0, 1, 12)),
}
CASE = pytest.mark.parametrize("case", CASES)


def sklearn_kernel(kernel: Kernel) -> object:
    matern = ConstantKernel(kernel.matern, BOUNDS[0]) * Matern(kernel.length, BOUNDS[1], nu=2.5)
    noise = WhiteKernel(kernel.noise, BOUNDS[3])
    if not kernel.linear:
        return matern + noise
    return matern + ConstantKernel(kernel.linear, BOUNDS[2]) * DotProduct(0, "fixed") + noise


def sklearn_process(kernel: Kernel, features: Floats, values: Floats, **options: object) -> GaussianProcessRegressor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(sklearn_kernel(kernel), alpha=JITTER, **options).fit(features, values)


@CASE
@pytest.mark.parametrize("parameters", [(0.3, 2.0, 0.05, 0.1), (7.0, 0.5, 9.0, 0.001), (0.01, 90.0, 0.0001, 1.0)])
def test_likelihood_and_gradient_are_those_of_scikit_learn(case: str, parameters: tuple[float, ...]) -> None:
    features, values = CASES[case]
    process = sklearn_process(Kernel(*parameters), features, values, optimizer=None)
    expected, gradient = process.log_marginal_likelihood(np.log(parameters), eval_gradient=True)
    likelihood = Likelihood(features, values)
    for _ in range(2):  # it reuses its memory
        own, own_gradient = likelihood(*parameters)
        assert own == pytest.approx(expected, rel=1e-9)
        assert own_gradient == pytest.approx(gradient, rel=1e-6, abs=1e-6)


@CASE
@pytest.mark.parametrize("linear", [True, False])
def test_the_likeliest_kernel_and_its_predictions_are_those_of_scikit_learn(case: str, linear: bool) -> None:
    features, values = CASES[case]
    start = start_kernel(features.shape[1])
    start = start if linear else replace(start, linear=0.0)
    theirs = sklearn_process(start, features, values)
    kernel = most_likely(features, values, start, BOUNDS)
    free = [parameter for parameter in astuple(kernel) if parameter]
    assert len(free) == (4 if linear else 3)
    assert np.log(free) == pytest.approx(theirs.kernel_.theta, abs=1e-6)
    others = np.vstack([features[:3], RNG.uniform(-3, 3, (50, features.shape[1]))])
    process = condition(kernel, features, values)
    expected, spread = theirs.predict(others, return_std=True)
    mean, deviation = process.predict(others)
    assert mean == pytest.approx(expected, abs=1e-6) and deviation == pytest.approx(spread, abs=1e-6)
    assert process.mean(others) == pytest.approx(mean, abs=1e-12)


def test_a_process_of_one_value_by_hand() -> None:
    """The value 4 at -1 is known; its variance is 2 + .5 * 1 + .1. The values at 3 and 1 have 2 + .5 * 9 + .1 and 2.6.

    They lie at distances 4 and 2, with dot products -3 and -1. At distance d and length 1 the Matern kernel is
    (1 + d sqrt(5) + 5 d^2 / 3) exp(-d sqrt(5)).
    """
    kernel = Kernel(matern=2.0, length=1.0, linear=0.5, noise=0.1)
    mean, deviation = condition(kernel, np.array([[-1.0]]), np.array([4.0])).predict(np.array([[3.0], [1.0]]))
    m = (1 + 2 * math.sqrt(5) + 20 / 3) * math.exp(-2 * math.sqrt(5))
    assert mean[1] == pytest.approx((2 * m - 0.5) / 2.6 * 4)
    far = (1 + 4 * math.sqrt(5) + 80 / 3) * math.exp(-4 * math.sqrt(5))
    assert mean[0] == pytest.approx((2 * far - 1.5) / 2.6 * 4)
    assert deviation == pytest.approx([(6.6 - (2 * far - 1.5) ** 2 / 2.6) ** 0.5, (2.6 - (2 * m - 0.5) ** 2 / 2.6) ** 0.5])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["features", "values"])
def test_what_is_not_finite_is_refused(bad: float, where: str) -> None:
    features, values = np.zeros((3, 2)), np.zeros(3)
    (features if where == "features" else values).flat[2] = bad
    with pytest.raises(ValueError, match="must be finite"):
        condition(start_kernel(2), features, values)
    with pytest.raises(ValueError, match="must be finite"):
        most_likely(features, values, start_kernel(2), BOUNDS)


def test_the_mean_of_two_values_with_half_the_noise_says_what_both_say() -> None:
    """Observing 0.4 and 1.0 at one place is the same as observing 0.7 there with half of the noise."""
    kernel = Kernel(matern=0.8, length=1.5, linear=0.2, noise=0.3)
    places = np.array([[0.2, -1.0], [1.1, 0.3], [-0.7, 0.9]])
    both = condition(kernel, places[[0, 0, 1, 2]], np.array([0.4, 1.0, -0.5, 0.1]))
    mean = condition(kernel, places, np.array([0.7, -0.5, 0.1]), np.array([0.5, 1.0, 1.0]))
    others = RNG.uniform(-2, 2, (20, 2))
    for one, other in zip(both.predict(others), mean.predict(others), strict=True):
        assert one == pytest.approx(other, abs=1e-8)
    alike = condition(kernel, places, np.array([0.7, -0.5, 0.1])).predict(others)
    assert np.abs(alike[0] - mean.predict(others)[0]).max() > 0.01


def test_the_gradient_with_unequal_noise_is_that_of_small_steps() -> None:
    features, values = CASES["waves"]
    relative = np.where(np.arange(40) % 3 == 0, 0.5, 2.0)
    likelihood = Likelihood(features, values, relative)
    logs = np.log([0.7, 1.3, 0.05, 0.2])
    _, gradient = likelihood(*np.exp(logs))
    for k in range(4):
        step = np.zeros(4)
        step[k] = 1e-5
        above, below = (likelihood(*np.exp(logs + sign * step))[0] for sign in (1, -1))
        assert gradient[k] == pytest.approx((above - below) / 2e-5, rel=1e-4)


def test_the_likeliest_kernel_learns_whose_noise_is_large() -> None:
    """Values at odd places have 25 times the noise variance. A process that knows it predicts the truth better."""
    x = np.linspace(-1.7, 1.7, 60)[:, None]
    relative = np.where(np.arange(60) % 2, 1.0, 0.04)
    values = np.sin(2 * x[:, 0]) + np.random.default_rng(5).normal(0, 0.8 * np.sqrt(relative))
    others = np.linspace(-1.6, 1.6, 33)[:, None]

    def error(noise: Floats | None) -> float:
        kernel = most_likely(x, values, start_kernel(1), BOUNDS, noise)
        return float(np.sqrt(np.mean((condition(kernel, x, values, noise).mean(others) - np.sin(2 * others[:, 0])) ** 2)))

    assert error(relative) < 0.7 * error(None)
