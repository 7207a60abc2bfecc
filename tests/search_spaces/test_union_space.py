"""Five hundred random genotypes of the union space: each builds, costs what thop counts, runs, and survives its YAML."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpnas.graph.cost import cost
from gpnas.graph.network import Network
from search_spaces.architecture import candidate, read_architecture
from search_spaces.genotype import read_genotype
from tests.genotypes import space
from tests.graph.test_cost import counted_by_thop

CHUNKS, EACH = 10, 50


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_random_genotype_builds_costs_runs_and_is_read_again(chunk: int) -> None:
    @settings(max_examples=EACH, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        found = space(small=False).propose([], random.Random(f"{chunk}/{seed}"))
        genotype = read_genotype(found.genotype)
        again = candidate(read_architecture(genotype.to_yaml()))
        assert (again.hash, again.graph.hash) == (found.hash, found.graph.hash)
        network = Network(found.graph).eval()
        with torch.no_grad():
            outputs = network(torch.zeros(1, 3, 64, 64))
        assert [tuple(out.shape) for out in outputs] == [(1, 4 * 16 + 3, 64 // s, 64 // s) for s in (8, 16, 32)]
        fused = Network(found.graph.inference(), is_fused=True)
        ours = cost(found.graph.inference(), 64, 64)
        assert (ours.params, ours.macs) == counted_by_thop(fused, 64, 64)

    check()
