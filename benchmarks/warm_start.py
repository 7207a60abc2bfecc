"""Does a short training that starts from the parent's weights predict a child's long training better than one from scratch?

    python benchmarks/warm_start.py [--workers 2] [--device auto]

Parents are the PAIRS best detectors of GP-Bench that were drawn from the whole space, on digit scenes. A child is one
mutation of its parent. The parent is trained for few epochs of small images, as on the lowest rung of a search. The child is
trained so too, once from scratch and once from the parent's weights (not their average: rungs continue from the weights)
where names and shapes match. Then the child is trained from scratch for four times the epochs on larger images: this is what
the short trainings should predict. It prints the median AP of each and their Kendall with the long training.

Rows are added to benchmarks/gp-bench/warm_start.jsonl; a pair that the file holds is not done again.
"""

import argparse
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gp_bench import DETECTORS, HERE, TRAININGS, kendall
from gp_bench_trainings import BATCH, Training, loaded, train_on_digits, training

from evaluators.device import pick_device
from evaluators.proxy import PROXY_AUGMENTATION
from evaluators.tabular import read_curves
from evaluators.training.checkpoint import load_matching
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from gpnas.files import read_lines
from gpnas.graph.network import Network
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate, read_architecture
from search_spaces.gradient_path import GradientPathSpace

PAIRS, FILE = 24, "warm_start.jsonl"

SHORT_EPOCHS, SHORT_IMGSZ, LONG_EPOCHS, LONG_IMGSZ = 4, 96, 16, 128
"""Those of the lowest and of the highest rung of a short search."""

TRAININGS_OF_A_PAIR = ("parent", "scratch", "warm", "long")


def pair(task: Training, spec: str, device: str) -> dict[str, Any]:
    """One row: AP on val of the parent, and of the child trained from scratch, warm, and long. Called in a worker process."""
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

    def fresh(detector: Candidate, imgsz: int, seed: int) -> Network:
        return new_network(detector.graph, len(names), imgsz, seed)

    row: dict[str, Any] = {"hash": task.hash, "seed": task.seed, "child": child.hash}
    parent_network = fresh(parent, SHORT_IMGSZ, 0)
    row["parent"] = trained(parent_network, SHORT_EPOCHS, SHORT_IMGSZ)
    row["scratch"] = trained(fresh(child, SHORT_IMGSZ, 1), SHORT_EPOCHS, SHORT_IMGSZ)
    warm = fresh(child, SHORT_IMGSZ, 1)
    taken, values = load_matching(warm, parent_network.state_dict())
    row["taken"] = round(taken / values, 3)
    row["warm"] = trained(warm, SHORT_EPOCHS, SHORT_IMGSZ)
    row["long"] = trained(fresh(child, LONG_IMGSZ, 2), LONG_EPOCHS, LONG_IMGSZ)
    return row


def show(path: Path) -> None:
    """Print median APs, and Kendall of the short trainings with the long one."""
    rows = read_lines(path, (*TRAININGS_OF_A_PAIR, "taken"))
    columns = {name: np.array([row[name] for row in rows]) for name in (*TRAININGS_OF_A_PAIR, "taken")}
    print(f"{len(rows)} pairs; a child takes {np.median(columns['taken']):.0%} of its values from its parent (median)")
    for name in TRAININGS_OF_A_PAIR:
        print(f"{name:10} median AP {np.median(columns[name]):.3f}")
    print("Kendall with the AP of the child trained long, from scratch (90 % interval over resampled pairs)")
    resampled = np.random.default_rng(0).integers(0, len(rows), (2000, len(rows)))
    taus = {
        name: np.array([kendall(columns[name][k], columns["long"][k]) for k in resampled])
        for name in ("scratch", "warm", "parent")
    }
    for name, resampled_taus in taus.items():
        low, high = np.nanquantile(resampled_taus, (0.05, 0.95))
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
    train_on_digits(path, pair, tasks, arguments.workers, arguments.device, measured="long")
    show(path)


if __name__ == "__main__":
    main()
