"""The space of architectures around a blueprint: its blocks with other depths, ratios, units, fusions, downsampling and widths.

    space = Neighbourhood(open_catalogue("gelan-c"), classes=3)
    child = space.propose([], rng)               # the start with a few changes, at some width

A block keeps its place and its sources. A stage may change its family, one of its choices, or its width by a step; a
downsampling block may become another one; `width_multiple` may change all widths. A network without an auxiliary branch may
get deep supervision (PGI, YOLOv9). A change that fits no network is drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil
from typing import Any

from gpnas.errors import GenotypeError
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate, deployed_macs, with_classes
from search_spaces.blueprint import WIDTH_STEP, Block, Blueprint, read_blueprint
from search_spaces.choice_values import STAGE_VALUES
from search_spaces.families import FAMILIES
from search_spaces.genotype import has_ratios, stage_fields
from search_spaces.gradient_path import ATTEMPTS
from search_spaces.narrowing import MULTIPLES, with_multiple
from search_spaces.pieces import DOWNSAMPLING

CROSSINGS = 10
"""Crossings to try before one of the parents is mutated instead: parents that hardly differ have no new child."""

SAMPLED_CHANGES = (0, 1, 2, 3, 4, 6)
"""How many changes a sample may have. One without any is the start at another width."""

NARROWEST = 0.3
"""The least width multiple of a sample, as a share of the start's: about a ninth of its MACs."""

AUXILIARY_WEIGHTS = (0.1, 0.25, 0.5)
_LEVELS = ("p3", "p4", "p5")


class Neighbourhood:
    """Blueprints around `start`, with heads for `classes` classes (gpnas.search.trial.Space)."""

    def __init__(self, start: Blueprint, classes: int) -> None:
        start_with_head = with_classes(start, classes)
        assert isinstance(start_with_head, Blueprint)  # with_classes returns the kind that it is given
        self.start = start_with_head

    @property
    def names(self) -> tuple[str, str]:
        """The name of the start, and that of everything that is proposed around it."""
        return self.start.name, f"around-{self.start.name}"

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: the start with some changes, one parent with one to three changes, or a crossing of two parents.

        Raises GenotypeError when ATTEMPTS draws give no network but the parents.
        """
        blueprints = [read_blueprint(parent.genotype) for parent in parents]
        hashes = {parent.hash for parent in parents}
        for attempt in range(ATTEMPTS):
            if not blueprints:
                drawn = self._sample(rng)
            elif len(blueprints) == 1 or attempt > CROSSINGS:
                drawn = _changed(blueprints[0], rng.choice((1, 1, 2, 3)), rng)
            else:
                drawn = _crossed(blueprints[0], blueprints[1], rng)
            try:
                child = candidate(drawn.model_copy(update={"name": self.names[1], "source": None}))
            except GenotypeError:
                continue  # for example, a stage got another width than the tensor that is added to it
            if child.hash not in hashes:
                return child
        raise GenotypeError(f"{self.start.name}: no other architecture around it in {ATTEMPTS} draws")

    def read(self, text: str) -> Candidate:
        """The candidate of a blueprint's YAML. Raises GenotypeError."""
        return candidate(read_blueprint(text))

    def smallest(self) -> Candidate:
        """The start at its narrowest; each change to the least depth or ratio, or to max pooling, is made that saves MACs."""
        smallest = candidate(with_multiple(self.start, 1 / MULTIPLES))
        least = [{name: STAGE_VALUES[name][0]} for name in ("depth", "repeats", "split_ratio", "hidden_ratio")]
        for i, block in enumerate(self.start.blocks):
            for options in least if block.block in FAMILIES else ():
                if block.options.keys() >= options.keys():
                    smallest = _cheaper(smallest, _with_options(read_blueprint(smallest.genotype), i, options))
            if _is_downsampling(block):
                smallest = _cheaper(smallest, _downsampled_by(read_blueprint(smallest.genotype), i, "max_pool"))
        return smallest

    def _sample(self, rng: random.Random) -> Blueprint:
        share = NARROWEST ** rng.random()
        start = with_multiple(self.start, (self.start.width_multiple or 1.0) * share)
        return _changed(start, rng.choice(SAMPLED_CHANGES), rng)


def _cheaper(smallest: Candidate, changed: Blueprint) -> Candidate:
    """Whichever has fewer MACs; `smallest` when `changed` fits no network."""
    try:
        return min(smallest, candidate(changed), key=deployed_macs)
    except GenotypeError:
        return smallest


def _with_options(blueprint: Blueprint, i: int, options: dict[str, Any]) -> Blueprint:
    """Block `i` with other values for some of its options."""
    return _replaced(blueprint, i, {**blueprint.blocks[i].row, **options})


def _changed(blueprint: Blueprint, changes: int, rng: random.Random) -> Blueprint:
    """`blueprint` after `changes` random changes."""
    for _ in range(changes):
        choices = [
            *((_change_stage, i) for i, block in enumerate(blueprint.blocks) if block.block in FAMILIES),
            *((_change_downsampling, i) for i, block in enumerate(blueprint.blocks) if _is_downsampling(block)),
        ]
        draw = rng.random()
        if draw < 0.1 or not choices:
            step = rng.choice((0.8, 0.9, 1.1, 1.25))
            blueprint = with_multiple(blueprint, (blueprint.width_multiple or 1.0) * step)
        elif draw < 0.15:
            blueprint = _change_supervision(blueprint, rng)
        else:
            change, i = rng.choice(choices)
            blueprint = change(blueprint, i, rng)
    return blueprint


