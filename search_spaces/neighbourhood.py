"""The architectures around a blueprint: its blocks with other depths, ratios, units, fusions, downsamplings and widths.

    space = Neighbourhood(open_catalogue("gelan-c"), classes=3)
    child = space.propose([], rng)               # a few changes away from it, at some width

A block keeps its place and what it reads. Its family may change to another one, its downsampling to another one, its width by
a step, and the whole network's widths by a multiple (`width_multiple`); deep supervision (PGI, YOLOv9) may join what has no
auxiliary branch. What then fits no network is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from gpnas.errors import GenotypeError, LimitError
from gpnas.graph.cost import deployed_cost
from gpnas.search.trial import Candidate
from search_spaces.architecture import build, candidate, with_classes
from search_spaces.blueprint import Block, Blueprint, read_blueprint
from search_spaces.families import BLOCKS
from search_spaces.genotype import stage_fields
from search_spaces.gradient_path import ATTEMPTS, STAGE_VALUES
from search_spaces.pieces import DOWNSAMPLING

MULTIPLES = 64
"""Width multiples are counted in 64ths."""

MATES = 10
"""Crossings to try before one of the parents is changed: near twins have no child of their own."""

SAMPLED_CHANGES = (0, 1, 2, 3, 4, 6)
"""Changes of a sample; the start at another width is one with none."""

NARROWEST = 0.3
"""A sample's width, at least, as a share of the start's: a ninth of its MACs."""

AUXILIARY_WEIGHTS = (0.1, 0.25, 0.5)
_LEVELS = ("p3", "p4", "p5")


class Neighbourhood:
    """Blueprints around `start`, with heads for `classes` classes (gpnas.trial.Space)."""

    def __init__(self, start: Blueprint, classes: int) -> None:
        fitted = with_classes(start, classes)
        assert isinstance(fitted, Blueprint)  # the same kind as it was given
        self.start = fitted

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: some changes from the start without parents, one to three from one parent, or a cross of two."""
        known = [read_blueprint(parent.genotype) for parent in parents]
        hashes = {parent.hash for parent in parents}
        for attempt in range(ATTEMPTS):
            if not known:
                child = self._sample(rng)
            elif len(known) == 1 or attempt > MATES:
                child = _changed(known[0], rng.choice((1, 1, 2, 3)), rng)
            else:
                child = _crossed(known[0], known[1], rng)
            try:
                found = candidate(child.model_copy(update={"name": f"around-{self.start.name}", "source": None}))
            except GenotypeError:
                continue  # such as a width that what adds it does not have
            if found.hash not in hashes:
                return found
        raise GenotypeError(f"{self.start.name}: no other architecture around it in {ATTEMPTS} draws")

    def read(self, text: str) -> Candidate:
        return candidate(read_blueprint(text))

    def smallest(self) -> Candidate:
        """The start at its narrowest, with every block and downsampling at its cheapest that builds."""
        found = candidate(_with_multiple(self.start, 1 / MULTIPLES))
        for i, block in enumerate(self.start.blocks):
            cheaper = [{name: STAGE_VALUES[name][0]} for name in ("depth", "repeats", "split_ratio", "hidden_ratio")]
            for options in cheaper if block.block in BLOCKS else ():
                if block.options.keys() >= options.keys():
                    found = self._cheaper(found, _with_block(read_blueprint(found.genotype), i, options))
            if _halves(block):
                found = self._cheaper(found, _downsampled(read_blueprint(found.genotype), i, "max_pool"))
        return found

    def _cheaper(self, found: Candidate, changed: Blueprint) -> Candidate:
        try:
            less = candidate(changed)
        except GenotypeError:
            return found
        return min(found, less, key=lambda c: deployed_cost(c.graph, 640).macs)

    def _sample(self, rng: random.Random) -> Blueprint:
        factor = NARROWEST ** rng.random()
        start = _with_multiple(self.start, (self.start.width_multiple or 1.0) * factor)
        return _changed(start, rng.choice(SAMPLED_CHANGES), rng)


def fitted(blueprint: Blueprint, max_flops: float | None, max_params: float | None, imgsz: int) -> Blueprint:
    """`blueprint` at the largest width multiple, at most its own, that meets the limits (FLOPs = 2 x MACs at `imgsz`, fused).

    Raises LimitError when no multiple does.
    """
    most = round((blueprint.width_multiple or 1.0) * MULTIPLES)
    for k in range(most, 0, -1):
        scaled = blueprint if k == most else _with_multiple(blueprint, k / MULTIPLES)
        costs = deployed_cost(build(scaled), imgsz)
        if costs.flops <= (max_flops or costs.flops) and costs.params <= (max_params or costs.params):
            return scaled
    raise LimitError(
        f"{blueprint.name}: even at its narrowest it has {costs.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and "
        f"{costs.params / 1e6:.3f}M parameters: raise the limit or choose a smaller architecture"
    )


def _with_multiple(blueprint: Blueprint, multiple: float) -> Blueprint:
    steps = max(1, round(multiple * MULTIPLES))
    return blueprint.model_copy(update={"width_multiple": None if steps == MULTIPLES else steps / MULTIPLES})


def _with_block(blueprint: Blueprint, i: int, options: dict[str, Any]) -> Blueprint:
    return _replaced(blueprint, i, {**blueprint.blocks[i].model_dump(exclude_none=True, by_alias=True), **options})


