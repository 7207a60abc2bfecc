"""Families of stages: each turns the choices of a stage into operations.

A family is one function (builder, input, stage) -> output and one line in FAMILIES; its output has `stage.width` channels. A
computational unit is one function (builder, input, width, hidden, stage) -> output and one line in UNITS; its input and output
have `width` channels. A *computational block*, in the paper and here, is the part of an ELAN or GELAN stage that is repeated.

Sources: plain and residual (ResNet, Darknet, ResNeXt); masked residual (PRN; gradient-path paper, section 2.2); CSP and its
fusions (section 2.3, Figure 5); OSA (VoVNet, arXiv:1904.09730); ELAN (section 2.4, Figure 6); GELAN (arXiv:2402.13616,
section 4.1: ELAN with any computational unit inside); dense (DenseNet).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from gpnas.graph.graph import GraphBuilder
from search_spaces.genotype import CHANNEL_STEP, Stage


@cache  # a search asks for the same few hundred shares a million times
def channels(ratio: float, width: int, step: int = CHANNEL_STEP) -> int:
    """The channels in a share of `width`: the nearest multiple of `step`, at least one step, at most `width`."""
    return min(width, max(step, int(ratio * width / step + 0.5) * step))


def build_stage(b: GraphBuilder, x: int, stage: Stage) -> int:
    """The operations of `stage` on `x`; the result has stage.width channels."""
    return FAMILIES[stage.family](b, x, stage)


def _share(stage: Stage, ratio: float | None, width: int) -> int:
    """The channels in a share of `width`, by the stage's own rounding."""
    return channels(ratio or 0, width, stage.channel_step)


def _plain(b: GraphBuilder, x: int, stage: Stage) -> int:
    for _ in range(stage.depth or 0):
        x = b.conv(x, stage.width, 3)
    return x


def _stacked(b: GraphBuilder, x: int, stage: Stage) -> int:
    """Residual or masked residual units on a path of the stage's width."""
    if b.channels(x) != stage.width:
        x = b.conv(x, stage.width, name="entry")
    for _ in range(stage.depth or 0):
        x = UNITS[stage.family](b, x, stage.width, _share(stage, stage.hidden_ratio, stage.width), stage)
    return x


def _csp(b: GraphBuilder, x: int, stage: Stage) -> int:
    """Two paths, one of them through the units, and a concatenation; the fusion says on which sides of it a transition is."""
    fusion = stage.fusion
    inner = _share(stage, stage.split_ratio, stage.width)
    # Without a transition after the concatenation the two paths must make up the stage's width between them.
    crossing = inner if fusion in ("csp", "first") else max(stage.channel_step, stage.width - inner)
    if fusion in ("last", "none") and inner + crossing != stage.width:
        inner = stage.width - crossing
    y = b.conv(x, inner, name="enter")
    for _ in range(stage.depth or 0):
        y = UNITS[stage.unit or ""](b, y, inner, _share(stage, stage.hidden_ratio, inner), stage)
    if fusion in ("csp", "last"):
        y = b.conv(y, inner, name="transition")
    y = b.concat([y, b.conv(x, crossing, name="cross")])
    return b.conv(y, stage.width, name="transition") if fusion in ("csp", "first") else y


def _elan(b: GraphBuilder, x: int, stage: Stage) -> int:
    """An entry layer is split in half. One half passes the computational blocks, which are plain layers; the transition reads
    both halves and the output of every block."""

    def block(y: int, width: int) -> int:
        for _ in range(stage.depth or 0):
            y = b.conv(y, width, 3)
        return y

    return _aggregated(b, x, stage, block)


def _gelan(b: GraphBuilder, x: int, stage: Stage) -> int:
    """ELAN whose computational block is a CSP stage of any unit, and a 3x3 layer after it."""

    def block(y: int, width: int) -> int:
        inner = _share(stage, 0.5, width)
        z = b.conv(y, inner, name="enter")
        for _ in range(stage.depth or 0):
            z = UNITS[stage.unit or ""](b, z, inner, inner, stage)  # hidden is the whole width, as in YOLOv9
        z = b.concat([z, b.conv(y, inner, name="cross")])
        return b.conv(b.conv(z, width, name="transition"), width, 3)

    return _aggregated(b, x, stage, block)


