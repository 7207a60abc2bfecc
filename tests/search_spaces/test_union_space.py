"""Random genotypes of the union space: each builds, costs what thop counts, runs, and survives its YAML."""

from __future__ import annotations

import random

import pytest
import torch

from gpnas.graph.cost import cost
from gpnas.graph.network import Network
from search_spaces.architecture import candidate, read_architecture
from search_spaces.genotype import read_genotype
from tests.genotypes import space
from tests.graph.test_cost import counted_by_thop

SPANS = [(0, 6), (6, 25), *((first, first + 25) for first in range(25, 250, 25))]
"""Seeds of the genotypes of each test. The first test is quick enough for every run."""


@pytest.mark.parametrize("span", [SPANS[0], *(pytest.param(span, marks=pytest.mark.slow) for span in SPANS[1:])], ids=str)
def test_a_random_genotype_builds_costs_runs_and_is_read_again(span: tuple[int, int]) -> None:
    for seed in range(*span):
        drawn = space(small=False).propose([], random.Random(seed))
        again = candidate(read_architecture(read_genotype(drawn.genotype).to_yaml()))
        assert again == drawn
        graph = drawn.graph.inference()
        network = Network(graph, is_fused=True).eval()
        with torch.no_grad():
            outputs = network(torch.zeros(1, 3, 64, 32))
        assert [tuple(out.shape) for out in outputs] == [(1, 4 * 16 + 3, 64 // s, 32 // s) for s in (8, 16, 32)]
        ours = cost(graph, 64, 32)
        assert (ours.params, ours.macs) == counted_by_thop(network, 64, 32)
