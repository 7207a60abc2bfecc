"""The networks of Table 1: their connections by hand, and those that the catalogue holds."""

from __future__ import annotations

import pytest

from search_spaces.blueprint import open_catalogue
from search_spaces.growth import TABLE_1, blueprint


def sources_of(name: str, depth: int) -> list[tuple[str, list[str]]]:
    """(kind, sources) of the blocks that join features."""
    return [(block.block, block.references) for block in blueprint(name, depth).blocks if block.sources]


@pytest.mark.parametrize("name", [*TABLE_1, "prn"])
def test_the_catalogue_holds_each_network_at_depth_8(name: str) -> None:
    assert open_catalogue(name).hash == blueprint(name, 8).hash


def test_a_plain_network_joins_nothing() -> None:
    assert sources_of("plain", 3) == []


def test_a_residual_network_adds_the_input_of_each_unit() -> None:
    assert sources_of("resnet", 2) == [("add", ["unit1", "stem"]), ("add", ["unit2", "sum1"])]


def test_a_masked_residual_network_masks_half_of_the_identity() -> None:
    options = [block.options for block in blueprint("prn", 2).blocks if block.block == "add"]
    assert options == [{"mask_ratio": 0.5}] * 2
    assert sources_of("prn", 2) == sources_of("resnet", 2)


def test_a_dense_network_reads_everything() -> None:
    assert sources_of("densenet", 2) == [
        ("concat", ["stem"]),
        ("concat", ["stem", "unit1"]),
        ("concat", ["stem", "unit1", "unit2"]),
    ]


@pytest.mark.parametrize(("name", "join"), [("sparse-resnet", "add"), ("sparse-densenet", "concat")])
def test_a_sparse_network_reads_features_at_distances_of_powers_of_two(name: str, join: str) -> None:
    kind, sources = sources_of(name, 9)[-1]  # ten features: stem and nine units
    assert kind == join
    assert sources == ["unit9", "unit8", "unit6", "unit2"]
    assert sources_of(name, 9)[0] == (join, ["stem"])
