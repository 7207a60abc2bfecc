"""Work that can be stopped: each task makes a row of a JSON-lines file, and rows that the file holds are not made again."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import Any

from gpnas.files import drop_half_line, read_lines


def held(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows that a file holds, if it exists. A last line that a crash cut short is removed from it."""
    drop_half_line(path)
    return read_lines(path, keys) if path.exists() else []


def finished(
    pool: Executor,
    work: Callable[..., dict[str, Any]],
    calls: Sequence[tuple[Any, ...]],  # arguments of `work`
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(progress, row) of each call as it ends."""
    began = time.monotonic()
    futures = [pool.submit(work, *arguments) for arguments in calls]
    try:
        for number, future in enumerate(as_completed(futures), start=1):
            left = (time.monotonic() - began) / number * (len(calls) - number)
            yield f"{number}/{len(calls)}, {left / 60:.0f} minutes left:", future.result()
    except BaseException:  # report an error at once, not after all other calls
        pool.shutdown(wait=False, cancel_futures=True)
        raise
