"""The table of a training, a row an epoch: results.csv of a full training, log.csv of a proxy."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpnas.files import write_text


def write_history(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV, with a column for every key. The file is replaced, so a resumed training repeats no row."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())
