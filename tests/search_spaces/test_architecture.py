"""Genotypes and blueprints alike: they are told apart, and given heads for other classes."""

from __future__ import annotations

import pytest

from gpnas.errors import GenotypeError
from gpnas.graph.graph import Branch
from search_spaces.architecture import build, candidate, classes_of, deployed_macs, has_anchors, read_architecture, with_classes
from search_spaces.blueprint import Blueprint, open_catalogue
from search_spaces.genotype import Genotype
from tests.search_spaces.test_blueprint import TINY
from tests.search_spaces.test_genotype import TEXT


def test_a_text_with_blocks_is_a_blueprint_and_any_other_a_genotype() -> None:
    assert isinstance(read_architecture(TINY), Blueprint)
    assert isinstance(read_architecture(TEXT), Genotype)


@pytest.mark.parametrize("text", [TINY, TEXT], ids=["blueprint", "genotype"])
def test_other_classes_change_the_predictions_alone(text: str) -> None:
    architecture = read_architecture(text)
    assert classes_of(architecture) == 3
    changed = with_classes(architecture, 7)
    assert classes_of(changed) == 7
    pairs = list(zip(build(architecture).ops, build(changed).ops, strict=True))
    changes = {(a.kind, b.channels - a.channels) for a, b in pairs if a.channels != b.channels}
    assert changes == {("conv", 4), ("concat", 4)}
    assert build(with_classes(changed, 3)) == build(architecture)


@pytest.mark.parametrize("text", [TINY, TEXT], ids=["blueprint", "genotype"])
def test_a_candidate_has_the_hash_of_its_architecture(text: str) -> None:
    made = candidate(read_architecture(text))
    assert made.hash == read_architecture(text).hash == read_architecture(made.genotype).hash
    assert made.graph == build(read_architecture(text))


def test_macs_of_a_candidate_by_hand() -> None:
    """The inference graph of TINY, which has no routes, on 640 x 640 pixels: 320 x 320 after the stem, then 160 x 160."""
    stem = 320 * 320 * 9 * 3 * 16
    p2 = 160 * 160 * 9 * 16 * 16
    csp = 160 * 160 * (16 * 8 + 9 * 8 * 8 * 2 + 8 * 8 + 16 * 8 + 16 * 16)
    head = 160 * 160 * (4 * 9 * 16 * 16 + 16 * 64 + 16 * 3)
    unit = 160 * 160 * (8 * 8 - 9 * 8 * 8)  # the first layer of a unit is 1x1
    assert deployed_macs(candidate(read_architecture(TINY))) == stem + p2 + csp + head + unit


def test_a_decoupled_head_replaces_anchors_and_prototypes() -> None:
    entry = open_catalogue("yolor-csp")
    assert has_anchors(entry)
    trained = with_classes(entry, 5)
    assert isinstance(trained, Blueprint) and not has_anchors(trained)
    assert {block.block for block in entry.blocks} - {block.block for block in trained.blocks} == {"anchors", "prototypes"}
    graph = build(trained)
    assert [(out.stride, graph.ops[out.op].channels) for out in graph.outputs] == [(8, 69), (16, 69), (32, 69)]
    assert all(out.branch is Branch.MAIN for out in graph.outputs)


@pytest.mark.parametrize(
    ("width", "classes", "box_width", "class_width"),
    [(320, 5, 80, 320), (24, 5, 64, 24), (24, 33, 64, 66), (24, 90, 64, 128), (320, 900, 80, 320)],
)
def test_its_widths_follow_the_rule_of_yolov9(width: int, classes: int, box_width: int, class_width: int) -> None:
    """Boxes: max(width / 4, 64). Classes: max(width, min(2 * classes, 128)). width: of the first level, before any multiple."""
    text = f"""
schema: 1
name: anchored
width_multiple: 0.5
blocks:
- {{name: fine, block: conv, width: {width}, kernel: 3, stride: 8}}
- {{name: coarse, block: conv, width: 4000, kernel: 3, stride: 2}}
- {{name: head, block: anchors, from: [fine, coarse], classes: 2}}
"""
    trained = with_classes(read_architecture(text), classes)
    assert isinstance(trained, Blueprint)
    head = trained.blocks[-1]
    assert (head.name, head.block, head.sources) == ("head", "detect", ["fine", "coarse"])
    expected = {"classes": classes, "box_width": box_width, "class_width": class_width, "box_groups": 4}
    assert head.options == expected


def test_a_decoupled_head_is_not_replaced() -> None:
    entry = open_catalogue("yolov9-t")
    assert not has_anchors(entry) and not has_anchors(read_architecture(TEXT))
    assert with_classes(entry, classes_of(entry)).hash == entry.hash


def test_a_classifier_cannot_be_trained_as_a_detector() -> None:
    with pytest.raises(GenotypeError, match="resnet50: a classifier cannot be trained as a detector"):
        with_classes(open_catalogue("resnet50"), 3)


def test_classes_of_a_blueprint_without_a_head_are_an_error() -> None:
    with pytest.raises(GenotypeError, match="tiny: no block predicts classes; add a detect block"):
        classes_of(read_architecture(TINY[: TINY.index("- {block: detect")]))
