"""The catalogue: published costs, one YAML to one graph, and forms of a network that compute the same."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from _pytest.mark import ParameterSet

from gpnas.errors import GenotypeError
from gpnas.graph.cost import convolution_weights, cost
from gpnas.graph.graph import Branch, Graph
from gpnas.graph.network import Network
from gpnas.paths.gradient_paths import gradient_paths
from search_spaces.blueprint import Block, Blueprint, build_blueprint, catalogue, open_catalogue, read_blueprint
from search_spaces.counted import counted_forms
from search_spaces.narrowing import widths_of, with_widths

PUBLISHED = Path(__file__).parents[3] / "shared" / "figures" / "published.yaml"
UNITS = {"K": 1e3, "M": 1e6, "G": 1e9}

OF_EACH_KIND = (
    *("resnet50-csp", "resnext50-csp", "prn", "vovnet-99-elan", "yolor-elan-1-1", "yolor-prn", "yolor-v3-spp", "yolov5l"),
    *("yolor-csp", "yolor-csp-fusion-last", "yolor-csp-no-fusion"),
    *("yolor-csp-stop-gradient-block", "yolor-csp-stop-gradient-identity", "yolov9-c", "yolov9-e", "yolov9-m", "yolov9-s"),
)
"""Entries that have, between them, every piece, family, unit, fusion, rounding and auxiliary branch of the catalogue."""


def entries(quick: Iterable[str]) -> list[str | ParameterSet]:
    """All names of the catalogue; those that are not `quick` are marked slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in catalogue()]


def count(text: str) -> tuple[float, float]:
    """A published count, and half a unit of its last printed digit."""
    number, unit = text[:-1], UNITS[text[-1]]
    digits = len(number.partition(".")[2])
    return float(number) * unit, 0.5 * 10**-digits * unit


COUNTED = {
    "gelan-c": (25_498_752, 1, 25_288_768),
    "gelan-e": (58_114_432, 1, 57_345_920),
    "gelan-m": (20_124_000, 1, 19_978_672),
    "gelan-s": (7_226_208, 1, 7_105_888),
    "yolov7-af": (43_589_728, 1, 43_564_736),
    "yolov9-c": (51_182_080, 2, 25_288_768),
    "yolov9-e": (69_529_664, 2, 57_345_920),
    "yolov9-m": (32_878_432, 2, 19_978_672),
    "yolov9-s": (9_804_512, 2, 7_105_888),
    "yolov9-t-class-128": (3_717_680, 2, 2_407_632),
}
"""Parameters in the code of YOLOv9's authors: in training form, with how many heads, and fused without the auxiliary branch.
For each head it counts 16 constants that are no parameters here."""


@functools.cache
def entry(name: str) -> Blueprint:
    return open_catalogue(name)


def graph_of(name: str) -> Graph:
    return build_blueprint(entry(name))


def narrow(name: str) -> Graph:
    """The entry at an eighth of its widths, or at the least width that 32 groups of channels allow."""
    multiple = 0.25 if name.startswith("resnext") else 0.125
    return build_blueprint(entry(name).model_copy(update={"width_multiple": multiple}))


def test_the_entries_of_each_kind_have_every_block_of_the_catalogue() -> None:
    def kinds(names: Iterable[str]) -> set[tuple[object, ...]]:
        blocks = [block for name in names for block in entry(name).blocks]
        options = ("unit", "fusion", "branch", "channel_step")
        return {(block.block, *(block.options.get(key) for key in options)) for block in blocks}

    assert kinds(OF_EACH_KIND) == kinds(catalogue())


@pytest.mark.parametrize("name", catalogue())
def test_an_entry_costs_what_was_published(name: str) -> None:
    published = entry(name).published or {}
    size = int(published.get("input", "3x640x640").split("x")[1])
    graph = graph_of(name).inference()
    costs = cost(graph, size, size)
    params = convolution_weights(graph) if published.get("counts") == "convolution weights" else costs.params
    for figure, ours in (("params", params), ("flops", costs.flops)):
        if figure not in published:
            continue
        value, last_digit = count(published[figure])
        if name in ("yolor-v3", "yolor-prn") and figure == "params":
            continue  # the paper prints those with SPP: yolor-v3-spp holds them
        # 0.2 % for rows whose structure is public (and the printed digit), 3 % where it is not.
        tolerance = 0.03 * value if "nearest" in published["reached"] else max(0.002 * value, last_digit)
        assert abs(ours - value) <= tolerance, (figure, ours, published[figure])


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="../shared is not here")
def test_the_catalogue_quotes_the_published_figures() -> None:
    document = yaml.safe_load(PUBLISHED.read_text())
    paper = document["gradient_path_paper"]
    rows = {row["name"]: row for row in [*paper["rows"], *paper["classifiers"], *document["yolov9"]["rows"]]}
    assert set(rows) <= set(catalogue())
    quoted = 0
    for name in rows:
        published = entry(name).published or {}
        for figure in ("params", "flops", "ap", "top1"):
            if figure in rows[name] and figure in published:
                assert published[figure] == rows[name][figure]
                quoted += 1
    assert quoted == sum(figure in row for row in rows.values() for figure in ("params", "flops", "ap", "top1"))
    for row in paper["growth"]:
        growth = (entry(row["name"]).published or {})["growth"]
        assert list(growth.values()) == [str(row[key]) for key in ("params", "shortest_path", "aggregated_features")]


