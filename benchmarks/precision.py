"""Training in bf16 and in fp32 on this machine's CPU: for four networks, seconds for an epoch of 64 images, and the ratio.

    python benchmarks/precision.py [DATA] [IMGSZ]        # DATA as for gpnas search; default: digits 192

`evaluators.device.pick_dtype` chooses fp32 on CPUs because of this measurement.
"""

import itertools
import random
import statistics
import sys

from evaluators.data.bank import load_bank
from evaluators.data.open import open_data
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe
from gpnas.graph.cost import deployed_cost
from search_spaces.gradient_path import open_space

NETWORKS, EPOCHS = 4, 4


def main() -> None:
    spec, imgsz = (sys.argv[1:] + ["digits", "192"][len(sys.argv) - 1 :])[:2]
    data, size = open_data(spec), int(imgsz)
    bank = load_bank(data.splits["train"][:64], size)
    space, rng = open_space("gradient-path", len(data.names)), random.Random(0)
    for _ in range(NETWORKS):
        candidate = space.propose([], rng)
        seconds = {}
        for precision in ("bf16", "fp32"):
            stamps: list[float] = []
            network = new_network(candidate.graph, len(data.names), size, seed=0)
            recipe = Recipe(EPOCHS, size, 8, precision=precision, device="cpu")
            fit(network, bank, None, data.names, recipe, report=lambda row, stamps=stamps: stamps.append(row["seconds"]))
            seconds[precision] = statistics.median(b - a for a, b in itertools.pairwise(stamps))
        flops = deployed_cost(candidate.graph, size).flops / 1e9
        print(
            f"{len(candidate.graph.layers):4} layers {flops:6.2f}G FLOPs at {size} px: bf16 {seconds['bf16']:.2f} s, "
            f"fp32 {seconds['fp32']:.2f} s, fp32 / bf16 {seconds['fp32'] / seconds['bf16']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
