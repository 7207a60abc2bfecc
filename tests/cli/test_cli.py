"""The command line as a person meets it: what it answers to bad input, and the ways in and out of a run."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from gpnas.cli.app import main


@pytest.fixture
def gpnas(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpnas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run


@pytest.fixture
def refused(gpnas):
    """Run what must be refused: exit code 2 and exactly one line on stderr, which is returned."""

    def run(*arguments):
        code, _, err = gpnas(*arguments)
        assert code == 2, err
        assert err.count("\n") == 1 and err.startswith("gpnas: ")
        return err

    return run


def write_coco(folder: Path, change=lambda document: None, images=4) -> Path:
    """A tiny COCO folder: grey images with one bright square each, for train and val."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    for split, first in (("train", 0), ("val", images)):
        document = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "square"}]}
        for i in range(first, first + images):
            picture = np.full((64, 64, 3), 90, np.uint8)
            picture[16:48, 16:48] = 220
            cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
            document["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
            box = {"id": i, "image_id": i, "category_id": 7, "bbox": [16, 16, 32, 32], "area": 1024, "iscrowd": 0}
            document["annotations"].append(box)
        if split == "train":
            change(document)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def architecture(tmp_path):
    """A small architecture, as YAML."""
    from search_spaces.gradient_path import open_space

    path = tmp_path / "small.yaml"
    space = open_space("gradient-path", classes=1)
    path.write_text(yaml.safe_dump(json.loads(space.smallest().genotype)))
    return path


def test_help_lists_the_commands(gpnas):
    code, out, _ = gpnas("--help")
    assert code == 0
    for command in ("search", "resume", "show", "report", "export", "analyze", "catalogue", "bench", "train", "val", "predict"):
        assert command in out


def test_a_budget_that_is_none(refused):
    assert "--budget soon: not a budget; write 90s" in refused("search", "--budget", "soon")


def test_an_impossible_limit_names_the_smallest_architecture(refused, tmp_path):
    line = refused("search", "--budget", "1m", "--max-flops", "1", "--out", tmp_path / "run")
    assert "--max-flops 1: nothing in the space is that small; its smallest architecture" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-flops", "lots"], "--max-flops lots: not a positive number"),
        (["--imgsz", "100"], "--imgsz 100: must be a positive multiple of 32"),
        (["--space", "nowhere"], "--space nowhere: no such space or file; ready spaces are gradient-path"),
        (["--workers", "many"], "--workers many: must be auto or local:N"),
        (["--device", "cuda:0"], "--device cuda:0: no CUDA device is here"),
        (["--wandb", "maybe"], "--wandb maybe: must be offline, online or off"),
        (["--nonsense"], "No such option"),
        (["--start", "absent.yaml"], "absent.yaml: no such file"),
    ],
)
def test_options_out_of_range_are_named(refused, arguments, message):
    assert message in refused("search", "--budget", "1m", *arguments)


def test_a_budget_is_needed(refused):
    assert "--budget" in refused("search")


def test_an_out_that_is_no_run_is_left_alone(refused, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    line = refused("search", "--budget", "1m", "--out", tmp_path / "precious")
    assert "exists and is not a gpnas run; choose another folder" in line
    assert [p.name for p in (tmp_path / "precious").iterdir()] == ["file"]


def missing_image(document):
    document["images"][0]["file_name"] = "gone.png"


def box_outside(document):
    document["annotations"][0]["bbox"] = [50, 50, 40, 40]


def unknown_category(document):
    document["annotations"][0]["category_id"] = 99


def empty_split(document):
    document["images"].clear()
    document["annotations"].clear()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing_image, ["gone.png"]),
        (box_outside, ["50", "64"]),
        (unknown_category, ["99"]),
        (empty_split, ["train", "no image"]),
    ],
)
def test_coco_data_that_cannot_be_trained_on(refused, tmp_path, change, words):
    folder = write_coco(tmp_path / "data", change)
    line = refused("search", "--budget", "1m", "--data", folder, "--out", tmp_path / "run")
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_a_data_folder_that_is_not_there(refused, tmp_path):
    assert "absent" in refused("search", "--budget", "1m", "--data", tmp_path / "absent")


