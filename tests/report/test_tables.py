"""Tables of benchmarks, with means, intervals and ratios worked out by hand."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console, RenderableType

from gpnas.bench.correlation import Correlation
from gpnas.bench.surrogate_skill import Skill
from gpnas.report.tables import (
    catalogue_tables,
    correlation_table,
    counted_table,
    figures_table,
    layers_table,
    published_table,
    regrets_table,
    shares_table,
    skills_table,
)


def lines(table: RenderableType) -> list[str]:
    """The lines of a rendered table, with single spaces."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_figures_have_a_column_for_each_set_of_losses() -> None:
    rows = lines(figures_table({"all": {"longest": 7, "sources_mean": 1.23456}, "main": {"longest": 5}}))
    assert rows == ["gradient paths all main", "longest 7 5", "sources_mean 1.235"]


def test_a_layer_has_one_more_row_for_each_of_several_channel_groups() -> None:
    one = {"channels": [0, 4], "sources": [["a", 0, [1, 2]]]}
    two = {"channels": [4, 8], "sources": [["a", 4, [1, 2, 3]], ["b", 0, [3, 5]]]}
    layer = {"layer": "stem", "channels": [3, 8], "loss": "main", "params": 216, "shortest": 1, "longest": 5}
    counts = {"timestamps": [1, 2, 3, 5], "sources": 3, "combinations": 7}
    rows = lines(layers_table([layer | counts | {"channel_groups": [one, two]}, layer | counts | {"channel_groups": [one]}]))
    assert rows[1:] == [
        "stem 3, 8 main 216 1 5 1-3 5 3 7",
        "channels 0-3 1-2 1 2",
        "channels 4-7 1-3 5 2 5",
        "stem 3, 8 main 216 1 5 1-3 5 3 7",
    ]


def test_counted_parameters_are_off_by_what_ours_and_the_constants_lack() -> None:
    rows = lines(counted_table([("a", "train", 1_000_100, 32, 1_000_132), ("b", "fused", 900, 16, 1_000)]))
    assert rows == [
        "parameters form ours DFL constants together published off by",
        "a train 1,000,100 32 1,000,132 1,000,132 0",
        "b fused 900 16 916 1,000 -84",
    ]


def test_the_catalogue_shows_ours_beside_the_published_figures_and_by_how_much_they_differ() -> None:
    paths = {"distinct_combinations": 30, "longest": 9, "longest_shortest": 4}
    detector = {"name": "d", "params": 2_020_000, "flops": 7_600_000_000, "gradient_paths": paths}
    classifier = detector | {"name": "c", "convolution_weights": 990_000, "published": {"params": "1M", "top1": 71.5}}
    grown = {"name": "g", "growth": {"params": "N", "shortest": "1"}, "published": {"growth": {"params": "N^2"}}}
    near = {"params": "2M", "flops": "8G", "ap": 38.3, "reached": "nearest"}
    rows = lines(catalogue_tables([detector | {"published": near}, classifier, grown]))
    assert "d 2.02M 2M +1.00 % 7.60G 8G -5.00 % 38.3 30 9 4" in rows
    assert "c 990.00K 1M -1.00 % 7.60G - - 71.5 30 9 4" in rows
    assert "g N (N^2) 1 (-)" in rows and rows[-1] == "d: nearest"


def test_correlations_are_shown_for_one_column() -> None:
    by_predictor = {"score": {"a": Correlation(0.1234, -0.5, 0.25, 1.5), "b": Correlation(1, 1, 1, 1)}}
    assert lines(correlation_table(by_predictor, "a"))[1:] == ["score 0.123 -0.500 0.250 1.500"]


def test_regrets_are_shown_with_the_evaluations_that_they_take() -> None:
    ours = np.array([[6.0] * 9 + [3.0] * 5 + [1.0] * 6, [4.0] * 9 + [1.0] * 5 + [0.0] * 6])
    other = np.array([[7.0] * 12 + [0.5] * 8, [7.0] * 12 + [3.0] * 8])
    rows = lines(regrets_table({"ours": ours, "other": other}, "acc"))
    # The deviation of 3 and 1 is the root of 2, and 1.96 of it over the root of 2 seeds is 1.96.
    assert rows[0] == "mean regret, acc after 10 after 20"
    assert rows[1:3] == ["ours 2.00 +- 1.96 0.50 +- 0.98", "other 7.00 +- 0.00 1.75 +- 2.45"]
    assert rows[3:] == ["evaluations for the regret of ours after 10 after 20", "ours 10 15", "other 13 over 20"]


