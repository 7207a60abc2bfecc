"""The pictures of Figures 7 and 8 of the gradient-path paper: they show what the paper says about its networks."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from gpnas.graph.graph import Branch, Graph, GraphBuilder
from gpnas.report.timeline import arrivals, sources_svg, timeline_svg
from search_spaces.blueprint import build_blueprint, open_catalogue
from search_spaces.growth import DRAWN, network

SVG = "{http://www.w3.org/2000/svg}"


def table(graph: Graph) -> dict[tuple[str, int], set[tuple[str, int]]]:
    """{(layer, timestamp): {(source, offset)}} over all channel groups."""
    found: dict[tuple[str, int], set[tuple[str, int]]] = {}
    n = len(graph.ops)
    for a in arrivals(graph):
        names = {(graph.ops[c].name if c < n else "loss", offset) for c, offset in a.sources}
        found.setdefault((graph.ops[a.layer].name, a.timestamp), set()).update(names)
    return found


def test_in_resnet_all_layers_share_the_source_of_the_first_timestamps() -> None:
    """Section 3.1: in ResNet different layers share many gradients of the same timestamp and the same source."""
    found = table(network("resnet", 3))
    assert found["head.prediction", 1] == {("loss", 0)}
    assert [found[layer, 2] for layer in ("stem.conv", "unit1.conv", "unit2.conv", "unit3.conv")] == [
        {("head.prediction", 0)}
    ] * 4
    assert found["stem.conv", 3] == {("unit1.conv", 0), ("unit2.conv", 0), ("unit3.conv", 0)}
    assert max(t for layer, t in found if layer == "stem.conv") == 5


def test_in_densenet_they_come_from_different_sources() -> None:
    """DenseNet passes the gradient of the same timestamp but of different sources."""
    found = table(network("densenet", 3))
    assert [found[layer, 2] for layer in ("stem.conv", "unit1.conv", "unit2.conv", "unit3.conv")] == [
        {("head.prediction", 0)},
        {("head.prediction", 8)},
        {("head.prediction", 16)},
        {("head.prediction", 24)},
    ]


def test_in_prn_the_channels_of_a_layer_receive_different_combinations() -> None:
    graph = network("prn", 2)
    groups = {(a.start, a.stop): set() for a in arrivals(graph) if graph.ops[a.layer].name == "stem.conv"}
    for a in arrivals(graph):
        if graph.ops[a.layer].name == "stem.conv":
            groups[a.start, a.stop].add(a.timestamp)
    assert groups == {(0, 4): {2, 3, 4}, (4, 8): {3, 4}}


def test_in_sparsenet_timestamps_vary_between_layers() -> None:
    found = table(network("sparse-densenet", 4))
    times = {layer: {t for name, t in found if name == layer} for layer, _ in found}
    assert times["unit4.conv"] == {2} and 2 not in times["stem.conv"] and 2 in times["unit1.conv"]


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_well_formed_and_names_every_layer(name: str) -> None:
    graph = network(DRAWN[name], 4)
    for svg in (timeline_svg(graph, name), sources_svg(graph, 2, name)):
        text = "".join(ET.fromstring(svg).itertext())
        assert all(graph.ops[i].name in text for i in graph.layers)
    assert timeline_svg(graph, name) == timeline_svg(network(DRAWN[name], 4), name)


def chain(*names: str) -> Graph:
    """Layers of four channels, one after the other."""
    b = GraphBuilder()
    x = b.image
    for name in names:
        x = b.conv(x, 4, 1, name=name)
    b.output(x, "out", stride=1)
    return b.build()


def boxes(svg: str) -> dict[str, tuple[float, ...]]:
    """x, y, width and height of the boxes by their titles; of equal titles the last."""
    return {
        box.findtext(f"{SVG}title") or "": tuple(float(box.get(name, "nan")) for name in ("x", "y", "width", "height"))
        for box in ET.fromstring(svg).iter(f"{SVG}rect")
    }


def test_a_cell_stands_in_its_layer_s_column_at_its_timestamp() -> None:
    """Columns of 96 pixels from 64 on, of which 88 are drawn; rows of 30 pixels below a row of names at 64."""
    svg = timeline_svg(chain("a", "b"), "chain")
    assert {name: box for name, box in boxes(svg).items() if name} == {
        "a": (64, 64, 88, 16),
        "b": (160, 64, 88, 16),
        "loss out": (256, 64, 88, 16),
        "b, timestamp 1: from loss out, input channel 0": (160, 98, 87, 21.5),
        "a, timestamp 2: from b, input channel 0": (64, 128, 87, 21.5),
    }
    root = ET.fromstring(svg)
    assert root.get("viewBox") == "0 0 720 244"
    texts = [(t.text, t.get("x"), t.get("y"), t.get("transform")) for t in root.iter(f"{SVG}text")][2:]
    assert texts == [
        ("time", "12.0", "84.0", None),
        ("1", "48.0", "112.0", None),
        ("2", "48.0", "142.0", None),
        ("a", None, None, "translate(108.0 168.0) rotate(40)"),
        ("b", None, None, "translate(204.0 168.0) rotate(40)"),
        ("loss out", None, None, "translate(300.0 168.0) rotate(40)"),
    ]
    lines = [tuple(line.get(n) for n in ("x1", "x2", "y1", "y2")) for line in root.iter(f"{SVG}line")]
    assert lines == [("64", "352", y, y) for y in ("94", "124")]


def test_channel_groups_and_sources_share_a_cell() -> None:
    """The stem of PRN has eight channels; only the first half is masked into the sums, so each half has its own sources."""
    graph = network("prn", 2)
    made = boxes(timeline_svg(graph, "prn"))
    left = made["stem.conv"][0]
    halves = {name: box for name, box in made.items() if name.startswith("stem.conv, channels")}
    assert {box[0] - left for name, box in halves.items() if "channels 0-3" in name} == {0.0}
    assert {box[0] - left for name, box in halves.items() if "channels 4-7" in name} == {44.0}
    assert {box[2] for box in halves.values()} == {43.0}
    for arrival in arrivals(graph):
        if graph.ops[arrival.layer].name == "stem.conv":
            part = f"stem.conv, channels {arrival.start}-{arrival.stop - 1}, timestamp {arrival.timestamp}:"
            heights = [box[3] for name, box in made.items() if name.startswith(part)]
            assert heights == pytest.approx([22 / len(arrival.sources) - 0.5] * len(arrival.sources), abs=0.06)


def test_an_arc_leads_from_each_source_to_the_layer_that_it_reaches() -> None:
    """Columns of 110 pixels from 64 on; layers stand at the height of 194."""
    svg = sources_svg(chain("a", "b"), 1, "chain")
    root, made = ET.fromstring(svg), boxes(svg)
    (arc,) = root.iter(f"{SVG}path")
    assert arc.get("d") == "M339.0 182 Q284.0 120.8 229.0 182" and arc.findtext(f"{SVG}title") == "loss out to b"
    assert arc.get("opacity") == "1.00" and arc.get("class") == "arc hue2"
    (end,) = root.iter(f"{SVG}circle")
    assert (end.get("cx"), end.get("cy"), end.get("class")) == ("229.0", "182", "hue2")
    assert {name: made[name] for name in ("a", "b", "loss out")} == {
        "a": (105.4, 184, 27.2, 14),
        "b": (215.4, 184, 27.2, 14),
        "loss out": (325.4, 184, 27.2, 14),
    }
    assert root.get("viewBox") == "0 0 720 284"
    assert root.findtext(f"{SVG}desc") == (
        "Timestamp 1: gradients reach 1 channel groups. One colour and shade is one gradient."
    )


def test_sources_further_into_the_input_are_paler() -> None:
    """In DenseNet all layers are concatenated, eight channels each: the head reads 32 channels."""
    root = ET.fromstring(sources_svg(network("densenet", 3), 2, "densenet"))
    assert root.get("viewBox") == f"0 0 {64 + 110 * 6 + 20} 284"  # five layers and the loss
    arcs = {arc.findtext(f"{SVG}title"): float(arc.get("opacity", "nan")) for arc in root.iter(f"{SVG}path")}
    assert arcs == {
        "head.prediction to stem.conv": 1.0,
        "head.prediction to unit1.conv": pytest.approx(1 - 0.75 * 8 / 32, abs=0.006),
        "head.prediction to unit2.conv": pytest.approx(1 - 0.75 * 16 / 32, abs=0.006),
        "head.prediction to unit3.conv": pytest.approx(1 - 0.75 * 24 / 32, abs=0.006),
    }


def test_the_overview_has_a_box_for_each_run_of_timestamps_and_a_bracket_for_each_stage() -> None:
    """30 layers: columns of 33.87 pixels, rows of 8; the last layer is one step away from the loss."""
    names = [f"stage{k // 6}.c{k}" for k in range(30)]
    svg = timeline_svg(chain(*names), "chain")
    made, step = boxes(svg), (1080 - 64) / 30
    for k, name in enumerate(names):
        box = made[f"{name}: timestamps {30 - k} to {30 - k}, 1 source"]
        assert box == pytest.approx((64 + step * k, 64 + 8 * (30 - k), 0.9 * step, 8.0), abs=0.06)
    root = ET.fromstring(svg)
    lines = [(g.get("class"), *(float(g.get(n, "nan")) for n in ("x1", "x2", "y1", "y2"))) for g in root.iter(f"{SVG}line")]
    assert lines[:7] == [("grid", 64.0, 1080.0, 64.0 + 8 * t, 64.0 + 8 * t) for t in range(0, 31, 5)]
    y = 64 + 8 * 31
    assert [line[0] for line in lines[7:]] == ["bracket"] * 5
    for k, line in enumerate(lines[7:]):
        assert line[1:] == pytest.approx((64 + step * 6 * k, 64 + step * (6 * k + 5.9), y + 6, y + 6), abs=0.06)
    ticks = [(t.text, t.get("x"), t.get("y")) for t in root.iter(f"{SVG}text") if (t.text or "").isdecimal()]
    assert ticks == [(str(t), "56.0", f"{64 + 8 * t + 4:.1f}") for t in range(0, 31, 5)]
    labels = [(t.text, t.get("transform")) for t in root.iter(f"{SVG}text") if (t.text or "").startswith("stage")]
    assert labels[1] == ("stage1", f"translate({64 + step * (6 + 2.95):.1f} {y + 20:.1f}) rotate(40)")
    assert root.get("viewBox") == f"0 0 1100 {y + 90 + 40}"
    assert root.findtext(f"{SVG}desc") == (
        "Layers from the image (left) to the loss, timestamps 1 to 30 downwards; darker cells have more sources."
    )


@pytest.mark.parametrize(("layers", "column", "row", "ticks"), [(96, (1080 - 64) / 96, 5.0, 10), (400, 3.0, 2.0, 41)])
def test_columns_and_rows_of_deep_networks_are_thinner(layers: int, column: float, row: float, ticks: int) -> None:
    svg = timeline_svg(chain(*(f"c{k}" for k in range(layers))), "deep")
    made = boxes(svg)[f"c1: timestamps {layers - 1} to {layers - 1}, 1 source"]
    assert made == pytest.approx((64 + column, 64 + row * (layers - 1), 0.9 * column, row), abs=0.06)
    assert sum(line.get("class") == "grid" for line in ET.fromstring(svg).iter(f"{SVG}line")) == ticks


def test_equal_neighbours_in_a_column_are_one_box() -> None:
    """In a residual network of 26 layers the stem is reached at every timestamp; first by one source, then by many."""
    made = boxes(timeline_svg(network("plain", 26), "plain"))
    assert all(" 1 source" in name for name in made if ": timestamps" in name)
    residual = {name: box for name, box in boxes(timeline_svg(network("resnet", 26), "resnet")).items() if "stem.conv:" in name}
    low_high = [tuple(map(int, re.findall(r"\d+", name)[-3:])) for name in residual]
    assert low_high[0] == (2, 2, 1) and low_high[-1][1] == 28
    assert all(high + 1 == low for (_, high, _), (low, _, _) in itertools.pairwise(low_high))
    assert all(a[2] != b[2] for a, b in itertools.pairwise(low_high))
    row = 8.0
    for (low, high, _), box in zip(low_high, residual.values(), strict=True):
        assert (box[1], box[3]) == pytest.approx((64 + row * low, row * (high - low + 1)), abs=0.06)


def test_there_is_a_cell_for_every_layer_timestamp_and_source() -> None:
    graph = network("resnet", 3)
    cells = [box.findtext(f"{SVG}title") or "" for box in ET.fromstring(timeline_svg(graph, "x")).iter(f"{SVG}rect")]
    assert sum("timestamp" in cell for cell in cells) == sum(len(a.sources) for a in arrivals(graph))
    assert "stem.conv, timestamp 2: from head.prediction, input channel 0" in cells


def test_a_large_network_is_a_heat_map_with_its_stages_and_its_auxiliary_arrivals() -> None:
    svg = timeline_svg(build_blueprint(open_catalogue("yolov9-c")), "yolov9-c")
    root = ET.fromstring(svg)
    text = "".join(root.itertext())
    assert all(stage in text for stage in ("p3", "small", "aux_p5"))
    styles = {box.get("class") for box in root.iter(f"{SVG}rect")}
    assert "heat1" in styles and "aux1" in styles


def test_names_are_escaped_and_a_network_without_layers_is_drawn_as_such() -> None:
    b = GraphBuilder()
    b.output(b.conv(b.image, 4, name="<script>"), "out", stride=1, branch=Branch.MAIN)
    svg = timeline_svg(b.build(), "a < b & c")
    assert "<script>" not in svg and ET.fromstring(svg).findtext(f"{SVG}title") == "a < b & c"
    empty = GraphBuilder()
    empty.output(empty.image, "out", stride=1)
    assert "no layer" in timeline_svg(empty.build(), "empty")
