"""Pieces: what a network has besides stages, such as layers, downsampling, pyramids of poolings, joins, routes and heads.

A piece is one function (builder, input `x` or inputs `xs`, options) -> output or outputs, and one line in PIECES. Its keyword
arguments are the options of its YAML, and their types are what the YAML is checked against. `detector.py` calls pieces from the
choices of a genotype, `blueprint.py` from a list of blocks.

Sources: ADown, AConv, SPP-ELAN, CBLinear and CBFuse (YOLOv9, arXiv:2402.13616, and its configurations); SPPF and the
prototype branch (YOLOv5; YOLACT, arXiv:1904.02689); CSP-SPP (Scaled-YOLOv4, arXiv:2011.08036); the decoupled head with a
distribution for each box side (Generalized Focal Loss, arXiv:2006.04388); anchors (YOLOv3, arXiv:1804.02767).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gpnas.errors import GraphError
from gpnas.graph.graph import Branch, GraphBuilder
from search_spaces.families import bottleneck, channels

Piece = Callable[..., int | list[int]]

Activation = Literal["", "silu", "relu", "leaky_relu"]


def conv(
    b: GraphBuilder,
    x: int,
    *,
    width: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
    act: Activation | None = None,
) -> int:
    """One layer. At stride 1 it keeps the size unless `padding` is given. act: None is the blueprint's activation."""
    return b.conv(x, width, kernel, stride, padding=padding, groups=groups, act=act)


def strided(b: GraphBuilder, x: int, *, width: int) -> int:
    return b.conv(x, width, 3, 2)


def max_pool_down(b: GraphBuilder, x: int, *, width: int) -> int:
    return b.conv(b.max_pool(x, 2, 2, padding=0), width)


def aconv(b: GraphBuilder, x: int, *, width: int) -> int:
    """An average pooling of stride 1, then a strided layer."""
    return b.conv(b.avg_pool(x, 2, 1), width, 3, 2)


