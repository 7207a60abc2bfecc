"""How much of a limit narrowing uses: every detector of the catalogue, under limits of its FLOPs and of its parameters.

    python benchmarks/narrowing.py

`83.6 99.9` under `x 0.35`: the limit is 0.35 of the detector's own FLOPs (at 640 pixels) or parameters; one factor for all
widths (`scaled_within`) uses 83.6 % of it, and single widths step by step (`widest_within`) 99.9 %. `widths` are the least and
the greatest width of the five networks, each divided by its share of the original; widths of 8 channels are left out, because
no width is less. `s` are the most seconds of the five.
"""

import time
from collections.abc import Callable

from gpnas.graph.cost import deployed_cost
from search_spaces.architecture import build, classes_of, with_classes
from search_spaces.blueprint import WIDTH_STEP, Blueprint, catalogue, open_catalogue
from search_spaces.narrowing import scaled_within, share_of_limit, widest_within, widths_of

IMGSZ = 640
SHARES = (0.1, 0.2, 0.35, 0.5, 0.8)
LEAST = 0.98
"""Of the limit: what narrowing is to use."""

Rule = Callable[[Blueprint, float | None, float | None, int], Blueprint]


def detectors() -> list[Blueprint]:
    """The entries that are no classifiers, with heads that gpnas trains, for the classes of their own."""
    entries = [entry for entry in map(open_catalogue, catalogue()) if entry.blocks[-1].block != "classifier"]
    changed = (with_classes(entry, classes_of(entry)) for entry in entries)
    return [entry for entry in changed if isinstance(entry, Blueprint)]


def used(rule: Rule, detector: Blueprint, max_flops: float | None, max_params: float | None) -> tuple[Blueprint, float]:
    """The narrowed detector, and the share of the limit that it uses."""
    narrow = rule(detector, max_flops, max_params, IMGSZ)
    return narrow, share_of_limit(deployed_cost(build(narrow), IMGSZ), max_flops, max_params)


def off_share(original: Blueprint, narrow: Blueprint) -> list[float]:
    """Every width above WIDTH_STEP, divided by its share of the original.

    The factor of the shares is the greatest at which no width is more than half a step below its share.
    """
    pairs = list(zip(widths_of(narrow), widths_of(original), strict=True))
    factor = min((width + WIDTH_STEP / 2) / whole for width, whole in pairs if width < whole)
    return [width / (factor * whole) for width, whole in pairs if width > WIDTH_STEP]


def main() -> None:
    print(f"{'':33}{'limit':7}" + "".join(f"{f'x {share}':>14}" for share in SHARES) + f"{'widths':>13}{'s':>6}")
    before, after = [], []
    for detector in detectors():
        whole = deployed_cost(build(detector), IMGSZ)
        for kind in ("FLOPs", "params"):
            cells, ratios, seconds = "", [], 0.0
            for share in SHARES:
                limits = (share * whole.flops, None) if kind == "FLOPs" else (None, share * whole.params)
                before.append(used(scaled_within, detector, *limits)[1])
                start = time.perf_counter()
                narrow, reached = used(widest_within, detector, *limits)
                seconds = max(seconds, time.perf_counter() - start)
                after.append(reached)
                ratios += off_share(detector, narrow)
                cells += f"{f'{100 * before[-1]:.1f} {100 * reached:.1f}':>14}"
            print(f"{detector.name:33}{kind:7}{cells}  {min(ratios):4.2f} - {max(ratios):4.2f}{seconds:6.2f}", flush=True)
    for rule, shares in (("one factor", before), ("step by step", after)):
        short = sum(share < LEAST for share in shares)
        print(f"{rule}: {min(shares):.1%} of the limit at least; {short} of {len(shares)} use less than {LEAST:.0%}")


if __name__ == "__main__":
    main()
