"""Files that stay whole when a process crashes: replaced by renaming a temporary file, or appended to line by line.

JSON lines are text files with one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpnas.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a temporary file beside `path`, to be written in a `with` block. At the end of the block it replaces `path`;
    when the block raises, it is removed and `path` stays. Readers see the old file or the new one, never a part of it.

        with replacing(path) as temporary:
            torch.save(content, temporary)
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file by UTF-8 text. Line ends are written as they are in `text`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def read_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSON lines file. Raises InputError when the file cannot be read, and when a line is not an object with
    all `keys`; the message names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a table that benchmarks/gp_bench.py builds") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {number} is not JSON ({error})") from None
        if not isinstance(row, dict) or any(key not in row for key in keys):
            raise InputError(f"{path}: line {number} must have {', '.join(keys)}, got {line:.60}")
        rows.append(row)
    return rows


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a JSON lines file. The row is on the disk when this returns."""
    with path.open("a") as file:
        file.write(_text(row))
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a JSON lines file."""
    write_text(path, "".join(map(_text, rows)))


def drop_half_line(path: Path) -> None:
    """Remove a last line that has no line end, as a crash leaves it. A missing file stays missing."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
