"""Narrowing: a blueprint with smaller widths that uses a limit of FLOPs or parameters almost wholly and never exceeds it.

    narrow = widest_within(open_catalogue("gelan-t"), max_flops=1e9, max_params=None, imgsz=640)

Families, depths, ratios and joins stay. Only widths change, in steps of WIDTH_STEP channels, and none exceeds the original's.
One factor for all widths leaves up to a fifth of a limit unused, because it makes many widths jump at once. Hence two phases:

1. All widths times the largest multiple of 1 / MULTIPLES that meets the limits, rounded.
2. One width after another, each by one step. Next is the width that a growing factor would round up first, which is the one
   furthest below its share of the original; of equal ones it is the nearest to the image. A width whose step exceeds a limit
   stays as it is. When the first step does, all widths have the same share: the *common share*. The steps after it fill the
   rest of the limit and may take a width beyond the common share by LEEWAY.

Widths that must agree, such as those of tensors that are added, take a step together. Widths that cost nothing when deployed,
those of an auxiliary branch, stay at the common share.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from gpnas.errors import GenotypeError, LimitError
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.graph.graph import Graph
from search_spaces.architecture import build
from search_spaces.blueprint import WIDTH_STEP, WIDTHS, Block, Blueprint, scaled_width

MULTIPLES = 64
"""Width multiples are multiples of 1 / 64."""

STEPS = (WIDTH_STEP, 2 * WIDTH_STEP, 4 * WIDTH_STEP)
"""Steps in channels; a width takes the least that builds, because the groups of a layer divide its channels."""

LEEWAY = 1 / 8
"""A width may exceed the common share by this part of it, or by one and a half of its steps if these are more: rounding puts a
width within half a step of it, and one step more is always allowed."""

LEAST_USED = 0.98
"""A network that uses less of the binding limit is widened further, whatever the leeway."""

Widths = tuple[int, ...]
"""All widths of a blueprint in the order of `widths_of`, in channels."""


def widest_within(blueprint: Blueprint, max_flops: float | None, max_params: float | None, imgsz: int) -> Blueprint:
    """`blueprint` if it meets the limits, else narrowed until it does (FLOPs = 2 x MACs at `imgsz` pixels, fused).

    A narrowed blueprint has no width multiple and no published figures, which are those of the original. Raises LimitError when
    no width meets the limits.
    """
    cost = deployed_cost(build(blueprint), imgsz)
    if share_of_limit(cost, max_flops, max_params) <= 1:
        return blueprint
    original = widths_of(blueprint)
    networks = _Networks(blueprint, max_flops, max_params, imgsz)
    for k in range(MULTIPLES - 1, 0, -1):
        widths = tuple(min(width, scaled_width(width, k / MULTIPLES)) for width in original)
        cost = networks.cost(widths) or cost
        if networks.used(widths) <= 1:
            break
    else:
        raise _too_large(blueprint.name, cost, imgsz)
    widths, common = _widened(networks, original, widths)
    if networks.used(widths) < LEAST_USED:
        widths, _ = _widened(networks, original, widths, common, leeway=inf)
    return with_widths(blueprint, widths).model_copy(update={"published": None})


def scaled_within(blueprint: Blueprint, max_flops: float | None, max_params: float | None, imgsz: int) -> Blueprint:
    """`blueprint` at the largest width multiple, its own at most, that meets the limits (FLOPs = 2 x MACs at `imgsz`, fused).

    The first phase alone, for results that were stored before there was a second. Raises LimitError when no multiple does.
    """
    largest = round((blueprint.width_multiple or 1.0) * MULTIPLES)
    for k in range(largest, 0, -1):
        scaled = blueprint if k == largest else with_multiple(blueprint, k / MULTIPLES)
        cost = deployed_cost(build(scaled), imgsz)
        if share_of_limit(cost, max_flops, max_params) <= 1:
            return scaled
    raise _too_large(blueprint.name, cost, imgsz)


def share_of_limit(cost: Cost, max_flops: float | None, max_params: float | None) -> float:
    """How much of the binding limit `cost` uses: 1 for all of it, more when a limit is exceeded, 0 without limits."""
    return max(cost.flops / max_flops if max_flops else 0.0, cost.params / max_params if max_params else 0.0)


def with_multiple(blueprint: Blueprint, multiple: float) -> Blueprint:
    """`blueprint` at the multiple of 1 / MULTIPLES that is nearest to `multiple`, at least one."""
    steps = max(1, round(multiple * MULTIPLES))
    return blueprint.model_copy(update={"width_multiple": None if steps == MULTIPLES else steps / MULTIPLES})


def widths_of(blueprint: Blueprint) -> Widths:
    """Every width of every block, those of one block in the order of WIDTHS; the width multiple is applied."""
    widths: list[int] = []
    for block in blueprint.blocks:
        for value in (block.options[option] for option in WIDTHS if option in block.options):
            widths.extend(value if isinstance(value, list) else [value])
    multiple = blueprint.width_multiple
    return tuple(widths if multiple is None else (scaled_width(width, multiple) for width in widths))


def with_widths(blueprint: Blueprint, widths: Widths) -> Blueprint:
    """`blueprint` with other widths, in the order of `widths_of`, and without a width multiple."""
    rest = iter(widths)
    blocks = []
    for block in blueprint.blocks:
        row = block.row
        for option in WIDTHS:
            if option in row:
                row[option] = [next(rest) for _ in row[option]] if isinstance(row[option], list) else next(rest)
        blocks.append(Block.model_validate(row))
    return blueprint.model_copy(update={"blocks": blocks, "width_multiple": None})


def joins(graph: Graph) -> tuple[tuple[object, ...], ...]:
    """What narrowing keeps of a graph: its operations without channels, and whether channels agree where tensors are added."""
    rows: list[tuple[object, ...]] = []
    for op in graph.ops:
        agree: tuple[bool, ...] = ()
        if op.kind in ("add", "masked_add"):
            total, added = (graph.ops[j].channels for j in op.inputs)
            agree = (total == added, op.kept == total, op.kept == added)
        rows.append((op.kind, op.inputs, op.kernel, op.stride, op.groups, agree))
    return tuple(rows)


def _too_large(name: str, cost: Cost, imgsz: int) -> LimitError:
    return LimitError(
        f"{name}: even at its narrowest it has {cost.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and "
        f"{cost.params / 1e6:.3f}M parameters: raise the limit or choose a smaller architecture"
    )


class _Built(NamedTuple):
    cost: Cost
    joins: tuple[tuple[object, ...], ...]


class _Step(NamedTuple):
    """places: positions in Widths that take the step together. channels: by how much each of them grows."""

    places: tuple[int, ...]
    channels: int


class _Networks:
    """The networks that a blueprint is at other widths. Each is built once."""

    def __init__(self, blueprint: Blueprint, max_flops: float | None, max_params: float | None, imgsz: int) -> None:
        self._blueprint, self._limits, self._imgsz = blueprint, (max_flops, max_params), imgsz
        self._built: dict[Widths, _Built | None] = {}

    def cost(self, widths: Widths) -> Cost | None:
        """The deployed cost; None for widths that fit no network."""
        built = self._at(widths)
        return built and built.cost

    def used(self, widths: Widths) -> float:
        """The share of the binding limit; infinite for widths that fit no network."""
        cost = self.cost(widths)
        return inf if cost is None else share_of_limit(cost, *self._limits)

    def alike(self, widths: Widths, others: Widths) -> bool:
        """Whether both build, and one network has the joins of the other."""
        a, b = self._at(widths), self._at(others)
        return a is not None and b is not None and a.joins == b.joins

    def _at(self, widths: Widths) -> _Built | None:
        if widths not in self._built:
            try:
                graph = build(with_widths(self._blueprint, widths))
                self._built[widths] = _Built(deployed_cost(graph, self._imgsz), joins(graph))
            except GenotypeError:
                self._built[widths] = None
        return self._built[widths]


def _widened(
    networks: _Networks, original: Widths, widths: Widths, common: float | None = None, leeway: float = LEEWAY
) -> tuple[Widths, float]:
    """`widths` after every step that fits, and the common share of `original`.

    common: the common share of an earlier call. A step that exceeds a limit is not tried again: costs only grow.
    """
    known: dict[int, _Step] = {}
    growing = {i for i, width in enumerate(widths) if width < original[i]}
    while growing:
        # The factor at which rounding takes the next step; in a tie the place nearest to the image.
        factor, i = min(((widths[i] + WIDTH_STEP / 2) / original[i], i) for i in growing)
        step = _step(networks, original, widths, i, known.get(i))
        if step is None:
            growing.discard(i)
            continue
        known |= dict.fromkeys(step.places, step)
        wider = _after(step, original, widths)
        fits = networks.used(wider) <= 1
        if not fits and common is None:
            common = factor
        free = networks.cost(wider) == networks.cost(widths)
        if fits and (common is None or (not free and _near(common * original[i], wider[i], step, leeway))):
            widths = wider
        else:
            growing.difference_update(step.places)
        growing = {j for j in growing if widths[j] < original[j]}
    return widths, 1.0 if common is None else common


def _near(share: float, width: int, step: _Step, leeway: float) -> bool:
    return width - share <= max(1.5 * step.channels, leeway * share)


def _after(step: _Step, original: Widths, widths: Widths) -> Widths:
    places = set(step.places)
    return tuple(min(original[i], width + step.channels) if i in places else width for i, width in enumerate(widths))


def _step(networks: _Networks, original: Widths, widths: Widths, i: int, known: _Step | None) -> _Step | None:
    """The least step of width `i` that keeps all joins, with as few other widths as it needs; None when there is none.

    Widths that must agree are found by trial: all that equal this one, here and in the original, grow with it; then each that
    need not is left out. known: the step that it took last, which is tried first.
    """

    def builds(step: _Step) -> bool:
        return networks.alike(_after(step, original, widths), widths)

    if known is not None and builds(known):
        return known
    equal = tuple(j for j in range(len(widths)) if (widths[j], original[j]) == (widths[i], original[i]))
    for channels in STEPS:
        if builds(_Step((i,), channels)):
            return _Step((i,), channels)
        step = _Step(equal, channels)
        if not builds(step):
            continue
        for j in equal:
            fewer = step._replace(places=tuple(place for place in step.places if place != j))
            if j != i and builds(fewer):
                step = fewer
        return step
    return None