@pytest.mark.parametrize("name", COUNTED)
def test_both_forms_have_the_integers_that_the_authors_code_counts(name: str) -> None:
    train, heads, fused = COUNTED[name]
    graph = graph_of(name)
    assert cost(graph, 640, 640, fused=False).params == train - 16 * heads
    assert cost(graph.inference(), 640, 640).params == fused - 16
    assert counted_forms(entry(name)) == [
        (name, "train", train - 16 * heads, 16 * heads, train),
        (name, "fused", fused - 16, 16, fused),
    ]


def test_every_entry_that_quotes_integers_is_held_to_them() -> None:
    assert {name for name in catalogue() if counted_forms(entry(name))} == set(COUNTED)


@pytest.mark.parametrize("name", COUNTED)
def test_the_integers_tell_a_wrong_width_anywhere(name: str) -> None:
    original = widths_of(entry(name))
    for i, width in enumerate(original):
        wrong = with_widths(entry(name), (*original[:i], width + 8, *original[i + 1 :]))
        try:
            graph = build_blueprint(wrong)
        except GenotypeError:
            continue  # tensors that are added no longer agree
        assert cost(graph, 640, 640, fused=False).params > COUNTED[name][0], (name, i, width)


@pytest.mark.parametrize("name", ["gelan-m", "yolov9-m"])
def test_the_integers_of_yolov9_m_tell_how_shares_are_rounded(name: str) -> None:
    """A GELAN block of 180 channels is halved to 90, a multiple of 2. In multiples of 4 it would be 92."""
    rows = [{key: value for key, value in block.row.items() if key != "channel_step"} for block in entry(name).blocks]
    graph = build_blueprint(entry(name).model_copy(update={"blocks": [Block.model_validate(row) for row in rows]}))
    assert cost(graph, 640, 640, fused=False).params > COUNTED[name][0]
    enters = [op.channels for op in graph_of(name).ops if op.name.startswith("p4.block") and op.name.endswith("enter")]
    assert enters == [90, 90]


@pytest.mark.parametrize("name", catalogue())
def test_an_entry_s_yaml_and_json_rebuild_the_same_graph(name: str) -> None:
    blueprint = entry(name)
    again = read_blueprint(blueprint.to_yaml())
    assert again == blueprint
    assert again.hash == blueprint.hash == read_blueprint(blueprint.to_json()).hash
    assert build_blueprint(again) == graph_of(name)


@pytest.mark.parametrize("name", entries(OF_EACH_KIND))
def test_a_parameter_has_a_gradient_exactly_when_a_loss_reaches_it(name: str) -> None:
    torch.manual_seed(0)
    graph = narrow(name)
    network = Network(graph).train()
    sum(out.square().mean() for out in network(torch.randn(2, 3, 64, 64))).backward()  # type: ignore[attr-defined]
    live = {layer.op for layer in gradient_paths(graph).layers}
    for i in graph.layers:
        gradients = [parameter.grad for parameter in network.layer(i).parameters()]
        assert (i in live) == all(g is not None and bool(g.abs().sum() > 0) for g in gradients), graph.ops[i].name
    needed = graph.reaching(Branch.MAIN)
    assert {i for i in graph.layers if needed[i]} <= live


@pytest.mark.parametrize("name", entries(("prn", "vovnet-99-elan", "yolor-csp", "yolov9-s")))
def test_the_fused_form_and_the_inference_graph_compute_the_same(name: str) -> None:
    """To the rounding of float32 when layers are fused; to the bit without the auxiliary branch."""
    torch.manual_seed(0)
    graph = narrow(name)
    network = Network(graph).train()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network(images)  # so that the running statistics of normalisations are no identity
        network.eval()
        alone = Network(graph.inference()).eval()
        names = alone.state_dict().keys()
        alone.load_state_dict({key: value for key, value in network.state_dict().items() if key in names})
        for whole, fused, without in zip(network(images), network.fused()(images), alone(images), strict=True):
            assert torch.allclose(whole, fused, rtol=1e-4, atol=1e-4)
            assert torch.equal(whole, without)


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(GenotypeError, match=r"yolov99: no such architecture in the catalogue; there are darknet53, .*gelan-c"):
        open_catalogue("yolov99")
