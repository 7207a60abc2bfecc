"""`gpnas analyze`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gpnas.graph.cost import deployed_cost
from search_spaces.architecture import build, read_architecture
from tests.cli.conftest import Gpnas, Refused


def test_analyze_prints_one_object(gpnas: Gpnas, architecture: Path) -> None:
    code, out, _ = gpnas("analyze", architecture, "--json", "--input", "3x64x96")
    result = json.loads(out)
    graph = build(read_architecture(architecture.read_text()))
    assert code == 0 and result["input"] == [3, 64, 96]
    square = deployed_cost(graph, 64)
    assert result["macs"] == 1.5 * square.macs and result["flops"] == 3 * square.macs and result["params"] == square.params
    assert {"layers", "train", "live_params"} <= set(result) and "layer_rows" not in result
    assert {"longest", "longest_shortest", "distinct_combinations", "poolings_per_path"} <= set(result["gradient_paths"])


def test_analyze_reads_a_catalogue_name_and_separates_the_losses(gpnas: Gpnas) -> None:
    code, out, _ = gpnas("analyze", "yolov9-t", "--json", "--layers")
    result = json.loads(out)
    assert code == 0 and result["params"] == 2_001_824  # the published 2.0M
    live = result["gradient_paths"]["live_layers"]
    assert result["branches"]["main"]["live_layers"] == result["layers"]
    assert result["branches"]["auxiliary"]["live_layers"] < live == len(result["layer_rows"])
    assert sum(stage["live_layers"] for stage in result["stages"].values()) == live
    auxiliary = [row["layer"] for row in result["layer_rows"] if row["loss"] == "auxiliary"]
    assert auxiliary and all(name.startswith("aux_") for name in auxiliary)
    for row in result["layer_rows"]:
        assert row["timestamps"][0] == row["shortest"] and row["timestamps"][-1] == row["longest"]
        assert row["combinations"] == sum(len(s[2]) for group in row["channel_groups"] for s in group["sources"])


def test_analyze_prints_every_figure_and_draws_a_timeline(gpnas: Gpnas, tmp_path: Path) -> None:
    code, out, _ = gpnas("analyze", "yolor-prn", "--layers", "--timeline", tmp_path / "prn.svg")
    assert code == 0
    for text in ("distinct_combinations", "2389", "p3", "channels 0-127", "p5.conv"):
        assert text in out
    root = ET.fromstring((tmp_path / "prn.svg").read_text())
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "yolor-prn: gradient timeline"
    assert [path.name for path in tmp_path.iterdir()] == ["prn.svg"]


NETS = """
from torch import nn
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)
    def forward(self, x):
        y = self.stem(x)
        return {'a': self.a(y), 'b': self.b(y)}
class Zoo:
    two = Two()
class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare, self.rest = nn.Conv2d(3, 4, 1), nn.Linear(4, 7), nn.LSTM(4, 2)
    def forward(self, x):
        return self.used(x)
class Last(Spare):
    def forward(self, x):
        return self.rest(self.used(x).flatten(2).transpose(1, 2))[0]
def number(): return 3
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def test_analyze_traces_what_a_callable_returns(gpnas: Gpnas, nets: None) -> None:
    code, out, _ = gpnas("analyze", "own_nets:Two", "--input", "3x8x12", "--json", "--auxiliary", "b")
    result = json.loads(out)
    assert code == 0 and result["params"] == 4 * 4 + 2 * 5  # b is not part of the inference form
    assert result["macs"] == 8 * 12 * (3 * 4 + 4 * 2)
    assert result["gradient_paths"]["auxiliary_only"] == 2
    whole = json.loads(gpnas("analyze", "own_nets:Zoo.two", "--input", "3x8x12", "--json")[1])
    assert whole["params"] == 4 * 4 + 2 * 2 * 5
    one = json.loads(gpnas("analyze", "own_nets:Zoo.two", "--input", "3x8x12", "--json", "--outputs", "a,b")[1])
    assert one["gradient_paths"] == whole["gradient_paths"]


def test_analyze_names_the_parameters_that_it_leaves_out(gpnas: Gpnas, nets: None) -> None:
    result = json.loads(gpnas("analyze", "own_nets:Spare", "--input", "3x8x12", "--json")[1])
    rest = {"rest.bias_hh_l0": 8, "rest.bias_ih_l0": 8, "rest.weight_hh_l0": 8 * 2, "rest.weight_ih_l0": 8 * 4}
    assert result["left_out"] == {"spare.bias": 7, "spare.weight": 28, **rest}
    assert result["params"] == result["train"]["params"] == 16
    _, out, _ = gpnas("analyze", "own_nets:Spare", "--input", "3x8x12")
    told = "99 parameters that the outputs do not use: rest.bias_hh_l0, rest.bias_ih_l0, rest.weight_hh_l0, rest.weight_ih_l0"
    assert f"left out                   {told}, 2 more\n" in out
    nothing = gpnas("analyze", "own_nets:Two", "--input", "3x8x12", "--json")[1]
    assert json.loads(nothing)["left_out"] == {}
    assert "left out" not in gpnas("analyze", "own_nets:Two", "--input", "3x8x12")[1]


def test_analyze_refuses_parameters_that_it_cannot_count(refused: Refused, nets: None) -> None:
    told = refused("analyze", "own_nets:Last", "--input", "3x8x12")
    assert told.startswith("gpnas: lstm at rest (File ") and told.count("\n") == 1
    assert "would not count its parameters rest.bias_hh_l0 (8), rest.bias_ih_l0 (8), rest.weight_hh_l0 (16)" in told


def test_a_callable_that_cannot_be_traced_is_refused(refused: Refused, nets: None) -> None:
    assert "returned int; it must return a torch.nn.Module" in refused("analyze", "own_nets:number")
    assert "no attribute 'Three'" in refused("analyze", "own_nets:Three")
    assert "no_nets:Two: cannot be imported" in refused("analyze", "no_nets:Two")
    assert "no output is called 'c'" in refused("analyze", "own_nets:Two", "--input", "3x8x8", "--outputs", "c")
    assert "--input 3x8" in refused("analyze", "own_nets:Two", "--input", "3x8")


def test_sources_and_options_that_cannot_be_analyzed_are_refused(refused: Refused, architecture: Path) -> None:
    assert "the catalogue has darknet53, darknet53-csp, densenet, gelan-c" in refused("analyze", "yolov99")
    assert f"--input 1x64x64: {architecture} reads 3 channels, not 1" in refused("analyze", architecture, "--input", "1x64x64")
    for option in ("--outputs", "--auxiliary"):
        assert "only for module:callable" in refused("analyze", architecture, option, "0")
