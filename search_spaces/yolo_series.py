"""The detectors of the YOLO series that YOLOBench trained: YOLOv3 to v8, at any depth and width, all with YOLOv8's head.

    graph = build_yolo("yolo6s", depth=0.33, width=0.25, classes=20)

Each series is one function (builder, scale) -> the levels of stride 8, 16 and 32. The widths in it are those of the largest
member, before they are scaled; so are the counts of repeated units.

Sources: YOLOBench (arXiv:2307.13901) and the structure, not the code, of its public models (Deeplite/deeplite-torch-zoo, commit
e4c8ea6): YOLOv3 (arXiv:1804.02767), Scaled-YOLOv4 (arXiv:2011.08036), YOLOv5 v6.0, YOLOv6 v3.0 (arXiv:2301.05586), YOLOv7
(arXiv:2207.02696), YOLOv8, and the RepVGG unit (arXiv:2101.03697). docs/yolobench.md says what was compared with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gpnas.graph.graph import Graph, GraphBuilder
from search_spaces.pieces import csp_spp, detect, sppf, two_way_down

REG_MAX = 16
"""Values of the distribution of a box side."""

LARGEST_WIDTH = {1.0: 512, 0.67: 768, 0.33: 1024}
"""The widest layers of YOLOv8 by depth, in channels before they are scaled. Deep members are narrower at stride 32."""


Part = Callable[..., int]
"""A function (builder, input, width, ...) -> output."""


class Scale(NamedTuple):
    """depth, width: factors of the counts of repeated units and of the widths. largest: what a width is cut to before."""

    depth: float
    width: float
    largest: int = 1024

    def channels(self, width: int) -> int:
        """`width` scaled. All widths are multiples of 32 and all factors multiples of a quarter: no rounding is needed."""
        return int(min(width, self.largest) * self.width)

    def repeats(self, count: int) -> int:
        """`count` scaled, at least 1."""
        return max(1, round(count * self.depth))


def build_yolo(series: str, depth: float, width: float, classes: int, merged: bool = False) -> Graph:
    """The training graph of a member of SERIES. YOLOv7 repeats no unit, so that `depth` does not change it.

    merged: the RepVGG units of REP_VGG are one layer each, as when they are deployed and as a RepConv always is here; else
    their normalised identity is an operation of its own, beside the layer.
    """
    scale = Scale(depth, width, LARGEST_WIDTH[depth] if series == "yolo8" else 1024)
    b = GraphBuilder(act="relu" if series.startswith("yolo6") else "silu")
    plan = partial(SERIES[series], unit=_rep_conv) if merged and series in REP_VGG else SERIES[series]
    levels = plan(b, scale)
    finest = b.channels(levels[0])
    box_width, class_width = max(finest // 4, 4 * REG_MAX), max(finest, classes)
    detect(b, levels, classes=classes, box_width=box_width, class_width=class_width, reg_max=REG_MAX)
    return b.build()


def _residual(b: GraphBuilder, x: int, hidden: int, *, kernel: int = 1, add: bool = True) -> int:
    """A layer of `hidden` channels and a 3x3 layer back to the channels of `x`, and an identity unless `add` is False."""
    y = b.conv(b.conv(x, hidden, kernel), b.channels(x), 3)
    return b.add(y, x) if add else y


def _residuals(b: GraphBuilder, x: int, width: int, count: int) -> int:
    """Stage of YOLOv3's backbone: a strided layer, then units with half of the channels inside."""
    x = b.conv(x, width, 3, 2)
    for _ in range(count):
        x = _residual(b, x, width // 2)
    return x


def _darknet(b: GraphBuilder, scale: Scale, stage: Part) -> tuple[int, int, int]:
    """The backbone of YOLOv3 and of Scaled-YOLOv4, whose stages differ: its levels of stride 8, 16 and 32."""
    width, repeats = scale.channels, scale.repeats
    with b.scope("backbone"):
        x = _residuals(b, b.conv(b.image, width(32), 3), width(64), 1)
        x = stage(b, x, width(128), repeats(2))
        at8 = stage(b, x, width(256), repeats(8))
        at16 = stage(b, at8, width(512), repeats(8))
        return at8, at16, stage(b, at16, width(1024), repeats(4))


def _yolo3(b: GraphBuilder, scale: Scale) -> list[int]:
    width, repeats = scale.channels, scale.repeats
    at8, at16, x = _darknet(b, scale, _residuals)
    with b.scope("neck"):
        x = b.conv(_residual(b, x, width(512), add=False), width(512))
        coarse = b.conv(b.conv(x, width(1024), 3), width(512))
        x = b.concat([b.upsample(b.conv(coarse, width(256))), at16])
        x = b.conv(b.conv(x, width(256)), width(512), 3)
        middle = b.conv(_residual(b, x, width(256), add=False), width(256))
        x = b.concat([b.upsample(b.conv(middle, width(128))), at8])
        x = b.conv(b.conv(x, width(128)), width(256), 3)
        for _ in range(repeats(2)):
            x = _residual(b, x, width(128), add=False)
        return [x, b.conv(middle, width(512), 3), b.conv(coarse, width(1024), 3)]


def _normalised(b: GraphBuilder, parts: list[int]) -> int:
    """Scaled-YOLOv4's join: the paths of a CSP block are concatenated, then normalised and activated together."""
    return b.act(b.norm(b.concat(parts)))


def _raw(b: GraphBuilder, x: int, width: int, name: str) -> int:
    """A 1x1 convolution alone."""
    return b.conv(x, width, act="", norm=False, name=name)


def _csp4(b: GraphBuilder, x: int, width: int, count: int) -> int:
    """Stage of Scaled-YOLOv4's backbone: a strided layer, then residual units on half of the channels."""
    x, half = b.conv(x, width, 3, 2), width // 2
    y = b.conv(x, half, name="enter")
    for _ in range(count):
        y = _residual(b, y, half)
    return b.conv(_normalised(b, [_raw(b, y, half, "leave"), _raw(b, x, half, "cross")]), width, name="transition")


def _csp4_neck(b: GraphBuilder, x: int, width: int, count: int) -> int:
    """Stage of Scaled-YOLOv4's neck: both paths read one entry layer, and the units have no identity."""
    entry = y = b.conv(x, width, name="enter")
    for _ in range(count):
        y = _residual(b, y, width, add=False)
    return b.conv(_normalised(b, [y, _raw(b, entry, width, "cross")]), width, name="transition")


def _csp_spp4(b: GraphBuilder, x: int, width: int) -> int:
    """Scaled-YOLOv4's spatial pyramid pooling in a CSP block."""
    y = b.conv(b.conv(b.conv(x, width, name="enter"), width, 3), width)
    y = b.conv(b.conv(b.concat([y, *(b.max_pool(y, kernel) for kernel in (5, 9, 13))]), width), width, 3)
    return b.conv(_normalised(b, [y, _raw(b, x, width, "cross")]), width, name="transition")


def _yolo4(b: GraphBuilder, scale: Scale) -> list[int]:
    width, repeats = scale.channels, scale.repeats
    at8, at16, x = _darknet(b, scale, _csp4)
    with b.scope("neck"):
        coarse = _csp_spp4(b, x, width(512))
        up = b.upsample(b.conv(coarse, width(256)))
        middle = _csp4_neck(b, b.concat([b.conv(at16, width(256)), up]), width(256), repeats(2))
        up = b.upsample(b.conv(middle, width(128)))
        fine = _csp4_neck(b, b.concat([b.conv(at8, width(128)), up]), width(128), repeats(2))
        middle = _csp4_neck(b, b.concat([b.conv(fine, width(256), 3, 2), middle]), width(256), repeats(2))
        coarse = _csp4_neck(b, b.concat([b.conv(middle, width(512), 3, 2), coarse]), width(512), repeats(2))
        return [b.conv(fine, width(256), 3), b.conv(middle, width(512), 3), b.conv(coarse, width(1024), 3)]


def _c3(b: GraphBuilder, x: int, width: int, count: int, *, add: bool) -> int:
    """YOLOv5's CSP stage: units on one of two halves."""
    y = b.conv(x, width // 2, name="enter")
    for _ in range(count):
        y = _residual(b, y, width // 2, add=add)
    return b.conv(b.concat([y, b.conv(x, width // 2, name="cross")]), width, name="transition")


def _c2f(b: GraphBuilder, x: int, width: int, count: int, *, add: bool) -> int:
    """YOLOv8's stage: one entry layer is split in half, and the transition reads both halves and every unit."""
    parts = list(b.split(b.conv(x, width, name="enter"), width // 2))
    for _ in range(count):
        parts.append(_residual(b, parts[-1], width // 2, kernel=3, add=add))
    return b.conv(b.concat(parts), width, name="transition")


def _yolo5(b: GraphBuilder, scale: Scale) -> list[int]:
    width, repeats = scale.channels, scale.repeats
    with b.scope("backbone"):
        x = b.conv(b.image, width(64), 6, 2, padding=2)
        x = _c3(b, b.conv(x, width(128), 3, 2), width(128), repeats(3), add=True)
        at8 = _c3(b, b.conv(x, width(256), 3, 2), width(256), repeats(6), add=True)
        at16 = _c3(b, b.conv(at8, width(512), 3, 2), width(512), repeats(9), add=True)
        x = _c3(b, b.conv(at16, width(1024), 3, 2), width(1024), repeats(3), add=True)
        x = sppf(b, x, width=width(1024), hidden=width(512))
    with b.scope("neck"):
        coarse = b.conv(x, width(512))
        x = _c3(b, b.concat([b.upsample(coarse), at16]), width(512), repeats(3), add=False)
        middle = b.conv(x, width(256))
        fine = _c3(b, b.concat([b.upsample(middle), at8]), width(256), repeats(3), add=False)
        middle = _c3(b, b.concat([b.conv(fine, width(256), 3, 2), middle]), width(512), repeats(3), add=False)
        coarse = _c3(b, b.concat([b.conv(middle, width(512), 3, 2), coarse]), width(1024), repeats(3), add=False)
        return [fine, middle, coarse]


def _yolo8(b: GraphBuilder, scale: Scale) -> list[int]:
    width, repeats = scale.channels, scale.repeats
    with b.scope("backbone"):
        x = b.conv(b.image, width(64), 3, 2)
        x = _c2f(b, b.conv(x, width(128), 3, 2), width(128), repeats(3), add=True)
        at8 = _c2f(b, b.conv(x, width(256), 3, 2), width(256), repeats(6), add=True)
        at16 = _c2f(b, b.conv(at8, width(512), 3, 2), width(512), repeats(6), add=True)
        x = _c2f(b, b.conv(at16, width(1024), 3, 2), width(1024), repeats(3), add=True)
        coarse = sppf(b, x, width=width(1024), hidden=width(1024) // 2)
    with b.scope("neck"):
        middle = _c2f(b, b.concat([b.upsample(coarse), at16]), width(512), repeats(3), add=False)
        fine = _c2f(b, b.concat([b.upsample(middle), at8]), width(256), repeats(3), add=False)
        middle = _c2f(b, b.concat([b.conv(fine, width(256), 3, 2), middle]), width(512), repeats(3), add=False)
        coarse = _c2f(b, b.concat([b.conv(middle, width(512), 3, 2), coarse]), width(1024), repeats(3), add=False)
        return [fine, middle, coarse]


def _rep_conv(b: GraphBuilder, x: int, width: int, stride: int = 1) -> int:
    """A 3x3 convolution that trains beside a 1x1 one."""
    return b.conv(x, width, 3, stride, rep=True)


def _rep_vgg(b: GraphBuilder, x: int, width: int, stride: int = 1) -> int:
    """The same beside a normalised identity, where that has the output's shape."""
    if stride > 1 or b.channels(x) != width:
        return _rep_conv(b, x, width, stride)
    return b.act(b.add(b.conv(x, width, 3, act="", rep=True), b.norm(x, "identity")))


def _silu_layer(b: GraphBuilder, x: int, width: int, stride: int = 1) -> int:
    return b.conv(x, width, 3, stride, act="silu")


def _chain(b: GraphBuilder, x: int, width: int, count: int, *, unit: Part, act: str) -> int:
    """Stage of YOLOv6-S."""
    for _ in range(count):
        x = unit(b, x, width)
    return x


def _csp_stack(b: GraphBuilder, x: int, width: int, count: int, *, unit: Part, share: float, act: str) -> int:
    """Stage of YOLOv6-M and L: pairs of units with an identity, on one of two paths of width * share channels. The identity's
    learned factor, one parameter a pair, is left out."""
    hidden = int(width * share)
    y = b.conv(x, hidden, act=act, name="enter")
    for _ in range(max(1, count // 2)):
        y = b.add(unit(b, unit(b, y, hidden), hidden), y)
    return b.conv(b.concat([y, b.conv(x, hidden, act=act, name="cross")]), width, act=act, name="transition")


def _bifusion(b: GraphBuilder, coarse: int, same: int, fine: int, width: int) -> int:
    """YOLOv6's join of three levels at the resolution of `same`."""
    up = b.conv_transpose(coarse, width)
    down = b.conv(b.conv(fine, width), width, 3, 2)
    return b.conv(b.concat([up, b.conv(same, width), down]), width)


def _csp_sppf(b: GraphBuilder, x: int, width: int, act: str) -> int:
    """YOLOv6's spatial pyramid pooling in a CSP block: three poolings of 5 x 5 in a row."""
    half = width // 2
    y = b.conv(b.conv(b.conv(x, half, act=act, name="enter"), half, 3, act=act), half, act=act)
    pooled = list(itertools.accumulate(range(3), lambda part, _: b.max_pool(part, 5), initial=y))
    y = b.conv(b.conv(b.concat(pooled), half, act=act), half, 3, act=act)
    return b.conv(b.concat([b.conv(x, half, act=act, name="cross"), y]), width, act=act, name="transition")


def _sppf6(b: GraphBuilder, x: int, width: int, act: str) -> int:
    y = b.conv(x, width // 2, act=act, name="enter")
    pooled = list(itertools.accumulate(range(3), lambda part, _: b.max_pool(part, 5), initial=y))
    return b.conv(b.concat(pooled), width, act=act, name="transition")


def _yolo6(b: GraphBuilder, scale: Scale, *, unit: Part, stage: Part, pooling: Part, act: str) -> list[int]:
    """YOLOv6. unit: of the strided layers and of the stages. act: of the 1x1 layers of stages and of the poolings' pyramid;
    the layers of the neck have ReLU in all members."""
    width, repeats, stage = scale.channels, scale.repeats, partial(stage, unit=unit, act=act)
    with b.scope("backbone"):
        x = unit(b, b.image, width(64), 2)
        at4 = stage(b, unit(b, x, width(128), 2), width(128), repeats(6))
        at8 = stage(b, unit(b, at4, width(256), 2), width(256), repeats(12))
        at16 = stage(b, unit(b, at8, width(512), 2), width(512), repeats(18))
        x = stage(b, unit(b, at16, width(1024), 2), width(1024), repeats(6))
        x = pooling(b, x, width(1024), act)
    with b.scope("neck"):
        coarse = b.conv(x, width(256))
        x = stage(b, _bifusion(b, coarse, at16, at8, width(256)), width(256), repeats(12))
        middle = b.conv(x, width(128))
        fine = stage(b, _bifusion(b, middle, at8, at4, width(128)), width(128), repeats(12))
        middle = stage(b, b.concat([b.conv(fine, width(128), 3, 2), middle]), width(256), repeats(12))
        coarse = stage(b, b.concat([b.conv(middle, width(256), 3, 2), coarse]), width(512), repeats(12))
        return [fine, middle, coarse]


def _elan7(b: GraphBuilder, x: int, entry: int, hidden: int, width: int, every: int) -> int:
    """YOLOv7's stage: two 1x1 layers, and a chain of four 3x3 layers on one of them. The transition reads both layers and
    each `every`-th layer of the chain."""
    cross, chain = b.conv(x, entry, name="cross"), [b.conv(x, entry, name="enter")]
    for _ in range(4):
        chain.append(b.conv(chain[-1], hidden, 3))
    return b.conv(b.concat([*chain[::-every], cross]), width, name="transition")


def _yolo7(b: GraphBuilder, scale: Scale) -> list[int]:
    width = scale.channels

    def stage(x: int, hidden: int, out: int) -> int:
        return _elan7(b, x, width(hidden), width(hidden), width(out), every=2)

    def neck_stage(parts: list[int], out: int) -> int:
        return _elan7(b, b.concat(parts), width(out), width(out) // 2, width(out), every=1)

    def down(x: int, out: int) -> int:
        return two_way_down(b, x, width=width(out))

    with b.scope("backbone"):
        x = b.conv(b.conv(b.image, width(32), 3), width(64), 3, 2)
        x = stage(b.conv(b.conv(x, width(64), 3), width(128), 3, 2), 64, 256)
        at8 = stage(down(x, 256), 128, 512)
        at16 = stage(down(at8, 512), 256, 1024)
        x = stage(down(at16, 1024), 256, 1024)
    with b.scope("neck"):
        coarse = csp_spp(b, x, width=width(512))
        up = b.upsample(b.conv(coarse, width(256)))
        middle = neck_stage([b.conv(at16, width(256)), up], 256)
        up = b.upsample(b.conv(middle, width(128)))
        fine = neck_stage([b.conv(at8, width(128)), up], 128)
        middle = neck_stage([down(fine, 256), middle], 256)
        coarse = neck_stage([down(middle, 512), coarse], 512)
        return [b.conv(x, width(out), 3, rep=True) for x, out in ((fine, 256), (middle, 512), (coarse, 1024))]


SERIES: dict[str, Callable[..., list[int]]] = {
    "yolo3": _yolo3,
    "yolo4": _yolo4,
    "yolo5": _yolo5,
    "yolo6s": partial(_yolo6, unit=_rep_vgg, stage=_chain, pooling=_csp_sppf, act="relu"),
    "yolo6m": partial(_yolo6, unit=_rep_vgg, stage=partial(_csp_stack, share=2 / 3), pooling=_sppf6, act="relu"),
    "yolo6l": partial(_yolo6, unit=_silu_layer, stage=partial(_csp_stack, share=1 / 2), pooling=_sppf6, act="silu"),
    "yolo7": _yolo7,
    "yolo8": _yolo8,
}

REP_VGG = ("yolo6s", "yolo6m")
"""The series of RepVGG units."""