def test_shares_are_shown_by_measure_with_the_epochs_that_they_take() -> None:
    ours = np.array([[[0.5, 0.96, 0.96], [0.2, 0.3, 0.4]], [[0.7, 0.96, 0.96], [0.4, 0.5, 0.6]]])
    other = np.array([[[0.1, 0.2, 0.97], [0.1, 0.2, 0.96]], [[0.1, 0.2, 0.97], [0.1, 0.2, 0.96]]])
    never = np.array([[[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]])
    assert lines(shares_table({"ours": ours, "other": other, "never": never}, "a benchmark")) == [
        "share of the area, a benchmark after 3 epochs",
        "ours 0.960 +- 0.000",
        "other 0.970 +- 0.000",
        "never 0.300 +- 0.000",
        "epochs to 95% of the area epochs ours / this 90 % interval",
        "ours 2 1.00",
        "other 3 0.67 0.67 to 0.67",
        "never over 3 under 0.67 0.00 to 0.67",
        "share of the best AP, a benchmark after 3 epochs",
        "ours 0.500 +- 0.196",
        "other 0.960 +- 0.000",
        "never 0.300 +- 0.000",
        "epochs to 95% of the best AP epochs ours / this 90 % interval",
        "ours over 3 -",
        "other 3 - over 1.00",
        "never over 3 - -",
    ]


def test_columns_of_shares_end_with_the_shortest_curve() -> None:
    curves = {"a": np.full((2, 2, 100), 0.5), "b": np.full((2, 2, 120), 0.25)}
    rows = lines(shares_table(curves, "t"))
    assert rows[:3] == [
        "share of the area, t after 50 epochs after 100 epochs",
        *(f"{n} {v} +- 0.000 {v} +- 0.000" for n, v in (("a", "0.500"), ("b", "0.250"))),
    ]
    assert rows[4] == "a over 100 -"


def test_columns_stand_at_fixed_numbers_of_epochs_and_evaluations() -> None:
    shares = {name: np.full((2, 2, 800), 0.5) for name in ("a", "b")}
    epochs = " ".join(f"after {n} epochs" for n in (50, 100, 200, 400, 800))
    assert lines(shares_table(shares, "t"))[0] == f"share of the area, t {epochs}"
    regrets = {name: np.zeros((2, 100)) for name in ("a", "b")}
    assert lines(regrets_table(regrets, "acc"))[0] == "mean regret, acc after 10 after 20 after 50 after 100"


def test_skills_are_shown_by_encoding_and_number_of_trained_candidates() -> None:
    skills = {"one-hot": [Skill(0.5, 0.1, 0.78), Skill(0.625, 0.05, 0.8)]}
    assert lines(skills_table(skills, (20, 50), "c10")) == [
        "surrogate, c10 Spearman, 20 trained Spearman, 50 trained 80 %, 20 80 %, 50",
        "one-hot 0.500 +- 0.100 0.625 +- 0.050 0.78 0.80",
    ]


def test_published_networks_stand_in_the_order_of_box_ap_with_kendall_of_every_predictor() -> None:
    shared = {"combinations": 8, "score": 0.5, "parameters": 100, "flops": 7}
    rows = {name: {"distinct_combinations": k, **shared} for name, k in (("a", 2), ("b", 1), ("c", 3), ("d", 4))}
    printed = lines(published_table("recipe", rows, {"a": 52.0, "b": 50.5, "c": 53.0, "d": 51.0}))
    assert [line.split()[:3] for line in printed[1:5]] == [
        ["b", "50.5", "1"],
        ["d", "51.0", "4"],
        ["a", "52.0", "2"],
        ["c", "53.0", "3"],
    ]
    # b d a c have 1, 4, 2, 3: four pairs rise and two fall.
    assert printed[5:8] == ["Kendall with box AP tau", "distinct_combinations 0.33", "combinations constant"]
