"""How likely a search of so many epochs beats GELAN-T by .02 AP, or loses to it by as much, on tables of simulated trainings.

    python benchmarks/winning.py [benchmarks/gp-bench] [--searches 300] [--like-cost 1.4] [--share 0.4]

Candidates are the detectors of GP-Bench (digits) that cost at most what GELAN-T at 58M FLOPs costs, and at least 1/1.4 of it.
They are few, so that halving has trained all of them after 250 epochs, and our controller all that it would promote sooner;
`--like-cost 8` gives 111.
Each search runs on a table of its own: a truth that agrees with what was measured, and fresh trainings from four seeds
(gpnas/bench/simulated_table.py). It spends its epochs and names one detector. That detector wins if its true AP is higher than
GELAN-T's by .02 or more. "Any candidate" is the share of the tables in which a candidate wins at all: no search can win more.

"Confirmed" means that a share of the epochs pays for fresh trainings in full of the best, as in a search. The mean over the
fresh seeds alone decides, because the first training of the best is too good by selection. "By all seeds" means that the first
training counts too. "+ GELAN-T" means that GELAN-T is among those that are trained afresh. Without it a search names a
candidate, whatever GELAN-T has. Our controller trains GELAN-T as a first trial, and may name it.

The truth of GELAN-T and of a few others rests on the trainings of `gp_bench.py compare` too. They have AP on test, not on val.
For four detectors of the catalogue, with one seed on val, the two differ by .003 in the mean.
"""

import argparse
import functools
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from evaluators.tabular import read_curves
from gpnas.bench.detector_benchmark import DetectorBenchmark, curves_by_seed
from gpnas.bench.detector_strategies import controlled
from gpnas.bench.simulated_table import Belief, believe, measured_noise
from gpnas.bench.strategies import Training, replay
from gpnas.cli.bench import read_detector_benchmark
from gpnas.search.confirm import CONFIRM_SHARE, SEEDS, choose
from gpnas.search.surrogate import Floats

GELAN_T, MARGIN = "95371070a2ff8ec0", 0.02
BUDGETS = (50, 100, 150, 250, 400, 800, 1600)
"""Epochs."""

COMPARED_SEEDS = (2, 3, 4, 5, 6)
"""Of `gp_bench.py compare`."""


@dataclass(frozen=True)
class Game:
    """One simulated table. Rows are the candidates and, last, GELAN-T. trace: what our controller trained on it."""

    truth: Floats  # (rows,), AP after full training
    curves: Floats  # (seeds, rows, epochs), AP after each epoch
    order: list[int]  # of the candidates, at random
    trace: list[Training]

    @property
    def baseline(self) -> int:
        return len(self.truth) - 1

    @property
    def epochs(self) -> int:
        """Of a full training."""
        return self.curves.shape[2]


Ranking = Callable[[Game, int], list[int]]
"""Spends so many epochs on trainings of seed 0 and ranks the rows, best first."""


