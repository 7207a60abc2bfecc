"""NAS-Bench-201: published cost, and liveness worked out by hand."""

from __future__ import annotations

import pytest

from gpnas.errors import GenotypeError
from gpnas.graph.cost import cost
from gpnas.graph.network import Network
from gpnas.paths.features import features
from gpnas.paths.gradient_paths import gradient_paths
from search_spaces.nasbench201 import NasBench201Space, all_cells, build_cell_network, cell_code
from tests.contracts import SpaceContract

ALL_3X3 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


class TestNasBench201Space(SpaceContract):
    @pytest.fixture
    def space(self) -> NasBench201Space:
        return NasBench201Space()


def test_the_cell_of_all_3x3_layers_costs_what_the_benchmark_publishes() -> None:
    """NAS-Bench-201 API, CIFAR-10: 1.531546 M parameters, 220.11969 M MACs."""
    found = cost(build_cell_network(cell_code(ALL_3X3)), 32, 32, fused=False)
    assert (found.params, found.macs) == (1_531_546, 220_119_680)


def test_both_ways_to_write_a_cell_are_read() -> None:
    assert cell_code(ALL_3X3) == "333333"
    mixed = "|skip_connect~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|"
    assert cell_code(mixed) == "104230"
    assert cell_code("104230") == "104230"
    for wrong in ("10423", "104235", "|none~0|", mixed.replace("avg_pool", "max_pool")):
        with pytest.raises(GenotypeError):
            cell_code(wrong)


def test_there_are_15625_cells() -> None:
    assert len(set(all_cells())) == 15_625


@pytest.mark.parametrize(
    ("code", "live"),
    [
        ("000000", 0),  # nothing arrives
        ("300001", 0),  # node 1 goes nowhere, and node 3 reads node 2, to which nothing goes
        ("111111", 8),  # stem, two reductions of three layers, classifier
        ("000300", 8 + 15),  # and one layer in each of the fifteen cells
        ("333333", 8 + 6 * 15),
        ("302000", 0),  # a dead end
        ("300030", 8 + 2 * 15),
    ],
)
def test_live_layers_worked_out_by_hand(code: str, live: int) -> None:
    assert gradient_paths(build_cell_network(code)).figures()["live_layers"] == live


def test_a_network_runs_and_dead_cells_do_not_see_the_image() -> None:
    import torch

    images = torch.randn(2, 3, 32, 32)
    for code, constant in (("312341", False), ("000000", True)):
        network = Network(build_cell_network(code)).eval()
        (logits,) = network(images)
        assert logits.shape == (2, 10, 1, 1)
        assert torch.equal(logits[0], logits[1]) == constant


def test_two_layers_that_read_and_teach_the_same_count_once() -> None:
    one = features(build_cell_network("000300"), 32, 32)
    twice = features(build_cell_network("100330"), 32, 32)  # node 1 is node 0: both layers read it, their sum is node 3
    assert twice["live_params"] > one["live_params"]
    assert twice["capacity"] == pytest.approx(one["capacity"])


def test_poolings_cost_capacity() -> None:
    direct, pooled = (features(build_cell_network(code), 32, 32) for code in ("000300", "300040"))
    assert pooled["live_layers"] == direct["live_layers"]
    assert pooled["capacity"] < direct["capacity"]
