"""Forms of a score before training on YOLOBench: chosen on one half of the structures, judged on the other.

    python benchmarks/yolobench_forms.py ../shared/data/yolobench

A form is log FLOPs + weight * log figure, for each predictor of `gpnas bench correlation` and each of WEIGHTS. A structure is
one unit, at 320 pixels. The RepVGG units of YOLOv6-S and M train beside a normalised identity, which is merged into the layer
afterwards. Everything is printed for both ways to count: the identity is a gradient path ("as trained"), or the unit is one
layer, as a RepConv is to gpnas ("merged").

1. The form of the detector score with every weight: Spearman in both halves, and as a mean over the 11 image sizes.
2. The forms with the highest Spearman on the first half; what they reach on the other half, and gain there over log FLOPs, with
   a 90 % interval (percentile bootstrap over structures); and that gain without REP_VGG.
3. The same by Kendall among structures of like MACs.
4. Kendall among structures of like MACs without each series in turn, and without REP_VGG.
5. For each series, Kendall of its depth with AP at like cost, by MACs and by the latency of each device.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from gpnas.bench.like_cost import Floats, correlate_within, kendall_within, less_cost, like_groups, one_group
from gpnas.cli.yolobench import IMGSZ, MACS, Structures, read_structures
from search_spaces.yolo_series import REP_VGG, SERIES

WEIGHTS = (-3.0, -2.0, -1.5, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
IMAGE_SIZES = range(160, 481, 32)
BEST, RESAMPLES = 5, 2000
FOLLOWED = (
    "longest_shortest",
    "detector_score",
    "aggregated_features_mean",
    "duplicated_share",
    "timestamps_per_param",
    "score",
)
"""Predictors whose correlation is looked at without each series."""


class Form(NamedTuple):
    figure: str
    weight: float

    def __str__(self) -> str:
        return (
            f"log FLOPs {'+' if self.weight > 0 else '-'} {abs(self.weight):g} log {self.figure}"
            if self.weight
            else "log FLOPs"
        )

    def values(self, structures: Structures) -> Floats:
        """(structures,)"""
        size = np.log(2 * structures.costs[MACS])
        return size + self.weight * np.log(structures.predictors[self.figure]) if self.weight else size


SIZE = Form("", 0.0)

Measure = Callable[[Floats, Structures], float]


def spearman(values: Floats, structures: Structures) -> float:
    return float(spearmanr(values, structures.ap).statistic)


def at_like_macs(values: Floats, structures: Structures) -> float:
    """Kendall over the pairs of like MACs."""
    return kendall_within(values, structures.ap, like_groups(structures.costs[MACS]))


def part(structures: Structures, chosen: np.ndarray) -> Structures:
    """The structures at these rows."""
    return replace(
        structures,
        names=[structures.names[i] for i in np.arange(len(structures.ap))[chosen]],
        ap=structures.ap[chosen],
        predictors={name: values[chosen] for name, values in structures.predictors.items()},
        costs={name: values[chosen] for name, values in structures.costs.items()},
        series=structures.series[chosen],
        in_first_half=structures.in_first_half[chosen],
    )


def halves(structures: Structures) -> tuple[Structures, Structures]:
    return part(structures, structures.in_first_half), part(structures, ~structures.in_first_half)


def without(structures: Structures, series: Sequence[str]) -> Structures:
    """The structures of the other series."""
    numbers = [sorted(SERIES).index(name) for name in series]  # as `Structures.series` numbers them
    return part(structures, ~np.isin(structures.series, numbers))


def show_weights(sizes: Sequence[Structures]) -> None:
    """sizes: the structures at each of IMAGE_SIZES."""
    first, other = halves(sizes[IMAGE_SIZES.index(IMGSZ)])
    print("1. log FLOPs + weight * log longest_shortest: first half, other half; all, mean over image sizes")
    for form in (Form("longest_shortest", weight) for weight in sorted([*WEIGHTS, 0.0])):
        values = [spearman(form.values(each), each) for each in (first, other, *sizes)]
        print(f"   weight {form.weight:6.2f}{values[0]:8.3f}{values[1]:8.3f}{np.mean(values[2:]):8.3f}")


def show_best(title: str, measure: Measure, structures: Structures) -> None:
    positive = [name for name, values in structures.predictors.items() if (values > 0).all()]
    forms = [Form(name, weight) for name in positive for weight in WEIGHTS]
    first, other = halves(structures)
    print(f"{title}, best of {len(forms)} forms: first half, other half; gain over log FLOPs there, interval; without REP_VGG")
    ranked = sorted(forms, key=lambda form: -measure(form.values(first), first))
    for form in (*ranked[:BEST], Form("longest_shortest", -2.0), SIZE):
        values = form.values(other)
        low, high = gain_interval(values, SIZE.values(other), other, measure)
        gain, rest = (
            measure(form.values(each), each) - measure(SIZE.values(each), each) for each in (other, without(other, REP_VGG))
        )
        told = f"{measure(form.values(first), first):8.3f}{measure(values, other):8.3f}{gain:+8.3f}  {low:+.3f} to {high:+.3f}"
        print(f"   {form!s:50}{told}{rest:+8.3f}")


def gain_interval(values: Floats, others: Floats, structures: Structures, measure: Measure) -> tuple[float, float]:
    """Of the difference of the measure between two predictors."""
    rng, count = np.random.default_rng(0), len(structures.ap)
    gains = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(count, size=count)
        resampled = part(structures, drawn)
        gains.append(measure(values[drawn], resampled) - measure(others[drawn], resampled))
    low, high = np.nanquantile(gains, (0.05, 0.95))
    return float(low), float(high)


def show_without_series(structures: Structures) -> None:
    print("4. Kendall with AP among structures of like MACs, without each series")
    print(f"   {'without':26}" + "".join(f"{name:>9}" for name in ("none", *SERIES, "6s, 6m")))
    for predictor in FOLLOWED:
        kept = [structures, *(without(structures, [name]) for name in SERIES), without(structures, REP_VGG)]
        row = (at_like_macs(each.predictors[predictor], each) for each in kept)
        print(f"   {predictor:26}" + "".join(f"{value:9.2f}" for value in row))


def show_depth(structures: Structures) -> None:
    names = sorted(SERIES)  # as `Structures.series` numbers them
    print("5. Kendall of the longest gradient path, which is the depth within a series, with AP at like cost")
    print(f"   {'':16}" + "".join(f"{name:>9}" for name in names) + "     all      p")
    depth = np.log(structures.predictors["longest"])
    for cost, values in structures.costs.items():
        rest, ap = (less_cost(each, values, structures.series) for each in (depth, structures.ap))
        taus = [
            kendall_within(rest[own], ap[own], one_group(int(own.sum())))
            for own in (structures.series == k for k in range(len(names)))
        ]
        whole = correlate_within({"depth": rest}, ap, structures.series)["depth"]
        print(f"   {cost:16}" + "".join(f"{tau:9.2f}" for tau in taus) + f"{whole.kendall:8.2f}{whole.p:7.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the table's CSV files")
    folder = parser.parse_args().folder
    for merged in (False, True):
        sizes = [read_structures(folder, imgsz, merged=merged) for imgsz in IMAGE_SIZES]
        structures = sizes[IMAGE_SIZES.index(IMGSZ)]
        counted = f"RepVGG units {'merged' if merged else 'as trained'}"
        print(f"{len(structures.ap)} structures, {structures.in_first_half.sum()} in the first half; {counted}")
        show_weights(sizes)
        show_best("2. Spearman", spearman, structures)
        show_best("3. Kendall among structures of like MACs", at_like_macs, structures)
        show_without_series(structures)
    show_depth(structures)


if __name__ == "__main__":
    main()
