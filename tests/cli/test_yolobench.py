"""`gpnas bench` on a made-up table of YOLOBench: AP is a known function of the structure."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from gpnas.bench.yolobench_table import ACCURACIES, DEVICES, LATENCIES
from gpnas.cli.yolobench import detector_benchmark, read_structures, replicated_correlations
from gpnas.graph.cost import deployed_cost
from search_spaces.yolobench import STRUCTURES, build_structure
from tests.cli.conftest import Gpnas, Refused

SMALL = [name for name, structure in STRUCTURES.items() if structure.width <= 0.5]
"""44 structures."""


def made_up_ap(name: str) -> float:
    """It rises with depth and width, and YOLOv8 is ahead."""
    series, depth, width = STRUCTURES[name]
    return 0.2 + 0.1 * depth + 0.3 * width + (0.05 if series == "yolo8" else 0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMALL at 320 pixels, and four of them at 160 pixels with half of the AP. Latency is the width in seconds on all devices
    but the first, where it is the depth."""
    folder = tmp_path_factory.mktemp("yolobench")
    rows = [(name, 320, made_up_ap(name)) for name in SMALL] + [(name, 160, made_up_ap(name) / 2) for name in SMALL[:4]]
    with (folder / ACCURACIES).open("w", newline="") as file:
        csv.writer(file).writerows([["model_name", "mAP_0.5:0.95"], *([f"{n}_{s}", ap] for n, s, ap in rows)])
    with (folder / LATENCIES).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model_name", *(f"{device}_latency" for device in DEVICES)])
        for name, size, _ in rows:
            structure = STRUCTURES[name]
            writer.writerow([f"{name}_{size}", structure.depth, *[structure.width * size / 320] * 5])
    return folder


def test_predictors_costs_and_halves_of_each_structure(table: Path, tmp_path: Path) -> None:
    scores = [{"structure": n, "naswot": k, "synflow": 1, "gradient_norm": -k, "zico": 0} for k, n in enumerate(SMALL)]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(scores)))
    structures = read_structures(table, 320, tmp_path / "scores.jsonl")
    row = structures.names.index("yolo5d67w25")
    fused = deployed_cost(build_structure("yolo5d67w25"), 320)
    assert structures.costs["macs"][row] == structures.predictors["macs"][row] == fused.macs
    assert (structures.costs["nano_gpu"][row], structures.costs["vim3"][row]) == (0.67, 0.25)
    longest_shortest = structures.predictors["longest_shortest"][row]
    assert structures.predictors["detector_score"][row] == pytest.approx(np.log(fused.flops) - 2 * np.log(longest_shortest))
    assert structures.predictors["naswot"].tolist() == list(range(44))
    assert len(structures.names) == 44 and structures.in_first_half.sum() == 22


def test_correlations_find_what_the_table_was_made_of(table: Path) -> None:
    found = replicated_correlations(read_structures(table))
    assert set(found) == {"all", *(f"{kind}like {cost}" for kind in ("", "series, ") for cost in ("macs", *DEVICES))}
    # Within a series, AP less what width (the latency on this device) explains is the depth, and so are longest paths.
    depth = found["series, like openvino"]["longest"]
    assert depth.whole.kendall > 0.8 and depth.whole.holm < 0.05 and depth.first.kendall > 0.8 and depth.other.kendall > 0.8
    # Less what the depth (the latency on that one) explains, it is the width. MACs measure it; two widths leave them many ties.
    assert found["series, like nano_gpu"]["macs"].whole.spearman > 0.85
    assert np.isnan(found["series, like nano_gpu"]["longest"].whole.kendall)  # the depth explains it in full
    assert np.isnan(found["all"]["auxiliary_only"].whole.holm)


def test_bench_correlation_prints_tables_and_json(gpnas: Gpnas, table: Path, tmp_path: Path) -> None:
    code, out, _ = gpnas("bench", "correlation", "--table", table)
    assert code == 0 and out.count("Kendall in the halves") == 2 and "like a40_trt" in out
    assert "within each series, 44 structures at 320 px" in out and "naswot" not in out
    code, out, _ = gpnas("bench", "correlation", "--table", table, "--json", "--out", tmp_path / "features.csv")
    told = json.loads(out)
    assert code == 0 and (told["imgsz"], told["structures"]) == (320, 44)
    assert set(told["comparisons"]["all"]["score"]["other"]) == {"spearman", "kendall", "p", "holm"}
    with (tmp_path / "features.csv").open() as file:
        rows = {row["structure"]: row for row in csv.DictReader(file)}
    assert len(rows) == 44 and float(rows["yolo8n"]["ap"]) == pytest.approx(made_up_ap("yolo8n"))


