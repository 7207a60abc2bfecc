"""What `--levels auto` and larger proxies bring where objects are tiny: two searches under the same limits, and their winners.

    python benchmarks/tiny_objects.py OUT [--budget 20m] [--max-flops 1G] [--epochs 8] [--seeds 2] [--images 200] [--jobs 2]

The data are scenes of 640 pixels with 15 to 30 handwritten digits of one class, whose median side is 13 pixels, among strokes,
blobs and pieces of digits that are not labelled. Both searches run at the same time, each with a worker on a core of its own,
so that both see the same load of the machine. One search is held to levels 3-5 and proxies of 320 pixels, which is what all
searches had before there was a choice; the other has the defaults. The best architecture of each is trained from random weights
at 640 pixels by one recipe, with seeds that no search used, and judged on the test split. It can be stopped: what OUT holds is
not done again. With the default options it takes about 40 minutes on two idle cores.
"""

import argparse
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import yaml
from command_line import FRESH_SEED, Recipe, gpnas, searched, train_all

from evaluators.data.digits import Content, digit_scenes
from evaluators.data.records import Record
from evaluators.data.sizes import median_small, object_sides

IMGSZ = 640
CONTENT = Content(heights=(13 / IMGSZ, 24 / IMGSZ), digits=(15, 30), clutter=(10, 20))
SEARCHES = {"3-5, 320 px": ("--levels", "3-5", "--proxy-imgsz", 320), "defaults": ()}
JPEG_QUALITY = 92


def write_scenes(folder: Path, train: int) -> None:
    """A COCO folder with `train` scenes for training, and a third and half as many for val and test."""
    if (folder / "done").exists():
        return
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    data = digit_scenes(train, train // 3, train // 2, size=IMGSZ, content=CONTENT)
    for split, records in data.splits.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        document = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "digit"}]}
        for record in records:
            add_scene(document, record, folder / "images" / split)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    sides = object_sides(data.splits["train"], IMGSZ)
    text = f"{len(sides)} digits in {train} scenes; median side {np.median(sides):.1f} px"
    text += f", of the smaller half {median_small(sides):.1f}"
    (folder / "done").write_text(text)


def add_scene(document: dict[str, list], record: Record, images: Path) -> None:
    """Write the image of a scene, and add it and its boxes to a COCO document; all digits are of one class."""
    name = f"{record.image_id}.jpg"
    cv2.imwrite(str(images / name), record.pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    document["images"].append({"id": record.image_id, "file_name": name, "width": record.width, "height": record.height})
    for x1, y1, x2, y2 in record.boxes.tolist():
        box = [x1, y1, x2 - x1, y2 - y1]
        row = {"id": len(document["annotations"]) + 1, "image_id": record.image_id, "category_id": 1, "bbox": box}
        document["annotations"].append(row | {"area": box[2] * box[3], "iscrowd": 0})


def searched_alone(name: str, data: Path, out: Path, budget: str, max_flops: str) -> Path:
    """The folder of the search of that name, which is run or continued where it was stopped."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[list(SEARCHES).index(name) % len(cores)]})  # of this thread and what it starts
    run = out / name.replace(", ", "-").replace(" ", "")
    options = ("--budget", budget, "--imgsz", IMGSZ, "--max-flops", max_flops, "--workers", "local:1", *SEARCHES[name])
    # Two spaces are compared, not what both searches have in common.
    if printed := searched(run, "--data", data, "--no-baselines", *options, threads=1):
        print(f"{name}:\n{printed}", flush=True)
    return run


def facts(run: Path) -> str:
    """Levels, cost and AP of the best architecture of a search, and how many it trained, as the table shows them."""
    best = yaml.safe_load((run / "best.yaml").read_text())
    shown = json.loads(gpnas("show", run, "--json"))
    best_trial = shown["trials"][shown["best"]]
    measured = sum(trial["ap"] is not None for trial in shown["trials"])
    cost = best["found"]["cost"]
    levels = best.get("levels", "3-5")
    return f"{levels:>8}{cost['flops'] / 1e6:8.0f}M{cost['params'] / 1e3:8.0f}K{measured:8}{best_trial['ap']:11.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--budget", default="20m", help="of each search")
    parser.add_argument("--max-flops", default="1G", help="of the architectures, at 640 pixels")
    parser.add_argument("--epochs", type=int, default=8, help="of each training of a winner")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each winner")
    parser.add_argument("--images", type=int, default=200, help="scenes for training")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one thread each")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    data = out / "data"
    write_scenes(data, arguments.images)
    with ThreadPoolExecutor(len(SEARCHES)) as pool:
        folders = pool.map(lambda name: searched_alone(name, data, out, arguments.budget, arguments.max_flops), SEARCHES)
        runs = dict(zip(SEARCHES, folders, strict=True))
    tasks = [(name, FRESH_SEED + k) for k in range(arguments.seeds) for name in runs]
    recipe = Recipe(str(data), IMGSZ, arguments.epochs, batch=4)
    rows = train_all(out, [(runs[name] / "best.yaml", seed) for name, seed in tasks], recipe, arguments.jobs)
    print((data / "done").read_text())
    print(
        f"searches of {arguments.budget} under {arguments.max_flops} FLOPs at {IMGSZ} px; {arguments.epochs} epochs, "
        f"{arguments.seeds} seeds: mean (least-most)"
    )
    print(f"{'':14}{'levels':>8}{'FLOPs':>9}{'params':>9}{'trained':>8}{'search AP':>11}{'test AP':>22}{'AP50':>22}")
    means: dict[str, list[float]] = {"ap": [], "ap50": []}
    for name, run in runs.items():
        line = f"{name:14}{facts(run)}"
        for key, column in means.items():
            values = [row[key] for (task, _), row in zip(tasks, rows, strict=True) if task == name]
            column.append(statistics.mean(values))
            line += f"{column[-1]:.3f} ({min(values):.3f}-{max(values):.3f})".rjust(22)
        print(line)
    print(f"{'difference':14}{'':45}" + "".join(f"{column[1] - column[0]:+.3f}".rjust(22) for column in means.values()))


if __name__ == "__main__":
    main()
