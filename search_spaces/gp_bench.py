"""The detectors of GP-Bench, as `benchmarks/gp_bench.py` writes them: architectures, with features and costs.

detectors = read_detectors(Path("benchmarks/gp-bench/detectors.jsonl"))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpnas.errors import GpnasError
from gpnas.files import read_lines
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate, read_architecture
from search_spaces.choices import choices_of
from search_spaces.genotype import Genotype


class BenchmarkDetector(NamedTuple):
    """A detector of the benchmark.

    choices: those that have an effect, by label; none for an entry of the catalogue. origin: the space that the detector was
    drawn from, or its name in the catalogue. features: of the untrained network. macs: of its fused form on an image of
    `imgsz` x `imgsz` pixels.
    """

    candidate: Candidate
    choices: Mapping[str, Any]
    origin: str
    features: Mapping[str, float]
    macs: int
    imgsz: int


def read_detectors(path: Path) -> list[BenchmarkDetector]:
    """The detectors in a file of JSON lines.

    Raises InputError that names the line, GenotypeError, and GpnasError for a detector whose hash has changed since it was
    written.
    """
    detectors = []
    for line in read_lines(path, ("hash", "origin", "features", "cost", "genotype")):
        architecture = read_architecture(json.dumps(line["genotype"]), str(path))
        rebuilt = candidate(architecture)
        if rebuilt.hash != line["hash"]:
            raise GpnasError(
                f"{path}: {line['hash']} is now {rebuilt.hash}: another version of gpnas wrote the file; build it again"
            )
        choices = choices_of(architecture) if isinstance(architecture, Genotype) else {}
        cost = line["cost"]
        detectors.append(BenchmarkDetector(rebuilt, choices, line["origin"], line["features"], cost["macs"], cost["imgsz"]))
    return detectors
