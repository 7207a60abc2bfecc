"""An architecture written block by block, for networks that the genotype's pattern does not hold: the published ones.

    schema: 1
    name: tiny
    activation: silu
    blocks:
    - {name: stem, block: conv, width: 16, kernel: 3, stride: 2}
    - {name: p2, block: csp, width: 32, depth: 1, unit: residual, split_ratio: 0.5, hidden_ratio: 1.0, fusion: csp}
    - {block: detect, from: p2, classes: 3, box_width: 16, class_width: 16}

A block reads the one before it unless `from` names others (`image` is the picture; `route.1` is a block's second output).
`block` is a family of `blocks.BLOCKS`, with the knobs of a genotype's stage, or a piece of `pieces.PIECES`, with the options
of its signature. Both are read strictly, as genotypes are. `width_multiple: 0.5` makes a network of half the widths.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from gpnas.errors import GenotypeError, GraphError
from gpnas.graph.graph import Graph, GraphBuilder
from search_spaces.families import BLOCKS, build_block
from search_spaces.genotype import Stage
from search_spaces.pieces import PIECES
from search_spaces.strict_yaml import SCHEMA, one_line, parse

WIDTH_STEP = 8
WIDTHS = ("width", "hidden", "widths", "box_width", "class_width")
"""Options that count channels, of families and of pieces; an output's classes, masks and bins are no widths."""

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


class Block(BaseModel):
    """One block: what it is, what it reads, and its options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str | None = None
    block: str
    sources: Annotated[str | list[str] | None, Field(alias="from")] = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class _Stage(Stage):
    """A stage whose entry may be wider than what it returns, as in the last stage of YOLOv9-E's neck."""

    split_ratio: Annotated[float, Field(gt=0, le=2)] | None = None


