"""`gpnas catalogue` and `export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpnas.graph.cost import deployed_cost
from search_spaces.architecture import build, classes_of, read_architecture
from search_spaces.blueprint import catalogue, open_catalogue
from tests.cli.conftest import Gpnas

SHOWN = ("resnext50-csp", "sparse-densenet", "vovnet-99-elan", "yolov9-t")
"""A classifier with published convolution weights, two families with published growth and a detector."""


def test_the_catalogue_is_listed_beside_the_published_figures(gpnas: Gpnas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.blueprint.catalogue", lambda: SHOWN)
    code, out, _ = gpnas("catalogue")
    words = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert code == 0 and words["yolov9-t"][1:3] == ["2.00M", "2.0M"]
    assert words["resnext50-csp"][1:3] == ["20.50M", "20.50M"]
    assert "N log N (N log N)" in out and "vovnet-99-elan: nearest" in out
    code, out, _ = gpnas("catalogue", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0 and tuple(rows) == SHOWN
    assert rows["yolov9-t"]["params"] == 2_001_824 and rows["yolov9-t"]["published"]["params"] == "2.0M"
    assert rows["sparse-densenet"]["growth"] == {
        "parameters": "N log N",
        "shortest_path": "log N",
        "aggregated_features": "log N",
    }
    assert [name for name in SHOWN if "convolution_weights" in rows[name]] == ["resnext50-csp"]


@pytest.mark.slow
def test_every_entry_of_the_catalogue_is_listed(gpnas: Gpnas) -> None:
    code, out, _ = gpnas("catalogue")
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["yolov9-c"])
    assert code == 0 and row[1:10] == ["25.29M", "25.3M", "-0.04", "%", "102.14G", "102.1G", "+0.04", "%", "53.0"]
    assert all(name in out for name in catalogue())


def test_export_narrows_a_published_architecture_to_a_limit(gpnas: Gpnas, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    code, out, err = gpnas("export", "gelan-t", "--max-flops", "300M", "--imgsz", "320", "--classes", "3", "--out", file)
    small = read_architecture(file.read_text())
    flops = deployed_cost(build(small), 320).flops
    assert (code, out) == (0, "") and "; narrowed to 0.3" in err and classes_of(small) == 3
    assert 0.98 * 300e6 <= flops <= 300e6


def test_an_export_goes_to_standard_output_alone(gpnas: Gpnas) -> None:
    code, out, err = gpnas("export", "gelan-t", "--classes", "3")
    assert code == 0 and classes_of(read_architecture(out)) == 3
    assert err == "the architecture has a head for 80 classes; it gets one for the 3 classes of the data\n"


def test_export_writes_yaml_that_rebuilds_the_same_network(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    assert gpnas("export", architecture, "--out", tmp_path / "copy.yaml") == (0, "", "")
    assert read_architecture((tmp_path / "copy.yaml").read_text()).hash == read_architecture(architecture.read_text()).hash
    assert gpnas("export", "yolov9-t", "--out", tmp_path / "copy.yaml")[0] == 0
    assert read_architecture((tmp_path / "copy.yaml").read_text()).hash == open_catalogue("yolov9-t").hash
    assert {path.name for path in tmp_path.glob("copy*")} == {"copy.yaml"}


def test_export_of_a_run_is_its_best_a_trial_or_its_best_yaml_fitted_to_other_classes(
    gpnas: Gpnas, run: Path, genotype: str
) -> None:
    best, other = (read_architecture(gpnas("export", run, *options)[1]).found for options in ((), ("--trial", "0")))
    assert best is not None and best["trial"] == 1
    assert other is not None and other["trial"] == 0
    (run / "best.yaml").write_text(genotype)
    assert classes_of(read_architecture(gpnas("export", run, "--classes", "5")[1])) == 5
    assert gpnas("export", run, "--max-params", "1")[0] == 2  # best.yaml is no blueprint, which could be narrowed
