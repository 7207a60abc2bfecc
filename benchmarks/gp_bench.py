"""GP-Bench: detectors of the union space, spread over cost, each trained by one recipe: the table in benchmarks/gp-bench.

    python benchmarks/gp_bench.py build [--bccd ../shared/data/bccd] [--workers 2] [--device auto]
    python benchmarks/gp_bench.py show                       # what the table says: noise, correlations, by cost
    python benchmarks/gp_bench.py compare [--found best.yaml] [--workers 2]   # found, GELAN-T and YOLOv9-T, fresh seeds
    python benchmarks/gp_bench.py longer [--workers 2]       # is the order of short trainings that of longer ones?

Detectors are drawn from a seed, ten for each of 20 spans of FLOPs, half from the union space and half from its ready parts;
GELAN-T and YOLOv9-T at three costs stand beside them. Digit scenes come first, blood cells next, second seeds last. Resumable:
a training that the table holds is not done again, and a line that a crash cut short is dropped.
"""

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from evaluators.tabular import read_curves
from evaluators.zero_cost import COMPARATORS
from gpnas.errors import TrainingDiverged
from gpnas.files import append_line, drop_half_line, read_lines, write_lines
from gpnas.paths.features import FEATURES

HERE = Path(__file__).parent / "gp-bench"
DETECTORS, TRAININGS, SCORES, COMPARISON = "detectors.jsonl", "trainings.jsonl", "zero_cost.jsonl", "comparison.jsonl"
LONGER = "longer.jsonl"

IMGSZ, BATCH = 128, 8
EPOCHS = {"digits": 8, "bccd": 18}
"""About as many images seen on either data set: 480 and 205 train images."""

CLASSES = {"digits": 10, "bccd": 3}
LEAST_FLOPS, MOST_FLOPS, SPANS, EACH = 18e6, 144e6, 20, 10
SEED, DRAWS = 20261121, 50
SEARCH_EPOCHS, FRESH_SEEDS, COMPARED = 100, (2, 3, 4, 5, 6), (60e6, 30e6)
"""Of `compare`: what its search may spend, the seeds compared, and the FLOPs to which its GELAN-T and YOLOv9-T were narrowed;
the search's limit is the cost of the first GELAN-T."""

LIKE = 20
"""Detectors of neighbouring FLOPs that are compared among themselves; the largest has about a quarter more than the least."""

SCORED_BATCH, SCORED_BATCHES = 16, 2
"""Images and batches that the zero-cost scores read: as their authors' (NASWOT more images, ZiCo two batches)."""

LONGER_EPOCHS = 40
"""Of `longer`, on digits: five times the table's."""

PARTS = tuple(of for part in ("prn", "csp", "elan", "gelan", "pgi") for of in ("gradient-path", part))
RANKED = ("score", *COMPARATORS, *(of for of in FEATURES if of != "score"), "fused flops")
REFERENCE_FLOPS = (30e6, 60e6, 120e6)
BLOOD_CELLS, SECOND_SEEDS = 60, 70
"""The first so many detectors are trained on blood cells, and on digits with a second seed."""


class Training(NamedTuple):
    hash: str
    genotype: str
    data: str
    seed: int
    epochs: int


def training(row: dict[str, Any], data: str, seed: int, epochs: int) -> Training:
    return Training(row["hash"], json.dumps(row["genotype"]), data, seed, epochs)


def detectors() -> Iterator[dict[str, Any]]:
    """Rows of the table of detectors: the first 20 hold one of each span of FLOPs, and so on."""
    from search_spaces.gradient_path import open_space

    spaces = {part: open_space(part, CLASSES["digits"]) for part in dict.fromkeys(PARTS)}
    ratio = (MOST_FLOPS / LEAST_FLOPS) ** (1 / SPANS)
    seen: set[str] = set()
    for member in range(EACH):
        for span in range(SPANS):
            part = PARTS[(member + span) % len(PARTS)]
            low = LEAST_FLOPS * ratio**span
            found = _drawn(spaces[part], low, low * ratio, seen, random.Random(f"{SEED}/{member}/{span}"))
            seen.add(found.hash)
            yield _row(found, part)
    yield from references()


