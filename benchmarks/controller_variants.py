"""What the controller might do otherwise, on the first detectors of GP-Bench: what is found of the area and of the best AP.

    python benchmarks/controller_variants.py [benchmarks/gp-bench] [digits|bccd] [SEARCHES] [FIRST]      # 48 searches on 100

Each variant changes one thing of the controller as it is, "score first and as prior" two. Choices are made on the first rows;
`search_strategies.py` reports on the others.
"""

import functools
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from gpnas.bench import detector_strategies as front_search
from gpnas.bench.detector_strategies import FrontTable, ours, share
from gpnas.cli.bench import detector_table
from gpnas.paths.features import FEATURES
from gpnas.report.tables import shares_table
from gpnas.search import controller, surrogate
from gpnas.search.surrogate import Surrogate, ranks

EPOCHS = 400
Search = Generator[tuple[int, int], float, None]
Features = Mapping[str, float]


def first_by(value: Callable[[Features], float]) -> None:
    """The first candidates: of each size the one with the largest value."""
    controller._one_of = lambda like, chosen, rng: max(like, key=lambda p: (value(p.features), p.hash))


def first_far_apart() -> None:
    """The first candidates: of each size the one that is farthest, in ranks of the figures, from all chosen before."""

    def far(like: Any, chosen: Any, rng: Any) -> Any:
        rows = ranks(np.array([list(p.features.values()) for p in (*chosen, *like)]))
        before, own = rows[: len(chosen)], rows[len(chosen) :]
        gaps = [min((np.linalg.norm(row - other) for other in before), default=-np.abs(row).sum()) for row in own]
        return like[int(np.argmax(gaps))]

    controller._one_of = far


def score_as_prior() -> None:
    class Told(Surrogate):
        def predict(self, features: Any, prior: Any) -> Any:
            return super().predict(features, features[:, 0])

    assert FEATURES[0] == "score"  # the column that is read here

    def fit(features: Any, prior: Any, scores: Any) -> Surrogate:
        found = as_it_is(features, features[:, 0], scores)
        return Told(found.process, found.slope, found.best, found.trained)

    as_it_is, surrogate.fit = surrogate.fit, fit


def curved_alone() -> None:
    def fit(features: Any, prior: Any, scores: Any) -> Surrogate:
        bent = ConstantKernel(0.3, (0.01, 10)) * Matern(float(np.sqrt(features.shape[1])), (0.5, 100), nu=2.5)
        process = GaussianProcessRegressor(bent + WhiteKernel(0.1, (1e-3, 1)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as surrogate.fit does
            process.fit(features, scores)
        return Surrogate(process, 0.0, float(scores.max()), len(scores))

    surrogate.fit = fit


def for_the_area() -> None:
    controller.BEST_TURN = 2**62  # never comes


def for_the_best() -> None:
    controller.BEST_TURN = 1


def with_encoding(table: FrontTable, seed: int) -> Search:
    both = [{**known, **of} for known, of in zip(table.features, table.encoding(), strict=True)]
    yield from front_search.controlled(table, seed, both)


def by_score() -> None:
    first_by(lambda known: known["score"])


VARIANTS: dict[str, tuple[Callable[[], None], ...]] = {
    "as it is": (),
    "all for the area": (for_the_area,),
    "all for the best AP": (for_the_best,),
    "first by score": (by_score,),
    "first by shortest longest path": (functools.partial(first_by, lambda known: -known["longest_shortest"]),),
    "first far apart": (first_far_apart,),
    "score as prior": (score_as_prior,),
    "score first and as prior": (by_score, score_as_prior),
    "surrogate curved alone": (curved_alone,),
    "figures and encoding": (),
    "encoding alone": (),
    "random": (),
}
STRATEGIES = {
    "figures and encoding": with_encoding,
    "encoding alone": front_search.without_paths,
    "random": front_search.random_search,
}


detectors = functools.cache(detector_table)


@functools.cache
def change(name: str) -> None:
    for part in VARIANTS[name]:
        part()


def one(path: Path, data: str, first: int, name: str, seed: int) -> np.ndarray:
    """One search, in a process that does this variant alone."""
    change(name)
    table = detectors(path, data)
    table = table.part(range(min(first, len(table.candidates))))
    return share(STRATEGIES.get(name, ours), table, EPOCHS, seed)


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/gp-bench")
    data = sys.argv[2] if len(sys.argv) > 2 else "digits"
    searches, first = (int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((3, 48), (4, 100)))
    curves = {}
    for name in VARIANTS:
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            curves[name] = np.array(list(pool.map(functools.partial(one, path, data, first, name), range(searches))))
        print(name, file=sys.stderr, flush=True)
    Console(width=140).print(shares_table(curves, f"the first {first} detectors, {data}"))


if __name__ == "__main__":
    main()
