"""What the controller might do otherwise, on the first detectors of GP-Bench: the area found, and epochs to 95 % of it.

    python benchmarks/controller_variants.py [benchmarks/gp-bench] [digits|bccd] [SEARCHES] [FIRST]      # 48 searches on 100

Each variant changes one thing of the controller as it is, "score, as before" two. Choices are made on the first rows alone;
`search_strategies.py` reports on the others.
"""

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from gpnas import controller, front_search, surrogate
from gpnas.cli import detector_table
from gpnas.front_search import FrontTable, ours, share
from gpnas.surrogate import Surrogate, ranks
from gpnas.tables import shares_table

EPOCHS = 400
Search = Generator[tuple[int, int], float, None]
Features = Mapping[str, float]


def first_by(value: Callable[[Features], float]) -> None:
    """The first candidates: of each size the one with the largest value."""
    chosen_by_hash = controller._spread_by_size

    def spread(pool: Any, wanted: int, start: Any) -> Any:
        order = sorted(pool, key=lambda p: (-value(p.features), p.hash))
        renamed = {p.hash: f"{i:06}" for i, p in enumerate(order)}
        by_name = {renamed[p.hash]: p for p in pool}
        alike = [controller._Proposal(p.genotype, renamed[p.hash], p.origin, p.cost, p.features) for p in pool]
        return [by_name[p.hash] for p in chosen_by_hash(alike, wanted, start)]

    controller._spread_by_size = spread


def first_far_apart() -> None:
    """The first candidates: of each size the one that is farthest, in ranks of the figures, from all chosen before."""
    largest_of, like = controller._largest, controller.LIKE_SIZE

    def spread(pool: Any, wanted: int, start: Any) -> Any:
        rows = ranks(np.array([list(p.features.values()) for p in pool]))
        macs = np.array([p.cost.macs for p in pool])
        reach = min(controller.SIZE_RANGE, max(like, largest_of(pool) / macs.min()))
        chosen: list[int] = []
        for i in range(wanted):
            away = np.abs(np.log(macs / (largest_of(pool) / reach ** (i / max(1, wanted - 1)) / like**0.5)))
            away[chosen] = np.inf
            near = np.flatnonzero(away < np.log(like)) if (away < np.log(like)).any() else np.array([away.argmin()])
            gaps = [min((np.linalg.norm(rows[k] - rows[j]) for j in chosen), default=-np.abs(rows[k]).sum()) for k in near]
            chosen.append(int(near[int(np.argmax(gaps))]))
        return [pool[k] for k in chosen]

    controller._spread_by_size = spread


def score_as_prior() -> None:
    class Told(Surrogate):
        def predict(self, features: Any, prior: Any) -> Any:
            return super().predict(features, features[:, 0])

    def fit(features: Any, prior: Any, scores: Any) -> Surrogate:  # the score is the first of the figures
        found = as_it_is(features, features[:, 0], scores)
        return Told(found.process, found.slope, found.best, found.trained)

    as_it_is, surrogate.fit = surrogate.fit, fit


def curved_alone() -> None:
    def fit(features: Any, prior: Any, scores: Any) -> Surrogate:
        bent = ConstantKernel(0.3, (0.01, 10)) * Matern(float(np.sqrt(features.shape[1])), (0.5, 100), nu=2.5)
        process = GaussianProcessRegressor(bent + WhiteKernel(0.1, (1e-3, 1))).fit(features, scores)
        return Surrogate(process, 0.0, float(scores.max()), len(scores))

    surrogate.fit = fit


def with_encoding(table: FrontTable, seed: int) -> Search:
    values = sorted({(label, str(value)) for choices in table.choices for label, value in choices.items()})
    both = {
        candidate.hash: {**known, **{f"{label}={value}": float(str(of.get(label)) == value) for label, value in values}}
        for candidate, known, of in zip(table.candidates, table.features, table.choices, strict=True)
    }
    yield from front_search._controlled(table, seed, lambda candidate: both[candidate.hash], pending=0)


def by_score() -> None:
    first_by(lambda known: known["score"])


VARIANTS: dict[str, tuple[Callable[[], None], ...]] = {
    "as it is": (),
    "first by score": (by_score,),
    "first by shortest longest path": (functools.partial(first_by, lambda known: -known["longest_shortest"]),),
    "first far apart": (first_far_apart,),
    "score as prior": (score_as_prior,),
    "score, as before": (by_score, score_as_prior),
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


@functools.cache
def change(name: str) -> None:
    for part in VARIANTS[name]:
        part()


def one(path: Path, data: str, first: int, name: str, seed: int) -> np.ndarray:
    """One search, in a process that does this variant alone."""
    change(name)
    table = detector_table(path, data)
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