def _drawn(space: Any, low: float, high: float, seen: set[str], rng: random.Random) -> Any:
    """A new candidate with FLOPs in [low, high): the first drawn one that lies there, else mutated towards it from the nearest,
    as few draws are as small as the smallest spans."""
    from gpnas.graph.cost import deployed_cost

    def distance(found: Any) -> float:
        flops = deployed_cost(found.graph, IMGSZ).flops
        if low <= flops < high:
            return 1.0 if found.hash in seen else 0.0
        return 1.0 + abs(math.log(flops / math.sqrt(low * high)))

    nearest = min((space.propose([], rng) for _ in range(DRAWS)), key=distance)
    while distance(nearest):
        nearest = min(nearest, space.propose([nearest], rng), key=distance)
    return nearest


def references() -> Iterator[dict[str, Any]]:
    from search_spaces.architecture import candidate, with_classes
    from search_spaces.blueprint import open_catalogue
    from search_spaces.neighbourhood import fitted

    for name in ("gelan-t", "yolov9-t"):
        for flops in REFERENCE_FLOPS:
            yield _row(candidate(fitted(with_classes(open_catalogue(name), CLASSES["digits"]), flops, None, IMGSZ)), name)


def _read(file: Path) -> dict[str, Any]:
    from search_spaces.architecture import candidate, read_architecture

    return _row(candidate(read_architecture(file.read_text(), str(file))), str(file))


def _row(found: Any, origin: str) -> dict[str, Any]:
    from gpnas.graph.cost import deployed_cost
    from gpnas.paths.features import features

    fused = deployed_cost(found.graph, IMGSZ)
    known = {name: float(f"{value:.7g}") for name, value in features(found.graph, IMGSZ, IMGSZ).items()}
    cost = {"imgsz": IMGSZ, "flops": fused.flops, "macs": fused.macs, "params": fused.params}
    return {"hash": found.hash, "origin": origin, "cost": cost, "features": known, "genotype": json.loads(found.genotype)}


@functools.cache
def loaded(spec: str, place: Any, split: str, imgsz: int = IMGSZ) -> tuple[Any, Any, Any]:
    """The data, the train images and the split to judge by, once in each process."""
    from evaluators.data.bank import load_bank
    from evaluators.data.open import open_data
    from evaluators.judge import load_split

    data = open_data(spec)
    return data, load_bank(data.splits["train"], imgsz, place), load_split(data.splits[split], imgsz, place)


def train_for_test(task: Training, spec: str, device: str) -> dict[str, Any]:
    return train(task, spec, device, "test")


def train(task: Training, spec: str, device: str, split: str = "val") -> dict[str, Any]:
    """One row of the table of trainings; called in a worker process."""
    import torch

    from evaluators.device import pick_device
    from evaluators.proxy import PROXY_AUGMENTATION
    from evaluators.training.loop import fit, new_network
    from evaluators.training.recipe import Recipe, for_data
    from search_spaces.architecture import candidate, read_architecture, with_classes

    torch.set_num_threads(1)
    place = pick_device(device)
    data, bank, judged = loaded(spec, place, split)
    graph = candidate(with_classes(read_architecture(task.genotype), len(data.names))).graph
    recipe = Recipe(task.epochs, IMGSZ, BATCH, augmentation=PROXY_AUGMENTATION, seed=task.seed, device=str(place), eval_every=1)
    network = new_network(graph, len(data.names), IMGSZ, task.seed)
    rows: list[dict[str, Any]] = []
    began, worked = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {"hash": task.hash, "data": task.data, "seed": task.seed}
    try:
        fit(network, bank, judged, data.names, for_data(recipe, data), report=rows.append)
    except TrainingDiverged as error:
        row["cause"] = str(error)
    row["ap"] = [round(of["ap"], 5) for of in rows]
    row["ap50"] = [round(of["ap50"], 5) for of in rows]
    row["seconds"] = round(time.perf_counter() - began, 2)
    row["cpu_seconds"] = round(time.process_time() - worked, 2)
    return row


def score(task: Training, spec: str, device: str) -> dict[str, Any]:
    """One row of the table of zero-cost scores; called in a worker process."""
    import torch

    from evaluators.data.batches import train_batches
    from evaluators.device import pick_device
    from evaluators.proxy import PROXY_AUGMENTATION
    from evaluators.training.loop import new_network
    from evaluators.zero_cost import comparators
    from search_spaces.architecture import candidate, read_architecture

    torch.set_num_threads(1)
    place = pick_device(device)
    data, bank, _ = loaded(spec, place, "val")
    network = new_network(candidate(read_architecture(task.genotype)).graph, len(data.names), IMGSZ, task.seed).to(place)
    generator = torch.Generator().manual_seed(task.seed)
    batches = train_batches(bank, SCORED_BATCH, PROXY_AUGMENTATION, generator)
    began = time.process_time()
    found = comparators(network, list(itertools.islice(batches, SCORED_BATCHES)), len(data.names))
    found = {name: float(f"{value:.7g}") for name, value in found.items()}
    return {"hash": task.hash, **found, "cpu_seconds": round(time.process_time() - began, 2)}


