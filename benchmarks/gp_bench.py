"""GP-Bench: detectors of the whole space, spread over cost, each trained by one recipe. Its files are in benchmarks/gp-bench.

    python benchmarks/gp_bench.py show                                        # noise, and correlations with AP
    python benchmarks/gp_bench.py build [--bccd ../shared/data/bccd] [--workers 2] [--device auto]
    python benchmarks/gp_bench.py compare [--found best.yaml] [--workers 2]   # our detectors, GELAN-T and YOLOv9-T on test
    python benchmarks/gp_bench.py longer [--workers 2]                        # the order of short and of longer trainings
    python benchmarks/gp_bench.py rivals [--found best.yaml] [--workers 2]    # GELAN-T, YOLOv9-T and the best after 40 epochs

`build` draws ten detectors for each of 20 spans of FLOPs from a seed, half of them from the whole space and half from its
parts; GELAN-T and YOLOv9-T at three costs are added. It trains all on digit scenes, then some on blood cells, then some with
a second seed. All commands but `show` can be stopped: what the files hold is not done again.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from gp_bench_detectors import CLASSES, SPACES, detectors, read_detector
from gp_bench_trainings import Training, final_ap, score, train, train_for_test, train_on_digits, training
from intervals import difference, mean_text
from resumable import finished, held
from scipy import stats

from evaluators.tabular import read_curves
from evaluators.zero_cost import COMPARATORS
from gpnas.bench.detector_strategies import ours
from gpnas.bench.strategies import replay
from gpnas.cli.bench import read_detector_benchmark
from gpnas.files import append_line, read_lines, write_lines
from gpnas.paths.features import FEATURES
from gpnas.paths.score import detector_score
from gpnas.search.surrogate import normal_scores

HERE = Path(__file__).parent / "gp-bench"
DETECTORS, TRAININGS, SCORES = "detectors.jsonl", "trainings.jsonl", "zero_cost.jsonl"
COMPARISON, LONGER, RIVALS = "comparison.jsonl", "longer.jsonl", "rivals.jsonl"

EPOCHS = {"digits": 8, "bccd": 18}
"""About as many images are seen on either data set, which have 480 and 205 train images."""

BLOOD_CELLS, SECOND_SEEDS = 60, 206
"""Detectors, counted from the first, that are trained on blood cells, and on digits with a second seed."""

SEARCH_EPOCHS, FRESH_SEEDS, COMPARED_FLOPS = 100, (2, 3, 4, 5, 6), (60e6, 30e6)
"""Of `compare`: the epochs of its search, the seeds of its trainings, and the limits to which its GELAN-T and YOLOv9-T were
narrowed. The search's limit is the cost of the first GELAN-T."""

LONGER_EPOCHS = 40
"""Of `longer` and `rivals`, on digits: five times those of the table."""

RIVALS_TOP, RIVALS_LIKE, RIVALS_SEEDS = 5, 1.4, (7, 8)
"""Of `rivals`: how many of the best detectors it trains, by which factor they may cost less than GELAN-T, and its seeds."""

LIKE = 20
"""Detectors of neighbouring FLOPs that are compared with each other. The largest has about 1.25 times the smallest one's."""

RANKED = ("score", *COMPARATORS, *(name for name in FEATURES if name != "score"), "fused flops")
"""Predictors that are compared with AP."""


