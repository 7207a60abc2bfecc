"""Gaussian-process regression with a Matern 5/2 and a linear kernel (Rasmussen and Williams 2006, "GPML").

    kernel = most_likely(features, values, start=Kernel(0.3, 5.0, 0.004, 0.1), bounds=bounds)
    mean, deviation = condition(kernel, features, values).predict(others)

Prediction and likelihood are Algorithm 2.1 of GPML, the gradient of the likelihood is its equation 5.9. A value may be noisier
than others: the variance of its noise is Kernel.noise times a given factor. With equal noise the numbers are those of
scikit-learn's GaussianProcessRegressor with the same kernel and start, without its cost of building kernels by name: a search
fits a small process hundreds of times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]

JITTER = 1e-10
"""Added to the diagonal of the covariance of the known values, for its Cholesky decomposition."""

BLOCK = 512
"""Candidates that are predicted together: their covariances with the known values stay in the processor's cache."""


@dataclass(frozen=True)
class Kernel:
    """Covariance of two values: matern * Matern(distance / length) + linear * (dot product of the features), and `noise` added
    to the variance of each value. matern, linear, noise: variances; a `linear` of 0 leaves the linear kernel out."""

    matern: float
    length: float
    linear: float
    noise: float

    def covariance(
        self,
        one: Floats,  # (n, features)
        other: Floats,  # (m, features)
    ) -> Floats:
        """(n, m), without noise. GPML equation 4.17 (nu = 5/2) and the dot product of its section 4.2.2."""
        r: Floats = cdist(one, other)
        r *= math.sqrt(5) / self.length
        decay = np.exp(-r)
        r *= 1 + r / 3
        r += 1
        r *= self.matern * decay
        r += self.linear * (one @ other.T)
        return r

    def variance(
        self,
        features: Floats,  # (n, features)
    ) -> Floats:
        """(n,), of each value, with noise."""
        squares: Floats = np.einsum("ij,ij->i", features, features)
        return self.matern + self.noise + self.linear * squares


Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""Least and largest value of each of a Kernel's parameters, in their order."""


@dataclass(frozen=True)
class Process:
    """A Gaussian process that knows some values. factor: Cholesky factor of their covariance. weights: covariance^-1 values."""

    kernel: Kernel
    features: Floats  # (n, features)
    values: Floats  # (n,)
    relative_noise: Floats  # (n,), noise variance of each value, in units of kernel.noise
    factor: Floats  # (n, n), lower triangular
    weights: Floats  # (n,)

    def mean(
        self,
        features: Floats,  # (m, features)
    ) -> Floats:
        """(m,): GPML equation 2.25."""
        return self.kernel.covariance(features, self.features) @ self.weights

    def predict(
        self,
        features: Floats,  # (m, features)
    ) -> tuple[Floats, Floats]:
        """(m,) and (m,): mean and standard deviation of noisy values. GPML Algorithm 2.1, lines 4 to 6."""
        starts = range(0, max(1, len(features)), BLOCK)
        means, variances = zip(*(self._mean_and_variance(features[i : i + BLOCK]) for i in starts), strict=True)
        return np.concatenate(means), np.sqrt(np.maximum(np.concatenate(variances), 0.0))

    def _mean_and_variance(
        self,
        features: Floats,  # (m, features)
    ) -> tuple[Floats, Floats]:
        covariance = self.kernel.covariance(features, self.features)  # (m, n)
        v = solve_triangular(self.factor, covariance.T, lower=True, check_finite=False)  # (n, m)
        return covariance @ self.weights, self.kernel.variance(features) - np.einsum("ij,ij->j", v, v)


def condition(
    kernel: Kernel,
    features: Floats,  # (n, features)
    values: Floats,  # (n,)
    relative_noise: Floats | None = None,  # (n,), noise variance of each value, in units of kernel.noise; None: 1
) -> Process:
    """The process with these known values. GPML Algorithm 2.1, lines 2 and 3. Raises ValueError for what is not finite."""
    _check_finite(features, values)
    noise = np.ones(len(values)) if relative_noise is None else relative_noise
    covariance = kernel.covariance(features, features)
    covariance.flat[:: len(values) + 1] += kernel.noise * noise + JITTER
    factor = _cholesky(covariance)
    return Process(kernel, features, values, noise, factor, dpotrs(factor, values, lower=1)[0])


