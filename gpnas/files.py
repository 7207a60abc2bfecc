"""Tables as files of JSON lines: one object a line, appended as results come in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpnas.errors import InputError


def replace_text(path: Path, text: str) -> None:
    """Write all of a file at once, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def read_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a file, each with `keys`. Raises InputError that names the line."""
    try:
        lines = path.read_text().splitlines()
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
    """Add a row, on the disk when this returns."""
    with path.open("a") as file:
        file.write(_text(row))
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """All of a file or nothing."""
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text("".join(map(_text, rows)))
    os.replace(partial, path)


def drop_half_line(path: Path) -> None:
    """Remove a last line that a crash cut short; a file that is not there is left so."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
