"""GP-Bench: detectors of the union space, spread over cost, each trained by one recipe: the table in benchmarks/gp-bench.

    python benchmarks/gp_bench.py build [--bccd ../shared/data/bccd] [--workers 2] [--device auto]

Detectors are drawn from a seed, ten for each of 20 spans of FLOPs, half from the union space and half from its ready parts; GELAN-T
and YOLOv9-T at three costs stand beside them. Digit scenes come first, blood cells next, second seeds last. Resumable: a
training that the table holds is not done again, and a line that a crash cut short is dropped.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent / "gp-bench"
DETECTORS, TRAININGS = "detectors.jsonl", "trainings.jsonl"

IMGSZ, BATCH = 128, 8
EPOCHS = {"digits": 8, "bccd": 18}
"""About as many images seen on either data set: 480 and 205 train images."""

CLASSES = {"digits": 10, "bccd": 3}
LEAST_FLOPS, MOST_FLOPS, SPANS, EACH = 18e6, 144e6, 20, 10
SEED, DRAWS = 20261121, 50
PARTS = (
    "gradient-path",
    "prn",
    "gradient-path",
    "csp",
    "gradient-path",
    "elan",
    "gradient-path",
    "gelan",
    "gradient-path",
    "pgi",
)
REFERENCE_FLOPS = (30e6, 60e6, 120e6)
BLOOD_CELLS, SECOND_SEEDS = 60, 70
"""The first so many detectors are trained on blood cells, and on digits with a second seed."""


class Training(NamedTuple):
    hash: str
    genotype: str
    data: str
    seed: int


def detectors() -> Iterator[dict[str, Any]]:
    """Rows of the table of detectors: the first 20 hold one of each span of FLOPs, and so on."""
    from search_spaces.space import open_space

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
    from gpnas.controller import inference_cost

    def distance(found: Any) -> float:
        flops = inference_cost(found, IMGSZ).flops
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


def _row(found: Any, origin: str) -> dict[str, Any]:
    from gpnas.controller import inference_cost
    from gpnas.features import features

    fused = inference_cost(found, IMGSZ)
    known = {name: float(f"{value:.7g}") for name, value in features(found.graph, IMGSZ, IMGSZ).items()}
    cost = {"flops": fused.flops, "macs": fused.macs, "params": fused.params}
    return {"hash": found.hash, "origin": origin, "cost": cost, "features": known, "genotype": json.loads(found.genotype)}


def train(task: Training, spec: str, device: str) -> dict[str, Any]:
    """One row of the table of trainings; called in a worker process."""
    import torch

    from evaluators.data import load_bank, open_data
    from evaluators.proxy import PROXY_AUGMENTATION
    from evaluators.train import Recipe, TrainingDiverged, fit, for_data, load_split, new_network, pick_device
    from search_spaces.architecture import candidate, read_architecture, with_classes

    torch.set_num_threads(1)
    data, place = open_data(spec), pick_device(device)
    graph = candidate(with_classes(read_architecture(task.genotype), len(data.names))).graph
    recipe = Recipe(
        EPOCHS[task.data], IMGSZ, BATCH, augmentation=PROXY_AUGMENTATION, seed=task.seed, device=str(place), eval_every=1
    )
    network = new_network(graph, len(data.names), IMGSZ, task.seed)
    bank, val = load_bank(data.splits["train"], IMGSZ, place), load_split(data.splits["val"], IMGSZ, place)
    rows: list[dict[str, Any]] = []
    began, worked = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {"hash": task.hash, "data": task.data, "seed": task.seed}
    try:
        fit(network, bank, val, data.names, for_data(recipe, data), report=rows.append)
    except TrainingDiverged as error:
        row["cause"] = str(error)
    row["ap"] = [round(of["ap"], 5) for of in rows]
    row["ap50"] = [round(of["ap50"], 5) for of in rows]
    row["seconds"] = round(time.perf_counter() - began, 2)
    row["cpu_seconds"] = round(time.process_time() - worked, 2)
    return row


def build(out: Path, specs: dict[str, str], workers: int, device: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table = out / DETECTORS
    if not table.exists():
        partial = table.with_suffix(".tmp")
        partial.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in detectors()))
        os.replace(partial, table)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    done = {(row["hash"], row["data"], row["seed"]) for row in whole_lines(out / TRAININGS)}
    wanted = [task for task in tasks(rows) if task.data in specs and (task.hash, task.data, task.seed) not in done]
    print(f"{len(rows)} detectors; {len(done)} trainings are done, {len(wanted)} are left", flush=True)
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, (out / TRAININGS).open("a") as file:
        running = {pool.submit(train, task, specs[task.data], device): task for task in wanted}
        for number, future in enumerate(as_completed(running), start=1):
            row = future.result()
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
            left = (time.monotonic() - began) / number * (len(wanted) - number)
            last = row["ap"][-1] if row["ap"] else math.nan
            print(
                f"{number}/{len(wanted)} {row['hash']} {row['data']} seed {row['seed']}: AP {last:.3f} in "
                f"{row['seconds']:.0f} s; {left / 60:.0f} minutes left",
                flush=True,
            )


def tasks(rows: list[dict[str, Any]]) -> Iterator[Training]:
    """Every training of the table, in order: what is worth most comes first."""
    for data, seed, count in (("digits", 0, len(rows)), ("bccd", 0, BLOOD_CELLS), ("digits", 1, SECOND_SEEDS)):
        for row in rows[:count]:
            yield Training(row["hash"], json.dumps(row["genotype"]), data, seed)


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a last line that a crash cut short is removed from the file."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build"])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--bccd", help="the blood cells' COCO folder; without it digit scenes alone")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    specs = {"digits": "digits"} | ({"bccd": arguments.bccd} if arguments.bccd else {})
    build(arguments.out, specs, arguments.workers, arguments.device)


if __name__ == "__main__":
    main()
