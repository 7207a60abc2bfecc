"""Run many searches of several strategies in processes, for search_strategies.py and controller_variants.py.

`read_detectors` is `gpnas.cli.bench.read_detector_benchmark`, once in each process.
"""

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from gpnas.cli.bench import read_detector_benchmark

read_detectors = functools.cache(read_detector_benchmark)


def curves_of(names: Iterable[str], search: Callable[[str, int], np.ndarray], seeds: int) -> dict[str, np.ndarray]:
    """{name: array of search(name, seed) for the seeds 0, 1, ...}. `search` must be picklable."""
    curves = {}
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for name in names:
            began = time.monotonic()
            curves[name] = np.array(list(pool.map(functools.partial(search, name), range(seeds))))
            print(f"{name}: {seeds} searches in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return curves
