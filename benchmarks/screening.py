"""Candidates screened a second on one core (propose and build, cost, gradient-path score), beside thop's count of the same.

    python benchmarks/screening.py

Prints medians over candidates and the ratio to thop.profile in the same run.
"""

import contextlib
import io
import random
import statistics
import time
from collections.abc import Callable

import thop
import torch

from gpnas.controller import inference_cost
from gpnas.network import Network
from gpnas.score import gradient_path_score
from gpnas.trial import Candidate
from search_spaces.space import open_space

CANDIDATES, COUNTED_BY_THOP, IMGSZ = 200, 10, 640


def median_seconds(work: Callable[[Candidate], object], candidates: list[Candidate]) -> float:
    seconds = []
    for candidate in candidates:
        began = time.perf_counter()
        work(candidate)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def count_by_thop(candidate: Candidate) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        thop.profile(Network(candidate.graph.inference()), (torch.zeros(1, 3, IMGSZ, IMGSZ),), verbose=False)


def main() -> None:
    torch.set_num_threads(1)
    space, rng = open_space("gradient-path", classes=80), random.Random(0)
    candidates = [space.propose([], rng) for _ in range(CANDIDATES)]
    by_thop = median_seconds(count_by_thop, candidates[:COUNTED_BY_THOP])
    rows = {
        "propose and build": median_seconds(lambda _: space.propose([], rng), candidates),
        "cost": median_seconds(lambda c: inference_cost(c, IMGSZ), candidates),
        "score": median_seconds(lambda c: gradient_path_score(c.graph), candidates),
        "thop.profile (network built)": by_thop,
    }
    print(f"{'median':30} {'ms':>8} {'a second':>9} {'thop / this':>12}")
    for name, seconds in rows.items():
        print(f"{name:30} {seconds * 1e3:8.2f} {1 / seconds:9.0f} {by_thop / seconds:12.1f}")


if __name__ == "__main__":
    main()
