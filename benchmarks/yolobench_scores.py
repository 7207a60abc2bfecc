"""Zero-cost scores of the untrained structures of YOLOBench, for `gpnas bench correlation --zero-cost`.

    python benchmarks/yolobench_scores.py [--out benchmarks/yolobench/zero_cost.jsonl]

Each structure is built with its 20 classes and random weights, and reads two batches of digit scenes: its own training images
are not at hand. The command can be stopped: what the file holds is not done again.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import torch
from resumable import held

from evaluators.data.bank import load_bank
from evaluators.data.batches import train_batches
from evaluators.data.open import open_data
from evaluators.device import pick_device
from evaluators.proxy import PROXY_AUGMENTATION
from evaluators.training.loop import new_network
from evaluators.zero_cost import comparators
from gpnas.files import append_line
from search_spaces.yolobench import CLASSES, STRUCTURES, build_structure

IMGSZ, BATCH, BATCHES, SEED = 64, 8, 2, 0
"""Pixels, images in a batch, batches, and the seed of weights and images."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "yolobench" / "zero_cost.jsonl")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = pick_device(arguments.device)
    bank = load_bank(open_data("digits").splits["train"], IMGSZ, device)
    generator = torch.Generator().manual_seed(SEED)
    # torch 2.13 crashes on a CPU where a 1x1 layer of stride 2, as in the first unit of YOLOv6, reads 3 channels_last channels.
    batches = [
        replace(batch, images=batch.images.contiguous())
        for batch in itertools.islice(train_batches(bank, BATCH, PROXY_AUGMENTATION, generator), BATCHES)
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = {row["structure"] for row in held(arguments.out, ("structure",))}
    for name in STRUCTURES:
        if name not in done:
            began = time.process_time()
            network = new_network(build_structure(name), CLASSES, IMGSZ, SEED).to(device)
            scores = {key: float(f"{value:.5g}") for key, value in comparators(network, batches, CLASSES).items()}
            row = {"structure": name, **scores, "cpu_seconds": round(time.process_time() - began, 2)}
            append_line(arguments.out, row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
