"""Searches on YOLOBench under a limit on latency: the regret after so many trained detectors, device by device.

    python benchmarks/yolobench_searches.py ../shared/data/yolobench [--searches 50]      # goes on where it was stopped
    python benchmarks/yolobench_searches.py --show                                        # the tables again

A detector is a structure at an image size, and its training is one evaluation. The limit is the latency that LIMIT of all
detectors meet on the device. Each search sees a random part of the detectors within it (`detector_strategies.SUBSET`), the same
part for every strategy with the same seed. Regret is the best AP of that part less the best that the search has trained so far,
in AP points (AP times 100). Optuna and NNI are told AP; a choice that the table lacks, or that is trained already, becomes the
nearest detector that is left (search_strategies.NearestRow). gpnas cannot limit latency yet: here its controller has the
latency in place of the FLOPs, as the others have.
"""

import argparse
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from resumable import held
from rich.console import Console
from rich.table import Table
from search_strategies import SAMPLERS, NearestRow, detectors_by_nni, quiet, sampler_seed

from gpnas.bench.detector_benchmark import DetectorBenchmark
from gpnas.bench.detector_strategies import SUBSET, controlled, random_search
from gpnas.bench.strategies import Query, Search, Strategy, in_order, replay
from gpnas.bench.yolobench_table import DEVICES
from gpnas.cli.yolobench import MACS, detector_benchmark
from gpnas.files import append_line
from gpnas.search.limits import Limits
from gpnas.search.trial import DETECTOR_SCORE

HERE = Path(__file__).parent / "yolobench" / "searches.jsonl"
LIMIT = 0.5
AFTER = (10, 20, 40)
"""Trained detectors after which the regret is told."""

SIZES = ("parameters", "flops", MACS, "layers")


def under_limit(benchmark: DetectorBenchmark, seed: int, features: Callable[[dict[str, float]], dict[str, float]]) -> Search:
    """The controller under the limit on latency, which here are the benchmark's `macs`; it reads `features` of each row."""
    limits = Limits(max_flops=2 * max(benchmark.macs))
    described = [features({**row}) for row in benchmark.features]
    yield from controlled(benchmark, seed, described, near_limits=True, limits=limits)


def flops_as_prior(row: dict[str, float]) -> dict[str, float]:
    """The features with log FLOPs in place of the detector score."""
    return row | {DETECTOR_SCORE: math.log(2 * row[MACS])}


def sizes(row: dict[str, float]) -> dict[str, float]:
    """Log FLOPs as the prior, and no gradient paths."""
    return {DETECTOR_SCORE: math.log(2 * row[MACS])} | {name: row[name] for name in SIZES}


def ours(benchmark: DetectorBenchmark, seed: int) -> Search:
    yield from under_limit(benchmark, seed, lambda row: row)


def ours_with_flops(benchmark: DetectorBenchmark, seed: int) -> Search:
    yield from under_limit(benchmark, seed, flops_as_prior)


def ours_by_size(benchmark: DetectorBenchmark, seed: int) -> Search:
    yield from under_limit(benchmark, seed, sizes)


