"""NAS-Bench-201: published cost, and liveness worked out by hand."""

from __future__ import annotations

import random

import pytest
import torch

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
    costs = cost(build_cell_network(cell_code(ALL_3X3)), 32, 32, fused=False)
    assert (costs.params, costs.macs) == (1_531_546, 220_119_680)


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


def test_operations_of_a_cell_by_hand() -> None:
    """312341: node 1 is a 3x3 layer on node 0; node 2 is node 0 and a 1x1 layer on node 1; node 3 is a 3x3 layer on node 0, a
    pooling of node 1 and node 2."""
    ops = build_cell_network("312341").ops
    cell = [op for op in ops if op.name.startswith("stage0.cell0.")]
    assert [(op.kind, op.kernel, op.channels, op.padding) for op in cell] == [
        ("act", 1, 16, 0),
        ("conv", 3, 16, 1),
        ("act", 1, 16, 0),
        ("conv", 1, 16, 0),
        ("add", 1, 16, 0),
        ("act", 1, 16, 0),
        ("conv", 3, 16, 1),
        ("avg_pool", 3, 16, 1),
        ("add", 1, 16, 0),
        ("add", 1, 16, 0),
    ]
    stem, node1, node2 = 1, 3, 6
    assert [op.inputs for op in cell] == [
        *((stem,), (2,), (node1,), (4,), (stem, 5)),
        *((stem,), (7,), (node1,), (8, 9), (10, node2)),
    ]


def test_reductions_and_widths_by_hand() -> None:
    ops = build_cell_network("111111").ops
    assert [(op.kind, op.kernel, op.stride, op.channels, op.norm) for op in ops if "reduction" in op.name and op.weighted] == [
        ("conv", 3, 2, 32, True),
        ("conv", 3, 1, 32, True),
        ("conv", 1, 1, 32, False),
        ("conv", 3, 2, 64, True),
        ("conv", 3, 1, 64, True),
        ("conv", 1, 1, 64, False),
    ]
    pool = next(op for op in ops if op.name.startswith("stage1.reduction") and op.kind == "avg_pool")
    assert (pool.kernel, pool.stride, pool.padding) == (2, 2, 0)
    assert [(op.kind, op.channels) for op in ops[-4:]] == [("norm", 64), ("act", 64), ("global_avg_pool", 64), ("linear", 10)]
    assert [op.act for op in ops if op.kind == "act"] == ["relu"] * 5


def test_a_mutation_changes_one_edge_and_a_crossing_takes_each_from_a_parent() -> None:
    space, rng = NasBench201Space(), random.Random(0)
    a, b = space.read("cell: '012340'"), space.read("cell: '432104'")
    mutants = [space.propose([a], rng).genotype for _ in range(200)]
    edges = [[k for k in range(6) if text[7 + k] != "012340"[k]] for text in mutants]
    assert {tuple(changed) for changed in edges} == {(k,) for k in range(6)}
    assert {text[7 + changed[0]] for text, changed in zip(mutants, edges, strict=True)} == set("01234")
    children = [space.propose([a, b], rng).genotype[7:13] for _ in range(300)]
    pure = [child for child in children if all(c in pair for c, *pair in zip(child, "012340", "432104", strict=True))]
    assert len(pure) > 280  # the others are mutants of a child that equals a parent; edge 2 is the same in both
    assert {child[k] for child in pure for k in (2,)} == {"2"}
    assert len(set(pure)) == 2**5 - 2


def test_the_smallest_cell_has_only_identities() -> None:
    smallest = NasBench201Space(classes=3).smallest()
    assert (smallest.genotype, smallest.hash) == ("cell: '111111'", "nb201-111111")
    assert smallest.graph == build_cell_network("111111", 3)


def test_a_text_that_is_no_cell_is_an_error() -> None:
    with pytest.raises(GenotypeError, match="a NAS-Bench-201 genotype is `cell: '<six digits>'`, got 'stem: 16'"):
        NasBench201Space().read("stem: 16")


def test_a_network_runs_and_dead_cells_do_not_see_the_image() -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for code, constant in (("312341", False), ("000000", True)):
        network = Network(build_cell_network(code)).eval()
        (logits,) = network(images)
        assert logits.shape == (2, 10, 1, 1)
        assert torch.equal(logits[0], logits[1]) == constant


def test_two_layers_with_equal_inputs_and_gradients_count_once() -> None:
    one = features(build_cell_network("000300"), 32, 32)
    twice = features(build_cell_network("100330"), 32, 32)  # node 1 is node 0: both layers read it, their sum is node 3
    assert twice["live_params"] > one["live_params"]
    assert twice["capacity"] == pytest.approx(one["capacity"])


def test_poolings_cost_capacity() -> None:
    direct, pooled = (features(build_cell_network(code), 32, 32) for code in ("000300", "300040"))
    assert pooled["live_layers"] == direct["live_layers"]
    assert pooled["capacity"] < direct["capacity"]
