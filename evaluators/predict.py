"""Detections on any images: read them, detect, draw the boxes.

records, broken = image_records(Path("photos"))
for record, rows in predict(network, records, imgsz=640, names=names, least_score=0.25):
    Path("out.jpg").write_bytes(jpeg(drawn(image_of(record), rows, names)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluators.data.bank import load_bank
from evaluators.data.images import IMAGE_SUFFIXES, Broken, image_size, images_below, readable_image
from evaluators.data.records import Record
from evaluators.detector.ap import Detections
from evaluators.device import pick_device
from evaluators.judge import Split, detect
from gpnas.errors import DataError
from gpnas.graph.network import Network

_BATCH = 32  # images in memory at the same time

_COLOURS = ((47, 109, 181), (194, 65, 12), (22, 128, 86), (140, 60, 160), (180, 130, 0), (200, 40, 90), (0, 140, 160))


def image_records(source: Path) -> tuple[list[Record], list[str]]:
    """The image `source`, or all images below the folder `source`, as records without boxes; and what is wrong with those
    whose header cannot be read. Raises DataError when there are none, or none with a header.
    """
    if source.is_dir():
        files = images_below(source)
    elif source.is_file():
        files = [source]
    else:
        raise DataError(f"no image or folder at '{source}'; give one that is there")
    if not files:
        raise DataError(f"{source} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); give another folder")
    records, broken = [], []
    for number, file in enumerate(files):
        try:
            width, height = image_size(file)
        except DataError as error:
            broken.append(str(error))
            continue
        records.append(Record(number, width, height, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path=file))
    if not records:
        raise DataError(f"{broken[0]}; none of {len(files)} images can be read")
    return records, broken


def predict(
    network: Network,
    records: Sequence[Record],
    *,
    imgsz: int,
    names: Sequence[str],
    least_score: float,
    most: int = 1000,
    device: str = "auto",
    tell: Callable[[str], None] = lambda what: None,
) -> Iterator[tuple[Record, Detections]]:
    """Each record whose image can be read, with its detections of at least `least_score`, the best first, at most `most`.

    imgsz: pixels. names: of the classes. `tell` gets what is wrong with each image that cannot be read.
    """
    chosen = pick_device(device)
    fused = network.to(chosen).fused()
    for start in range(0, len(records), _BATCH):
        batch = records[start : start + _BATCH]
        bank = load_bank(batch, imgsz, chosen, accept_broken=True)
        read = {record.image_id for record in bank.records}
        for record in batch:
            if record.image_id not in read:
                tell(f"the image {_what_is_wrong(record)}; it is left out")
        per_image = detect(fused, Split(bank.records, bank), len(names), most=most)
        yield from ((record, rows[rows[:, 4] >= least_score]) for record, rows in zip(bank.records, per_image, strict=True))


def _what_is_wrong(record: Record) -> str:
    image = readable_image(record)
    return f"{record.path} {image.reason if isinstance(image, Broken) else 'changed while it was read'}"


def as_json(record: Record, rows: Detections, names: Sequence[str]) -> dict[str, Any]:
    """One image's detections, ready for JSON. Boxes are x1, y1, x2, y2 in pixels of the image."""
    boxes = [
        {"class": names[int(label)], "score": round(score, 4), "box": [round(v, 2) for v in box]}
        for *box, score, label in rows.tolist()
    ]
    return {"file": str(record.path), "width": record.width, "height": record.height, "boxes": boxes}


def drawn(image: NDArray[np.uint8], rows: Detections, names: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of `image`, (height, width, 3) RGB, with boxes, classes and scores. The best detections lie on top."""
    image = np.ascontiguousarray(image).copy()
    unit = max(image.shape[:2]) / 640
    thickness, font_scale = max(1, round(2 * unit)), max(0.35, 0.5 * unit)
    for x1, y1, x2, y2, score, label in rows[::-1].tolist():
        colour = _COLOURS[int(label) % len(_COLOURS)]
        left, top = round(x1), round(y1)
        cv2.rectangle(image, (left, top), (round(x2), round(y2)), colour, thickness)
        text = f"{names[int(label)]} {score:.2f}"
        (width, height), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font_scale, 1)
        top = max(top, height + descent)  # above the box, or inside the image where there is no room above
        cv2.rectangle(image, (left, top - height - descent), (left + width, top), colour, -1)
        origin = (left, top - descent + 1)
        cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, font_scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """An RGB image as the bytes of a JPEG file."""
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])
