"""A blueprint: an architecture written block by block, for networks that a genotype cannot describe, such as published ones.

    schema: 1
    name: tiny
    activation: silu
    blocks:
    - {name: stem, block: conv, width: 16, kernel: 3, stride: 2}
    - {name: p2, block: csp, width: 32, depth: 1, unit: residual, split_ratio: 0.5, hidden_ratio: 1.0, fusion: csp}
    - {block: detect, from: p2, classes: 3, box_width: 16, class_width: 16}

A *block* is one entry of this list. It reads the block before it, or those that `from` names: `image` is the input image, and
`route.1` is the second output of the block `route`. Its kind, under the key `block`, is either a family of `families.FAMILIES`,
with the choices of a genotype's stage (and `channel_step`, if it rounds its shares in its own way), or a piece of
`pieces.PIECES`, with the options of the piece's signature.
`width_multiple: 0.5` halves all widths. (The computational block of ELAN and GELAN is something else: see `families`.)
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from gpnas.errors import GenotypeError, GraphError
from gpnas.graph.graph import Graph, GraphBuilder
from search_spaces.families import FAMILIES, build_stage
from search_spaces.genotype import CHANNEL_STEP, Stage, has_ratios
from search_spaces.pieces import PIECES, Piece
from search_spaces.strict_yaml import SCHEMA, StrictModel, canonical_hash, canonical_json, parse_yaml, validate

WIDTH_STEP = 8
"""Widths that a width multiple has changed are multiples of this many channels."""

WIDTHS = ("width", "hidden", "widths", "box_width", "class_width")
"""Options, of families and pieces, that a width multiple changes."""


class Block(BaseModel):
    """One block. name: for the `from` of later blocks. block: its kind. sources (key `from`): None is the block before it."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str | None = None
    block: str
    sources: Annotated[str | list[str] | None, Field(alias="from")] = None

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name, the kind and the sources."""
        return dict(self.model_extra or {})

    @property
    def references(self) -> list[str]:
        """What `from` names, as a list."""
        return [self.sources] if isinstance(self.sources, str) else list(self.sources or [])

    @property
    def row(self) -> dict[str, Any]:
        """The block as its YAML has it."""
        return self.model_dump(exclude_none=True, by_alias=True)


class _BlueprintStage(Stage):
    """A stage with what some published networks have and no genotype has.

    split_ratio: the computational path may be wider than the output, as in the last stage of YOLOv9-E's neck. rounding (key
    `channel_step`): shares are multiples of this many channels in place of CHANNEL_STEP. YOLOv9-M halves 180 to 90 channels,
    which is a multiple of 2.
    """

    split_ratio: Annotated[float, Field(gt=0, le=2)] | None = None
    rounding: Annotated[int | None, Field(alias="channel_step", ge=1, le=64)] = None

    @property
    def channel_step(self) -> int:
        return self.rounding or CHANNEL_STEP

    @model_validator(mode="after")
    def _rounds_some_share(self) -> _BlueprintStage:
        if self.rounding is not None and not has_ratios(self.family):
            raise ValueError(f"channel_step has no effect in family {self.family}; remove it")
        return self


class Blueprint(StrictModel):
    """Blocks in topological order.

    width_multiple: multiplies every width of every block; the results are rounded to multiples of WIDTH_STEP. source,
    published: the paper, and the figures that it prints. found: what a search writes beside the architecture. These three and
    the name do not change the hash.
    """

    schema_version: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)] = SCHEMA
    name: str
    source: str | None = None
    published: dict[str, Any] | None = None
    activation: Literal["silu", "relu", "leaky_relu"] = "silu"
    width_multiple: Annotated[float, Field(gt=0, le=8)] | None = None
    blocks: Annotated[list[Block], Field(min_length=1)]
    found: dict[str, Any] | None = None

    @property
    def hash(self) -> str:
        """16 hex digits of the activation, the width multiple and the blocks alone."""
        choices = self.model_dump(exclude_none=True, by_alias=True, include={"activation", "width_multiple", "blocks"})
        return canonical_hash(canonical_json(choices))

    def to_json(self) -> str:
        """One canonical line that `read_blueprint` reads: everything but `published` and `found`."""
        return canonical_json(self.model_dump(exclude_none=True, exclude={"found", "published"}, by_alias=True))

    def to_yaml(self, found: dict[str, Any] | None = None) -> str:
        """YAML that `read_blueprint` turns into an equal blueprint, with one line for each block."""
        document = self.model_dump(exclude_none=True, exclude={"found", "blocks"}, by_alias=True)
        text = yaml.safe_dump(document, sort_keys=False, width=120) + "blocks:\n"
        for block in self.blocks:
            text += "- " + yaml.safe_dump(block.row, sort_keys=False, default_flow_style=True, width=1000)
        return text + (yaml.safe_dump({"found": found}, sort_keys=False) if found else "")


def read_blueprint(text: str, where: str = "blueprint") -> Blueprint:
    """Parse YAML strictly. Raises GenotypeError, one line that begins with `where` and names key, value and place."""
    blueprint = validate(Blueprint, parse_yaml(text, where), where)
    for i, block in enumerate(blueprint.blocks):
        options_of(block, f"{where}: blocks[{i}]")
    return blueprint


def build_blueprint(blueprint: Blueprint) -> Graph:
    """The graph of `blueprint`. Raises GenotypeError that names the block whose choices do not fit."""
    b, _ = _assemble(blueprint)
    try:
        return b.build()
    except GraphError as error:
        raise GenotypeError(f"{blueprint.name}: {error}") from None


def level_channels(blueprint: Blueprint, reference: str) -> int:
    """Channels of the tensor that `reference` names. Raises GenotypeError as `build_blueprint` does."""
    b, outputs = _assemble(blueprint)
    return b.channels(_tensor(outputs, reference, blueprint.name))


def _assemble(blueprint: Blueprint) -> tuple[GraphBuilder, dict[str, list[int]]]:
    """The builder after the last block, and the outputs of every named block."""
    b = GraphBuilder(act=blueprint.activation)
    outputs: dict[str, list[int]] = {"image": [b.image]}
    previous = [b.image]
    for i, block in enumerate(blueprint.blocks):
        where = f"blocks[{i}]" + (f" ({block.name})" if block.name else "")
        inputs = previous if block.sources is None else [_tensor(outputs, ref, where) for ref in block.references]
        if block.name in outputs or (block.name and "." in block.name):
            raise GenotypeError(f"{where}: name {block.name!r} is taken or has a dot; choose another")
        try:
            with b.scope(block.name or f"{block.block}{i}"):
                previous = _build_block(b, _scaled(block, blueprint.width_multiple), inputs, where)
        except GraphError as error:
            raise GenotypeError(f"{where}: {error}") from None
        if block.name:
            outputs[block.name] = previous
    return b, outputs


def _scaled(block: Block, multiple: float | None) -> Block:
    """`block` with its widths multiplied. Equal widths stay equal, so that tensors that could be added still can be."""
    if multiple is None:
        return block
    row = block.row
    for option in WIDTHS:
        if isinstance(row.get(option), int):
            row[option] = scaled_width(row[option], multiple)
        elif isinstance(row.get(option), list):
            row[option] = [scaled_width(width, multiple) for width in row[option]]
    return Block.model_validate(row)


def scaled_width(width: int, multiple: float) -> int:
    """`width` times `multiple`, rounded to a multiple of WIDTH_STEP and at least one step; in channels."""
    return max(WIDTH_STEP, int(width * multiple / WIDTH_STEP + 0.5) * WIDTH_STEP)


def is_blueprint(document: Any) -> bool:
    """Whether a parsed YAML is meant to be a blueprint."""
    return isinstance(document, dict) and "blocks" in document


def catalogue() -> list[str]:
    """Names of the published architectures that ship with gpnas."""
    files = resources.files("search_spaces") / "catalogue"
    return sorted(file.name.removesuffix(".yaml") for file in files.iterdir() if file.name.endswith(".yaml"))


def open_catalogue(name: str) -> Blueprint:
    """A published architecture by name. Raises GenotypeError that lists the names of the catalogue."""
    if name not in catalogue():
        raise GenotypeError(f"{name}: no such architecture in the catalogue; there are {', '.join(catalogue())}")
    return read_blueprint((resources.files("search_spaces") / "catalogue" / f"{name}.yaml").read_text(), name)


def _tensor(outputs: dict[str, list[int]], reference: str, where: str) -> int:
    """The tensor that `reference` names: the output of a block, or `block.k` for output k of a block with several."""
    name, _, k = reference.partition(".")
    if name not in outputs:
        raise GenotypeError(f"{where}: from names {reference!r}, but no earlier block has this name")
    if k and (not k.isdecimal() or int(k) >= len(outputs[name])):
        raise GenotypeError(f"{where}: from names {reference!r}, but {name} has {len(outputs[name])} outputs, counted from 0")
    return outputs[name][int(k or 0)]


def _build_block(b: GraphBuilder, block: Block, inputs: list[int], where: str) -> list[int]:
    """The outputs of `block`. Raises GenotypeError, and GraphError when its inputs do not fit."""
    options = options_of(block, where)
    reads_many = block.block in PIECES and _reads_many(PIECES[block.block])
    if not reads_many and len(inputs) != 1:
        raise GenotypeError(f"{where}: {block.block} reads one tensor, got {len(inputs)}; concatenate or add them first")
    if isinstance(options, Stage):
        return [build_stage(b, inputs[0], options)]
    outputs = PIECES[block.block](b, inputs if reads_many else inputs[0], **options)
    return outputs if isinstance(outputs, list) else [outputs]


def options_of(block: Block, where: str) -> Stage | dict[str, Any]:
    """The stage of a family, or the keyword arguments of a piece, defaults included. Raises GenotypeError."""
    if block.block in FAMILIES:
        return validate(_BlueprintStage, {"family": block.block, **block.options}, where)
    if block.block in PIECES:
        return validate(_options_model(PIECES[block.block]), block.options, where).model_dump()
    raise GenotypeError(f"{where}: no block is called {block.block!r}; there are {', '.join([*FAMILIES, *PIECES])}")


@cache
def _reads_many(piece: Piece) -> bool:
    return "xs" in inspect.signature(piece).parameters


@cache
def _options_model(piece: Piece) -> type[StrictModel]:
    """The strict model of a piece's options, made from the keyword arguments of its signature."""
    hints = get_type_hints(piece)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(piece).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(piece.__name__, __base__=StrictModel, **fields)
