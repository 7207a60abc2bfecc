"""What genotypes and blueprints have in common: they are read, built, and given a head for a number of classes."""

from __future__ import annotations

from typing import Any

from gpnas.errors import GenotypeError, GraphError
from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Branch, Graph
from gpnas.search.trial import Candidate
from search_spaces.blueprint import Block, Blueprint, build_blueprint, is_blueprint, level_channels, read_blueprint
from search_spaces.detector import build_detector
from search_spaces.genotype import Genotype, read_genotype
from search_spaces.pieces import HEADS
from search_spaces.strict_yaml import canonical_hash, parse_yaml

Architecture = Genotype | Blueprint

COMPARED_AT = 640
"""Height and width, in pixels, at which a space compares the MACs of its candidates."""


def read_architecture(text: str, where: str = "architecture") -> Architecture:
    """Parse YAML strictly: with the key `blocks` it is a blueprint, otherwise a genotype. Raises GenotypeError, one line."""
    return read_blueprint(text, where) if is_blueprint(parse_yaml(text, where)) else read_genotype(text, where)


def build(architecture: Architecture) -> Graph:
    """The training graph. Raises GenotypeError when the choices fit no network."""
    if isinstance(architecture, Blueprint):
        return build_blueprint(architecture)
    try:
        return build_detector(architecture)
    except GraphError as error:
        raise GenotypeError(f"the choices fit no network: {error}") from None


def candidate(architecture: Architecture) -> Candidate:
    """The candidate that `architecture` describes. Raises GenotypeError as `build` does."""
    graph = build(architecture)
    text = architecture.to_json()
    # A genotype's canonical line is what its hash is made from; a search writes it once.
    return Candidate(text, canonical_hash(text) if isinstance(architecture, Genotype) else architecture.hash, graph)


def deployed_macs(candidate: Candidate) -> int:
    """MACs of the deployed network on an image of COMPARED_AT x COMPARED_AT pixels."""
    return deployed_cost(candidate.graph, COMPARED_AT).macs


def strides_of(architecture: Architecture) -> tuple[int, ...]:
    """Strides of the levels on which the main branch predicts, in pixels, rising. Raises GenotypeError as `build` does."""
    return tuple(sorted({out.stride for out in build(architecture).outputs if out.branch is Branch.MAIN}))


def classes_of(architecture: Architecture) -> int:
    """Classes that the head predicts. Raises GenotypeError when a blueprint has no head."""
    if isinstance(architecture, Genotype):
        return architecture.head.classes
    for block in architecture.blocks:
        if "classes" in block.options:
            return int(block.options["classes"])
    raise GenotypeError(f"{architecture.name}: no block predicts classes; add a detect block")


def has_anchors(architecture: Architecture) -> bool:
    """Whether some head is of a kind that gpnas counts and analyses but does not train."""
    return isinstance(architecture, Blueprint) and any(
        block.block in HEADS and block.block != "detect" for block in architecture.blocks
    )


def with_classes(architecture: Architecture, classes: int) -> Architecture:
    """The same network with heads for `classes` classes.

    gpnas does not train anchor-based heads and mask prototypes, which some published networks have. A decoupled head on the
    same levels replaces them, with the widths of YOLOv9's rule. Raises GenotypeError for a classifier, which has no levels.
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
            blocks.append(_decoupled_head(architecture, block, classes))
        elif block.block != "prototypes":
            blocks.append(block)
    return architecture.model_copy(update={"blocks": blocks})


def _changed(block: Block, **options: Any) -> Block:
    return Block.model_validate({**block.row, **options})


def _decoupled_head(architecture: Blueprint, block: Block, classes: int) -> Block:
    """A detect block on the levels of the anchor-based head `block`."""
    levels = block.references
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