def test_bench_surrogate_and_front_read_the_table(gpnas: Gpnas, table: Path) -> None:
    code, out, _ = gpnas("bench", "surrogate", "--table", table, "--draws", "2")
    assert code == 0 and "surrogate, YOLOBench at 320 px" in out and "Spearman, 20 trained" in out
    arguments = ("bench", "front", "--table", table, "--epochs", "12", "--searches", "2")
    code, out, _ = gpnas(*arguments, "--cost", "vim3")
    assert code == 0 and "48 detectors, YOLOBench, AP over vim3" in out and "after 10 epochs" in out
    code, out, _ = gpnas(*arguments)
    assert code == 0 and "AP over macs" in out


def test_a_detector_costs_macs_at_its_size_or_its_latency_in_nanoseconds(table: Path) -> None:
    by_macs, by_latency = detector_benchmark(table), detector_benchmark(table, "openvino")
    rows = {candidate.hash: row for row, candidate in enumerate(by_macs.candidates)}
    small, large = rows[f"yolobench-{SMALL[0]}_160"], rows[f"yolobench-{SMALL[0]}_320"]
    assert 4 * by_macs.macs[small] == by_macs.macs[large] == deployed_cost(build_structure(SMALL[0]), 320).macs
    assert by_latency.macs[small] == 1e9 * STRUCTURES[SMALL[0]].width / 2
    assert by_latency.cost(by_latency.candidates[small]).macs == by_latency.macs[small]
    assert (by_macs.choices[small]["imgsz"], by_macs.best_ap([small])) == (160, made_up_ap(SMALL[0]) / 2)
    assert by_macs.features[small]["longest"] == by_macs.features[large]["longest"]
    assert by_macs.features[large]["detector_score"] - by_macs.features[small]["detector_score"] == pytest.approx(np.log(4))


def test_what_does_not_fit_the_table_is_one_clear_line(refused: Refused, table: Path, tmp_path: Path) -> None:
    correlation = ("bench", "correlation", "--table", table)
    assert "--imgsz 160:" in (line := refused(*correlation, "--imgsz", "160")) and "it has 160, 320" in line
    (tmp_path / "few.jsonl").write_text('{"structure":"yolo3n","naswot":1,"synflow":1,"gradient_norm":1,"zico":1}\n')
    assert f"has no scores of {SMALL[1]}" in refused(*correlation, "--zero-cost", tmp_path / "few.jsonl")
    (tmp_path / "cells.csv").write_text("cell,acc\n000000,1\n000300,2\n")
    assert "--imgsz, --zero-cost and --merged are" in refused(
        "bench", "correlation", "--table", tmp_path / "cells.csv", "--imgsz", "320"
    )
    assert "--imgsz and --merged are" in refused("bench", "surrogate", "--table", tmp_path / "cells.csv", "--imgsz", "320")
    assert "--cost phone" in refused("bench", "front", "--table", table, "--cost", "phone")
    assert "leave them out" in refused("bench", "front", "--table", table, "--data", "digits")
    assert "leave them out" in refused("bench", "surrogate", "--table", table, "--column", "x")
    detectors = Path(__file__).parents[2] / "benchmarks" / "gp-bench"
    assert "--cost and --merged are" in refused("bench", "front", "--table", detectors, "--merged")


def test_an_unknown_structure_is_one_clear_line(refused: Refused, table: Path, tmp_path: Path) -> None:
    for name in (ACCURACIES, LATENCIES):
        (tmp_path / name).write_text((table / name).read_text().replace("yolo8n_320", "yolo9n_320"))
    assert "'yolo9n' is none of YOLOBench's 88 structures" in refused("bench", "correlation", "--table", tmp_path)
    assert "'yolo9n' is none of YOLOBench's 88 structures" in refused("bench", "front", "--table", tmp_path)
