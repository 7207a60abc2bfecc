"""How long a decision's surrogate takes after many trials, beside scikit-learn's Gaussian process with the same kernel.

    OMP_NUM_THREADS=1 python benchmarks/surrogate_speed.py [--trials 30 100 300 600] [--pool 10500] [--features 25]

A decision fits the kernel to the finished trials, believes in four trials that run, and predicts the pool. Values are a made-up
function of random features with noise. It prints processor seconds, and the largest difference of the two predictions.
"""

import argparse
import time
import warnings

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from gpnas.search.surrogate import BOUNDS, FEW, Floats, fit, normal_scores, ranks, start_kernel

RUNNING = 4
"""Trials that are being trained."""

REPEATS = 3
"""Runs of each decision; the table shows the median."""

SKLEARN_UP_TO = 1000
"""Trials above which scikit-learn is left out."""


def ours(trained: Floats, scores: Floats, running: Floats, pool: Floats) -> tuple[Floats, Floats]:
    model = fit(trained, np.zeros(len(trained)), scores).believing(running)
    mean, deviation = model.predict(pool, np.zeros(len(pool)))
    return mean, deviation / (1 + FEW / len(trained))


def scikit_learns(trained: Floats, scores: Floats, running: Floats, pool: Floats) -> tuple[Floats, Floats]:
    start = start_kernel(trained.shape[1])
    matern = ConstantKernel(start.matern, BOUNDS[0]) * Matern(start.length, BOUNDS[1], nu=2.5)
    linear = ConstantKernel(start.linear, BOUNDS[2]) * DotProduct(0, "fixed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(matern + linear + WhiteKernel(start.noise, BOUNDS[3])).fit(trained, scores)
    believing = GaussianProcessRegressor(process.kernel_, optimizer=None)
    believing.fit(np.vstack([trained, running]), np.concatenate([scores, process.predict(running)]))
    mean, deviation = believing.predict(pool, return_std=True)
    return mean, deviation


def timed(decide, *arguments: Floats) -> tuple[float, tuple[Floats, Floats]]:
    """Median processor seconds of REPEATS runs, and the predictions."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        predicted = decide(*arguments)
        seconds.append(time.process_time() - began)
    return float(np.median(seconds)), predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[30, 100, 300, 600])
    parser.add_argument("--pool", type=int, default=10_500, help="candidates to predict")
    parser.add_argument("--features", type=int, default=25)
    arguments = parser.parse_args()
    table = Table("trials", "seconds a decision", "scikit-learn's", "theirs / ours", "largest difference", box=None)
    for trials in arguments.trials:
        rng = np.random.default_rng(0)
        rows = ranks(rng.random((trials + RUNNING + arguments.pool, arguments.features)))
        values = rows[:trials, 0] + np.sin(2 * rows[:trials, 1]) + rng.normal(0, 0.5, trials)
        parts = rows[:trials], normal_scores(values), rows[trials : trials + RUNNING], rows[trials + RUNNING :]
        own, predicted = timed(ours, *parts)
        cells = ["-", "-", "-"]
        if trials <= SKLEARN_UP_TO:
            theirs, expected = timed(scikit_learns, *parts)
            difference = max(float(np.abs(a - b).max()) for a, b in zip(predicted, expected, strict=True))
            cells = [f"{theirs:.2f}", f"{theirs / own:.1f}", f"{difference:.0e}"]
        table.add_row(str(trials), f"{own:.3f}", *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
