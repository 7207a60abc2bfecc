"""An architecture in either form, a genotype of choices or a blueprint of blocks: read, build, fit to a number of classes."""

from __future__ import annotations

from typing import Any

from gpnas.errors import GenotypeError, GraphError
from gpnas.graph.graph import Graph
from gpnas.search.trial import Candidate
from search_spaces.blueprint import Block, Blueprint, build_blueprint, is_blueprint, level_channels, read_blueprint
from search_spaces.detector import build_detector
from search_spaces.genotype import Genotype, hash_of, read_genotype
from search_spaces.pieces import HEADS
from search_spaces.strict_yaml import parse

Architecture = Genotype | Blueprint


def read_architecture(text: str, where: str = "architecture") -> Architecture:
    """Parse YAML strictly: with `blocks` it is a blueprint, else a genotype. Raises GenotypeError, one line."""
    return read_blueprint(text, where) if is_blueprint(parse(text, where)) else read_genotype(text, where)


def build(architecture: Architecture) -> Graph:
    """The training graph. Raises GenotypeError when its choices fit no network."""
    if isinstance(architecture, Blueprint):
        return build_blueprint(architecture)
    try:
        return build_detector(architecture)
    except GraphError as error:
        raise GenotypeError(f"the choices fit no network: {error}") from None


def candidate(architecture: Architecture) -> Candidate:
    """The candidate that `architecture` describes. Raises GenotypeError when its choices fit no channels."""
    graph = build(architecture)
    text = architecture.to_json()
    return Candidate(text, hash_of(text) if isinstance(architecture, Genotype) else architecture.hash, graph)


def classes_of(architecture: Architecture) -> int:
    """Classes that the head predicts. Raises GenotypeError when a blueprint has no head."""
    if isinstance(architecture, Genotype):
        return architecture.head.classes
    for block in architecture.blocks:
        if "classes" in block.options:
            return int(block.options["classes"])
    raise GenotypeError(f"{architecture.name}: no block predicts classes; add a detect block")


def has_anchors(architecture: Architecture) -> bool:
    """Whether a head is of a kind that gpnas counts and analyses but does not train."""
    return isinstance(architecture, Blueprint) and any(
        block.block in HEADS and block.block != "detect" for block in architecture.blocks
    )


def with_classes(architecture: Architecture, classes: int) -> Architecture:
    """The same trunk with heads for `classes`.

    Heads by anchors and mask prototypes, which published tables count and gpnas does not train, give way to one decoupled
    head on the same levels, with the widths of YOLOv9's rule. Raises GenotypeError for a classifier, which has no levels.
    """
    if isinstance(architecture, Genotype):
        return architecture.model_copy(update={"head": architecture.head.model_copy(update={"classes": classes})})
    blocks: list[Block] = []
    for block in architecture.blocks:
        if block.block == "classifier":
            raise GenotypeError(
                f"{architecture.name}: a classifier cannot be trained as a detector; choose another architecture"
            )
        if block.block == "detect":
            blocks.append(_changed(block, classes=classes))
        elif block.block == "anchors":
            blocks.append(_detect_in_place_of(architecture, block, classes))
        elif block.block != "prototypes":
            blocks.append(block)
    return architecture.model_copy(update={"blocks": blocks})


def _changed(block: Block, **options: Any) -> Block:
    return Block.model_validate({**block.model_dump(exclude_none=True, by_alias=True), **options})


def _detect_in_place_of(architecture: Blueprint, block: Block, classes: int) -> Block:
    levels = [block.sources] if isinstance(block.sources, str) else list(block.sources or [])
    finest = level_channels(architecture.model_copy(update={"width_multiple": None}), levels[0])
    return Block.model_validate(
        {
            "name": block.name,
            "block": "detect",
            "from": levels,
            "classes": classes,
            "box_width": max(finest // 4, 64),
            "class_width": max(finest, min(2 * classes, 128)),
            "box_groups": 4,
        }
    )
