"""Options that several commands share: their types, their defaults, and the checks that turn their text into values.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpnas.errors import InputError

if TYPE_CHECKING:
    from evaluators.data.records import DetectionData
    from gpnas.run.gpu_memory import MemoryTable
    from gpnas.search.limits import Limits

DEFAULT_SPACE = "gradient-path"

GPU_PROCESSES = 4
"""The most evaluations that `--workers auto` runs at once on one GPU."""


def parse_pixels(text: str | int, option: str = "--imgsz") -> int:  # newer typers parse the default too
    """The parser of `--imgsz`. Raises InputError."""
    if not str(text).strip().removeprefix("-").isdecimal():
        raise InputError(f"{option} {text}: must be a number of pixels; images are square, so give one number such as 640")
    return int(text)


Data = Annotated[str, typer.Option(help="folder of a data set in any known format, an annotation file, or digits (built in)")]
Shares = Annotated[
    str,
    typer.Option("--split", help="divide the images anew into train, val and test (default where data have no val: 70/15/15)"),
]
Val = Annotated[str, typer.Option(help="another data set, all of whose images are the val split")]
Strict = Annotated[bool, typer.Option("--strict", help="refuse data with any problem, also one that could be mended")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
ImageSize = Annotated[
    int | None,
    typer.Option(help="image size in pixels (default: that of the search or training)", parser=parse_pixels, metavar="PIXELS"),
]
Trial = Annotated[int | None, typer.Option("--trial", help="of a run: the trial with this id (default: its best)")]
StartTrial = Annotated[int | None, typer.Option(help="of a run given by --start: the trial with this id (default: its best)")]
Out = Annotated[Path | None, typer.Option(help="folder for the results (default: a new one in runs/, named after the time)")]


def parse_input_size(text: str) -> tuple[int, int, int]:
    """(channels, height, width) of "3x640x480". Raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input {text}: must be channels x height x width, such as 3x640x640")
    channels, height, width = map(int, parts)
    return channels, height, width


def check_imgsz(imgsz: int, *, option: str = "--imgsz", stride: int = 32) -> None:
    """imgsz: pixels. Raises InputError, which suggests the nearest size, when it is not a positive multiple of 32 and `stride`.

    stride: of the deepest level, in pixels.
    """
    step = max(32, stride)
    if imgsz < step or imgsz % step:
        why = ", the stride of the deepest level" if step > 32 else ""
        raise InputError(
            f"{option} {imgsz}: must be a positive multiple of {step}{why}; try {max(1, round(imgsz / step)) * step}"
        )


def prepare_file(path: Path | None, option: str) -> None:
    """Make the folder of a file that a command will write. Raises InputError, before any work, when it cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give the path of a file")
    prepare_folder(path.parent, option)


def prepare_folder(folder: Path, option: str) -> None:
    """Make a folder that a command will write into. Raises InputError, before any work, when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option}: the folder {folder} cannot be made ({error.strerror}); give another one") from None


def absolute(source: str) -> str:
    """The path of data as runs and checkpoints keep it. The name of built-in data, and "", stay as they are."""
    return source if source in ("", "digits") else str(Path(os.path.expanduser(source)).resolve())


def tell_problems(data: DetectionData) -> None:
    """Print what was mended when the data were opened, and what else the user should know of them."""
    for text in (*map(str, data.problems), *data.notes):
        typer.echo(f"data: {text}")


def new_run_folder(kind: str = "search") -> Path:
    """The path of a new folder for results, named after the kind of run and the time; it is not made yet."""
    return Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def resolved_device(device: str) -> str:
    """The device that `--device` means on this machine: "cpu", "cuda" or "cuda:N". Raises InputError."""
    if device == "cpu":
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise InputError(f"--device {device}: must be auto, cpu, cuda or cuda:N")
    if not available:
        raise InputError(f"--device {device}: no CUDA device is here; use --device cpu")
    number, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= count:
        raise InputError(f"--device {device}: there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}")
    return device


def worker_slots(workers: str, device: str) -> int:
    """The number of worker processes that `--workers` means on `device`. Raises InputError."""
    if workers == "auto":
        # On a GPU the memory decides how many run at once; processes that wait for memory cost little.
        return min(GPU_PROCESSES, cpu_cores()) if device.startswith("cuda") else cpu_cores()
    kind, _, number = workers.partition(":")
    if kind != "local" or not number.isdigit() or int(number) < 1:
        raise InputError(f"--workers {workers}: must be auto or local:N with N at least 1")
    return int(number)


def gpu_memory_table(device: str) -> MemoryTable | None:
    """The free memory of a GPU, which evaluations share; None on the CPU, where the operating system shares memory out."""
    if not device.startswith("cuda"):
        return None
    import torch

    from gpnas.run.gpu_memory import MemoryTable

    return MemoryTable(torch.cuda.mem_get_info(device)[0])


def cpu_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_worker(slots: int) -> int:
    """The number of CPU threads for each of `slots` workers."""
    return max(1, cpu_cores() // slots)


def parse_limits(max_flops: str | None, max_params: str | None) -> Limits:
    """The limits of `--max-flops` (2 x MACs) and `--max-params`. Raises InputError."""
    from gpnas.search.limits import Limits
    from gpnas.units import parse_count

    return Limits(
        parse_count(max_flops, "--max-flops") if max_flops else None,
        parse_count(max_params, "--max-params") if max_params else None,
    )
