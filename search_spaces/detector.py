"""Genotype -> Graph: stem, four backbone stages, path-aggregation neck, decoupled head, and PGI's branch beside them.

The head is anchor-free with a distribution for each box side (Generalized Focal Loss, arXiv:2006.04388): each level's output
has 4 * reg_max + classes channels. PGI follows YOLOv9 (arXiv:2402.13616, section 3): its branch carries a second head and
reaches the main branch only through gradients, so it is gone from the inference graph.
"""

from __future__ import annotations

from gpnas.graph import Branch, Graph, GraphBuilder
from search_spaces.blocks import build_block
from search_spaces.genotype import BackboneStage, Genotype, Head, Stage
from search_spaces.pieces import DOWNSAMPLING, detect, sppf

LEVELS = (8, 16, 32)
"""Strides, in pixels, of the levels that predict."""


def build_detector(genotype: Genotype) -> Graph:
    """The training graph of `genotype`: three main outputs, and those of the auxiliary branch."""
    b = GraphBuilder(act=genotype.activation)
    with b.scope("backbone"):
        levels = _backbone(b, genotype.stem.width, genotype.backbone)
        if genotype.spp == "sppf":
            with b.scope("spp"):
                width = b.channels(levels[32])
                levels[32] = sppf(b, levels[32], width=width, hidden=width // 2)
    with b.scope("neck"):
        features = _neck(b, levels, genotype)
    _head(b, features, genotype.head, Branch.MAIN, 1.0)
    with b.scope("pgi"):
        _auxiliary_branch(b, levels, genotype)
    return b.build()


def _backbone(b: GraphBuilder, stem: int, stages: list[BackboneStage]) -> dict[int, int]:
    """Features by stride: 4, 8, 16, 32."""
    x = b.conv(b.image, stem, 3, 2, name="stem")
    levels = {}
    for i, stage in enumerate(stages):
        with b.scope(f"stage{i}"):
            x = build_block(b, _downsampled(b, x, stage), stage)
        levels[4 << i] = x
    return levels


def _downsampled(b: GraphBuilder, x: int, stage: BackboneStage) -> int:
    """Half the resolution, at the stage's width."""
    with b.scope("down"):
        return DOWNSAMPLING[stage.downsample](b, x, width=stage.width)


def _neck(b: GraphBuilder, levels: dict[int, int], genotype: Genotype) -> dict[int, int]:
    """Top-down (FPN), then bottom-up (PAN); every join is a concatenation."""
    features = dict(levels)
    top_down: list[Stage] = genotype.neck.top_down
    bottom_up: list[Stage] = genotype.neck.bottom_up
    for stride, stage in zip((16, 8), top_down, strict=True):
        with b.scope(f"top_down{stride}"):
            joined = b.concat([b.upsample(features[2 * stride]), levels[stride]])
            features[stride] = build_block(b, joined, stage)
    for stride, stage in zip((16, 32), bottom_up, strict=True):
        with b.scope(f"bottom_up{stride}"):
            finer = features[stride // 2]
            joined = b.concat([b.conv(finer, b.channels(finer), 3, 2, name="down"), features[stride]])
            features[stride] = build_block(b, joined, stage)
    return features


def _head(b: GraphBuilder, features: dict[int, int], head: Head, branch: Branch, weight: float) -> None:
    """Predictions on each level of LEVELS that `features` has."""
    levels = [features[stride] for stride in LEVELS if stride in features]
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


def _auxiliary_branch(b: GraphBuilder, levels: dict[int, int], genotype: Genotype) -> None:
    pgi = genotype.pgi
    if pgi.kind == "none":
        return
    fed: list[int] = list(pgi.levels or [])
    if pgi.kind == "deep_supervision":
        features = {stride: levels[stride] for stride in fed}
    else:
        features = _reversible_branch(b, levels, genotype, fed)
    _head(b, features, genotype.head, Branch.AUXILIARY, pgi.weight or 0.0)


def _reversible_branch(b: GraphBuilder, levels: dict[int, int], genotype: Genotype, fed: list[int]) -> dict[int, int]:
    """A second backbone on the image; before each stage it adds what the main branch routes to it through 1x1 layers.

    Routed features of deeper levels are enlarged to the level that they join (multi-level auxiliary information).
    """
    x = b.conv(b.image, genotype.stem.width, 3, 2, name="stem")
    features = {}
    for i, stage in enumerate(genotype.backbone):
        stride = 4 << i
        if stride > max(fed):
            break  # nothing deeper carries a loss
        with b.scope(f"stage{i}"):
            x = _downsampled(b, x, stage)
            sources = [s for s in fed if (s >= stride if genotype.pgi.integration == "multi" else s == stride)]
            for source in sources if stride in fed else []:
                route = b.conv(levels[source], stage.width, act="", norm=False, bias=True, name=f"route{source}")
                x = b.add(x, b.upsample(route, source // stride) if source > stride else route)
            x = build_block(b, x, stage)
        if stride in fed:
            features[stride] = x
    return features