@pytest.mark.parametrize("command", ["train", "analyze", "export"])
def test_an_architecture_with_a_bad_key_or_ratio(refused, architecture, command):
    document = yaml.safe_load(architecture.read_text())
    document["backbone"][2] |= {"split_ratio": 1.5}
    architecture.write_text(yaml.safe_dump(document))
    assert "split_ratio must lie in (0, 1], got 1.5 in backbone[2]" in refused(command, architecture)
    document["backbone"][2] |= {"split_ratio": 0.5, "colour": "red"}
    architecture.write_text(yaml.safe_dump(document))
    assert "unknown key 'colour' in backbone[2]" in refused(command, architecture)


@pytest.mark.parametrize("command", ["show", "resume", "report"])
def test_what_is_no_run_cannot_be_shown_or_resumed(refused, tmp_path, command):
    assert "does not exist" in refused(command, tmp_path / "absent")
    assert "is not a gpnas run" in refused(command, tmp_path)


def test_a_missing_checkpoint(refused, tmp_path):
    assert "best.pt" in refused("val", tmp_path / "best.pt")


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


def test_the_catalogue_is_listed_beside_the_published_figures(gpnas):
    code, out, _ = gpnas("catalogue")
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["yolov9-c"])
    assert code == 0 and row[1:10] == ["25.29M", "25.3M", "-0.04", "%", "102.14G", "102.1G", "+0.04", "%", "53.0"]
    assert next(line.split() for line in out.splitlines() if "resnext50-csp" in line)[1:3] == ["20.50M", "20.50M"]
    assert "N log N (N log N)" in out and "vovnet-99-elan: nearest" in out
    code, out, _ = gpnas("catalogue", "--json")
    assert {json.loads(line)["name"] for line in out.splitlines()} >= {"gelan-c", "yolor-prn", "yolov5l"}


def test_bench_correlation_reads_a_table_and_writes_features(gpnas, refused, tmp_path):
    cells = ["000000", "000300", "300030", "333333", "111111", "100330", "222222", "000200"]
    rows = "".join(f"{cell},{k * 1.5}\n" for k, cell in enumerate(cells))
    (tmp_path / "cells.csv").write_text("cell,acc\n" + rows)
    out_file = tmp_path / "features.csv"
    code, out, _ = gpnas("bench", "correlation", "--table", tmp_path / "cells.csv", "--json", "--out", out_file)
    told = json.loads(out)
    assert code == 0 and -1 <= told["score"]["acc"]["spearman"] <= 1
    written = out_file.read_text().splitlines()
    assert len(written) == 1 + len(cells) and written[0].startswith("cell,score,capacity")
    (tmp_path / "cells.csv").write_text("cell,acc\n0000009,1\n000000,2\n")
    assert "a cell is six digits" in refused("bench", "correlation", "--table", tmp_path / "cells.csv")
    assert "cannot be read" in refused("bench", "correlation", "--table", tmp_path / "absent.csv")


def test_bench_search_and_surrogate_read_a_table(gpnas, refused, tmp_path):
    cells = [f"{a}{b}{c}{d}30" for a in "0134" for b in "013" for c in "013" for d in "34"]
    rows = "".join(f"{cell},{sum(map(int, cell)) + 0.01 * k},{k}\n" for k, cell in enumerate(cells))
    (tmp_path / "cells.csv").write_text("cell,acc,other\n" + rows)
    table, curves = tmp_path / "cells.csv", tmp_path / "curves.csv"
    code, out, _ = gpnas("bench", "search", "--table", table, "--evaluations", "20", "--seeds", "2", "--out", curves)
    assert code == 0 and "mean regret, acc" in out and "regularised evolution" in out
    assert len(curves.read_text().splitlines()) == 1 + 4 * 20
    code, out, _ = gpnas("bench", "surrogate", "--table", table, "--column", "other", "--draws", "2")
    assert code == 0 and "surrogate, other" in out and "one-hot encoding" in out
    assert "--but 3" in refused("bench", "surrogate", "--table", table, "--but", "3")
    assert "--column nothing" in refused("bench", "search", "--table", table, "--column", "nothing")


