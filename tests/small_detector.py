"""Small detectors and coloured rectangles, for tests of the evaluators that train."""

from __future__ import annotations

import numpy as np

from evaluators.data.records import DetectionData, Record
from gpnas.graph.graph import Branch, Graph, GraphBuilder
from gpnas.search.trial import Candidate

COLOURS = ((220, 40, 40), (40, 200, 60), (50, 70, 230))
NAMES = ("red", "green", "blue")


def small_graph(width: int = 16, classes: int = 3, *, bins: int = 8, auxiliary: float = 0.0) -> Graph:
    """Levels 8 and 16, of `width` and 2 * `width` channels; with `auxiliary`, a second head of that weight."""
    b = GraphBuilder()
    x = b.conv(b.conv(b.image, width // 2, 3, 2), width, 3, 2)
    fine = b.conv(b.conv(x, width, 3, 2), width, 3)
    coarse = b.conv(b.conv(fine, 2 * width, 3, 2), 2 * width, 3)
    joined = b.conv(b.concat([b.upsample(coarse), fine]), width, 3)
    for stride, feature in ((8, joined), (16, coarse)):
        _predict(b, feature, classes, bins, stride, Branch.MAIN, 1.0)
    if auxiliary:
        _predict(b, fine, classes, bins, 8, Branch.AUXILIARY, auxiliary)
    return b.build()


def _predict(b: GraphBuilder, x: int, classes: int, bins: int, stride: int, branch: Branch, weight: float) -> None:
    with b.scope(f"{branch}{stride}"):
        features = b.conv(x, b.channels(x), 3)
        box = b.conv(features, 4 * bins, act="", norm=False, bias=True, name="box")
        kinds = b.conv(features, classes, act="", norm=False, bias=True, name="class")
        b.output(b.concat([box, kinds]), "output", stride=stride, branch=branch, weight=weight)


def candidate(graph: Graph, name: str = "small") -> Candidate:
    return Candidate(f"name: {name}\n", f"hash-{name}", graph)


def rectangles(count: int, size: int = 64, seed: int = 0, first_id: int = 1) -> tuple[Record, ...]:
    """Images of one or two coloured rectangles on dark noise; the colour is the class."""
    return tuple(_record(first_id + i, size, np.random.default_rng([seed, i])) for i in range(count))


def _record(image_id: int, size: int, rng: np.random.Generator) -> Record:
    pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
    boxes, classes = [], []
    for half in range(int(rng.integers(1, 3))):  # one in the upper half, maybe one in the lower: they never overlap
        width, height = rng.integers(size // 5, size * 2 // 5, 2)
        x, y = int(rng.integers(0, size - width)), half * size // 2 + int(rng.integers(0, size // 2 - height))
        label = int(rng.integers(len(COLOURS)))
        pixels[y : y + height, x : x + width] = COLOURS[label]
        boxes.append([x, y, x + width, y + height])
        classes.append(label)
    return Record(image_id, size, size, np.array(boxes, np.float32), np.array(classes, np.int64), pixels=pixels)


def rectangle_data(train: int = 8, val: int = 4, size: int = 64) -> DetectionData:
    splits = {"train": rectangles(train, size), "val": rectangles(val, size, seed=1, first_id=1000)}
    return DetectionData("rectangles", NAMES, splits, (1, 2, 3))