def random_in_full(game: Game, budget: int) -> list[int]:
    """Candidates in random order, each in full, as many as the budget pays for."""
    rows = game.order[: max(1, budget // game.epochs)]
    return sorted(rows, key=lambda row: -game.curves[0, row, -1])


def rungs(budget: int, candidates: int, epochs: int) -> tuple[int, int, int]:
    """How many candidates successive halving trains for a quarter, half and all of the `epochs`: a third is promoted, or more
    where the budget pays for more than that with all candidates."""
    quarter, half = epochs // 4, epochs // 2
    for first in range(min(candidates, budget // quarter), 0, -1):
        for share in np.linspace(1, 1 / 3, 200):
            middle = round(share * first)
            top = round(share * middle)
            if quarter * (first + middle) + half * top <= budget:
                return first, middle, top
    return 1, 0, 0


def halving(game: Game, budget: int) -> list[int]:
    """Successive halving with rungs of a quarter, half and all epochs."""
    first, middle, top = rungs(budget, len(game.order), game.epochs)
    low, medium, high = (game.curves[0, :, epochs - 1] for epochs in (game.epochs // 4, game.epochs // 2, game.epochs))
    ranked = sorted(game.order[:first], key=lambda row: -low[row])
    ranked[:middle] = sorted(ranked[:middle], key=lambda row: -medium[row])
    ranked[:top] = sorted(ranked[:top], key=lambda row: -high[row])
    return ranked


def halving_by_seeds(game: Game, budget: int) -> list[int]:
    """The same, except that those that reach the last rung are not trained on: they are trained from a second seed for half of
    the epochs, which costs as much, and ranked by the mean of both."""
    first, middle, top = rungs(budget, len(game.order), game.epochs)
    low, medium = (game.curves[0, :, epochs - 1] for epochs in (game.epochs // 4, game.epochs // 2))
    both = game.curves[:2, :, game.epochs // 2 - 1].mean(axis=0)
    ranked = sorted(game.order[:first], key=lambda row: -low[row])
    ranked[:middle] = sorted(ranked[:middle], key=lambda row: -medium[row])
    ranked[:top] = sorted(ranked[:top], key=lambda row: -both[row])
    return ranked


def controller(game: Game, budget: int) -> list[int]:
    """Ours, by the highest rung of each row and then by its mean AP there."""
    seeds: dict[int, dict[int, set[int]]] = {}  # by row and epochs
    for training in game.trace:
        if training.spent <= budget:
            seeds.setdefault(training.row, {}).setdefault(training.epochs, set()).add(training.seed)

    def rank(row: int) -> tuple[int, float]:
        epochs = max(seeds[row])
        return -epochs, -float(game.curves[list(seeds[row][epochs]), row, epochs - 1].mean())

    return sorted(seeds, key=rank)


def spent(game: Game, budget: int) -> int:
    """Epochs that our controller spends of the budget."""
    return max((training.spent for training in game.trace if training.spent <= budget), default=0)


def named(game: Game, budget: int, ranking: Ranking) -> int:
    """The first of the ranking."""
    return ranking(game, budget)[0]


def confirmed(game: Game, budget: int, ranking: Ranking, with_baseline: bool, share: float, by_all: bool = False) -> int:
    """The best by fresh seeds among those that a search confirms in this `share` of its budget (gpnas/search/confirm.py).

    by_all: seed 0 counts as well. GELAN-T's is paid for. The first of the ranking had theirs, or nearly all of them with few
    epochs.
    """
    known = [game.baseline] if with_baseline else []
    extra = game.epochs if with_baseline and by_all else 0
    explored = int(budget * (1 - share))
    # Our controller may end early: it has trained all that it would train. The confirmation then gets what is left.
    left = budget - spent(game, explored) if ranking is controller else share * budget
    room = left - extra
    chosen = choose([*ranking(game, explored), *known], known, lambda row: float(game.epochs), room)
    if not chosen.trials:
        return ranking(game, budget)[0]
    cost = len(chosen.trials) * chosen.seeds * game.epochs + extra
    ranked = [row for row in ranking(game, budget - cost) if row not in known]
    rows = [*ranked[: len(chosen.trials) - len(known)], *known]
    fresh = game.curves[1 - by_all : 1 + chosen.seeds, rows, -1].mean(axis=0)
    return rows[int(fresh.argmax())]


def strategies(share: float) -> dict[str, Callable[[Game, int], int]]:
    """By name: spends so many epochs and names a row."""
    afresh = functools.partial(confirmed, share=share)
    return {
        "random in full": functools.partial(named, ranking=random_in_full),
        "halving": functools.partial(named, ranking=halving),
        "halving, second seed for the last rung": functools.partial(named, ranking=halving_by_seeds),
        "halving, confirmed": functools.partial(afresh, ranking=halving, with_baseline=False),
        "halving, confirmed + GELAN-T": functools.partial(afresh, ranking=halving, with_baseline=True),
        "halving, confirmed + GELAN-T, by all seeds": functools.partial(
            afresh, ranking=halving, with_baseline=True, by_all=True
        ),
        "halving, second seed, confirmed + GELAN-T": functools.partial(afresh, ranking=halving_by_seeds, with_baseline=True),
        "ours": functools.partial(named, ranking=controller),
        "ours, confirmed + GELAN-T": functools.partial(afresh, ranking=controller, with_baseline=True),
        "ours, confirmed + GELAN-T, by all seeds": functools.partial(
            afresh, ranking=controller, with_baseline=True, by_all=True
        ),
    }


def like_gelan_t(benchmark: DetectorBenchmark, like_cost: float) -> list[int]:
    """Rows of the drawn detectors that cost at most as much as GELAN-T and at least 1 / like_cost of it; GELAN-T last."""
    baseline = [candidate.hash for candidate in benchmark.candidates].index(GELAN_T)
    limit = benchmark.macs[baseline]
    fits = [limit / like_cost <= macs <= limit for macs in benchmark.macs]
    return [row for row, choices in enumerate(benchmark.choices) if fits[row] and choices] + [baseline]


@functools.cache
def read(path: Path) -> DetectorBenchmark:
    return read_detector_benchmark(path, "digits", catalogue=True)


@functools.cache
def belief_of(path: Path) -> Belief:
    """What all trainings of the benchmark's rows tell of their mean AP."""
    benchmark = read(path)
    seeds = [read_curves(path / "trainings.jsonl", "digits", seed) for seed in (0, 1)]
    seeds += [read_curves(path / "comparison.jsonl", "digits", seed) for seed in COMPARED_SEEDS]
    aps = [{name: curve.ap for name, curve in curves.items()} for curves in seeds]
    curves = curves_by_seed(aps, [candidate.hash for candidate in benchmark.candidates])
    known = np.log([[2 * macs, row["longest_shortest"]] for macs, row in zip(benchmark.macs, benchmark.features, strict=True)])
    return believe(curves, known, measured_noise(curves))


def play(path: Path, like_cost: float, seeds: int, seed: int) -> Game:
    """A simulated table, and what our controller trains on it until it has trained all."""
    benchmark, rng = read(path), np.random.default_rng(seed)
    rows = like_gelan_t(benchmark, like_cost)
    belief = belief_of(path)
    truth = belief.draw(rng)[rows]
    curves = belief.noise.trainings(truth, 1 + SEEDS, rng)
    order = rng.permutation(len(rows) - 1).tolist()
    simulated = replace(benchmark.subset(rows), curves=curves)
    known = [("gelan-t", simulated.candidates[-1])]
    search = controlled(simulated, seed, simulated.features, baselines=known, seeds=seeds, near_limits=True)
    return Game(truth[:, -1], curves, order, list(replay(search, curves, max(BUDGETS))))


def share(wins: Sequence[bool]) -> str:
    """The share of True and its 90 % interval (Wilson 1927)."""
    n, z = len(wins), 1.645
    mean = sum(wins) / n
    middle = (mean + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(mean * (1 - mean) / n + (z / 2 / n) ** 2) / (1 + z * z / n)
    return f"{mean:.2f} ({middle - half:.2f}-{middle + half:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, default=Path("benchmarks/gp-bench"))
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--like-cost", type=float, default=1.4, help="candidates cost at least the limit divided by this")
    parser.add_argument("--share", type=float, default=CONFIRM_SHARE, help="of the epochs, for the confirmation")
    parser.add_argument("--seeds", type=int, default=2, help="with which our controller may explore, 1 or 2")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        games = list(
            pool.map(
                functools.partial(play, arguments.path, arguments.like_cost, arguments.seeds),
                range(arguments.searches),
                chunksize=5,
            )
        )
    gains = np.array([game.truth[:-1].max() - game.truth[-1] for game in games])
    own = np.array([game.truth[-1] for game in games])
    console = Console(width=180)
    console.print(
        f"{len(games)} tables of {len(games[0].truth) - 1} candidates; GELAN-T's true AP {own.mean():.3f} +- {own.std():.3f}"
    )
    console.print(f"any candidate wins: {share((gains >= MARGIN).tolist())}; the best is ahead by {gains.mean():.3f} (mean)")
    ends = np.median([game.trace[-1].spent for game in games])
    console.print(f"our controller has trained all that it would train after {ends:.0f} epochs (median)")
    by_name = strategies(arguments.share)
    gaps = {  # true AP of the named row less GELAN-T's
        name: np.array([[game.truth[pick(game, budget)] - game.truth[-1] for budget in BUDGETS] for game in games])
        for name, pick in by_name.items()
    }
    tables: dict[str, Callable[[Floats], str]] = {
        f"wins by {MARGIN}": lambda gap: share((gap >= MARGIN).tolist()),
        f"loses by {MARGIN}": lambda gap: share((gap <= -MARGIN).tolist()),
        "mean true AP less GELAN-T's": lambda gap: f"{gap.mean():+.3f} +- {1.645 * gap.std() / len(gap) ** 0.5:.3f}",
    }
    for title, text in tables.items():
        table = Table(f"{title} (90 % interval)", *(f"{budget} epochs" for budget in BUDGETS), box=None)
        for name, columns in gaps.items():
            table.add_row(name, *(text(column) for column in columns.T))
        console.print(table)


if __name__ == "__main__":
    main()
