"""Does a short training that starts from the parent's weights tell more of a child than one from scratch?

    python benchmarks/warm_start.py [--workers 2] [--device auto]

Parents are the best PAIRS of GP-Bench's detectors of the whole space on digit scenes, a child is one mutation of each. A parent
is trained for few epochs of small images, as on the lowest rung of a search; its child so too, from scratch and from its
weights (not their average, as rungs go on from them) where names and shapes match; and the child, from scratch, four times
the epochs of larger images: what the short ones should foretell.
Rows are added to benchmarks/gp-bench/warm_start.jsonl; a pair that it holds is not done again.
"""

import argparse
import json
import multiprocessing
import os
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gp_bench import DETECTORS, HERE, TRAININGS, Training, finished, held, kendall

from evaluators.data import load_bank, open_data
from evaluators.proxy import PROXY_AUGMENTATION
from evaluators.tabular import read_curves
from evaluators.train import Recipe, fit, for_data, load_split, new_network, pick_device, take_over
from gpnas.json_lines import append_line, read_lines
from gpnas.network import Network
from search_spaces.architecture import candidate, read_architecture
from search_spaces.space import GradientPathSpace

PAIRS, FILE = 24, "warm_start.jsonl"
SHORT_EPOCHS, SHORT_IMGSZ, LONG_EPOCHS, LONG_IMGSZ = 4, 96, 16, 128
"""Of the lowest rung of a short search, and of the highest."""


def pair(task: Training, spec: str, device: str) -> dict[str, Any]:
    """One row: AP on val of parent, child from scratch, warm child and child trained long. Called in a worker process."""
    torch.set_num_threads(1)
    data, place = open_data(spec), pick_device(device)
    space = GradientPathSpace(len(data.names))
    parent = candidate(read_architecture(task.genotype))
    child = space.propose([parent], random.Random(f"warm/{task.hash}"))

    def trained(network: Network, epochs: int, imgsz: int) -> float:
        bank, val = load_bank(data.splits["train"], imgsz, place), load_split(data.splits["val"], imgsz, place)
        recipe = Recipe(
            epochs, imgsz, 8, augmentation=PROXY_AUGMENTATION, eval_every=0, seed=task.seed + epochs, device=str(place)
        )
        return round(fit(network, bank, val, data.names, for_data(recipe, data), report=lambda row: None).metrics["ap"], 5)

    def fresh(of: Any, imgsz: int, seed: int) -> Network:
        return new_network(of.graph, len(data.names), imgsz, seed)

    row: dict[str, Any] = {"hash": task.hash, "seed": task.seed, "child": child.hash}
    of_parent = fresh(parent, SHORT_IMGSZ, 0)
    row["parent"] = trained(of_parent, SHORT_EPOCHS, SHORT_IMGSZ)
    row["scratch"] = trained(fresh(child, SHORT_IMGSZ, 1), SHORT_EPOCHS, SHORT_IMGSZ)
    warm = fresh(child, SHORT_IMGSZ, 1)
    taken, whole = take_over(warm, of_parent.state_dict())
    row["taken"] = round(taken / whole, 3)
    row["warm"] = trained(warm, SHORT_EPOCHS, SHORT_IMGSZ)
    row["long"] = trained(fresh(child, LONG_IMGSZ, 2), LONG_EPOCHS, LONG_IMGSZ)
    return row


def show(path: Path) -> None:
    rows = read_lines(path, ("parent", "scratch", "warm", "long", "taken"))
    columns = {name: np.array([row[name] for row in rows]) for name in ("parent", "scratch", "warm", "long", "taken")}
    print(f"{len(rows)} pairs; a child takes {np.median(columns['taken']):.0%} of its values from its parent (median)")
    for name in ("parent", "scratch", "warm", "long"):
        print(f"{name:10} median AP {np.median(columns[name]):.3f}")
    print("Kendall with the AP of the child trained long, from scratch (90 % interval over resampled pairs)")
    resampled = np.random.default_rng(0).integers(0, len(rows), (2000, len(rows)))
    of = {"scratch": columns["scratch"], "warm": columns["warm"], "parent": columns["parent"]}
    for name, values in of.items():
        low, high = np.nanquantile([kendall(values[k], columns["long"][k]) for k in resampled], (0.05, 0.95))
        print(f"{name:10}{kendall(values, columns['long']):8.2f}   {low:.2f} to {high:.2f}")
    gaps = [kendall(of["warm"][k], columns["long"][k]) - kendall(of["scratch"][k], columns["long"][k]) for k in resampled]
    low, high = np.nanquantile(gaps, (0.05, 0.95))
    print(f"warm less scratch, of the same pairs: {low:.2f} to {high:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    path, curves = HERE / FILE, read_curves(HERE / TRAININGS, "digits")
    drawn = [row for row in read_lines(HERE / DETECTORS, ("hash", "origin", "genotype")) if row["origin"] == "gradient-path"]
    best = sorted((row for row in drawn if row["hash"] in curves), key=lambda row: -float(curves[row["hash"]].ap[-1]))
    done = {row["hash"] for row in held(path, ("hash",))}
    tasks = [
        Training(row["hash"], json.dumps(row["genotype"]), "digits", 0, 0) for row in best[:PAIRS] if row["hash"] not in done
    ]
    with ProcessPoolExecutor(arguments.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for note, row in finished(pool, pair, tasks, {"digits": "digits"}, arguments.device):
            append_line(path, row)
            print(f"{note} {row}", flush=True)
    show(path)


if __name__ == "__main__":
    main()
