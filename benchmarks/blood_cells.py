"""A searched detector beside GELAN-T and YOLOv9-T at the same FLOPs, on blood cells: test AP and training time over seeds.

    python benchmarks/blood_cells.py DATA OUT [--seeds 3] [--epochs 50] [--jobs 2]

DATA is the BCCD data in COCO form with a test split. One search under a FLOPs limit finds an architecture. GELAN-T and
YOLOv9-T, which have the same main branch without and with PGI's auxiliary branch, are narrowed to its FLOPs. All are trained
by one recipe. If the searched architecture has an auxiliary branch, it is also trained without it. It prints FLOPs,
parameters, mean, least and most of test AP and AP50, and minutes of training. It can be stopped: what OUT holds is not done
again.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

IMGSZ, MAX_FLOPS, SEARCH = 320, "250M", "12m"


def gpnas(*arguments: object, threads: int | None = None) -> str:
    """The standard output of the command line, run in a process of its own."""
    command = [sys.executable, "-c", "from gpnas.cli.app import main; main()", *map(str, arguments)]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def architectures(data: Path, out: Path) -> dict[str, Path]:
    """The YAML of each row of the table, made where it is missing."""
    run = out / "search"
    if not (run / "journal.sqlite").exists():
        limits = ("--imgsz", IMGSZ, "--max-flops", MAX_FLOPS, "--no-baselines")  # those are rows of the table themselves
        print(gpnas("search", "--data", data, "--budget", SEARCH, *limits, "--out", run, "--wandb", "off"))
    elif json.loads(gpnas("show", run, "--json"))["state"] != "done":
        print(gpnas("resume", run))
    best = yaml.safe_load((run / "best.yaml").read_text())
    rows = {"found": run / "best.yaml"}
    if best.get("pgi", {}).get("kind", "none") in ("deep_supervision", "reversible"):
        rows["found, no auxiliary"] = out / "found-main.yaml"
        rows["found, no auxiliary"].write_text(yaml.safe_dump(best | {"pgi": {"kind": "none"}}))
    flops = best["found"]["cost"]["flops"]
    for name in ("gelan-t", "yolov9-t"):
        rows[name] = out / f"{name}.yaml"
        narrowed = ("--max-flops", flops, "--imgsz", IMGSZ, "--classes", 3, "--out", rows[name])
        gpnas("export", name, *narrowed)
    return rows


def train(file: Path, data: Path, folder: Path, epochs: int, seed: int) -> dict[str, float]:
    """Test metrics and seconds of one training, continued where it was stopped."""
    log = folder / "result.txt"
    if not log.exists():
        more = ("--resume",) if (folder / "last.pt").exists() else ()
        size = ("--imgsz", IMGSZ, "--epochs", epochs, "--batch", 8, "--seed", seed)
        text = gpnas("train", file, "--data", data, *size, "--out", folder, *more, threads=1)
        log.write_text(text)
    text = log.read_text()
    metrics = {name: float(value) for name, value in re.findall(r"(AP\d*) (\d\.\d+)", text.split("test:")[1])}
    minutes, seconds = re.findall(r"after (?:\d+:)?(\d+):(\d+)", text)[-1]
    return metrics | {"minutes": int(minutes) + int(seconds) / 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at the same time, one thread each")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = architectures(arguments.data, arguments.out)
    tasks = [(name, seed) for seed in range(arguments.seeds) for name in files]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        folders = [arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}" for name, seed in tasks]
        paths = [files[name] for name, _ in tasks]
        seeds = [seed for _, seed in tasks]
        results = list(pool.map(train, paths, [arguments.data] * len(tasks), folders, [arguments.epochs] * len(tasks), seeds))
    costs = {
        name: json.loads(gpnas("analyze", file, "--json", "--input", f"3x{IMGSZ}x{IMGSZ}")) for name, file in files.items()
    }
    print(f"{arguments.epochs} epochs at {IMGSZ} px, {arguments.seeds} seeds, a CPU thread each: mean (least-most)")
    print(f"{'':22}{'FLOPs':>9}{'params':>9}{'test AP':>22}{'AP50':>22}{'minutes':>10}")
    for name in files:
        rows = [result for (trained, _), result in zip(tasks, results, strict=True) if trained == name]
        line = f"{name:22}{costs[name]['flops'] / 1e6:8.0f}M{costs[name]['params'] / 1e3:8.0f}K"
        for key in ("AP", "AP50"):
            values = [row[key] for row in rows]
            line += f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})".rjust(22)
        print(line + f"{statistics.median(row['minutes'] for row in rows):10.1f}")


if __name__ == "__main__":
    main()
