"""Damaged images, found by decoding every one: headers and annotations do not tell.

readable = without_damaged(data)
readable.data, readable.problems["val"]
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from evaluators.data.images import Broken, decoding_threads, readable_image
from evaluators.data.problems import Findings, Problem
from evaluators.data.records import DetectionData, Record


@dataclass(frozen=True)
class Readable:
    """data: without the images that cannot be used. problems: what is wrong with those, by split, because training checks each
    split for itself."""

    data: DetectionData
    problems: dict[str, tuple[Problem, ...]]


def without_damaged(data: DetectionData) -> Readable:
    """Decode all images of a data set."""
    splits, problems = {}, {}
    for split, records in data.splits.items():
        with ThreadPoolExecutor(decoding_threads()) as pool:
            broken = list(pool.map(_what_is_wrong, records))
        found = Findings()
        for record, what in zip(records, broken, strict=True):
            if what is not None:
                found.add(what.kind, f"{record.path} {what.reason}")
        splits[split] = tuple(record for record, what in zip(records, broken, strict=True) if what is None)
        problems[split] = found.problems({"image": len(records)})
    return Readable(replace(data, splits=splits), problems)


def _what_is_wrong(record: Record) -> Broken | None:
    image = readable_image(record)
    return image if isinstance(image, Broken) else None
