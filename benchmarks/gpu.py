"""Everything that needs a GPU, as one call of at most nine minutes: what is right, what waits, what it costs, what it plans.

    python benchmarks/gpu.py [--out DIR] [--device cuda] [--parts waits,speed] [--minutes 9] [--peak 989] [--quick]

Each part is a process of its own with its own time, so that a part that fails, hangs or breaks the GPU's context costs only
itself. Lines are printed as they come. --out gets gpu.log and gpu.json (an object by part; what a part had measured before it
was stopped is in it). The exit code is 1 when a part failed or a result is wrong. `benchmarks/gpu_parts.py` holds the parts:

correct   pixels, loss, gradients and AP against the CPU
waits     times that a step waits for the GPU, with their places in our code
kernels   kernels a step, and the share of a step in which the GPU is busy
proxies   images a second of proxies of a search, one and four at once
speed     images a second of gelan-t and gelan-c (no auxiliary branch) at 256 and 640 pixels, beside Ultralytics' yolov9t and
          yolov9c, which are the same networks, where it is installed; TFLOP/s are 6 x MACs an image; --peak: of the GPU
memory    bytes that trainings of three sizes reserve, beside what the table of a search plans for them
oom       memory that runs out while a batch is made, in a step and in an evaluation: the work is done in pieces
resume    weights of a training that was resumed beside those of one that was not, and of two with one seed
search    a search of 90 seconds: planned and real seconds

On a bare machine carry wheels of what the first line names, into a folder on PYTHONPATH; PACKAGES in this file lists all. What
SEARCH_PACKAGES lists is for `search` alone, ultralytics for its columns in `speed`.

--device cpu --quick runs every part on a few small images and in one process, to see that its code works. It measures nothing.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "pycocotools": "pycocotools",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "typing_extensions": "typing-extensions",
}
"""What every part needs, by the name that Python imports: the package that brings it."""

SEARCH_PACKAGES = {
    "typer": "typer",
    "rich": "rich",
    "moocore": "moocore",
    "cffi": "cffi",
    "nni": "nni",
    "cloudpickle": "cloudpickle",
    "colorama": "colorama",
    "filelock": "filelock",
    "json_tricks": "json-tricks",
    "pandas": "pandas",
    "psutil": "psutil",
    "requests": "requests",
    "schema": "schema",
    "simplejson": "simplejson",
    "typeguard": "typeguard",
}
"""What `search` needs besides; all from cloudpickle on for nni, of whose wheel the folder nni/ is enough."""

SECONDS = {
    "correct": 50,
    "waits": 35,
    "kernels": 60,
    "proxies": 90,
    "speed": 110,
    "memory": 60,
    "oom": 50,
    "resume": 45,
    "search": 125,
}
"""The parts in their order, and the most seconds of each."""


def missing(packages: dict[str, str]) -> list[str]:
    return [package for name, package in packages.items() if importlib.util.find_spec(name) is None]


class Report:
    """Prints lines, and keeps them and the results of parts in files."""

    def __init__(self, out: Path | None) -> None:
        self.results: dict[str, dict[str, object]] = {}
        self._out = out
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "gpu.log").write_text("")

    def line(self, text: str) -> None:
        print(text, flush=True)
        if self._out is not None:
            with (self._out / "gpu.log").open("a") as log:
                log.write(f"{text}\n")

    def result(self, part: str, **values: object) -> None:
        self.results[part] = values
        if self._out is not None:
            (self._out / "gpu.json").write_text(json.dumps(self.results, indent=1))


def run_part(part: str, seconds: float, arguments: argparse.Namespace, report: Report) -> None:
    """Run a part in a process of its own; stop it, and all that it started, when its time is over."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        results.touch()
        command = [sys.executable, "-u", str(ROOT / "benchmarks" / "gpu_parts.py"), part, str(results), arguments.device]
        command += [str(arguments.peak), *(["--quick"] if arguments.quick else [])]
        path = os.pathsep.join([str(ROOT), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])])
        began, ended = time.monotonic(), "done"
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = threading.Thread(
            target=lambda: [report.line(f"  {line.rstrip()}") for line in process.stdout or ()], daemon=True
        )
        reader.start()
        try:
            code = process.wait(timeout=seconds)
            ended = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after its {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):  # its workers too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(timeout=5)
        rows = [json.loads(line) for line in results.read_text().splitlines()]
    took = time.monotonic() - began
    report.line(f"{part}: {ended}, {took:.0f} s")
    report.result(part, ended=ended, seconds=round(took, 1), rows=rows)


def run_here(part: str, arguments: argparse.Namespace, report: Report) -> None:
    """Run a part in this process, to save the time of imports."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    import gpu_parts

    with tempfile.TemporaryDirectory() as folder:
        results, ended = Path(folder) / "results.jsonl", "done"
        results.touch()
        try:
            gpu_parts.run(part, results, arguments.device, arguments.peak, quick=True)
        except Exception as error:
            ended = f"failed: {type(error).__name__}: {error}"
        rows = [json.loads(line) for line in results.read_text().splitlines()]
    report.line(f"{part}: {ended}")
    report.result(part, ended=ended, rows=rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(SECONDS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the GPU in dense bf16; 989 for an H100 or H200")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    began, report = time.monotonic(), Report(arguments.out)
    if lacking := missing(PACKAGES):
        report.line(f"missing packages: {' '.join(lacking)}; carry their wheels")
        return 1
    for part in arguments.parts.split(","):
        left = 60 * arguments.minutes - (time.monotonic() - began) - 5
        if part not in SECONDS:
            report.line(f"{part}: no part; take {', '.join(SECONDS)}")
            return 2
        if part == "search" and (lacking := missing(SEARCH_PACKAGES)):
            report.line(f"search: left out, because {', '.join(lacking)} are missing")
            report.result(part, ended="left out", rows=[])
        elif left < 10:
            report.line(f"{part}: left out, because no time is left")
            report.result(part, ended="left out", rows=[])
        elif arguments.quick:
            run_here(part, arguments, report)
        else:
            run_part(part, min(SECONDS[part], left), arguments, report)
    wrong = [part for part, result in report.results.items() if _is_wrong(result)]
    report.line(f"{time.monotonic() - began:.0f} s; " + (f"look at: {', '.join(wrong)}" if wrong else "nothing failed"))
    return 1 if wrong else 0


def _is_wrong(result: dict[str, object]) -> bool:
    rows = result["rows"]
    assert isinstance(rows, list)
    return result["ended"] not in ("done", "left out") or any(row.get("right") is False for row in rows)


if __name__ == "__main__":
    sys.exit(main())