def most_likely(
    features: Floats,  # (n, features)
    values: Floats,  # (n,)
    start: Kernel,
    bounds: Bounds,
    relative_noise: Floats | None = None,  # (n,), as for `condition`
) -> Kernel:
    """The kernel that maximises the likelihood of the values: L-BFGS-B over the logarithms of its parameters, from `start`.

    A linear kernel that `start` leaves out stays out. Raises ValueError for what is not finite.
    """
    _check_finite(features, values)
    first = np.array([start.matern, start.length, start.linear, start.noise])
    free = np.flatnonzero(first)
    likelihood = Likelihood(features, values, relative_noise)
    latest: dict[bytes, Floats] = {}  # the gradient where the loss was computed last: the optimiser asks for it next

    def loss(logarithms: Floats) -> float:
        parameters = np.zeros(4)
        parameters[free] = np.exp(logarithms)
        value, gradient = likelihood(*parameters.tolist())
        latest.clear()
        latest[logarithms.tobytes()] = -gradient[free]
        return -value

    def slope(logarithms: Floats) -> Floats:
        if logarithms.tobytes() not in latest:
            loss(logarithms)
        return latest[logarithms.tobytes()]

    best = minimize(loss, np.log(first[free]), jac=slope, method="L-BFGS-B", bounds=np.log(np.array(bounds)[free])).x
    first[free] = np.exp(best)
    return Kernel(*first.tolist())


class Likelihood:
    """The log marginal likelihood of given values, as a function of the parameters of a Kernel.

    It computes distances and dot products once, and reuses its memory: to allocate large arrays anew costs as much as to fill
    them.
    """

    def __init__(
        self,
        features: Floats,  # (n, features)
        values: Floats,  # (n,)
        relative_noise: Floats | None = None,  # (n,), as for `condition`
    ) -> None:
        self._values = values
        self._noise = np.ones(len(values)) if relative_noise is None else relative_noise
        self._distances = math.sqrt(5) * cdist(features, features)
        self._thirds = self._distances**2 / 3
        self._products = features @ features.T
        self._matern, self._slope, self._covariance, self._work = (np.empty_like(self._products) for _ in range(4))
        self._constant = len(values) / 2 * math.log(2 * math.pi)

    def __call__(self, matern: float, length: float, linear: float, noise: float) -> tuple[float, Floats]:
        """The likelihood and its gradient of shape (4,), by the logarithms of the parameters."""
        self._set_matern_and_slope(length)
        covariance = np.multiply(self._matern, matern, out=self._covariance)
        covariance += np.multiply(self._products, linear, out=self._work)
        covariance.ravel()[:: len(covariance) + 1] += noise * self._noise + JITTER

        factor = _cholesky(covariance)
        weights: Floats = dpotrs(factor, self._values, lower=1)[0]
        # GPML Algorithm 2.1, line 7
        log_likelihood = -float(self._values @ weights) / 2 - float(np.log(factor.diagonal()).sum()) - self._constant

        # GPML equation 5.9: half the trace of (weights weights^T - inverse) times each derivative of the covariance. One
        # triangle of the inverse is known and the other is zero. The derivatives are symmetric, so the triangle counts twice.
        inverse: Floats = dpotri(factor, lower=1, overwrite_c=1)[0].T
        diagonal = inverse.diagonal().copy()
        inner = np.multiply(weights[:, None], weights, out=self._work)
        inverse *= 2
        inner -= inverse
        inner.ravel()[:: len(inner) + 1] += diagonal
        gradient = (
            matern * float(np.vdot(inner, self._matern)) / 2,
            matern * float(np.vdot(inner, self._slope)) / 2,
            linear * float(np.vdot(inner, self._products)) / 2,
            noise * float(self._noise @ (weights**2 - diagonal)) / 2,
        )
        return log_likelihood, np.array(gradient)

    def _set_matern_and_slope(self, length: float) -> None:
        """The Matern 5/2 kernel (GPML equation 4.17) and its derivative by log length.

        With r = sqrt(5) distance / length they are (1 + r + r^2 / 3) exp(-r) and (1 + r) r^2 / 3 exp(-r).
        """
        minus_r = np.multiply(self._distances, -1 / length, out=self._work)
        third = np.multiply(self._thirds, 1 / length**2, out=self._matern)  # r^2 / 3
        one_and_r = np.subtract(1, minus_r, out=self._covariance)
        decay = np.exp(minus_r, out=self._work)
        np.multiply(third, one_and_r, out=self._slope)
        self._slope *= decay
        self._matern += one_and_r
        self._matern *= decay


def _check_finite(features: Floats, values: Floats) -> None:
    if not (np.isfinite(features).all() and np.isfinite(values).all()):
        raise ValueError("features and values of a Gaussian process must be finite; rank them first (surrogate.ranks)")


def _cholesky(matrix: Floats) -> Floats:
    """The lower Cholesky factor, with zeros above it, in the memory of the symmetric `matrix`."""
    factor, failed = dpotrf(matrix.T, lower=1, clean=1, overwrite_a=1)
    if failed:
        raise LinAlgError(f"the covariance is not positive definite at row {failed}; it needs more noise")
    return np.asarray(factor)
