"""`gpnas analyze`."""

import json


def test_analyze_prints_the_design_s_object(gpnas, architecture):
    code, out, _ = gpnas("analyze", architecture, "--json", "--input", "3x64x64")
    told = json.loads(out)
    assert code == 0
    assert told["flops"] == 2 * told["macs"] and told["input"] == [3, 64, 64]
    assert {"params", "layers", "train", "live_params"} <= set(told)
    assert {"longest", "longest_shortest", "distinct_combinations", "poolings_per_path"} <= set(told["gradient_paths"])


def test_analyze_reads_a_catalogue_name_and_separates_the_losses(gpnas):
    code, out, _ = gpnas("analyze", "yolov9-t", "--json", "--layers")
    told = json.loads(out)
    assert code == 0 and told["params"] == 2_001_824  # the published 2.0M
    assert told["branches"]["main"]["live_layers"] == told["layers"]
    assert told["branches"]["auxiliary"]["live_layers"] < told["gradient_paths"]["live_layers"] == len(told["layer_rows"])
    assert sum(stage["live_layers"] for stage in told["stages"].values()) == told["gradient_paths"]["live_layers"]
    auxiliary = [row["layer"] for row in told["layer_rows"] if row["loss"] == "auxiliary"]
    assert auxiliary and all(name.startswith("aux_") for name in auxiliary)
    for row in told["layer_rows"]:
        assert row["timestamps"][0] == row["shortest"] and row["timestamps"][-1] == row["longest"]
        assert row["combinations"] == sum(len(s[2]) for group in row["channel_groups"] for s in group["sources"])


def test_analyze_prints_every_figure_and_draws_a_timeline(gpnas, tmp_path):
    code, out, _ = gpnas("analyze", "yolor-prn", "--layers", "--timeline", tmp_path / "prn.svg")
    assert code == 0
    for text in ("distinct_combinations", "2389", "p3", "channels 0-127", "p5.conv"):
        assert text in out
    assert (tmp_path / "prn.svg").read_text().startswith("<svg")


def test_analyze_traces_what_a_callable_makes(gpnas, refused, tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)\n"
        "    def forward(self, x):\n"
        "        y = self.stem(x)\n"
        "        return {'a': self.a(y), 'b': self.b(y)}\n"
        "def number(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = gpnas("analyze", "own_nets:Two", "--input", "3x8x8", "--json", "--auxiliary", "b")
    told = json.loads(out)
    assert code == 0 and told["params"] == 16 + 10  # b is not part of the inference form
    assert told["gradient_paths"]["auxiliary_only"] == 2
    assert "returned int" in refused("analyze", "own_nets:number")
    assert "no attribute 'Three'" in refused("analyze", "own_nets:Three")
    assert "no output is called 'c'" in refused("analyze", "own_nets:Two", "--input", "3x8x8", "--outputs", "c")
    assert "--input 3x8" in refused("analyze", "own_nets:Two", "--input", "3x8")


def test_what_cannot_be_analyzed_is_refused(refused, architecture):
    assert "the catalogue has darknet53, darknet53-csp, densenet, gelan-c" in refused("analyze", "yolov99")
    assert "reads 3 channels" in refused("analyze", architecture, "--input", "1x64x64")
    assert "says itself" in refused("analyze", architecture, "--outputs", "0")