def _change_stage(blueprint: Blueprint, i: int, rng: random.Random) -> Blueprint:
    """Another value for one choice of stage `i`, a step of its width, or another family."""
    block = blueprint.blocks[i]
    choices = [name for name in block.options if name in STAGE_VALUES]
    name = rng.choice([*choices, "width", "family"])
    if name == "family":
        return _other_family(blueprint, i, rng)
    if name == "width":
        return _with_options(blueprint, i, {"width": _stepped(block.options["width"], rng.choice((0.75, 1.25)))})
    value = rng.choice([value for value in STAGE_VALUES[name] if value != block.options[name]])
    if name == "unit":
        return _rebuilt(blueprint, i, block.block, {**block.options, "unit": value}, rng)
    return _with_options(blueprint, i, {name: value})


def _stepped(width: int, factor: float) -> int:
    """`width` times `factor` in multiples of WIDTH_STEP: at least one step away from `width`, but never 0."""
    steps, before = round(width * factor / WIDTH_STEP), width / WIDTH_STEP
    steps = max(steps, int(before) + 1) if factor > 1 else min(steps, ceil(before) - 1)
    return max(1, steps) * WIDTH_STEP


def _other_family(blueprint: Blueprint, i: int, rng: random.Random) -> Blueprint:
    block = blueprint.blocks[i]
    family = rng.choice([family for family in FAMILIES if family != block.block])
    return _rebuilt(blueprint, i, family, block.options, rng)


def _rebuilt(blueprint: Blueprint, i: int, family: str, options: dict[str, Any], rng: random.Random) -> Blueprint:
    """Stage `i` with another family or unit. Choices that it has already keep their values, the others are drawn."""
    drawn = {name: options.get(name, rng.choice(values)) for name, values in STAGE_VALUES.items() if name != "family"}
    drawn["split_ratio"] = min(drawn["split_ratio"], 1.0)
    choices = {name: drawn[name] for name in stage_fields(family, drawn["unit"])}
    if "channel_step" in options and has_ratios(family):
        choices["channel_step"] = options["channel_step"]
    return _replaced(blueprint, i, {**_place(blueprint.blocks[i]), "block": family, "width": options["width"], **choices})


def _is_downsampling(block: Block) -> bool:
    """Whether a block halves the resolution in a way that another downsampling can replace."""
    if block.block == "conv":
        return block.options.keys() == {"width", "kernel", "stride"} and block.options["stride"] == 2
    return block.block in DOWNSAMPLING


def _change_downsampling(blueprint: Blueprint, i: int, rng: random.Random) -> Blueprint:
    block = blueprint.blocks[i]
    current = "strided" if block.block == "conv" else block.block
    return _downsampled_by(blueprint, i, rng.choice([name for name in DOWNSAMPLING if name != current]))


def _downsampled_by(blueprint: Blueprint, i: int, downsampling: str) -> Blueprint:
    block = blueprint.blocks[i]
    return _replaced(blueprint, i, {**_place(block), "block": downsampling, "width": block.options["width"]})


def _place(block: Block) -> dict[str, Any]:
    """The name and the sources of a block."""
    return block.model_dump(exclude_none=True, by_alias=True, include={"name", "sources"})


def _replaced(blueprint: Blueprint, i: int, row: dict[str, Any]) -> Blueprint:
    blocks = [*blueprint.blocks[:i], Block.model_validate(row), *blueprint.blocks[i + 1 :]]
    return blueprint.model_copy(update={"blocks": blocks})


def _change_supervision(blueprint: Blueprint, rng: random.Random) -> Blueprint:
    """With an auxiliary branch: another weight of its loss, or, if deep supervision is all of it, its removal. Without one:
    deep supervision on the backbone's levels, where they are named as in the catalogue."""
    auxiliary = [i for i, block in enumerate(blueprint.blocks) if block.options.get("branch") == "auxiliary"]
    if auxiliary and blueprint.blocks[auxiliary[0]].name == "deep_supervision" and rng.random() < 0.5:
        blocks = [block for i, block in enumerate(blueprint.blocks) if i != auxiliary[0]]
        return blueprint.model_copy(update={"blocks": blocks})
    weight = rng.choice(AUXILIARY_WEIGHTS)
    if auxiliary:
        return _with_options(blueprint, auxiliary[0], {"weight": weight})
    names = {block.name for block in blueprint.blocks}
    head = next((block for block in blueprint.blocks if block.block == "detect"), None)
    if head is None or not names.issuperset(_LEVELS):
        return blueprint
    options = {**head.options, "branch": "auxiliary", "weight": weight}
    added = Block.model_validate({"name": "deep_supervision", "block": "detect", "from": list(_LEVELS), **options})
    return blueprint.model_copy(update={"blocks": [*blueprint.blocks, added]})


def _crossed(a: Blueprint, b: Blueprint, rng: random.Random) -> Blueprint:
    """The blocks of `a`, each replaced with probability 1/2 by the block of `b` that has the same place, name and sources; the
    width multiple of either."""
    others = {(block.name, i): block for i, block in enumerate(b.blocks)}
    blocks = []
    for i, block in enumerate(a.blocks):
        other = others.get((block.name, i))
        blocks.append(other if other is not None and other.sources == block.sources and rng.random() < 0.5 else block)
    return a.model_copy(update={"blocks": blocks, "width_multiple": rng.choice((a, b)).width_multiple})