def _changed(blueprint: Blueprint, changes: int, rng: random.Random) -> Blueprint:
    """`changes` single choices drawn again."""
    for _ in range(changes):
        choices = [
            *((_change_stage, i) for i, block in enumerate(blueprint.blocks) if block.block in BLOCKS),
            *((_change_downsampling, i) for i, block in enumerate(blueprint.blocks) if _halves(block)),
        ]
        draw = rng.random()
        if draw < 0.1 or not choices:
            step = rng.choice((0.8, 0.9, 1.1, 1.25))
            blueprint = _with_multiple(blueprint, (blueprint.width_multiple or 1.0) * step)
        elif draw < 0.15:
            blueprint = _change_supervision(blueprint, rng)
        else:
            change, i = rng.choice(choices)
            blueprint = change(blueprint, i, rng)
    return blueprint


def _change_stage(blueprint: Blueprint, i: int, rng: random.Random) -> Blueprint:
    """One knob of a stage, its width by a step, or its family."""
    block = blueprint.blocks[i]
    knobs = [name for name in block.options if name in STAGE_VALUES]
    name = rng.choice([*knobs, "width", "family"])
    if name == "family":
        return _other_family(blueprint, i, rng)
    if name == "width":
        width = block.options["width"]
        return _with_block(blueprint, i, {"width": max(8, round(width * rng.choice((0.75, 1.25)) / 8) * 8)})
    value = rng.choice([value for value in STAGE_VALUES[name] if value != block.options[name]])
    if name == "unit":
        return _rebuilt(blueprint, i, block.block, {**block.options, "unit": value}, rng)
    return _with_block(blueprint, i, {name: value})


def _other_family(blueprint: Blueprint, i: int, rng: random.Random) -> Blueprint:
    block = blueprint.blocks[i]
    family = rng.choice([family for family in BLOCKS if family != block.block])
    return _rebuilt(blueprint, i, family, block.options, rng)


def _rebuilt(blueprint: Blueprint, i: int, family: str, options: dict[str, Any], rng: random.Random) -> Blueprint:
    """Block `i` in another form: knobs that both forms have keep their values, the others are drawn."""
    drawn = {name: options.get(name, rng.choice(values)) for name, values in STAGE_VALUES.items() if name != "family"}
    if drawn["split_ratio"] > 1:
        drawn["split_ratio"] = 1.0
    kept = {name: drawn[name] for name in stage_fields(family, drawn["unit"])}
    return _replaced(blueprint, i, {**_place(blueprint.blocks[i]), "block": family, "width": options["width"], **kept})


def _halves(block: Block) -> bool:
    """Whether a block is a downsampling that another one can stand for."""
    if block.block == "conv":
        return block.options.keys() == {"width", "kernel", "stride"} and block.options["stride"] == 2
    return block.block in DOWNSAMPLING


def _change_downsampling(blueprint: Blueprint, i: int, rng: random.Random) -> Blueprint:
    block = blueprint.blocks[i]
    now = "strided" if block.block == "conv" else block.block
    return _downsampled(blueprint, i, rng.choice([name for name in DOWNSAMPLING if name != now]))


def _downsampled(blueprint: Blueprint, i: int, downsampling: str) -> Blueprint:
    block = blueprint.blocks[i]
    return _replaced(blueprint, i, {**_place(block), "block": downsampling, "width": block.options["width"]})


def _place(block: Block) -> dict[str, Any]:
    """A block's name and what it reads."""
    return block.model_dump(exclude_none=True, by_alias=True, include={"name", "sources"})


def _replaced(blueprint: Blueprint, i: int, row: dict[str, Any]) -> Blueprint:
    blocks = [*blueprint.blocks[:i], Block.model_validate(row), *blueprint.blocks[i + 1 :]]
    return blueprint.model_copy(update={"blocks": blocks})


def _change_supervision(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """Another weight of the auxiliary loss; deep supervision of the backbone where there is none yet, or its end."""
    at = [i for i, block in enumerate(blueprint.blocks) if block.options.get("branch") == "auxiliary"]
    if at and blueprint.blocks[at[0]].name == "deep_supervision" and rng.random() < 0.5:
        return blueprint.model_copy(update={"blocks": [b for i, b in enumerate(blueprint.blocks) if i != at[0]]})
    weight = rng.choice(AUXILIARY_WEIGHTS)
    if at:
        return _with_block(blueprint, at[0], {"weight": weight})
    names = {block.name for block in blueprint.blocks}
    head = next((block for block in blueprint.blocks if block.block == "detect"), None)
    if head is None or not names.issuperset(_LEVELS):
        return blueprint
    options = {**head.options, "branch": "auxiliary", "weight": weight}
    added = Block.model_validate({"name": "deep_supervision", "block": "detect", "from": list(_LEVELS), **options})
    return blueprint.model_copy(update={"blocks": [*blueprint.blocks, added]})


def _crossed(a: Blueprint, b: Blueprint, rng: random.Random) -> Blueprint:
    """The blocks of `a`, each exchanged with even odds for that of `b` in the same place; either's width multiple."""
    theirs = {(block.name, i): block for i, block in enumerate(b.blocks)}
    blocks = []
    for i, block in enumerate(a.blocks):
        other = theirs.get((block.name, i))
        blocks.append(other if other is not None and other.sources == block.sources and rng.random() < 0.5 else block)
    return a.model_copy(update={"blocks": blocks, "width_multiple": rng.choice((a, b)).width_multiple})