def test_bench_surrogate_reads_the_shipped_detectors(gpnas, refused):
    table = Path(__file__).parents[2] / "benchmarks/gp-bench"
    code, out, _ = gpnas("bench", "surrogate", "--table", table, "--but", "150", "--draws", "2")
    assert code == 0 and "surrogate, digits" in out and "Spearman, 20 trained" in out and "nan" not in out
    assert "are needed" in refused("bench", "surrogate", "--table", table, "--but", "199")


def test_bench_published_prints_kendall_for_every_recipe(gpnas):
    code, out, _ = gpnas("bench", "published")
    assert code == 0 and out.count("Kendall with box AP") == 4


def test_a_search_starts_from_a_published_architecture_as_wide_as_the_limits_allow(gpnas, refused, architecture, tmp_path):
    from search_spaces.blueprint import read_blueprint

    run = tmp_path / "run"
    options = ["--budget", "3trials", "--imgsz", "64", "--max-flops", "8M", "--wandb", "off", "--out", run]
    code, out, _ = gpnas("search", "--start", "yolov9-t", *options)
    assert code == 0 and "searching around yolov9-t" in out and "yolov9-t has" in out and "at width_multiple" in out
    shown = json.loads(gpnas("show", run, "--json")[1])
    assert len(shown["trials"]) == 3 and all(trial["flops"] <= 8e6 for trial in shown["trials"])
    best = read_blueprint((run / "best.yaml").read_text())
    assert best.hash == next(trial["hash"] for trial in shown["trials"] if trial["id"] == shown["best"])
    code, out, _ = gpnas("resume", run, "--budget", "4trials")
    assert code == 0 and " evaluations are finished, 0 were under way" in out and len(list((run / "trials").iterdir())) == 4
    assert "leave out --space" in refused("search", "--start", "yolov9-t", "--space", "elan", "--budget", "1trials")
    assert "even at its narrowest" in refused("search", "--start", "yolov9-t", "--max-flops", "1K", "--budget", "1trials")
    assert "beyond the limits" in refused("export", architecture, "--max-flops", "1K")


