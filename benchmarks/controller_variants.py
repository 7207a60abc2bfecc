"""What the controller could do differently: area and best AP that its variants reach on the first detectors of GP-Bench.

    python benchmarks/controller_variants.py [benchmarks/gp-bench] [digits|bccd] [SEARCHES] [FIRST]      # 48 searches on 100

It prints the tables of `gpnas bench front` with one row for each variant. A variant changes one thing of the controller; "score
first and as prior" changes two. Choices between variants were made on the first 100 detectors; search_strategies.py reports on
the others.
"""

import argparse
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from searches import curves_of, read_detectors

from gpnas.bench.detector_benchmark import DetectorBenchmark
from gpnas.bench.detector_strategies import (
    controlled,
    on_operation_counts,
    ours,
    random_search,
    share_curves,
    without_paths,
)
from gpnas.bench.strategies import Search, Strategy
from gpnas.paths.features import FEATURES
from gpnas.report.tables import shares_table
from gpnas.search.controller import Policy
from gpnas.search.gaussian_process import condition, most_likely
from gpnas.search.pool import Pick, Proposal
from gpnas.search.surrogate import BOUNDS, Floats, Surrogate, fit, ranks, start_kernel

EPOCHS = 400


def with_policy(policy: Policy) -> Strategy[DetectorBenchmark]:
    return lambda benchmark, seed: controlled(benchmark, seed, benchmark.features, policy=policy)


def with_encoding(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The controller on the features and the one-hot encoding of the choices."""
    yield from controlled(benchmark, seed, joined(benchmark.features, benchmark.encoding()))


def with_operation_counts(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The controller on the features and the operation counts."""
    yield from controlled(benchmark, seed, joined(benchmark.features, benchmark.operation_counts()))


def joined(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{**own, **other} for own, other in zip(first, second, strict=True)]


def largest(value: Callable[[Mapping[str, float]], float]) -> Pick:
    """Picks the proposal whose features have the largest value."""
    return lambda proposals, chosen, rng: max(proposals, key=lambda p: (value(p.features), p.hash))


def score(features: Mapping[str, float]) -> float:
    return features["score"]


def detector_score(features: Mapping[str, float]) -> float:
    return features["detector_score"]


def minus_longest_shortest(features: Mapping[str, float]) -> float:
    return -features["longest_shortest"]


def farthest(proposals: Sequence[Proposal], chosen: Sequence[Proposal], rng: random.Random) -> Proposal:
    """The proposal whose features, as ranks, are farthest from those of all that are chosen already."""
    rows = ranks(np.array([list(p.features.values()) for p in (*chosen, *proposals)]))
    before, own = rows[: len(chosen)], rows[len(chosen) :]
    gaps = [min((np.linalg.norm(row - other) for other in before), default=-np.abs(row).sum()) for row in own]
    return proposals[int(np.argmax(gaps))]


class WithoutPrior(Surrogate):
    """A surrogate that knows no prior."""

    def predict(self, features: Floats, prior: Floats) -> tuple[Floats, Floats]:
        return super().predict(features, np.zeros_like(prior))


def fit_without_prior(features: Floats, prior: Floats, scores: Floats, noise: Floats) -> Surrogate:
    fitted = fit(features, np.zeros_like(prior), scores, noise)
    return WithoutPrior(fitted.process, fitted.slope, fitted.best, fitted.trained)


class ScoreAsPrior(Surrogate):
    """A surrogate whose prior is the first feature, the score."""

    def predict(self, features: Floats, prior: Floats) -> tuple[Floats, Floats]:
        return super().predict(features, features[:, 0])


def fit_with_prior(features: Floats, prior: Floats, scores: Floats, noise: Floats) -> Surrogate:
    assert FEATURES[0] == "score"
    fitted = fit(features, features[:, 0], scores, noise)
    return ScoreAsPrior(fitted.process, fitted.slope, fitted.best, fitted.trained)


def fit_without_linear_kernel(features: Floats, prior: Floats, scores: Floats, noise: Floats) -> Surrogate:
    slope = fit(features, prior, scores, noise).slope
    residuals = scores - slope * prior
    kernel = most_likely(features, residuals, replace(start_kernel(features.shape[1]), linear=0.0), BOUNDS, noise)
    return Surrogate(condition(kernel, features, residuals, noise), slope, float(scores.max()), len(scores))


NEVER = 2**62

VARIANTS: dict[str, Strategy[DetectorBenchmark]] = {
    "as it is": ours,
    "all for the area": with_policy(Policy(best_turn=NEVER)),
    "all for the best AP": with_policy(Policy(best_turn=1)),
    "first by score": with_policy(Policy(pick=largest(score))),
    "first by detector score": with_policy(Policy(pick=largest(detector_score))),
    "first by shortest longest path": with_policy(Policy(pick=largest(minus_longest_shortest))),
    "first far apart": with_policy(Policy(pick=farthest)),
    "no prior": with_policy(Policy(fit=fit_without_prior)),
    "score as prior": with_policy(Policy(fit=fit_with_prior)),
    "score first and as prior": with_policy(Policy(pick=largest(score), fit=fit_with_prior)),
    "no linear kernel": with_policy(Policy(fit=fit_without_linear_kernel)),
    "features and encoding": with_encoding,
    "features and operation counts": with_operation_counts,
    "operation counts, same prior": on_operation_counts,
    "encoding alone": without_paths,
    "random": random_search,
}


def search_variant(path: Path, data: str, first: int, name: str, seed: int) -> np.ndarray:
    """One search, in a worker process."""
    benchmark = read_detectors(path, data)
    benchmark = benchmark.subset(range(min(first, len(benchmark.candidates))))
    return share_curves(VARIANTS[name], benchmark, EPOCHS, seed)


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
