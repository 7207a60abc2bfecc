"""Candidates that are screened per second on one core, beside other ways to count or score a network before training.

    python benchmarks/screening.py

It samples genotypes of the size of GELAN-C, builds them, and computes their cost and all gradient-path figures. The same
networks go through thop.profile, torch.utils.flop_counter on meta tensors, NASWOT and SynFlow. It prints the median
milliseconds of each, and their ratio to all of ours. Then it prints the time of the analysis for each layer, in networks of
10 to 1000 layers.
"""

import contextlib
import io
import random
import statistics
import time
from collections.abc import Callable

import thop
import torch
from torch.utils.flop_counter import FlopCounterMode

from evaluators.zero_cost import naswot, synflow
from gpnas.graph.cost import deployed_cost
from gpnas.graph.network import Network
from gpnas.paths.gradient_paths import gradient_paths
from gpnas.search.pool import garbage_collection_paused
from gpnas.search.trial import Candidate
from search_spaces import growth
from search_spaces.blueprint import build_blueprint, open_catalogue
from search_spaces.gradient_path import GradientPathSpace

CANDIDATES, BY_OTHERS, IMGSZ = 400, 5, 640
GELAN_C = {
    "family": ("gelan",),
    "unit": ("rep_residual",),
    "depth": (1,),
    "repeats": (2,),
    "stem.width": (64,),
    "width": (256, 384, 512),
    "head.depth": (2,),
    "pgi.kind": ("none",),
}


def median_seconds(work: Callable[[], object], times: int) -> float:
    """Median over calls of `work`, made as in a search: garbage collection is paused and all results stay alive."""
    seconds, results = [], []
    with garbage_collection_paused():
        for _ in range(times):
            began = time.perf_counter()
            results.append(work())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def by_thop(candidate: Candidate) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        thop.profile(Network(candidate.graph.inference()), (torch.zeros(1, 3, IMGSZ, IMGSZ),), verbose=False)


def by_flop_counter(candidate: Candidate) -> None:
    with torch.device("meta"), FlopCounterMode(display=False):
        Network(candidate.graph.inference()).eval()(torch.zeros(1, 3, IMGSZ, IMGSZ))


def screen(space: GradientPathSpace, rng: random.Random) -> object:
    candidate = space.propose([], rng)
    return candidate, deployed_cost(candidate.graph, IMGSZ), gradient_paths(candidate.graph).figures()


def main() -> None:
    torch.set_num_threads(1)
    space, rng = GradientPathSpace(80, GELAN_C), random.Random(0)
    candidates = [space.propose([], rng) for _ in range(CANDIDATES)]
    layers = statistics.median(len(candidate.graph.layers) for candidate in candidates)
    gelan_c = build_blueprint(open_catalogue("gelan-c"))
    print(f"{layers:.0f} layers a genotype (median); GELAN-C itself has {len(gelan_c.layers)}")
    median_seconds(lambda: screen(space, rng), CANDIDATES)  # warms up: a process that screens has its memory already
    one, batch, drawn = torch.zeros(1, 3, IMGSZ, IMGSZ), torch.randn(16, 3, 128, 128), iter(candidates * 3)
    rows = {
        "sample, build, cost, analyse": median_seconds(lambda: screen(space, rng), CANDIDATES),
        "  sample and build": median_seconds(lambda: space.propose([], rng), CANDIDATES),
        "  cost": median_seconds(lambda: deployed_cost(next(drawn).graph, IMGSZ), CANDIDATES),
        "  all gradient-path figures": median_seconds(lambda: gradient_paths(next(drawn).graph).figures(), CANDIDATES),
        "flop_counter on meta tensors": median_seconds(lambda: by_flop_counter(next(drawn)), BY_OTHERS),
        "thop.profile": median_seconds(lambda: by_thop(next(drawn)), BY_OTHERS),
        "NASWOT, 16 images of 128 pixels": median_seconds(lambda: naswot(Network(next(drawn).graph), batch), BY_OTHERS),
        "SynFlow, one image of 640 pixels": median_seconds(lambda: synflow(Network(next(drawn).graph), one), BY_OTHERS),
    }
    ours = rows["sample, build, cost, analyse"]
    print(f"{'median, one core':34} {'ms':>9} {'a second':>9} {'this / all of ours':>19}")
    for name, seconds in rows.items():
        print(f"{name:34} {seconds * 1e3:9.2f} {1 / seconds:9.1f} {seconds / ours:19.2f}")
    print(f"\n{'analysis, microseconds a layer':34}" + "".join(f"{depth:>8}" for depth in (10, 100, 300, 1000)) + "  layers")
    for name in ("plain", "resnet", "sparse-resnet"):
        times = []
        for depth in (10, 100, 300, 1000):
            graph = growth.network(name, depth)
            times.append(median_seconds(lambda graph=graph: gradient_paths(graph).figures(), 20) / depth * 1e6)
        print(f"{name:34}" + "".join(f"{value:8.1f}" for value in times))


if __name__ == "__main__":
    main()
