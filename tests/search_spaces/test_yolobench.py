"""The structures of YOLOBench: facts worked out by hand, published figures, and the figures of the public models."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import pytest

from gpnas.errors import GenotypeError
from gpnas.graph.cost import cost, deployed_cost
from gpnas.graph.graph import GraphBuilder
from gpnas.paths.features import features
from gpnas.paths.gradient_paths import gradient_paths
from search_spaces.yolo_series import Scale, _c2f, _rep_vgg
from search_spaces.yolobench import STRUCTURES, YoloBenchSpace, build_structure, first_half

PUBLIC = Path(__file__).with_name("yolobench_public.csv")
"""Counted with torch on the models of Deeplite/deeplite-torch-zoo at commit e4c8ea6, with YOLOv8's head for 20 classes: learned
parameters; MACs on an image of 160 x 160 pixels, by hooks on the convolutions; and gradient paths of the traced modules."""

TABLE = Path(__file__).parents[3] / "shared" / "data" / "yolobench" / "VOC_scratch_100epochs.csv"

LEARNED_FACTORS = {0.33: 15, 0.6: 24, 1.0: 45}
"""Pairs of units in YOLOv6-M and L, by depth, each with one learned factor of its identity that the graph leaves out. At depth
1 the stages of 6, 12, 18, 6 and four times 12 units have 3 + 6 + 9 + 3 + 4 * 6 pairs."""


@pytest.fixture(scope="module")
def public() -> dict[str, dict[str, float]]:
    with PUBLIC.open() as file:
        return {row.pop("structure"): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}


def test_there_are_88_structures_under_the_names_of_the_table(public: dict[str, dict[str, float]]) -> None:
    assert len(STRUCTURES) == 88 and set(STRUCTURES) == set(public)
    assert (STRUCTURES["yolo5d67w25"], STRUCTURES["yolo6m-d6w75"]) == (("yolo5", 0.67, 0.25), ("yolo6m", 0.6, 0.75))
    assert STRUCTURES["yolo8l"] == ("yolo8", 1.0, 1.0) and STRUCTURES["yolo3s"] == ("yolo3", 0.33, 0.5)


@pytest.mark.skipif(not TABLE.is_file(), reason="../shared is not here")
def test_every_detector_of_the_published_table_has_a_structure() -> None:
    with TABLE.open() as file:
        names = [row["model_name"].rpartition("_")[0] for row in csv.DictReader(file)]
    assert Counter(names) == dict.fromkeys(STRUCTURES, 11)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_has_the_parameters_macs_and_gradient_paths_of_the_public_model(
    name: str, public: dict[str, dict[str, float]]
) -> None:
    expected, graph = public[name], build_structure(name)
    series, depth, _ = STRUCTURES[name]
    factors = LEARNED_FACTORS[depth] if series in ("yolo6m", "yolo6l") else 0
    train = cost(graph, 160, 160, fused=False)
    assert train.params + factors == expected.pop("parameters")
    assert train.macs == expected.pop("macs")
    figures = features(graph, 160, 160)
    assert {k: figures[k] for k in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        # Ultralytics prints these for its networks with 80 classes: parameters that have a gradient, GFLOPs at 640 pixels.
        ("yolo8n", 3_157_184, 8.7),
        ("yolo8s", 11_166_544, 28.6),
        ("yolo8m", 25_902_624, 78.9),
        ("yolo8l", 43_691_504, 165.2),
    ],
)
def test_yolov8_has_its_published_figures(name: str, parameters: int, gflops: float) -> None:
    graph = build_structure(name, 80)
    assert cost(graph, 640, 640, fused=False).params == parameters
    assert round(deployed_cost(graph, 640).flops / 1e9, 1) == pytest.approx(gflops, abs=0.11)


@pytest.mark.parametrize(
    ("name", "millions", "gflops"),
    [("yolo5n", 2.6, 7.7), ("yolo5s", 9.1, 24.0), ("yolo5m", 25.1, 64.2), ("yolo5l", 53.2, 135.0)],
)
def test_yolov5_with_the_head_of_yolov8_has_the_published_figures_of_yolov5u(name: str, millions: float, gflops: float) -> None:
    found = deployed_cost(build_structure(name, 80), 640)
    assert (round(found.params / 1e6, 1), round(found.flops / 1e9, 1)) == (millions, gflops)


def test_a_stage_of_yolov8_by_hand() -> None:
    """Input 12, width 16, one unit without identity: an entry of 12 x 16, two 3x3 layers of 8 x 8, a transition of 24 x 16, and
    a bias for each output channel."""
    b = GraphBuilder()
    y = _c2f(b, b.conv(b.image, 12), 16, 1, add=False)
    b.output(y, "y", stride=1)
    stem, entry, unit, transition = 3 * 12 + 12, 12 * 16 + 16, 9 * 8 * 8 + 8, 24 * 16 + 16
    assert sum(b.build().parameters) == stem + entry + 2 * unit + transition


def test_a_rep_vgg_unit_by_hand() -> None:
    """Kernels of 3x3 and 1x1 from 6 to 6 channels with a normalisation each, and a normalised identity. With a stride, or from
    6 to 10 channels, there is no identity."""
    b = GraphBuilder(act="relu")
    x = b.conv(b.image, 6)
    y = _rep_vgg(b, x, 6)
    wide, strided = _rep_vgg(b, y, 10), _rep_vgg(b, y, 6, 2)
    b.output(wide, "wide", stride=1)
    b.output(strided, "strided", stride=2)
    graph = b.build()
    stem, unit = 3 * 6 + 12, 9 * 36 + 36 + 3 * 12
    assert cost(graph, 8, 8, fused=False).params == stem + unit + (9 * 60 + 60 + 2 * 20) + (9 * 36 + 36 + 2 * 12)
    assert [op.kind for op in graph.ops[2:6]] == ["conv", "norm", "add", "act"] and graph.ops[5].act == "relu"


def test_a_merged_rep_vgg_unit_is_one_layer_and_nothing_else_changes() -> None:
    for name, structure in STRUCTURES.items():
        trained, merged = build_structure(name), build_structure(name, merged=True)
        if structure.series in ("yolo6s", "yolo6m"):
            assert [op.kind for op in merged.ops if op.kind in ("norm", "act")] == []
            assert len(merged.layers) == len(trained.layers)
            assert deployed_cost(merged, 160).macs == deployed_cost(trained, 160).macs
        else:
            assert merged.hash == trained.hash
    # The neck is longer than the 13 layers that the deepest unit of the backbone is away from a loss through identities.
    shortest = [gradient_paths(build_structure("yolo6s-d1w25", merged=m)).figures()["longest_shortest"] for m in (False, True)]
    assert shortest[0] == 10 and shortest[1] > 30


def test_repeats_and_widths_scale_as_in_the_published_configurations() -> None:
    scale = Scale(0.33, 0.25)
    assert [scale.repeats(n) for n in (1, 2, 3, 8, 9, 18)] == [1, 1, 1, 3, 3, 6]  # 8 * 0.33 is 2.64
    assert (scale.channels(64), Scale(1.0, 0.75, 512).channels(1024)) == (16, 384)


def test_the_halves_share_every_series_depth_and_width() -> None:
    first = [structure for name, structure in STRUCTURES.items() if first_half(name)]
    assert len(first) == 44
    assert Counter(s.series for s in first) == {s.series: 2 if s.series == "yolo7" else 6 for s in first}
    assert Counter(s.thirds for s in first if s.series != "yolo7") == {1: 14, 2: 14, 3: 14}
    assert set(Counter(s.width for s in first).values()) == {10, 12}


def test_depth_is_no_choice_of_yolov7() -> None:
    assert STRUCTURES["yolo7m"].choices == {"series": "yolo7", "width": 0.75}
    assert STRUCTURES["yolo6s-d6w5"].choices == {"series": "yolo6s", "depth": 2, "width": 0.5}


def test_children_differ_from_their_parents_and_mix_them() -> None:
    space, rng = YoloBenchSpace(), random.Random(1)
    a, b = space.read("structure: yolo7n"), space.read("structure: yolo6l-d1w75")
    mutants = {space.propose([a], rng).genotype for _ in range(30)}
    assert a.genotype not in mutants and "structure: yolo7s" in mutants
    children = {space.propose([a, b], rng).genotype for _ in range(60)}
    assert not children & {a.genotype, b.genotype}
    assert {"structure: yolo7m", "structure: yolo6l-d1w25"} <= children  # each other's series, depth and width


def test_the_smallest_structure_has_the_fewest_macs() -> None:
    smallest = YoloBenchSpace().smallest()
    macs = {name: deployed_cost(build_structure(name), 320).macs for name in STRUCTURES}
    assert smallest.genotype == f"structure: {min(macs, key=lambda name: macs[name])}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("structure: yolo9n", "'yolo9n' is none of YOLOBench's 88 structures"),
        ("cell: yolo3n", "`structure: <name>`, got 'cell"),
    ],
)
def test_a_wrong_genotype_is_named(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        YoloBenchSpace().read(text)
