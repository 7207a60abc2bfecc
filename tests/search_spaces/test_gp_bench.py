"""The file of GP-Bench's detectors: what is read from a line, and a detector that this version builds otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpnas.errors import GenotypeError, GpnasError, InputError
from search_spaces.architecture import Architecture, candidate, read_architecture
from search_spaces.gp_bench import read_detectors
from tests.search_spaces.test_blueprint import TINY
from tests.search_spaces.test_genotype import TEXT


def line(architecture: Architecture, origin: str, **changes: Any) -> dict[str, Any]:
    made = candidate(architecture)
    cost = {"params": 11, "macs": 4321, "imgsz": 96}
    row = {"hash": made.hash, "origin": origin, "features": {"score": 1.5}, "cost": cost, "genotype": json.loads(made.genotype)}
    return row | changes


def file_of(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "detectors.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_genotypes_have_choices_and_blueprints_have_none(tmp_path: Path) -> None:
    genotype, blueprint = read_architecture(TEXT), read_architecture(TINY)
    first, second = read_detectors(file_of(tmp_path, line(genotype, "pgi"), line(blueprint, "tiny")))
    assert (first.candidate, second.candidate) == (candidate(genotype), candidate(blueprint))
    assert (first.origin, first.features, first.macs, first.imgsz) == ("pgi", {"score": 1.5}, 4321, 96)
    assert (second.origin, second.choices) == ("tiny", {})
    assert (first.choices["backbone.1.mask_ratio"], first.choices["pgi.levels"]) == (0.25, (8, 32))


def test_a_detector_whose_hash_has_changed_is_an_error(tmp_path: Path) -> None:
    genotype = read_architecture(TEXT)
    path = file_of(tmp_path, line(genotype, "pgi", hash="0123456789abcdef"))
    with pytest.raises(GpnasError, match=f"0123456789abcdef is now {genotype.hash}: another version of gpnas wrote the file"):
        read_detectors(path)


def test_a_wrong_line_or_genotype_is_an_error_that_names_it(tmp_path: Path) -> None:
    good = line(read_architecture(TEXT), "pgi")
    with pytest.raises(InputError, match=r"detectors\.jsonl: line 2 must have hash, origin"):
        read_detectors(file_of(tmp_path, good, {"hash": "x"}))
    with pytest.raises(GenotypeError, match=r"detectors\.jsonl: schema must be 1, got None"):
        read_detectors(file_of(tmp_path, good | {"genotype": {"stem": {"width": 16}}}))
