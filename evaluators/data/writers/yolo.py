"""Write a data set as a data.yaml with one text file of boxes for each image.

    data.yaml, images/train/a.jpg, labels/train/a.txt, images/val/b.jpg, ...

A line is `class cx cy w h`, in shares of the image's width and height. An image without objects has an empty text file. Crowds
are left out, because the format has none. data.yaml has no key `path`: Ultralytics then starts at the folder of the data.yaml,
but looks for a relative `path` below the folder of all its data sets, or below the current one.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from evaluators.data.records import DetectionData, Record
from evaluators.data.writers.placing import by_stem, own_name, put_image, unique_names
from gpnas.files import write_text


def write_yolo(data: DetectionData, folder: Path) -> int:
    """Write into `folder`; returns how many images got a new name. Raises OSError when it cannot be written."""
    renamed = 0
    for split, records in data.splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for record, name in zip(records, unique_names(records, by_stem), strict=True):
            put_image(record, images / name)
            write_text(labels / f"{Path(name).stem}.txt", _lines(record))
            renamed += name != own_name(record)
    settings = {split: f"images/{split}" for split in data.splits} | {"names": dict(enumerate(data.names))}
    write_text(folder / "data.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return renamed


def _lines(record: Record) -> str:
    return "".join(
        f"{label} {_shares(record, box.tolist())}\n"
        for box, label, crowd in zip(record.boxes, record.classes.tolist(), record.crowd.tolist(), strict=True)
        if not crowd
    )


def _shares(record: Record, box: tuple[float, float, float, float]) -> str:
    """`cx cy w h` with ten digits: in an image of 100,000 pixels still a thousandth of a pixel."""
    x1, y1, x2, y2 = box
    shares = (
        (x1 + x2) / 2 / record.width,
        (y1 + y2) / 2 / record.height,
        (x2 - x1) / record.width,
        (y2 - y1) / record.height,
    )
    return " ".join(f"{share:.10g}" for share in shares)
