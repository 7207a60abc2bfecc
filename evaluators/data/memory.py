"""Whether decoded images fit into memory, computed before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import torch

from gpnas.errors import InputError

SHARE = 0.5
"""Of the free memory, which the images of a split may take. The rest is for networks, batches and the splits that follow."""


def bytes_of(images: int, size: int) -> int:
    """Bytes of so many decoded images of `size` x `size` pixels, three channels of a byte each."""
    return images * size * size * 3


def fits(images: int, size: int, device: str | torch.device, sharers: int = 1) -> bool:
    """Whether so many images at `size` pixels take at most SHARE of the free memory of `device`, and of the CPU, on which they
    are decoded. sharers: processes that hold them at the same time."""
    needed = sharers * bytes_of(images, size)
    free = (free_bytes(place) for place in {torch.device("cpu"), torch.device(device)})
    return all(needed <= SHARE * each for each in free if each is not None)


def streaming_note(images: int, size: int, device: str | torch.device, sharers: int = 1) -> str:
    """A line for the user when a train split does not fit; "" where it does."""
    if fits(images, size, device, sharers):
        return ""
    copies = f", in {sharers} processes," if sharers > 1 else ""
    return (
        f"{images} images of {size} x {size} pixels take {bytes_of(images, size) / 2**30:.1f} GiB{copies} and would fill more "
        f"than {SHARE:.0%} of the free memory; they are decoded from their files in every epoch"
    )


def check_memory(images: int, size: int) -> None:
    """Raises InputError when so many images at `size` pixels do not fit into the free memory of the CPU."""
    needed, free = bytes_of(images, size), free_bytes(torch.device("cpu"))
    if free is None or needed <= free:
        return
    largest = int((free / (3 * images)) ** 0.5) // 32 * 32
    remedy = f"--imgsz {largest} would fit" if largest else "use fewer images"
    raise InputError(
        f"--imgsz {size}: {images} images of {size} x {size} pixels take {needed / 2**30:.1f} GiB of memory, of which "
        f"{free / 2**30:.1f} GiB are free; {remedy}"
    )


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can be allocated on a device; None where the system does not tell (macOS and Windows, for a CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