def build(out: Path, specs: dict[str, str], workers: int, device: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table = out / DETECTORS
    if not table.exists():
        write_lines(table, list(detectors()))
    rows = read_lines(table, ("hash", "genotype"))
    trainings = out / TRAININGS
    done = {(row["hash"], row["data"], row["seed"]) for row in held(trainings, ("hash", "data", "seed"))}
    wanted = [task for task in tasks(rows) if task.data in specs and (task.hash, task.data, task.seed) not in done]
    scored = {row["hash"] for row in held(out / SCORES, ("hash",))}
    unscored = [training(row, "digits", 0, 0) for row in rows if row["hash"] not in scored]
    print(
        f"{len(rows)} detectors; {len(done)} trainings are done, {len(wanted)} are left; {len(unscored)} are to be scored",
        flush=True,
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for _, row in finished(pool, score, unscored, specs, device):
            append_line(out / SCORES, row)
        for note, row in finished(pool, train, wanted, specs, device):
            append_line(trainings, row)
            print(
                f"{note} {row['hash']} {row['data']} seed {row['seed']}: AP {last(row):.3f} in {row['seconds']:.0f} s",
                flush=True,
            )


def last(row: dict[str, Any]) -> float:
    """AP in the end; nan for a training that diverged."""
    return math.nan if "cause" in row else float(row["ap"][-1])


def held(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows that are there, without one that a crash cut short."""
    drop_half_line(path)
    return read_lines(path, keys) if path.exists() else []


def finished(
    pool: ProcessPoolExecutor, work: Callable[..., Any], wanted: list[Training], specs: dict[str, str], device: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as they come, each with how far this is."""
    began = time.monotonic()
    futures = [pool.submit(work, task, specs[task.data], device) for task in wanted]
    try:
        for number, future in enumerate(as_completed(futures), start=1):
            left = (time.monotonic() - began) / number * (len(wanted) - number)
            yield f"{number}/{len(wanted)}, {left / 60:.0f} minutes left:", future.result()
    except BaseException:  # do not do all the others before saying so
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def tasks(rows: list[dict[str, Any]]) -> Iterator[Training]:
    """Every training of the table, in order: what is worth most comes first."""
    for data, seed, count in (("digits", 0, len(rows)), ("bccd", 0, BLOOD_CELLS), ("digits", 1, SECOND_SEEDS)):
        for row in rows[:count]:
            yield training(row, data, seed, EPOCHS[data])


def on_digits(
    path: Path, work: Callable[..., Any], tasks: list[Training], workers: int, device: str, measured: str = "ap"
) -> None:
    """Do the trainings that `path` does not hold yet, in rows that have `measured`."""
    done = {(row["hash"], row["seed"]) for row in held(path, ("hash", "seed", measured))}
    left = [task for task in tasks if (task.hash, task.seed) not in done]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for note, row in finished(pool, work, left, {"digits": "digits"}, device):
            append_line(path, row)
            reached = f": AP {last(row):.3f} in {row['seconds']:.0f} s" if "ap" in row else ""
            print(f"{note} {row['hash']} seed {row['seed']}{reached}", flush=True)


def compare(out: Path, workers: int, device: str, file: Path | None) -> None:
    """Test AP of what our search finds on the table under GELAN-T's FLOPs, of what `file` holds (best.yaml of a search on
    digits), and of GELAN-T and YOLOv9-T, over fresh seeds."""
    from scipy.stats import ttest_ind

    rows = {row["hash"]: row for row in read_lines(out / DETECTORS, ("hash", "origin", "cost", "genotype"))}
    wanted = {
        f"{name}, {limit / 1e6:.0f}M": max(
            (row for row in rows.values() if row["origin"] == name and row["cost"]["flops"] <= limit),
            key=lambda row: row["cost"]["flops"],
        )
        for limit in COMPARED
        for name in ("gelan-t", "yolov9-t")
    }
    limit = wanted[f"gelan-t, {COMPARED[0] / 1e6:.0f}M"]["cost"]["flops"]
    found = rows[search_on_table(out, limit)]
    named = {"found on the table": found, **({"found by a search": _read(file)} if file else {}), **wanted}
    path = out / COMPARISON
    wanted_trainings = [training(row, "digits", seed, EPOCHS["digits"]) for seed in FRESH_SEEDS for row in named.values()]
    on_digits(path, train_for_test, wanted_trainings, workers, device)
    lines = held(path, ("hash", "seed", "ap"))
    print(f"{'':20}{'hash':18}{'FLOPs':>8}{'params':>8}  test AP, {len(FRESH_SEEDS)} seeds: mean, 95 % interval, least to most")
    aps = {
        name: [last(line) for line in lines if line["hash"] == row["hash"] and line["seed"] in FRESH_SEEDS]  # nan shows in all
        for name, row in named.items()
    }
    for name, row in named.items():
        half = student(0.975, len(aps[name]) - 1) * statistics.stdev(aps[name]) / len(aps[name]) ** 0.5
        cost = row["cost"]
        print(
            f"{name:20}{row['hash']:18}{cost['flops'] / 1e6:7.0f}M{cost['params'] / 1e3:7.0f}K  "
            f"{statistics.mean(aps[name]):.3f} +- {half:.3f}  {min(aps[name]):.3f} to {max(aps[name]):.3f}"
        )
    for mine in sorted(named.keys() - wanted.keys()):
        print(f"\n{mine} less the others: difference of the means, 95 % interval (Welch's t)")
        for name in wanted:
            low, high = ttest_ind(aps[mine], aps[name], equal_var=False).confidence_interval(0.95)
            print(f"{name:20}{statistics.mean(aps[mine]) - statistics.mean(aps[name]):8.3f}  {low:.3f} to {high:.3f}")


def longer(out: Path, workers: int, device: str) -> None:
    """Train the LIKE detectors in the middle of the FLOPs for LONGER_EPOCHS, and say which figures rank what then comes of
    them, beside what came of the table's trainings."""
    import numpy as np

    rows = [
        row for row in read_lines(out / DETECTORS, ("hash", "origin", "cost", "features", "genotype")) if row["origin"] in PARTS
    ]
    by_flops = sorted(rows, key=lambda row: (row["cost"]["flops"], row["hash"]))
    middle = by_flops[(len(rows) - LIKE) // 2 :][:LIKE]
    on_digits(out / LONGER, train, [training(row, "digits", 0, LONGER_EPOCHS) for row in middle], workers, device)
    curves, table = read_curves(out / LONGER, "digits"), read_curves(out / TRAININGS, "digits")
    scores = {row["hash"]: row for row in read_lines(out / SCORES, ("hash", *COMPARATORS))}
    diverged = [row["hash"] for row in middle if row["hash"] not in curves or row["hash"] not in table]
    if diverged:
        print(f"left out, as it diverged: {', '.join(diverged)}")
        middle = [row for row in middle if row["hash"] not in diverged]
    short = np.array([table[row["hash"]].ap[-1] for row in middle])
    long = np.array([curves[row["hash"]].ap[-1] for row in middle])
    least, most = (row["cost"]["flops"] / 1e6 for row in (middle[0], middle[-1]))
    print(f"{len(middle)} detectors of {least:.0f}M to {most:.0f}M FLOPs: AP {short.min():.3f} to {short.max():.3f} after")
    settled = f"Kendall of the two {kendall(short, long):.3f}"
    print(f"{EPOCHS['digits']} epochs, {long.min():.3f} to {long.max():.3f} after {LONGER_EPOCHS}; {settled}")
    print(f"{'Kendall with AP after':28}{EPOCHS['digits']:>5} epochs{LONGER_EPOCHS:>8} epochs")
    for name in RANKED:
        values = np.array([of_name(name, row, scores[row["hash"]]) for row in middle])
        print(f"{name:28}{kendall(values, short):12.3f}{kendall(values, long):15.3f}")


def student(share: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(share, freedom))


def search_on_table(out: Path, max_flops: float) -> str:
    """Hash of the best detector on digits that our search has trained in full when SEARCH_EPOCHS are spent."""
    from gpnas.bench.detector_strategies import ours
    from gpnas.cli.bench import detector_table

    table = detector_table(out, "digits")
    table = table.part([i for i, macs in enumerate(table.macs) if 2 * macs <= max_flops])
    search, trained, spent = ours(table, 0), dict[int, int](), 0
    asked = next(search, None)
    while asked is not None and spent < SEARCH_EPOCHS:
        row, epochs = asked
        spent += epochs - trained.get(row, 0)
        trained[row] = epochs
        asked = search.send(float(table.curves[row, epochs - 1]))
    whole = [row for row, epochs in trained.items() if epochs == table.epochs]
    best = max(whole, key=lambda row: float(table.curves[row, -1]))
    print(f"{len(table.candidates)} detectors under {max_flops / 1e6:.0f}M FLOPs; {spent} epochs on {len(trained)} of them")
    return table.candidates[best].hash


def show(out: Path) -> None:
    """Noise between seeds, how early ranks settle, and Kendall (tau-b) of all that is known before training with AP."""
    import numpy as np
    from scipy.stats import spearmanr

    known = {row["hash"]: row for row in read_lines(out / DETECTORS, ("hash", "origin", "cost", "features"))}
    scores = {row["hash"]: row for row in read_lines(out / SCORES, ("hash", *COMPARATORS))}
    trainings = read_lines(out / TRAININGS, ("hash", "data", "seed", "ap", "cpu_seconds"))
    broken = [row["hash"] for row in trainings if "cause" in row]
    print(f"{len(known)} detectors, {len(trainings)} trainings, {len(broken)} diverged {broken or ''}")
    curves = {(row["hash"], row["data"], row["seed"]): row["ap"] for row in trainings if "cause" not in row}
    seconds = [row["cpu_seconds"] for row in trainings]
    print(f"{sum(seconds) / 60:.0f} processor minutes, median {statistics.median(seconds):.0f} s a training")
    twice = [(of, data) for of, data, seed in curves if seed == 1 and (of, data, 0) in curves]
    pairs = [(curves[of, data, 0][-1], curves[of, data, 1][-1]) for of, data in twice]
    if len(pairs) > 2:
        first, second = np.array(pairs).T
        deviation = float(np.sqrt(np.mean((first - second) ** 2) / 2))
        rank = spearmanr(first, second).statistic
        print(f"{len(pairs)} with two seeds: deviation {deviation:.4f} AP, Spearman of the two {rank:.3f}")
    for data in CLASSES:
        drawn = [of for of in known if (of, data, 0) in curves and known[of]["origin"] in PARTS]
        if len(drawn) < 2 * LIKE:
            continue
        rows = np.array([curves[of, data, 0] for of in drawn])
        last, flops = rows[:, -1], np.array([known[of]["cost"]["flops"] for of in drawn])
        low, middle, high = np.quantile(last, (0, 0.5, 1))
        print(f"\n{data}: {len(drawn)} drawn detectors, AP {low:.3f} to {high:.3f}, median {middle:.3f}")
        settled = (f"{k + 1}: {spearmanr(rows[:, k], last).statistic:.2f}" for k in range(rows.shape[1]))
        print(f"Spearman of the AP after each epoch with the last, {', '.join(settled)}")
        print(f"{'Kendall with AP':28}{'all':>8}{f'{LIKE} of like FLOPs':>20}")
        for name in RANKED:
            values = np.array([of_name(name, known[of], scores[of]) for of in drawn])
            print(f"{name:28}{kendall(values, last):8.3f}{of_like_cost(values, last, flops):20.3f}")


def of_name(name: str, row: dict[str, Any], scores: dict[str, Any]) -> float:
    if name == "fused flops":
        return float(row["cost"]["flops"])
    return float(scores[name] if name in COMPARATORS else row["features"][name])


def kendall(values: Any, aps: Any) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(values, aps).statistic)


def of_like_cost(values: Any, aps: Any, flops: Any) -> float:
    """Mean Kendall within groups of LIKE detectors with neighbouring FLOPs."""
    import numpy as np

    order = np.argsort(flops)
    groups = [order[k : k + LIKE] for k in range(0, len(order) - LIKE + 1, LIKE)]
    return float(np.nanmean([kendall(values[group], aps[group]) for group in groups]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "show", "compare", "longer"])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--bccd", help="the blood cells' COCO folder; without it digit scenes alone")
    parser.add_argument("--found", type=Path, help="compare: best.yaml of a search on digits, to be compared too")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.command == "show":
        show(arguments.out)
        return
    if arguments.command == "compare":
        compare(arguments.out, arguments.workers, arguments.device, arguments.found)
        return
    if arguments.command == "longer":
        longer(arguments.out, arguments.workers, arguments.device)
        return
    specs = {"digits": "digits"} | ({"bccd": arguments.bccd} if arguments.bccd else {})
    build(arguments.out, specs, arguments.workers, arguments.device)


if __name__ == "__main__":
    main()
