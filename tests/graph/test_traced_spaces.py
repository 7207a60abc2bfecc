"""Networks that gpnas built, traced from their torch modules, have the figures and the cost of their own graphs.

`make check` traces the whole catalogue and 200 random genotypes; `make test` traces entries of each kind and a few genotypes.
"""

from __future__ import annotations

import os
import random

import pytest
import torch

from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch, Graph
from gpnas.graph.network import Network
from gpnas.graph.trace import trace
from gpnas.paths.gradient_paths import gradient_paths
from search_spaces.blueprint import build_blueprint, catalogue, open_catalogue
from tests.genotypes import space

CHECK = os.environ.get("GPNAS_TRACED_GENOTYPES")
"""Set by `make check`: the number of random genotypes to trace."""

IMAGE = torch.zeros(1, 3, 64, 64)

QUICK = ("densenet", "prn", "sparse-resnet")
"""Catalogue entries that `make quick` traces."""

OF_EACH_KIND = (
    *QUICK,
    *("darknet53-csp", "resnext50-csp", "yolor-csp-stop-gradient-identity", "yolor-elan-1-1", "yolor-prn", "yolor-v3-spp"),
    *("yolov9-c",),
)
"""Entries that `make test` traces."""

SMALLEST = 1
"""The seed of the first genotypes whose graph has the fewest operations; `make quick` traces it alone."""


def traced_again(graph: Graph) -> Graph:
    named = {branch: [str(k) for k, out in enumerate(graph.outputs) if out.branch == branch] for branch in Branch}
    return trace(Network(graph), (IMAGE,), outputs=named[Branch.MAIN], auxiliary=named[Branch.AUXILIARY])


def assert_same(graph: Graph, traced: Graph) -> None:
    assert gradient_paths(traced).figures() == gradient_paths(graph).figures()
    assert gradient_paths(traced, Branch.MAIN).figures() == gradient_paths(graph, Branch.MAIN).figures()
    for fused in (True, False):
        ours, theirs = cost(graph, 64, 64, fused=fused), cost(traced, 64, 64, fused=fused)
        assert (theirs.params, theirs.macs) == (ours.params, ours.macs)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (catalogue() if CHECK else OF_EACH_KIND)]
)
def test_a_catalogue_network_traced_has_the_figures_and_the_cost_of_its_graph(name: str) -> None:
    graph = build_blueprint(open_catalogue(name))
    assert_same(graph, traced_again(graph))


@pytest.mark.parametrize(
    "seed", [seed if seed == SMALLEST else pytest.param(seed, marks=pytest.mark.slow) for seed in range(int(CHECK or 4))]
)
def test_a_random_genotype_traced_has_the_figures_and_the_cost_of_its_graph(seed: int) -> None:
    graph = space().propose([], random.Random(seed)).graph
    assert_same(graph, traced_again(graph))
