"""How long it takes to open large data sets, and how much memory.

    python benchmarks/opening.py                  # both, in a temporary folder (about 700 MB)

1. 10,000 images of 640 x 480 pixels with YOLO label files: every header is read. The alternative is to decode every image, as
   gpnas did before it read headers.
2. A COCO file like instances_train2017.json: 118,287 images, 860,000 boxes with outlines, 450 MB. The alternative is Python's
   json.loads on the same file, which only parses it.

Each runs in a process of its own, twice; the faster time and the larger peak of resident memory are printed.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 640, 480


def write_yolo(root: Path, count: int = 10_000) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    photo = cv2.imencode(".jpg", cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))[1].tobytes()
    for split, first, last in (("train", 0, count * 9 // 10), ("val", count * 9 // 10, count)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for i in range(first, last):
            # Bytes after the end of a JPEG are not read; they make each file another one, of another length.
            (root / f"images/{split}/{i}.jpg").write_bytes(photo + i.to_bytes(4, "little") + bytes(i % 3000))
            (root / f"labels/{split}/{i}.txt").write_text(f"{i % 3} 0.5 0.5 0.25 0.{1 + i % 9}\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b, c]\n")


def write_coco(root: Path, images: int = 118_287, boxes: int = 860_000) -> None:
    draw = random.Random(0)
    (root / "annotations").mkdir(parents=True)
    for split, first, count, here in (("train", 0, images, boxes), ("val", images, 10, 20)):
        (root / f"{split}2017").mkdir()
        for i in range(first, first + count):
            (root / f"{split}2017/{i:012d}.jpg").write_bytes(bytes(1 + (split == "val")))  # annotations tell the sizes
        with (root / f"annotations/instances_{split}2017.json").open("w") as file:
            file.write('{"info": {}, "licenses": [], "images": ')
            listed = [
                {
                    "license": 4,
                    "file_name": f"{i:012d}.jpg",
                    "height": HEIGHT,
                    "width": WIDTH,
                    "id": i,
                    "flickr_url": "http://x",
                }
                for i in range(first, first + count)
            ]
            json.dump(listed, file)
            file.write(', "annotations": [')
            for k in range(here):
                x, y, w, h = draw.random() * 500, draw.random() * 400, draw.random() * 139 + 1, draw.random() * 79 + 1
                entry = {
                    "segmentation": [[round(x + draw.random() * w, 2) for _ in range(50)]],
                    "area": round(w * h * 0.6, 2),
                    "iscrowd": 0,
                    "image_id": first + draw.randrange(count),
                    "bbox": [round(v, 2) for v in (x, y, w, h)],
                    "category_id": draw.randrange(1, 81),
                    "id": k,
                }
                file.write((", " if k else "") + json.dumps(entry))
            file.write('], "categories": ')
            json.dump([{"supercategory": "thing", "id": i, "name": f"class {i}"} for i in range(1, 81)], file)
            file.write("}")


def decode_all(root: Path) -> None:
    from evaluators.data.images import read_image

    for path in sorted((root / "images").rglob("*.jpg")):
        read_image(path)


def open_it(root: Path) -> None:
    from evaluators.data.open import open_data

    data = open_data(str(root))
    print(
        {split: (len(records), sum(len(r.boxes) for r in records)) for split, records in data.splits.items()}, file=sys.stderr
    )


def parse(root: Path) -> None:
    json.loads((root / "annotations/instances_train2017.json").read_bytes())


TASKS = {task.__name__: task for task in (open_it, decode_all, parse)}


def measured(task: str, root: Path) -> tuple[float, float]:
    """Seconds and MiB of a task in a process of its own; the best of two runs."""
    runs = []
    for _ in range(2):
        out = subprocess.run(
            [sys.executable, __file__, task, str(root)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        ).stdout.split()
        runs.append((float(out[0]), float(out[1])))
    return min(seconds for seconds, _ in runs), max(memory for _, memory in runs)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        yolo, coco = Path(folder) / "yolo", Path(folder) / "coco"
        write_yolo(yolo)
        write_coco(coco)
        for what, root, other in (("10,000 headers", yolo, "decode_all"), ("COCO's 860,000 boxes", coco, "parse")):
            (mine, memory), (theirs, _) = measured("open_it", root), measured(other, root)
            ratio = mine / theirs
            print(f"{what}: {mine:.1f} s, {memory:.0f} MiB; {other}: {theirs:.1f} s; ratio {ratio:.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        began = time.perf_counter()
        TASKS[sys.argv[1]](Path(sys.argv[2]))
        print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        main()