def adown(b: GraphBuilder, x: int, *, width: int) -> int:
    """An average pooling of stride 1; then a strided layer on half of the channels, a max pooling and a layer on the others."""
    x = b.avg_pool(x, 2, 1)
    first, second = b.split(x, b.channels(x) // 2)
    half = width // 2
    return b.concat([b.conv(first, width - half, 3, 2), b.conv(b.max_pool(second, 3, 2), half)])


def two_way_down(b: GraphBuilder, x: int, *, width: int) -> int:
    """The downsampling of YOLOv7: a strided layer after a 1x1 layer makes half of the output, a max pooling and a layer the
    other half."""
    half = width // 2
    pooled = b.conv(b.max_pool(x, 2, 2, padding=0), half)
    return b.concat([b.conv(b.conv(x, width - half), width - half, 3, 2), pooled])


DOWNSAMPLING: dict[str, Callable[..., int]] = {
    "strided": strided,
    "max_pool": max_pool_down,
    "aconv": aconv,
    "adown": adown,
}
"""The values of a genotype's `downsample`."""


def sppf(b: GraphBuilder, x: int, *, width: int, hidden: int) -> int:
    """Spatial pyramid pooling by three max poolings of 5 x 5 in a row. YOLOv9's SPP-ELAN is the same network."""
    parts = [b.conv(x, hidden, name="enter")]
    for _ in range(3):
        parts.append(b.max_pool(parts[-1], 5))
    return b.conv(b.concat(parts), width, name="transition")


def spp(b: GraphBuilder, x: int, *, width: int, hidden: int) -> int:
    """Spatial pyramid pooling by max poolings of 5 x 5, 9 x 9 and 13 x 13 side by side (SPPNet, as in YOLOv3-SPP)."""
    x = b.conv(x, hidden, name="enter")
    return b.conv(b.concat([x, *(b.max_pool(x, kernel) for kernel in (5, 9, 13))]), width, name="transition")


def csp_spp(b: GraphBuilder, x: int, *, width: int) -> int:
    """Spatial pyramid pooling in a cross-stage-partial block."""
    y = b.conv(b.conv(b.conv(x, width, name="enter"), width, 3), width)
    y = b.concat([y, *(b.max_pool(y, kernel) for kernel in (5, 9, 13))])
    y = b.conv(b.conv(y, width), width, 3)
    return b.conv(b.concat([y, b.conv(x, width, name="cross")]), width, name="transition")


def csp_shared(b: GraphBuilder, x: int, *, width: int, depth: int) -> int:
    """The CSP stage in the neck of Scaled-YOLOv4: plain units, and one entry layer that both paths read."""
    entry = y = b.conv(x, width, name="enter")
    for _ in range(depth):
        y = b.conv(b.conv(y, width), width, 3)
    return b.conv(b.concat([y, b.conv(entry, width, name="cross")]), width, name="transition")


def upsample(b: GraphBuilder, x: int, *, scale: int = 2) -> int:
    return b.upsample(x, scale)


def max_pool(b: GraphBuilder, x: int, *, kernel: int, stride: int, padding: int | None = None) -> int:
    return b.max_pool(x, kernel, stride, padding)


def concat(b: GraphBuilder, xs: list[int]) -> int:
    return b.concat(xs)


def add(b: GraphBuilder, xs: list[int], *, mask_ratio: float = 0.0) -> int:
    """The sum, with as many channels as the first input. Channels that a later input lacks are not added to (an asymmetric
    residual, PRN).

    mask_ratio: share of the channels of each later input that is masked (PRN's masked residual layer). Raises GraphError when
    it does not lie in [0, 1).
    """
    if not 0 <= mask_ratio < 1:
        raise GraphError(f"add: mask_ratio must lie in [0, 1), got {mask_ratio}")
    total = xs[0]
    for x in xs[1:]:
        width = b.channels(x)
        kept = width - channels(mask_ratio, width) if mask_ratio else width
        total = b.masked_add(total, x, min(b.channels(total), kept))
    return total


def vov_elan(b: GraphBuilder, x: int, *, width: int, hidden: int, depth: int, repeats: int, split_ratio: float = 1.0) -> int:
    """A stage of VoVNet by ELAN's plan (gradient-path paper, Table 4): of all modules, only the last has a transition layer.

    `repeats` modules of `depth` 3x3 layers form one chain. The transition reads the input and the last layer of each module.
    split_ratio: share of the input's channels that enters the chain; a second transition reads the other channels (CSPNet).
    """
    crossing = None
    if split_ratio < 1:
        x, crossing = b.split(x, channels(split_ratio, b.channels(x)))
    parts = [x]
    for k in range(repeats):
        y = parts[-1]
        with b.scope(f"module{k}"):
            for _ in range(depth):
                y = b.conv(y, hidden, 3)
        parts.append(y)
    if crossing is None:
        return b.conv(b.concat(parts), width, name="transition")
    inner = b.conv(b.concat(parts), channels(split_ratio, width), name="transition")
    return b.conv(b.concat([inner, crossing]), width, name="transition")


def bottlenecks(b: GraphBuilder, x: int, *, width: int, hidden: int, depth: int, stride: int = 1, groups: int = 1) -> int:
    """A stage of ResNet-50, or of ResNeXt-50 with several groups. The first unit has the stride and changes the width."""
    for i in range(depth):
        x = bottleneck(b, x, width=width, hidden=hidden, groups=groups, stride=1 if i else stride)
    return x


def route(b: GraphBuilder, x: int, *, widths: list[int]) -> list[int]:
    """CBLinear: one layer without normalisation, split into outputs of `widths` channels for levels of the auxiliary branch."""
    y = b.conv(x, sum(widths), act="", norm=False, bias=True)
    return [b.slice(y, sum(widths[:i]), sum(widths[: i + 1])) for i in range(len(widths))]


def fuse(b: GraphBuilder, xs: list[int]) -> int:
    """CBFuse: the sum of all inputs, upsampled to the resolution of the last one. Raises GraphError for an input that is finer
    than the last one."""
    *routes, total = xs
    stride = b.stride(total)
    for x in routes:
        scale, rest = divmod(b.stride(x), stride)
        if rest or scale < 1:
            raise GraphError(f"fuse: cannot upsample a level of stride {b.stride(x)} to stride {stride}")
        total = b.add(total, b.upsample(x, scale) if scale > 1 else x)
    return total


def detect(
    b: GraphBuilder,
    xs: list[int],
    *,
    classes: int,
    box_width: int,
    class_width: int,
    depth: int = 2,
    reg_max: int = 16,
    box_groups: int = 1,
    branch: Literal["main", "auxiliary"] = "main",
    weight: float = 1.0,
) -> list[int]:
    """Decoupled anchor-free head. An output for each level: 4 * reg_max box channels, then `classes` channels.

    depth: 3x3 layers before each prediction. box_groups: groups of all box layers but the first (YOLOv9 has 4, one for each
    side). weight: factor of the loss.
    """
    results = []
    for x in xs:
        stride = b.stride(x)
        with b.scope(f"head{stride}"):
            box = label = x
            for i in range(depth):
                box = b.conv(box, box_width, 3, groups=box_groups if i else 1, name="box")
            for _ in range(depth):
                label = b.conv(label, class_width, 3, name="class")
            box = b.conv(box, 4 * reg_max, groups=box_groups, act="", norm=False, bias=True, name="box_prediction")
            label = b.conv(label, classes, act="", norm=False, bias=True, name="class_prediction")
            results.append(b.concat([box, label]))
            b.output(results[-1], "output", stride=stride, branch=Branch(branch), weight=weight)
    return results


def anchors(b: GraphBuilder, xs: list[int], *, classes: int, masks: int = 0, each: int = 3) -> list[int]:
    """Anchor-based head: a layer for each level. Each of its `each` anchors has 4 sides, objectness, classes and masks."""
    results = []
    for x in xs:
        with b.scope(f"anchors{b.stride(x)}"):
            results.append(b.conv(x, each * (5 + classes + masks), act="", norm=False, bias=True, name="prediction"))
            b.output(results[-1], "output", stride=b.stride(x))
    return results


def prototypes(b: GraphBuilder, x: int, *, width: int, masks: int) -> int:
    """Prototype masks at twice the resolution (YOLACT, section 3.1), as in YOLOv5's instance segmentation head."""
    y = b.upsample(b.conv(x, width, 3))
    y = b.conv(b.conv(y, width, 3), masks, name="prediction")
    b.output(y, "output", stride=b.stride(y))
    return y


def classifier(b: GraphBuilder, x: int, *, classes: int) -> int:
    """Global average pooling and a linear layer."""
    y = b.linear(b.global_avg_pool(x), classes, name="prediction")
    b.output(y, "output", stride=1)
    return y


PIECES: dict[str, Piece] = {
    "conv": conv,
    **DOWNSAMPLING,
    "two_way_down": two_way_down,
    "pool": max_pool,
    "upsample": upsample,
    "concat": concat,
    "bottlenecks": bottlenecks,
    "vov_elan": vov_elan,
    "add": add,
    "sppf": sppf,
    "spp": spp,
    "csp_spp": csp_spp,
    "csp_shared": csp_shared,
    "route": route,
    "fuse": fuse,
    "detect": detect,
    "anchors": anchors,
    "prototypes": prototypes,
    "classifier": classifier,
}

HEADS = ("detect", "anchors", "prototypes", "classifier")
"""Pieces that carry a loss."""
