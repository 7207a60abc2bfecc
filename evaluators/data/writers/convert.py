"""Write a data set in another format.

check_target("coco", Path("out"), data.source)
convert(data, "coco", Path("out"))         # "wrote 364 images and 4888 boxes as coco into out"
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evaluators.data.records import DetectionData
from evaluators.data.tree import Tree
from evaluators.data.writers.coco import write_coco
from evaluators.data.writers.voc import write_voc
from evaluators.data.writers.yolo import write_yolo
from gpnas.errors import InputError


class Writer(NamedTuple):
    """write: writes a data set into a folder, and returns how many images got a new name. has_crowds: whether the format has
    boxes around many objects; otherwise they are left out."""

    write: Callable[[DetectionData, Path], int]
    has_crowds: bool


WRITERS = {"coco": Writer(write_coco, True), "yolo": Writer(write_yolo, False), "voc": Writer(write_voc, False)}


def check_target(format_: str, folder: Path, source: str) -> None:
    """Raises InputError for a format that cannot be written, a folder that is not new or empty, and one inside of `source`,
    where the next command would find it as a part of the data."""
    if format_ not in WRITERS:
        raise InputError(f"--to {format_}: must be one of {', '.join(WRITERS)}, followed by a folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--to {format_} {folder}: is not empty; give a new folder")
    given = Path(os.path.expanduser(source))
    root = Tree.of(given).root if given.exists() else given
    if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
        raise InputError(f"--to {format_} {folder}: lies inside of the data {source}; give a folder outside of it")


def convert(data: DetectionData, format_: str, folder: Path) -> str:
    """Write `data` into a folder that `check_target` accepted; returns a sentence that says what was written.

    Image files are hard links to the old ones where possible, else copies. Raises InputError when it cannot be written.
    """
    writer = WRITERS[format_]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        renamed = writer.write(data, folder)
    except OSError as error:
        why = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        raise InputError(f"--to {format_} {folder}: cannot be written ({why}); the data are as they were") from error
    return _told(data, format_, folder, renamed)


def _told(data: DetectionData, format_: str, folder: Path, renamed: int) -> str:
    records = [record for split in data.splits.values() for record in split]
    crowds = sum(int(record.crowd.sum()) for record in records)
    has_crowds = WRITERS[format_].has_crowds
    boxes = sum(len(record.boxes) for record in records) - (0 if has_crowds else crowds)
    told = f"wrote {len(records)} images and {boxes} boxes as {format_} into {folder}"
    if crowds and not has_crowds:
        told += f"; {crowds} crowds were left out, because the format has none"
    if renamed:
        told += f"; {renamed} images got a new name, because two had the same or the format does not allow it"
    return told
