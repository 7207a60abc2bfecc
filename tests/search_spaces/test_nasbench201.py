"""NAS-Bench-201: published cost, liveness, and what the score reaches on the table of trained accuracies."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpnas.bench.correlation import at_equal_size, correlate, correlations, read_table, regret
from gpnas.errors import GenotypeError, InputError
from gpnas.graph.cost import cost
from gpnas.graph.network import Network
from gpnas.paths.features import features
from gpnas.paths.gradient_paths import gradient_paths
from search_spaces.nasbench201 import NasBench201Space, all_cells, build_cell_network, cell_code
from tests.contracts import SpaceContract

TABLE = Path(__file__).parents[3] / "shared" / "data" / "nb201" / "nb201.csv"

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


def test_correlation_of_small_tables_by_hand() -> None:
    accuracy = np.array([1.0, 2, 3, 4])
    same = np.zeros(4)
    found = correlate(np.array([10.0, 20, 40, 30]), accuracy, same)
    assert found.spearman == pytest.approx(0.8) and found.kendall == pytest.approx(2 / 3)
    assert np.isnan(correlate(same, accuracy, same).spearman)
    assert np.isnan(found.equal)  # four are too few for a group
    assert found.regret == 1.0  # the largest of [10, 20, 40, 30] has accuracy 3 of 4
    assert regret(np.array([0.0, 0, 1, 1]), accuracy, 0) == pytest.approx(0.5)


def test_at_equal_size_is_the_weighted_mean_over_groups() -> None:
    rng = np.random.default_rng(0)
    size = np.repeat([1.0, 2.0, 3.0], [40, 80, 10])  # the last group is too small
    values, accuracy = rng.normal(size=130), rng.normal(size=130)
    by_hand = [stats.spearmanr(values[size == s], accuracy[size == s]).statistic for s in (1, 2)]
    assert at_equal_size(values, accuracy, size) == pytest.approx((40 * by_hand[0] + 80 * by_hand[1]) / 120)


def test_a_network_without_live_layers_ranks_last() -> None:
    assert features(build_cell_network("000000"), 32, 32)["score"] == -np.inf
    values, accuracy = np.array([-np.inf, 1.0, 2.0]), np.array([0.0, 1.0, 2.0])
    assert correlate(values, accuracy, np.zeros(3)).spearman == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell,acc\n111111,x\n111112,2\n", "line 2"),
        ("cell,acc\n111111,nan\n111112,2\n", "line 2"),
        ("cell,acc\n111111,1\n111112,2,3\n", "line 3"),
        ("cell\n", "needs a header"),
    ],
)
def test_a_table_that_cannot_be_read_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv")


@pytest.mark.skipif(not TABLE.is_file(), reason="../shared is not here")
def test_the_score_ranks_trained_cells_better_than_their_parameters() -> None:
    """A tenth of the table; the whole is `gpnas bench correlation`, and docs/nasbench201.md has what it prints."""
    cells, accuracies = read_table(TABLE)
    drawn = random.Random(0).sample(range(len(cells)), 1500)
    rows = [features(build_cell_network(cell_code(cells[i])), 32, 32) for i in drawn]
    chosen = {name: accuracies[name][drawn] for name in ("c10_val", "c100_val", "in16_val")}
    found = correlations(rows, chosen, ("score", "parameters", "live_params"))
    for column in chosen:
        assert found["score"][column].spearman > 0.86
        assert found["score"][column].spearman > found["parameters"][column].spearman + 0.1
        assert found["score"][column].spearman > found["live_params"][column].spearman + 0.05
