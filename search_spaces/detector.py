"""From a genotype to its graph: stem, backbone stages, path-aggregation neck, decoupled head, and PGI's auxiliary branch.

The head is anchor-free with a distribution for each box side (Generalized Focal Loss, arXiv:2006.04388): the output of a level
has 4 * reg_max + classes channels. PGI follows YOLOv9 (arXiv:2402.13616, section 3): the auxiliary branch ends in a second
head. The main branch reads nothing of it, so that the inference graph does not hold it.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpnas.graph.graph import Branch, Graph, GraphBuilder
from search_spaces.families import build_stage
from search_spaces.genotype import BackboneStage, Genotype, Head, Pgi
from search_spaces.pieces import DOWNSAMPLING, detect, sppf


def build_detector(genotype: Genotype) -> Graph:
    """The training graph of `genotype`: a main output for each of its levels, and those of the auxiliary branch.

    Raises GraphError when its choices fit no channels, such as a stage that is too thin to be split.
    """
    b = GraphBuilder(act=genotype.activation)
    first: dict[int, int] = {}
    if genotype.pgi.kind == "composite":
        with b.scope("first"):
            first = _backbone(b, genotype)
    with b.scope("backbone"):
        levels = _backbone(b, genotype, other=first)
        _pool_pyramid(b, levels, genotype)
    with b.scope("neck"):
        features = _neck(b, levels, genotype)
    _head(b, [features[stride] for stride in genotype.strides], genotype.head, Branch.MAIN, 1.0)
    with b.scope("pgi"):
        _auxiliary_branch(b, levels, first, genotype)
    return b.build()


def _backbone(
    b: GraphBuilder, genotype: Genotype, other: Mapping[int, int] | None = None, deepest: int | None = None
) -> dict[int, int]:
    """A backbone on the image: its features by stride, from stride 4 to stride `deepest` (None: that of the deepest level).

    other: levels of another backbone, by stride. At PGI's levels they are added before the stage.
    """
    x = b.conv(b.image, genotype.stem.width, 3, 2, name="stem")
    levels: dict[int, int] = {}
    for i, stage in enumerate(genotype.backbone):
        stride = 4 << i
        if stride > (deepest or genotype.strides[-1]):
            break
        with b.scope(f"stage{i}"):
            x = _downsampled(b, x, stage)
            if other and stride in (genotype.pgi.levels or []):
                x = _with_routes(b, x, stride, other, genotype.pgi)
            x = build_stage(b, x, stage)
        levels[stride] = x
    return levels


def _with_routes(b: GraphBuilder, x: int, stride: int, levels: Mapping[int, int], pgi: Pgi) -> int:
    """The sum of `x` and the same level of another backbone, through a 1x1 layer; with multi-level integration its deeper
    levels, upsampled, are added too."""
    for source in pgi.levels or []:
        if source == stride or (source > stride and pgi.integration == "multi"):
            route = b.conv(levels[source], b.channels(x), act="", norm=False, bias=True, name=f"route{source}")
            x = b.add(x, b.upsample(route, source // stride) if source > stride else route)
    return x


def _pool_pyramid(b: GraphBuilder, levels: dict[int, int], genotype: Genotype) -> None:
    """Replace the deepest of the levels by its pyramid of poolings, if the genotype has one."""
    if genotype.spp == "sppf":
        deepest = genotype.strides[-1]
        with b.scope("spp"):
            width = b.channels(levels[deepest])
            levels[deepest] = sppf(b, levels[deepest], width=width, hidden=width // 2)


def _downsampled(b: GraphBuilder, x: int, stage: BackboneStage) -> int:
    """`x` at half the resolution and the stage's width."""
    with b.scope("down"):
        return DOWNSAMPLING[stage.downsample](b, x, width=stage.width)


def _neck(b: GraphBuilder, levels: dict[int, int], genotype: Genotype) -> dict[int, int]:
    """Features by stride after a top-down path (FPN) and a bottom-up path (PAN); every join is a concatenation."""
    features = _top_down(b, levels, genotype)
    for stride, stage in zip(genotype.strides[1:], genotype.neck.bottom_up, strict=True):
        with b.scope(f"bottom_up{stride}"):
            finer = features[stride // 2]
            joined = b.concat([b.conv(finer, b.channels(finer), 3, 2, name="down"), features[stride]])
            features[stride] = build_stage(b, joined, stage)
    return features


def _top_down(b: GraphBuilder, levels: dict[int, int], genotype: Genotype, finest: int = 0) -> dict[int, int]:
    """`levels` after the top-down path, which ends at stride `finest` if not before."""
    features = dict(levels)
    for stride, stage in zip(genotype.strides[-2::-1], genotype.neck.top_down, strict=True):
        if stride < finest:
            break
        with b.scope(f"top_down{stride}"):
            joined = b.concat([b.upsample(features[2 * stride]), levels[stride]])
            features[stride] = build_stage(b, joined, stage)
    return features


def _head(b: GraphBuilder, levels: list[int], head: Head, branch: Branch, weight: float) -> None:
    """weight: factor of the head's loss."""
    detect(
        b,
        levels,
        classes=head.classes,
        box_width=head.width,
        class_width=head.width,
        depth=head.depth,
        reg_max=head.reg_max,
        branch=branch.value,
        weight=weight,
    )


def _auxiliary_branch(b: GraphBuilder, levels: dict[int, int], first: dict[int, int], genotype: Genotype) -> None:
    pgi = genotype.pgi
    if pgi.kind == "none":
        return
    strides = pgi.levels or []
    if pgi.kind == "deep_supervision":
        features = levels
    elif pgi.kind == "reversible":
        features = _backbone(b, genotype, other=levels, deepest=max(strides))  # deeper stages would carry no loss
    else:
        _pool_pyramid(b, first, genotype)
        features = _top_down(b, first, genotype, finest=min(strides))
    _head(b, [features[stride] for stride in strides], genotype.head, Branch.AUXILIARY, pgi.weight or 0.0)