class Blueprint(BaseModel):
    """Blocks in topological order. `name`, `source`, `published` and `found` say where it is from; they do not count.

    width_multiple: every width of every block is multiplied by it, and rounded to a multiple of WIDTH_STEP.
    """

    model_config = _STRICT

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
        """16 hex digits of the activation, the multiple and the blocks alone."""
        return hashlib.sha256(json.dumps(self._choices(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]

    def _choices(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True, by_alias=True, include={"activation", "width_multiple", "blocks"})

    def to_json(self) -> str:
        document = self.model_dump(exclude_none=True, exclude={"found", "published"}, by_alias=True)
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    def to_yaml(self, found: dict[str, Any] | None = None) -> str:
        """YAML that `read_blueprint` turns into an equal blueprint, one line a block."""
        document = self.model_dump(exclude_none=True, exclude={"found", "blocks"}, by_alias=True)
        text = yaml.safe_dump(document, sort_keys=False, width=120) + "blocks:\n"
        for block in self.blocks:
            row = block.model_dump(exclude_none=True, by_alias=True)
            text += "- " + yaml.safe_dump(row, sort_keys=False, default_flow_style=True, width=1000)
        return text + (yaml.safe_dump({"found": found}, sort_keys=False) if found else "")


def read_blueprint(text: str, where: str = "blueprint") -> Blueprint:
    """Parse YAML strictly. Raises GenotypeError, one line that names the key, the value and where it stands."""
    try:
        blueprint = Blueprint.model_validate(parse(text, where))
    except ValidationError as error:
        raise GenotypeError(f"{where}: {one_line(error)}") from None
    for i, block in enumerate(blueprint.blocks):
        _checked_options(block, f"{where}: blocks[{i}]")
    return blueprint


def build_blueprint(blueprint: Blueprint) -> Graph:
    """The graph of `blueprint`. Raises GenotypeError that names the block whose choices do not fit."""
    b, _ = _assembled(blueprint)
    try:
        return b.build()
    except GraphError as error:
        raise GenotypeError(f"{blueprint.name}: {error}") from None


def level_channels(blueprint: Blueprint, reference: str) -> int:
    """Channels of the tensor that `reference` names. Raises GenotypeError as `build_blueprint` does."""
    b, made = _assembled(blueprint)
    return b.channels(_tensor(made, reference, blueprint.name))


def _assembled(blueprint: Blueprint) -> tuple[GraphBuilder, dict[str, list[int]]]:
    b = GraphBuilder(act=blueprint.activation)
    made: dict[str, list[int]] = {"image": [b.image]}
    last = [b.image]
    for i, block in enumerate(blueprint.blocks):
        where = f"blocks[{i}]" + (f" ({block.name})" if block.name else "")
        read = last if block.sources is None else [_tensor(made, ref, where) for ref in _listed(block.sources)]
        if block.name in made or (block.name and "." in block.name):
            raise GenotypeError(f"{where}: name {block.name!r} is taken or has a dot; choose another")
        try:
            with b.scope(block.name or f"{block.block}{i}"):
                last = _built(b, _scaled(block, blueprint.width_multiple), read, where)
        except GraphError as error:
            raise GenotypeError(f"{where}: {error}") from None
        if block.name:
            made[block.name] = last
    return b, made


def _scaled(block: Block, multiple: float | None) -> Block:
    """`block` with its widths multiplied; equal widths stay equal, so that what was added before still can be."""
    if multiple is None:
        return block
    rows = block.model_dump(exclude_none=True, by_alias=True)
    for option in WIDTHS:
        if isinstance(rows.get(option), int):
            rows[option] = scaled_width(rows[option], multiple)
        elif isinstance(rows.get(option), list):
            rows[option] = [scaled_width(width, multiple) for width in rows[option]]
    return Block.model_validate(rows)


def scaled_width(width: int, multiple: float) -> int:
    return max(WIDTH_STEP, int(width * multiple / WIDTH_STEP + 0.5) * WIDTH_STEP)


def is_blueprint(document: Any) -> bool:
    return isinstance(document, dict) and "blocks" in document


def catalogue() -> list[str]:
    """Names of the published architectures that ship with gpnas."""
    files = resources.files("search_spaces") / "catalogue"
    return sorted(file.name.removesuffix(".yaml") for file in files.iterdir() if file.name.endswith(".yaml"))


def open_catalogue(name: str) -> Blueprint:
    """A published architecture by name. Raises GenotypeError that names those there are."""
    if name not in catalogue():
        raise GenotypeError(f"{name}: no such architecture in the catalogue; there are {', '.join(catalogue())}")
    return read_blueprint((resources.files("search_spaces") / "catalogue" / f"{name}.yaml").read_text(), name)


def _listed(sources: str | list[str]) -> list[str]:
    return [sources] if isinstance(sources, str) else sources


def _tensor(made: dict[str, list[int]], reference: str, where: str) -> int:
    """The tensor that `reference` names: a block, or block.k for its k-th output."""
    name, _, k = reference.partition(".")
    if name not in made:
        raise GenotypeError(f"{where}: from names {reference!r}, and no block before it is called so")
    outputs = made[name]
    if k and (not k.isdecimal() or int(k) >= len(outputs)):
        raise GenotypeError(f"{where}: from names {reference!r}, and {name} has {len(outputs)} outputs, counted from 0")
    return outputs[int(k or 0)]


def _built(b: GraphBuilder, block: Block, read: list[int], where: str) -> list[int]:
    options = _checked_options(block, where)
    many = block.block in PIECES and _reads_many(block.block)
    if not many and len(read) != 1:
        raise GenotypeError(f"{where}: {block.block} reads one tensor, got {len(read)}; concatenate or add them first")
    if isinstance(options, Stage):
        return [build_block(b, read[0], options)]
    made = PIECES[block.block](b, read if many else read[0], **options)
    return made if isinstance(made, list) else [made]


def _checked_options(block: Block, where: str) -> Stage | dict[str, Any]:
    """A family's stage, or a piece's keyword arguments. Raises GenotypeError."""
    try:
        if block.block in BLOCKS:
            return _Stage.model_validate({"family": block.block, **block.options})
        if block.block in PIECES:
            return _schema(block.block).model_validate(block.options).model_dump()
    except ValidationError as error:
        raise GenotypeError(f"{where}: {one_line(error)}") from None
    raise GenotypeError(f"{where}: no block is called {block.block!r}; there are {', '.join([*BLOCKS, *PIECES])}")


@cache
def _reads_many(piece: str) -> bool:
    return "xs" in inspect.signature(PIECES[piece]).parameters


@cache
def _schema(piece: str) -> type[BaseModel]:
    """The strict model of a piece's options, from its signature."""
    function = PIECES[piece]
    hints = get_type_hints(function)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return create_model(piece, __config__=_STRICT, **fields)
