"""Kendall of distinct combinations with published box AP, over all structures that the paper's ELAN rows may have.

    python benchmarks/elan_structures.py

The gradient-path paper publishes three FLOPs and one parameter count of its ELAN networks (Tables 7 and 8), but no widths.
Drawn structures of YOLOR's form that meet the three FLOPs within 3 % and the parameters within 5 % are as likely as the
catalogue's. With each of them, and with the six rows whose structure is exact, distinct combinations are compared with the
published box AP. It prints Kendall (tau-b) of the six exact rows, then its quartiles over the drawn structures, and its
median by the unit of the backbone. It takes about a minute.
"""

import random
import statistics
from typing import Any

from scipy.stats import kendalltau

from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph, GraphBuilder
from gpnas.paths.gradient_paths import gradient_paths
from search_spaces import pieces
from search_spaces.blueprint import build_blueprint, open_catalogue

DRAWS = 80_000
EXACT = ("yolor-v3", "yolor-prn", "yolor-csp-no-fusion", "yolor-csp-fusion-last", "yolor-csp-fusion-first", "yolor-csp")
ELAN = {(1, 1): (126.4e9, 50.2), (2, 1): (143.2e9, 51.4), (2, 2): (164.0e9, 51.8)}
"""{stacks in backbone and neck: (FLOPs, box AP)}"""
PARAMETERS = 34.5e6
CHOICES: dict[str, tuple[Any, ...]] = {
    "unit": ("3x3", "1x1 and 3x3"),
    "neck unit": ("3x3", "1x1 and 3x3"),
    "blocks": (1, 2, 3, 4),
    "neck blocks": (1, 2, 3, 4),
    "down": (pieces.strided, pieces.two_way_down),
    "neck down": (pieces.strided, pieces.two_way_down),
    "p1": ("residual", "3x3", "none"),
    "widths": ((128, 256, 512, 1024), (128, 256, 512, 512), (256, 512, 1024, 1024), (256, 512, 512, 512)),
    "hidden": ((64, 128, 256, 512), (64, 128, 256, 256), (32, 64, 128, 256)),
    "entry": (0.5, 1, 2),
    "neck entry": (0.25, 0.5, 1.0),
    "neck hidden": (0.25, 0.5, 1.0),
    "lateral": (True, False),
    "spp": (256, 512),
    "large": (512, 1024),
}
"""What a structure may have: one value of each is drawn."""


def elan(b: GraphBuilder, x: int, width: int, half: int, hidden: int, blocks: int, stack: int, unit: str) -> int:
    """An ELAN block of `blocks` computational blocks with `stack` units each."""
    parts = list(b.split(b.conv(x, 2 * half), half))
    for _ in range(blocks):
        y = parts[-1]
        for _ in range(stack):
            y = b.conv(b.conv(y, hidden) if unit == "1x1 and 3x3" else y, hidden, 3)
        parts.append(y)
    return b.conv(b.concat(parts), width)


def build(choice: dict[str, Any], stack: int, neck_stack: int) -> Graph:
    """The network of a value for each of CHOICES, with `stack` and `neck_stack` units in a computational block."""
    b = GraphBuilder()
    x = b.conv(b.conv(b.image, 32, 3), 64, 3, 2)
    if choice["p1"] != "none":
        y = b.conv(b.conv(x, 32) if choice["p1"] == "residual" else x, 64, 3)
        x = b.add(x, y) if choice["p1"] == "residual" else y
    levels = []
    for i, (width, hidden) in enumerate(zip(choice["widths"], choice["hidden"], strict=True)):
        x = b.conv(x, 128, 3, 2) if i == 0 else choice["down"](b, x, width=b.channels(x))
        x = elan(b, x, width, int(hidden * choice["entry"]), hidden, choice["blocks"], stack, choice["unit"])
        levels.append(x)

    def joined(xs: list[int], width: int) -> int:
        half, hidden = int(width * choice["neck entry"]), int(width * choice["neck hidden"])
        return elan(b, b.concat(xs), width, half, hidden, choice["neck blocks"], neck_stack, choice["neck unit"])

    def reduced(x: int, width: int) -> int:
        return b.conv(x, width) if choice["lateral"] else x

    n5 = pieces.sppf(b, levels[3], width=512, hidden=choice["spp"])
    n4 = joined([reduced(levels[2], 256), b.upsample(reduced(n5, 256))], 256)
    n3 = joined([reduced(levels[1], 128), b.upsample(reduced(n4, 128))], 128)
    m4 = joined([choice["neck down"](b, n3, width=256), n4], 256)
    m5 = joined([choice["neck down"](b, m4, width=512), n5], 512)
    heads = [b.conv(x, width, 3) for x, width in ((n3, 256), (m4, 512), (m5, choice["large"]))]
    pieces.prototypes(b, heads[0], width=256, masks=32)
    pieces.anchors(b, heads, classes=80, masks=32)
    return b.build()


def build_if_published_costs(choice: dict[str, Any]) -> list[Graph] | None:
    """The networks of the ELAN rows; None if they miss the published FLOPs by 3 % or parameters by 5 %."""
    graphs = []
    for stacks, (flops, _) in ELAN.items():
        graph = build(choice, *stacks)
        ours = cost(graph, 640, 640)
        if abs(ours.flops / flops - 1) > 0.03 or (stacks == (2, 1) and abs(ours.params / PARAMETERS - 1) > 0.05):
            return None
        graphs.append(graph)
    return graphs


def distinct(graph: Graph) -> float:
    return gradient_paths(graph).figures()["distinct_combinations"]


def main() -> None:
    entries = {name: open_catalogue(name) for name in EXACT}
    exact = [(float((entry.published or {})["ap"]), distinct(build_blueprint(entry))) for entry in entries.values()]
    print(f"the six exact rows alone: {kendalltau(*zip(*exact, strict=True)).statistic:.2f}")
    rng, taus, by_unit = random.Random(0), [], {}
    for _ in range(DRAWS):
        choice = {name: rng.choice(values) for name, values in CHOICES.items()}
        graphs = build_if_published_costs(choice)
        if graphs is not None:
            rows = exact + [(ap, distinct(graph)) for (_, ap), graph in zip(ELAN.values(), graphs, strict=True)]
            taus.append(float(kendalltau(*zip(*rows, strict=True)).statistic))
            by_unit.setdefault((choice["unit"], choice["blocks"]), []).append(taus[-1])
    low, middle, high = statistics.quantiles(taus, n=4)
    print(
        f"{len(taus)} of {DRAWS} drawn structures fit; Kendall over nine rows: quartiles {low:.2f} {middle:.2f} {high:.2f}, ",
        end="",
    )
    print(f"least {min(taus):.2f}, most {max(taus):.2f}; at least 0.85 in {sum(t >= 0.85 for t in taus) / len(taus):.0%}")
    for (unit, blocks), own in sorted(by_unit.items()):
        print(f"  backbone of {blocks} blocks of {unit:12} {len(own):4} structures, median {statistics.median(own):.2f}")


if __name__ == "__main__":
    main()
