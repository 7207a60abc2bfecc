"""The result of a full training: result.json, the last file that `gpnas train` writes into its folder.

write_result(folder, TrainingResult(...))
read_result(folder)          # None: the training in this folder is not complete
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gpnas.files import write_text

RESULT = "result.json"


@dataclass(frozen=True)
class TrainingResult:
    """source: of the architecture, as the user named it. hash: of the architecture. trial: of the run that found it, or None.
    data: as `--data` named them, absolute. epochs: trained in all. best_epoch: whose weights were judged. imgsz: pixels.
    split: on which they were judged. metrics: COCO's on it."""

    source: str
    hash: str
    trial: int | None
    data: str
    epochs: int
    best_epoch: int
    imgsz: int
    split: str
    metrics: Mapping[str, float]


def write_result(folder: Path, result: TrainingResult) -> None:
    write_text(folder / RESULT, json.dumps(asdict(result), indent=1) + "\n")


def read_result(folder: Path) -> TrainingResult | None:
    """The result of the training in `folder`; None without one, or with one of another version of gpnas."""
    try:
        return TrainingResult(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
