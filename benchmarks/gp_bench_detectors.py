"""The detectors of GP-Bench: how they are drawn, and the rows of detectors.jsonl."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpnas.graph.cost import deployed_cost
from gpnas.paths.features import features
from gpnas.search.trial import Candidate, Space
from search_spaces.architecture import candidate, read_architecture, with_classes
from search_spaces.blueprint import open_catalogue
from search_spaces.gradient_path import open_space
from search_spaces.narrowing import scaled_within

IMGSZ = 128
"""Pixels, in trainings and in costs."""

CLASSES = {"digits": 10, "bccd": 3}

LEAST_FLOPS, MOST_FLOPS, SPANS, DETECTORS_PER_SPAN = 18e6, 144e6, 20, 10
SEED, DRAWS = 20261121, 50
SPACES = tuple(space for part in ("prn", "csp", "elan", "gelan", "pgi") for space in ("gradient-path", part))
"""Spaces in the order in which detectors are drawn from them: every other one is the whole space."""

REFERENCE_FLOPS = (30e6, 60e6, 120e6)
"""GELAN-T and YOLOv9-T are narrowed to these."""


def detectors() -> Iterator[dict[str, Any]]:
    """All rows of detectors.jsonl. The first 20 hold one detector of each span of FLOPs, and so do the next 20, and so on."""
    spaces = {name: open_space(name, CLASSES["digits"]) for name in dict.fromkeys(SPACES)}
    ratio = (MOST_FLOPS / LEAST_FLOPS) ** (1 / SPANS)
    seen: set[str] = set()
    for member in range(DETECTORS_PER_SPAN):
        for span in range(SPANS):
            name = SPACES[(member + span) % len(SPACES)]
            low = LEAST_FLOPS * ratio**span
            detector = drawn(spaces[name], low, low * ratio, IMGSZ, seen, random.Random(f"{SEED}/{member}/{span}"))
            seen.add(detector.hash)
            yield _row(detector, name)
    yield from _references()


def drawn(space: Space, low: float, high: float, imgsz: int, seen: set[str], rng: random.Random) -> Candidate:
    """A candidate whose hash is not in `seen`, with FLOPs in [low, high) at `imgsz` pixels.

    It is the first of DRAWS sampled ones that fits. If none fits, the nearest one is mutated towards it: few samples are as
    small as the smallest spans.
    """

    def distance(sampled: Candidate) -> float:
        flops = deployed_cost(sampled.graph, imgsz).flops
        if low <= flops < high:
            return 1.0 if sampled.hash in seen else 0.0
        return 1.0 + abs(math.log(flops / math.sqrt(low * high)))

    nearest = min((space.propose([], rng) for _ in range(DRAWS)), key=distance)
    while distance(nearest):
        nearest = min(nearest, space.propose([nearest], rng), key=distance)
    return nearest


def _references() -> Iterator[dict[str, Any]]:
    for name in ("gelan-t", "yolov9-t"):
        for flops in REFERENCE_FLOPS:
            yield _row(
                candidate(scaled_within(with_classes(open_catalogue(name), CLASSES["digits"]), flops, None, IMGSZ)), name
            )


def read_detector(file: Path) -> dict[str, Any]:
    """The row of an architecture's YAML file, such as best.yaml."""
    return _row(candidate(read_architecture(file.read_text(), str(file))), str(file))


def _row(detector: Candidate, origin: str) -> dict[str, Any]:
    fused = deployed_cost(detector.graph, IMGSZ)
    rounded = {name: float(f"{value:.7g}") for name, value in features(detector.graph, IMGSZ, IMGSZ).items()}
    cost = {"imgsz": IMGSZ, "flops": fused.flops, "macs": fused.macs, "params": fused.params}
    genotype = json.loads(detector.genotype)
    return {"hash": detector.hash, "origin": origin, "cost": cost, "features": rounded, "genotype": genotype}