def ours_by_choices(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The one-hot encoding of series, depth, width and image size."""
    limits = Limits(max_flops=2 * max(benchmark.macs))
    yield from controlled(benchmark, seed, benchmark.encoding(), near_limits=True, limits=limits)


def tpe(benchmark: DetectorBenchmark, seed: int) -> Search:
    grid = NearestRow(benchmark)
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS["tpe"](sampler_seed(seed)))
    while grid.untrained.any():
        trial = study.ask()
        row = grid.take({label: trial.suggest_categorical(label, values) for label, values in grid.values.items()})
        study.tell(trial, (yield Query(row, benchmark.epochs)))


def slowest_first(benchmark: DetectorBenchmark, seed: int) -> Search:
    yield from in_order(np.argsort(-np.array(benchmark.macs), kind="stable"), benchmark.epochs)


def most_macs_first(benchmark: DetectorBenchmark, seed: int) -> Search:
    macs = np.array([row[MACS] for row in benchmark.features])
    yield from in_order(np.argsort(-macs, kind="stable"), benchmark.epochs)


MERGED = "ours, RepVGG merged"
"""The strategy whose features count a RepVGG unit as one layer (search_spaces.yolo_series)."""

STRATEGIES: dict[str, Strategy[DetectorBenchmark]] = {
    "random": random_search,
    "latency alone": slowest_first,
    "MACs alone": most_macs_first,
    "Optuna TPE": tpe,
    "NNI evolution": lambda benchmark, seed: detectors_by_nni(benchmark, sampler_seed(seed)),
    "ours": ours,
    "ours, FLOPs as prior": ours_with_flops,
    MERGED: ours,
    "ours, sizes alone": ours_by_size,
    "ours, one-hot encoding": ours_by_choices,
}


def within_limit(folder: Path, device: str, merged: bool) -> tuple[DetectorBenchmark, float]:
    """The detectors within the limit, with latencies in nanoseconds as their costs; the limit in milliseconds."""
    benchmark = detector_benchmark(folder, device, merged=merged)
    limit = float(np.quantile(benchmark.macs, LIMIT))
    return benchmark.subset([i for i, latency in enumerate(benchmark.macs) if latency <= limit]), limit / 1e6


def regrets(strategy: Strategy[DetectorBenchmark], benchmark: DetectorBenchmark, seed: int) -> list[float]:
    """In AP points, after each of AFTER."""
    count = len(benchmark.candidates)
    part = benchmark.subset(sorted(random.Random(f"part/{seed}").sample(range(count), round(SUBSET * count))))
    reached = [float(part.mean_ap[paid.row]) for paid in replay(strategy(part, seed), part.curves, max(AFTER))]
    return [round(100 * (float(part.mean_ap.max()) - max(reached[:n])), 4) for n in AFTER]


def run(folder: Path, out: Path, searches: int) -> None:
    quiet()
    done = {(row["device"], row["strategy"]) for row in held(out, ("device", "strategy", "regrets"))}
    for name, strategy in STRATEGIES.items():
        for device in DEVICES:
            if (device, name) not in done:
                benchmark, limit = within_limit(folder, device, name == MERGED)
                rows = [regrets(strategy, benchmark, seed) for seed in range(searches)]
                facts = {"device": device, "limit_ms": round(limit, 4), "detectors": len(benchmark.candidates)}
                append_line(out, {**facts, "strategy": name, "regrets": rows})
                print(device, name, np.mean(rows, axis=0).round(2), flush=True)


def show(out: Path) -> None:
    """Mean regret with half of its 95 % interval, for each device, and the mean over devices."""
    rows = held(out, ("device", "limit_ms", "detectors", "strategy", "regrets"))
    by_device = {device: {r["strategy"]: r for r in rows if r["device"] == device} for device in DEVICES}
    tables = {}
    for device, found in by_device.items():
        for row in found.values():
            title = f"{device}: {row['detectors']} detectors within {row['limit_ms']:.3g} ms"
            tables.setdefault(title, {})[row["strategy"]] = np.array(row["regrets"])
    complete = [name for name in STRATEGIES if all(name in found for found in tables.values())]
    # The mean over devices of each search: seeds share the random numbers, not the detectors.
    tables["mean of the devices"] = {name: np.mean([found[name] for found in tables.values()], axis=0) for name in complete}
    for title, found in tables.items():
        table = Table(title, *(f"after {n}" for n in AFTER), *(f"less ours, {n}" for n in AFTER), box=None)
        for name, values in found.items():
            less = values - found["ours"] if "ours" in found and name != "ours" else None
            table.add_row(name, *_with_intervals(values), *(_with_intervals(less, "+") if less is not None else ()))
        Console(width=160).print(table)


def _with_intervals(values: np.ndarray, sign: str = "") -> list[str]:
    """values: (searches, AFTER)."""
    half = 1.96 * values.std(axis=0, ddof=1) / len(values) ** 0.5
    return [f"{mean:{sign}.2f} +- {h:.2f}" for mean, h in zip(values.mean(axis=0), half, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="the table's CSV files")
    parser.add_argument("--searches", type=int, default=50, help="of each strategy on each device")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--show", action="store_true", help="print the tables of what --out holds")
    arguments = parser.parse_args()
    if arguments.folder is None and not arguments.show:
        parser.error("name the folder of the table, or give --show")
    if not arguments.show:
        run(arguments.folder, arguments.out, arguments.searches)
    show(arguments.out)


if __name__ == "__main__":
    main()