def build(out: Path, specs: dict[str, str], workers: int, device: str) -> None:
    """Make detectors.jsonl, zero_cost.jsonl and trainings.jsonl, or go on. specs: where the data are, by name."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / DETECTORS).exists():
        write_lines(out / DETECTORS, list(detectors()))
    rows = read_lines(out / DETECTORS, ("hash", "genotype"))
    done = {(row["hash"], row["data"], row["seed"]) for row in held(out / TRAININGS, ("hash", "data", "seed"))}
    asked = (task for task in tasks(rows) if task.data in specs)
    left = [(task, specs[task.data], device) for task in asked if (task.hash, task.data, task.seed) not in done]
    scored = {row["hash"] for row in held(out / SCORES, ("hash",))}
    unscored = [(training(row, "digits", 0, 0), specs["digits"], device) for row in rows if row["hash"] not in scored]
    trainings = f"{len(done)} trainings are done, {len(left)} are left"
    print(f"{len(rows)} detectors; {trainings}; {len(unscored)} are to be scored", flush=True)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _, row in finished(pool, score, unscored):
            append_line(out / SCORES, row)
        for progress, row in finished(pool, train, left):
            append_line(out / TRAININGS, row)
            reached = f"AP {final_ap(row):.3f} in {row['seconds']:.0f} s"
            print(f"{progress} {row['hash']} {row['data']} seed {row['seed']}: {reached}", flush=True)


def tasks(rows: list[dict[str, Any]]) -> Iterator[Training]:
    """Every training of the benchmark; those that are worth most come first."""
    for data, seed, count in (("digits", 0, len(rows)), ("bccd", 0, BLOOD_CELLS), ("digits", 1, SECOND_SEEDS)):
        for row in rows[:count]:
            yield training(row, data, seed, EPOCHS[data])


def show(out: Path) -> None:
    """Print the noise between seeds, how early ranks settle, and Kendall (tau-b) of every predictor with AP."""
    rows = {row["hash"]: row for row in read_lines(out / DETECTORS, ("hash", "origin", "cost", "features"))}
    scores = {row["hash"]: row for row in read_lines(out / SCORES, ("hash", *COMPARATORS))}
    trainings = read_lines(out / TRAININGS, ("hash", "data", "seed", "ap", "cpu_seconds"))
    diverged = [row["hash"] for row in trainings if "cause" in row]
    print(f"{len(rows)} detectors, {len(trainings)} trainings, {len(diverged)} diverged {diverged or ''}")
    curves = {(row["hash"], row["data"], row["seed"]): row["ap"] for row in trainings if "cause" not in row}
    seconds = [row["cpu_seconds"] for row in trainings]
    print(f"{sum(seconds) / 60:.0f} processor minutes, median {statistics.median(seconds):.0f} s a training")
    show_noise(curves)
    for data in CLASSES:
        drawn = [name for name in rows if (name, data, 0) in curves and rows[name]["origin"] in SPACES]
        if len(drawn) >= 2 * LIKE:
            seeds = [[curves[name, data, seed] for seed in (0, 1) if (name, data, seed) in curves] for name in drawn]
            show_predictors(data, seeds, [rows[name] for name in drawn], scores)


def show_noise(curves: dict[tuple[str, str, int], list[float]]) -> None:
    """curves: AP after each epoch, by hash, data and seed."""
    twice = [(name, data) for name, data, seed in curves if seed == 1 and (name, data, 0) in curves]
    pairs = [(curves[name, data, 0][-1], curves[name, data, 1][-1]) for name, data in twice]
    if len(pairs) > 2:
        first, second = np.array(pairs).T
        deviation = float(np.sqrt(np.mean((first - second) ** 2) / 2))
        rank = stats.spearmanr(first, second).statistic
        print(f"{len(pairs)} with two seeds: deviation {deviation:.4f} AP, Spearman of the two {rank:.3f}")
        quarter = np.argsort(np.argsort(first + second)) * 4 // len(first)
        for name, one, other in (("AP", first, second), ("normal scores of AP", normal_scores(first), normal_scores(second))):
            parts = [np.sqrt(np.mean((one - other)[quarter == k] ** 2) / 2) for k in range(4)]
            print(f"  deviation by quarters of AP, lowest first, in {name}: {', '.join(f'{part:.3f}' for part in parts)}")


def show_predictors(
    data: str, seeds: list[list[list[float]]], rows: list[dict[str, Any]], scores: dict[str, dict[str, Any]]
) -> None:
    """seeds: for each detector the AP after each epoch with each of its seeds. rows: of detectors.jsonl. scores: rows of
    zero_cost.jsonl by hash. The AP of a detector is the mean of its seeds."""
    final, flops = np.array([np.mean(curves, axis=0)[-1] for curves in seeds]), np.array([row["cost"]["flops"] for row in rows])
    curves = np.array([own[0] for own in seeds])  # (detectors, epochs), of seed 0
    low, middle, high = np.quantile(final, (0, 0.5, 1))
    print(f"\n{data}: {len(rows)} drawn detectors, AP {low:.3f} to {high:.3f}, median {middle:.3f}")
    settled = (f"{k + 1}: {stats.spearmanr(curves[:, k], curves[:, -1]).statistic:.2f}" for k in range(curves.shape[1]))
    print(f"Spearman of the AP after each epoch with the last, {', '.join(settled)}")
    print(f"{'Kendall with mean AP':28}{'all':>8}{f'{LIKE} of like FLOPs':>20}")
    for name in RANKED:
        values = np.array([predictor(name, row, scores[row["hash"]]) for row in rows])
        print(f"{name:28}{kendall(values, final):8.3f}{kendall_at_like_cost(values, final, flops):20.3f}")


def predictor(name: str, row: dict[str, Any], scores: dict[str, Any]) -> float:
    """The value of one of RANKED. row: of detectors.jsonl. scores: the row of zero_cost.jsonl."""
    if name == "fused flops":
        return float(row["cost"]["flops"])
    if name == "detector_score":  # files that were written before this feature lack it
        return detector_score(row["cost"]["flops"], row["features"]["longest_shortest"])
    return float(scores[name] if name in COMPARATORS else row["features"][name])


def kendall(values: np.ndarray, aps: np.ndarray) -> float:
    return float(stats.kendalltau(values, aps).statistic)


def kendall_at_like_cost(values: np.ndarray, aps: np.ndarray, flops: np.ndarray) -> float:
    """Mean Kendall within groups of LIKE detectors with neighbouring FLOPs."""
    order = np.argsort(flops)
    groups = [order[k : k + LIKE] for k in range(0, len(order) - LIKE + 1, LIKE)]
    return float(np.nanmean([kendall(values[group], aps[group]) for group in groups]))


def compare(out: Path, workers: int, device: str, file: Path | None) -> None:
    """Print test AP over fresh seeds of the detector that our search finds on the table under GELAN-T's FLOPs, of the one in
    `file` (best.yaml of a search on digits), and of GELAN-T and YOLOv9-T."""
    rows = {row["hash"]: row for row in read_lines(out / DETECTORS, ("hash", "origin", "cost", "genotype"))}
    references = {
        f"{name}, {limit / 1e6:.0f}M": max(
            (row for row in rows.values() if row["origin"] == name and row["cost"]["flops"] <= limit),
            key=lambda row: row["cost"]["flops"],
        )
        for limit in COMPARED_FLOPS
        for name in ("gelan-t", "yolov9-t")
    }
    limit = references[f"gelan-t, {COMPARED_FLOPS[0] / 1e6:.0f}M"]["cost"]["flops"]
    searched = {"found on the table": rows[search_on_table(out, limit)]}
    if file:
        searched["found by a search"] = read_detector(file)
    compared = searched | references
    path = out / COMPARISON
    wanted = [training(row, "digits", seed, EPOCHS["digits"]) for seed in FRESH_SEEDS for row in compared.values()]
    train_on_digits(path, train_for_test, wanted, workers, device)
    lines = held(path, ("hash", "seed", "ap"))
    # A training that diverged makes the mean NaN.
    aps = {
        name: [final_ap(line) for line in lines if line["hash"] == row["hash"] and line["seed"] in FRESH_SEEDS]
        for name, row in compared.items()
    }
    print(f"{'':20}{'hash':18}{'FLOPs':>8}{'params':>8}  test AP, {len(FRESH_SEEDS)} seeds: mean, 95 % interval, least to most")
    for name, row in compared.items():
        cost = row["cost"]
        size = f"{cost['flops'] / 1e6:7.0f}M{cost['params'] / 1e3:7.0f}K"
        print(f"{name:20}{row['hash']:18}{size}  {mean_text(aps[name])}")
    for mine in sorted(searched):
        print(f"\n{mine} less the others: difference of the means, 95 % interval (Welch's t)")
        for name in references:
            less = difference(aps[mine], aps[name])
            print(f"{name:20}{less.mean:8.3f}  {less}")


def search_on_table(out: Path, max_flops: float) -> str:
    """Hash of the best detector on digits that our search has fully trained when SEARCH_EPOCHS are spent."""
    benchmark = read_detector_benchmark(out, "digits")
    benchmark = benchmark.subset([i for i, macs in enumerate(benchmark.macs) if 2 * macs <= max_flops])
    trained, spent = dict[int, int](), 0
    for paid in replay(ours(benchmark, 0), benchmark.curves, sys.maxsize):
        trained[paid.row], spent = paid.epochs, paid.spent
        if spent >= SEARCH_EPOCHS:
            break
    full = [row for row, epochs in trained.items() if epochs == benchmark.epochs]
    best = max(full, key=lambda row: float(benchmark.curves[0, row, -1]))
    count = len(benchmark.candidates)
    print(f"{count} detectors under {max_flops / 1e6:.0f}M FLOPs; {spent} epochs on {len(trained)} of them")
    return benchmark.candidates[best].hash


def longer(out: Path, workers: int, device: str) -> None:
    """Train the LIKE detectors in the middle of the FLOPs for LONGER_EPOCHS. Print Kendall of every predictor with the AP that
    they reach, beside Kendall with the AP of the table's trainings."""
    keys = ("hash", "origin", "cost", "features", "genotype")
    rows = [row for row in read_lines(out / DETECTORS, keys) if row["origin"] in SPACES]
    by_flops = sorted(rows, key=lambda row: (row["cost"]["flops"], row["hash"]))
    middle = by_flops[(len(rows) - LIKE) // 2 :][:LIKE]
    train_on_digits(out / LONGER, train, [training(row, "digits", 0, LONGER_EPOCHS) for row in middle], workers, device)
    curves, table = read_curves(out / LONGER, "digits"), read_curves(out / TRAININGS, "digits")
    scores = {row["hash"]: row for row in read_lines(out / SCORES, ("hash", *COMPARATORS))}
    diverged = [row["hash"] for row in middle if row["hash"] not in curves or row["hash"] not in table]
    if diverged:
        print(f"left out because they diverged: {', '.join(diverged)}")
        middle = [row for row in middle if row["hash"] not in diverged]
    short = np.array([table[row["hash"]].ap[-1] for row in middle])
    long = np.array([curves[row["hash"]].ap[-1] for row in middle])
    least, most = (row["cost"]["flops"] / 1e6 for row in (middle[0], middle[-1]))
    print(f"{len(middle)} detectors of {least:.0f}M to {most:.0f}M FLOPs: AP {short.min():.3f} to {short.max():.3f} after")
    settled = f"Kendall of the two {kendall(short, long):.3f}"
    print(f"{EPOCHS['digits']} epochs, {long.min():.3f} to {long.max():.3f} after {LONGER_EPOCHS}; {settled}")
    print(f"{'Kendall with AP after':28}{EPOCHS['digits']:>5} epochs{LONGER_EPOCHS:>8} epochs")
    for name in RANKED:
        values = np.array([predictor(name, row, scores[row["hash"]]) for row in middle])
        print(f"{name:28}{kendall(values, short):12.3f}{kendall(values, long):15.3f}")


def rivals(out: Path, workers: int, device: str, file: Path | None) -> None:
    """Train GELAN-T, YOLOv9-T, the best of the table that cost about as much, and the one in `file`, for LONGER_EPOCHS with
    fresh seeds. Print their AP on test beside the AP of the table's trainings."""
    benchmark = read_detector_benchmark(out, "digits", catalogue=True)
    rows = {row["hash"]: row for row in read_lines(out / DETECTORS, ("hash", "origin", "cost", "genotype"))}
    known = {
        name: max(
            (row for row in rows.values() if row["origin"] == name and row["cost"]["flops"] <= COMPARED_FLOPS[0]),
            key=lambda row: row["cost"]["flops"],
        )
        for name in ("gelan-t", "yolov9-t")
    }
    limit = known["gelan-t"]["cost"]["flops"]
    means = {candidate.hash: float(ap) for candidate, ap in zip(benchmark.candidates, benchmark.mean_ap, strict=True)}
    like = [row for row in rows.values() if row["origin"] in SPACES and limit / RIVALS_LIKE <= row["cost"]["flops"] <= limit]
    best = sorted(like, key=lambda row: -means[row["hash"]])[:RIVALS_TOP]
    compared = known | {f"rank {rank} of {len(like)}": row for rank, row in enumerate(best, start=1)}
    if file:
        compared["found by a search"] = read_detector(file)
    wanted = [training(row, "digits", seed, LONGER_EPOCHS) for seed in RIVALS_SEEDS for row in compared.values()]
    train_on_digits(out / RIVALS, train_for_test, wanted, workers, device)
    lines = held(out / RIVALS, ("hash", "seed", "ap"))
    aps = {name: [final_ap(line) for line in lines if line["hash"] == row["hash"]] for name, row in compared.items()}
    variance = statistics.fmean(statistics.variance(values) for values in aps.values())
    degrees = len(aps) * (len(RIVALS_SEEDS) - 1)
    half = float(stats.t.ppf(0.975, degrees)) * float(np.sqrt(2 * variance / len(RIVALS_SEEDS)))
    print(
        f"test AP after {LONGER_EPOCHS} epochs, mean of {len(RIVALS_SEEDS)} seeds; deviation between seeds {variance**0.5:.3f}"
    )
    print(f"a difference of two means has a 95 % interval of +- {half:.3f} (pooled variance, {degrees} degrees of freedom)")
    print(f"{'':20}{'hash':18}{'FLOPs':>8}  val AP, {EPOCHS['digits']} epochs  test AP, {LONGER_EPOCHS} epochs    less GELAN-T")
    for name, row in compared.items():
        mean = statistics.fmean(aps[name])
        short = f"{means[row['hash']]:.3f}" if row["hash"] in means else ""
        less = mean - statistics.fmean(aps["gelan-t"])
        print(f"{name:20}{row['hash']:18}{row['cost']['flops'] / 1e6:7.0f}M{short:>18}{mean:20.3f}{less:+16.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "show", "compare", "longer", "rivals"])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the files")
    parser.add_argument("--bccd", help="build: COCO folder of the blood cells; without it digit scenes alone")
    parser.add_argument("--found", type=Path, help="compare, rivals: best.yaml of a search on digits")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    out, workers, device = arguments.out, arguments.workers, arguments.device
    match arguments.command:
        case "show":
            show(out)
        case "compare":
            compare(out, workers, device, arguments.found)
        case "longer":
            longer(out, workers, device)
        case "rivals":
            rivals(out, workers, device, arguments.found)
        case "build":
            build(out, {"digits": "digits"} | ({"bccd": arguments.bccd} if arguments.bccd else {}), workers, device)


if __name__ == "__main__":
    main()
