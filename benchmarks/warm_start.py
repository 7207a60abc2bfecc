"""Does a short training that starts from the parent's weights tell more of a child than one from scratch?

    python benchmarks/warm_start.py [--workers 2] [--device auto]

Parents are the best PAIRS of GP-Bench's detectors of the whole space on digit scenes, a child is one mutation of each. A parent
is trained for few epochs of small images, as on the lowest rung of a search; its child so too, from scratch and from its
weights (not their average, as rungs go on from them) where names and shapes match; and the child, from scratch, four times
the epochs of larger images: what the short ones should foretell.
Rows are added to benchmarks/gp-bench/warm_start.jsonl; a pair that it holds is not done again.
"""

import argparse
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gp_bench import BATCH, DETECTORS, HERE, TRAININGS, Training, kendall, loaded, on_digits, training

from evaluators.device import pick_device
from evaluators.proxy import PROXY_AUGMENTATION
from evaluators.tabular import read_curves
from evaluators.training.checkpoint import load_matching
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from gpnas.files import read_lines
from gpnas.graph.network import Network
from search_spaces.architecture import candidate, read_architecture
from search_spaces.gradient_path import GradientPathSpace

PAIRS, FILE = 24, "warm_start.jsonl"
SHORT_EPOCHS, SHORT_IMGSZ, LONG_EPOCHS, LONG_IMGSZ = 4, 96, 16, 128
"""Of the lowest rung of a short search, and of the highest."""


def pair(task: Training, spec: str, device: str) -> dict[str, Any]:
    """One row: AP on val of parent, child from scratch, warm child and child trained long. Called in a worker process."""
    torch.set_num_threads(1)
    place = pick_device(device)
    names = loaded(spec, place, "val", SHORT_IMGSZ)[0].names
    parent = candidate(read_architecture(task.genotype))
    child = GradientPathSpace(len(names)).propose([parent], random.Random(f"warm/{task.hash}"))

    def trained(network: Network, epochs: int, imgsz: int) -> float:
        data, bank, val = loaded(spec, place, "val", imgsz)
        seed = task.seed + epochs
        recipe = Recipe(epochs, imgsz, BATCH, augmentation=PROXY_AUGMENTATION, eval_every=0, seed=seed, device=str(place))
        return round(fit(network, bank, val, names, for_data(recipe, data), report=lambda row: None).metrics["ap"], 5)

    def fresh(of: Any, imgsz: int, seed: int) -> Network:
        return new_network(of.graph, len(names), imgsz, seed)

    row: dict[str, Any] = {"hash": task.hash, "seed": task.seed, "child": child.hash}
    of_parent = fresh(parent, SHORT_IMGSZ, 0)
    row["parent"] = trained(of_parent, SHORT_EPOCHS, SHORT_IMGSZ)
    row["scratch"] = trained(fresh(child, SHORT_IMGSZ, 1), SHORT_EPOCHS, SHORT_IMGSZ)
    warm = fresh(child, SHORT_IMGSZ, 1)
    taken, whole = load_matching(warm, of_parent.state_dict())
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
    taus = {
        name: np.array([kendall(columns[name][k], columns["long"][k]) for k in resampled])
        for name in ("scratch", "warm", "parent")
    }
    for name, of in taus.items():
        low, high = np.nanquantile(of, (0.05, 0.95))
        print(f"{name:10}{kendall(columns[name], columns['long']):8.2f}   {low:.2f} to {high:.2f}")
    low, high = np.nanquantile(taus["warm"] - taus["scratch"], (0.05, 0.95))
    print(f"warm less scratch, of the same pairs: {low:.2f} to {high:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    path, curves = HERE / FILE, read_curves(HERE / TRAININGS, "digits")
    drawn = [row for row in read_lines(HERE / DETECTORS, ("hash", "origin", "genotype")) if row["origin"] == "gradient-path"]
    best = sorted((row for row in drawn if row["hash"] in curves), key=lambda row: -float(curves[row["hash"]].ap[-1]))
    tasks = [training(row, "digits", 0, 0) for row in best[:PAIRS]]
    on_digits(path, pair, tasks, arguments.workers, arguments.device, measured="long")
    show(path)


if __name__ == "__main__":
    main()