def test_a_trained_detector_is_measured_as_coco_does_and_predicts_with_boxes_drawn(gpnas, refused, architecture, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data, folder, file = write_coco(tmp_path / "data", images=8), tmp_path / "full", tmp_path / "results.json"
    options = ("--data", data, "--imgsz", "64", "--batch", "4", "--out", folder)
    code, out, _ = gpnas("train", architecture, "--epochs", "40", *options)
    assert code == 0 and "report.html" in out
    page = (folder / "report.html").read_text()
    assert all(text in page for text in ("AP on val", "Precision over recall at IoU 0.5", "Losses", "square", "image/jpeg"))
    code, out, _ = gpnas("val", folder / "best.pt", "--data", data, "--save", file)
    assert code == 0 and "square" in out
    truth = COCO(str(data / "annotations" / "instances_val.json"))
    judge = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert f"val: AP {judge.stats[0]:.3f}  AP50 {judge.stats[1]:.3f}" in out and judge.stats[1] > 0.3
    images = data / "images"
    code, out, _ = gpnas("predict", folder / "best.pt", images, "--score", "0.1", "--out", tmp_path / "seen")
    rows = json.loads((tmp_path / "seen" / "predictions.json").read_text())
    assert code == 0 and "16 images" in out and len(rows) == 16
    found = [row for row in rows if row["boxes"]]
    assert found and all(box["class"] == "square" and box["score"] >= 0.1 for row in found for box in row["boxes"])
    drawn = cv2.imread(str(tmp_path / "seen" / f"{Path(found[0]['file']).name}.jpg"))
    assert drawn.shape == (64, 64, 3) and (drawn.std(axis=2) > 20).any()  # colours on a grey image
    assert gpnas("predict", folder / "best.pt", images / "0.png", "--out", tmp_path / "one")[0] == 0
    assert "no image or folder" in refused("predict", folder / "best.pt", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("predict", folder / "best.pt", tmp_path / "empty")
    assert "--score 2.0" in refused("predict", folder / "best.pt", images, "--score", "2")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "not a readable image" in refused("predict", folder / "best.pt", tmp_path / "broken.png")


def test_export_narrows_a_published_architecture_to_a_limit(gpnas, tmp_path):
    from gpnas.graph.cost import cost
    from search_spaces.architecture import build, classes_of, read_architecture

    file = tmp_path / "small.yaml"
    code, _, err = gpnas("export", "gelan-c", "--max-flops", "300M", "--imgsz", "320", "--classes", "3", "--out", file)
    small = read_architecture(file.read_text())
    flops = cost(build(small).inference(), 320, 320).flops
    assert code == 0 and "at width_multiple" in err and classes_of(small) == 3
    assert 0.8 * 300e6 < flops <= 300e6


def test_export_writes_yaml_that_rebuilds_the_same_network(gpnas, architecture, tmp_path):
    from search_spaces.genotype import read_genotype

    code, _, _ = gpnas("export", architecture, "--out", tmp_path / "copy.yaml")
    assert code == 0
    assert read_genotype((tmp_path / "copy.yaml").read_text()).hash == read_genotype(architecture.read_text()).hash


def test_a_search_from_data_to_best_yaml_then_training_and_validation(gpnas, tmp_path):
    """The whole way on four tiny images; the numbers mean nothing, the files and the hand-overs are what is tested."""
    from gpnas.graph.cost import cost
    from search_spaces.architecture import candidate
    from search_spaces.genotype import read_genotype

    data, run = write_coco(tmp_path / "data"), tmp_path / "run"
    common = ["--data", data, "--imgsz", "64", "--seed", "1"]
    code, out, err = gpnas("search", *common, "--budget", "2trials", "--max-flops", "60M", "--out", run, "--workers", "local:1")
    assert code == 0, err
    assert "best.yaml" in out and "Pareto front" in out
    for name in ("journal.sqlite", "pareto.csv", "best.yaml", "report.html"):
        assert (run / name).is_file()
    assert list((run / "wandb").glob("offline-run-*"))

    genotype = read_genotype((run / "best.yaml").read_text())
    rebuilt = cost(candidate(genotype).graph.inference(), 64, 64)
    assert genotype.found["hash"] == genotype.hash
    assert (genotype.found["cost"]["flops"], genotype.found["cost"]["params"]) == (rebuilt.flops, rebuilt.params)
    assert rebuilt.flops <= 60e6

    code, out, _ = gpnas("show", run, "--json")
    told = json.loads(out)
    assert code == 0 and told["state"] == "done" and len(told["trials"]) == 2
    assert all(trial["state"] == "complete" and trial["flops"] <= 60e6 for trial in told["trials"])

    code, out, err = gpnas("train", run, "--data", data, "--epochs", "2", "--out", tmp_path / "full", "--device", "cpu")
    assert code == 0, err
    assert (tmp_path / "full" / "best.pt").is_file()
    code, out, err = gpnas("val", tmp_path / "full" / "best.pt", "--data", data)
    assert code == 0, err
    assert "AP50" in out


def test_help_loads_nothing_heavy():
    heavy = "torch numpy nni wandb cv2 sklearn pycocotools pydantic moocore"
    script = f"import sys, gpnas.cli; sys.exit(' '.join(m for m in '{heavy}'.split() if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"loaded: {done.stderr}"
