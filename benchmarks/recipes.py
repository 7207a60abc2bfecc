"""Which recipe wins after how many epochs: the presets `short` and `full` of `gpnas train`, on data of one kind or several.

    python benchmarks/recipes.py OUT [--data digits ../shared/data/bccd] [--epochs 40 120 300] [--seeds 3] [--network gelan-t]

Each training is a `gpnas train` in a folder of its own below OUT. One that is complete is not done again, and one that was
interrupted goes on. The table has the AP on test, or on val where there is no test split: mean (least-most).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from gpnas.run.trained import read_result

RECIPES = ("short", "full")


def trained(folder: Path, arguments: argparse.Namespace, data: str, epochs: int, recipe: str, seed: int) -> float:
    """The AP of a training, which is done or continued where it is not complete."""
    result = read_result(folder)
    if result is None:
        options = {
            "data": data,
            "epochs": epochs,
            "imgsz": arguments.imgsz,
            "batch": arguments.batch,
            "recipe": recipe,
            "seed": seed,
            "out": folder,
            "device": arguments.device,
        }
        command = [sys.executable, "-m", "gpnas", "train", arguments.network]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command += ["--resume"] if (folder / "last.pt").exists() else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = read_result(folder)
    assert result is not None
    return result.metrics["ap"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs="+", default=["digits", "../shared/data/bccd"])
    parser.add_argument("--epochs", nargs="+", type=int, default=[40, 120, 300])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network", default="gelan-t")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    how = f"{arguments.network} at {arguments.imgsz} px, batches of {arguments.batch}, {arguments.seeds} seeds"
    print(f"{how}: AP, mean (least-most)")
    print(f"{'data':16}{'epochs':>7}" + "".join(f"{recipe:>26}" for recipe in RECIPES), flush=True)
    for data in arguments.data:
        for epochs in arguments.epochs:
            cells = []
            for recipe in RECIPES:
                folders = [
                    (arguments.out / f"{Path(data).name}-{epochs}-{recipe}-{seed}", seed) for seed in range(arguments.seeds)
                ]
                aps = [trained(folder, arguments, data, epochs, recipe, seed) for folder, seed in folders]
                cells.append(f"{statistics.mean(aps):.3f} ({min(aps):.3f}-{max(aps):.3f})")
            print(f"{Path(data).name:16}{epochs:7}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
