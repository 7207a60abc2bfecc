"""What the controller could do differently: area and best AP that its variants reach on the first detectors of GP-Bench.

    python benchmarks/controller_variants.py [benchmarks/gp-bench] [digits|bccd] [SEARCHES] [FIRST]      # 48 searches on 100

It prints the tables of `gpnas bench front` with one row for each variant. A variant changes one thing of the controller;
"score first and as prior" changes two. Variants swap constants and functions of gpnas.search, in processes that run this
variant alone. Choices between variants were made on the first 100 detectors; search_strategies.py reports on the others.
"""

import argparse
import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from searches import curves_of, read_detectors
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from gpnas.bench import detector_strategies
from gpnas.bench.detector_benchmark import DetectorBenchmark
from gpnas.bench.detector_strategies import controlled, ours, share_curves
from gpnas.bench.strategies import Search, Strategy
from gpnas.paths.features import FEATURES
from gpnas.report.tables import shares_table
from gpnas.search import controller, surrogate
from gpnas.search.surrogate import Surrogate, ranks

EPOCHS = 400


def first_by(value: Callable[[Mapping[str, float]], float]) -> None:
    """The first candidate of each size is the one whose features have the largest value."""
    controller._one_of = lambda like, chosen, rng: max(like, key=lambda p: (value(p.features), p.hash))


def first_by_score() -> None:
    first_by(lambda features: features["score"])


def first_far_apart() -> None:
    """The first candidate of each size is the one whose features, as ranks, are farthest from those of all chosen before."""

    def farthest(like: Any, chosen: Any, rng: Any) -> Any:
        rows = ranks(np.array([list(p.features.values()) for p in (*chosen, *like)]))
        before, own = rows[: len(chosen)], rows[len(chosen) :]
        gaps = [min((np.linalg.norm(row - other) for other in before), default=-np.abs(row).sum()) for row in own]
        return like[int(np.argmax(gaps))]

    controller._one_of = farthest


def score_as_prior() -> None:
    """The surrogate's prior is the first feature, the score."""
    assert FEATURES[0] == "score"

    class WithPrior(Surrogate):
        def predict(self, features: Any, prior: Any) -> Any:
            return super().predict(features, features[:, 0])

    def fit(features: Any, prior: Any, scores: Any) -> Surrogate:
        fitted = original(features, features[:, 0], scores)
        return WithPrior(fitted.process, fitted.slope, fitted.best, fitted.trained)

    original, surrogate.fit = surrogate.fit, fit


def without_linear_kernel() -> None:
    def fit(features: Any, prior: Any, scores: Any) -> Surrogate:
        matern = ConstantKernel(0.3, (0.01, 10)) * Matern(float(np.sqrt(features.shape[1])), (0.5, 100), nu=2.5)
        process = GaussianProcessRegressor(matern + WhiteKernel(0.1, (1e-3, 1)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as surrogate.fit does
            process.fit(features, scores)
        return Surrogate(process, 0.0, float(scores.max()), len(scores))

    surrogate.fit = fit


def all_for_the_area() -> None:
    controller.BEST_TURN = 2**62  # no candidate is chosen for the best AP


def all_for_the_best() -> None:
    controller.BEST_TURN = 1


def with_encoding(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The controller on the features and the one-hot encoding of the choices."""
    both = [{**features, **choices} for features, choices in zip(benchmark.features, benchmark.encoding(), strict=True)]
    yield from controlled(benchmark, seed, both)


VARIANTS: dict[str, tuple[Callable[[], None], ...]] = {
    "as it is": (),
    "all for the area": (all_for_the_area,),
    "all for the best AP": (all_for_the_best,),
    "first by score": (first_by_score,),
    "first by shortest longest path": (functools.partial(first_by, lambda features: -features["longest_shortest"]),),
    "first far apart": (first_far_apart,),
    "score as prior": (score_as_prior,),
    "score first and as prior": (first_by_score, score_as_prior),
    "no linear kernel": (without_linear_kernel,),
    "features and encoding": (),
    "encoding alone": (),
    "random": (),
}
"""The changes that make each variant. Variants in STRATEGIES run a strategy of their own, the others run `ours`."""

STRATEGIES: dict[str, Strategy[DetectorBenchmark]] = {
    "features and encoding": with_encoding,
    "encoding alone": detector_strategies.without_paths,
    "random": detector_strategies.random_search,
}


@functools.cache
def apply(name: str) -> None:
    """Change gpnas.search in this process, once."""
    for change in VARIANTS[name]:
        change()


def search_variant(path: Path, data: str, first: int, name: str, seed: int) -> np.ndarray:
    """One search, in a process that runs this variant alone."""
    apply(name)
    benchmark = read_detectors(path, data)
    benchmark = benchmark.subset(range(min(first, len(benchmark.candidates))))
    return share_curves(STRATEGIES.get(name, ours), benchmark, EPOCHS, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=Path("benchmarks/gp-bench"))
    parser.add_argument("data", nargs="?", default="digits", help="digits or bccd")
    parser.add_argument("searches", nargs="?", type=int, default=48, help="searches of each variant")
    parser.add_argument("first", nargs="?", type=int, default=100, help="detectors to search among")
    arguments = parser.parse_args()
    search = functools.partial(search_variant, arguments.path, arguments.data, arguments.first)
    curves = curves_of(VARIANTS, search, arguments.searches)
    Console(width=140).print(shares_table(curves, f"the first {arguments.first} detectors, {arguments.data}"))


if __name__ == "__main__":
    main()