def _aggregated(b: GraphBuilder, x: int, stage: Stage, block: Callable[[int, int], int]) -> int:
    """The plan of ELAN and GELAN. `block` (input, width) -> output adds the operations of one computational block."""
    entry = 2 * _share(stage, (stage.split_ratio or 0) / 2, stage.width)
    width = _share(stage, stage.hidden_ratio, entry)
    y = b.conv(x, entry, name="enter")
    parts = list(b.split(y, entry // 2))
    for repeat in range(stage.repeats or 0):
        with b.scope(f"block{repeat}"):
            parts.append(block(parts[-1], width))
    return b.conv(b.concat(parts), stage.width, name="transition")


def _osa(b: GraphBuilder, x: int, stage: Stage) -> int:
    """One-shot aggregation: a module is a chain of 3x3 layers and a transition that reads its input and all of them."""
    width = _share(stage, stage.hidden_ratio, stage.width)
    for repeat in range(stage.repeats or 0):
        with b.scope(f"module{repeat}"):
            parts = [x]
            for _ in range(stage.depth or 0):
                parts.append(b.conv(parts[-1], width, 3))
            x = b.conv(b.concat(parts), stage.width, name="transition")
    return x


def _dense(b: GraphBuilder, x: int, stage: Stage) -> int:
    """Every unit reads the stage's input and all units before it; a transition, which reads all of them, ends the stage."""
    growth = _share(stage, (stage.hidden_ratio or 0) / 2, stage.width)
    parts = [x]
    for _ in range(stage.depth or 0):
        parts.append(_dense_growth(b, b.concat(parts), growth))
    return b.conv(b.concat(parts), stage.width, name="transition")


def _dense_growth(b: GraphBuilder, x: int, growth: int) -> int:
    return b.conv(b.conv(x, 2 * growth), growth, 3)


def _plain_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    return b.conv(b.conv(x, hidden), width, 3)


def _residual_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    return b.add(_plain_unit(b, x, width, hidden, stage), x)


def _masked_residual_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    kept = width - _share(stage, stage.mask_ratio, width)
    return b.masked_add(_plain_unit(b, x, width, hidden, stage), x, kept)


def _stop_block_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    """Figure 9 (a): no gradient passes the unit's layers; it comes back through the identity alone."""
    return b.add(_plain_unit(b, b.stop_gradient(x), width, hidden, stage), x)


def _stop_identity_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    """Figure 9 (b): no gradient passes the identity; the gradient paths are those of a plain network."""
    return b.add(_plain_unit(b, x, width, hidden, stage), b.stop_gradient(x))


def _rep_residual_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    """The unit of YOLOv9: a RepConv and a 3x3 layer, and an identity."""
    return b.add(b.conv(b.conv(x, hidden, 3, rep=True), width, 3), x)


def bottleneck(b: GraphBuilder, x: int, *, width: int, hidden: int, groups: int = 1, stride: int = 1) -> int:
    """The unit of ResNet: 1x1, 3x3 and 1x1 layers, activated after the sum. With several groups it is the unit of ResNeXt.

    The identity has no weights, as in the configurations of Darknet. The output's channels that it lacks are not added to (an
    asymmetric residual), and at a stride of 2 it takes every second pixel.
    """
    y = b.conv(b.conv(b.conv(x, hidden), hidden, 3, stride, groups=groups), width, act="")
    identity = b.max_pool(x, 1, stride, padding=0, name="sampled") if stride > 1 else x
    return b.act(b.masked_add(y, identity, min(width, b.channels(x))))


def _bottleneck_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    return bottleneck(b, x, width=width, hidden=hidden, groups=stage.groups or 1)


def _dense_unit(b: GraphBuilder, x: int, width: int, hidden: int, stage: Stage) -> int:
    """A dense unit that adds half the width, and a 1x1 layer back to the width, so that units can be stacked."""
    growth = _share(stage, 0.5, hidden)
    return b.conv(b.concat([x, _dense_growth(b, x, growth)]), width)


FAMILIES: dict[str, Callable[[GraphBuilder, int, Stage], int]] = {
    "plain": _plain,
    "residual": _stacked,
    "masked_residual": _stacked,
    "csp": _csp,
    "elan": _elan,
    "gelan": _gelan,
    "osa": _osa,
    "dense": _dense,
}

UNITS: dict[str, Callable[[GraphBuilder, int, int, int, Stage], int]] = {
    "plain": _plain_unit,
    "residual": _residual_unit,
    "masked_residual": _masked_residual_unit,
    "rep_residual": _rep_residual_unit,
    "bottleneck": _bottleneck_unit,
    "resnext": _bottleneck_unit,
    "dense": _dense_unit,
    "residual_stop_block": _stop_block_unit,
    "residual_stop_identity": _stop_identity_unit,
}
