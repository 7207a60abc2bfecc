"""The pictures of Figures 7 and 8 of the gradient-path paper: they show what the paper says about its networks."""

from __future__ import annotations

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
