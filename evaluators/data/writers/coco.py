"""Write a data set as COCO's JSON (cocodataset.org, "Data format").

    annotations/instances_train.json, images/train/a.jpg, annotations/instances_val.json, ...

The ids of categories, and those of images that are integers, stay as they are; crowds and the areas of objects are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.data.records import DetectionData, Record
from evaluators.data.writers.placing import by_name, own_name, put_image, unique_names
from gpnas.files import write_text


def write_coco(data: DetectionData, folder: Path) -> int:
    """Write into `folder`; returns how many images got a new name. Raises OSError when it cannot be written."""
    renamed = 0
    (folder / "annotations").mkdir(parents=True)
    for split, records in data.splits.items():
        images = folder / "images" / split
        images.mkdir(parents=True)
        names = unique_names(records, by_name)
        for record, name in zip(records, names, strict=True):
            put_image(record, images / name)
        renamed += sum(name != own_name(record) for record, name in zip(records, names, strict=True))
        content = _content(data, records, names)
        write_text(folder / "annotations" / f"instances_{split}.json", json.dumps(content, separators=(",", ":")))
    return renamed


def _content(data: DetectionData, records: Sequence[Record], names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    ids = image_ids(records)
    images = [
        {"id": key, "file_name": name, "width": record.width, "height": record.height}
        for key, name, record in zip(ids, names, records, strict=True)
    ]
    annotations: list[dict[str, Any]] = []
    for key, record in zip(ids, records, strict=True):
        annotations += _annotations(record, key, len(annotations) + 1, data.category_ids)
    categories = [{"id": key, "name": name} for key, name in zip(data.category_ids, data.names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def image_ids(records: Sequence[Record]) -> list[int]:
    """An integer for each record of a split: its own id; where that is a text, or another record has it, the next one that is
    free."""
    kept: set[int] = set()
    own: list[int | None] = []
    for record in records:
        is_new = isinstance(record.image_id, int) and record.image_id not in kept
        own.append(int(record.image_id) if is_new else None)
        kept.update(key for key in own[-1:] if key is not None)
    free = max(kept, default=0)
    ids = []
    for key in own:
        free += key is None
        ids.append(free if key is None else key)
    return ids


def _annotations(record: Record, image: int, first: int, categories: Sequence[int]) -> list[dict[str, Any]]:
    """The boxes of an image, numbered from `first`."""
    rows = zip(record.boxes, record.classes.tolist(), record.crowd.tolist(), record.areas, strict=True)
    entries = []
    for number, (box, label, crowd, area) in enumerate(rows, start=first):
        x1, y1, x2, y2 = (float(str(value)) for value in box)  # the shortest decimals of a float32
        entries.append(
            {
                "id": number,
                "image_id": image,
                "category_id": categories[label],
                "bbox": [x1, y1, _nine_digits(x2 - x1), _nine_digits(y2 - y1)],
                "area": float(str(area)),
                "iscrowd": int(crowd),
                "segmentation": [],
            }
        )
    return entries


def _nine_digits(value: float) -> float:
    """Without the last bits of a difference, which are noise: 0.3 instead of 0.30000000000000004."""
    return float(f"{value:.9g}")
