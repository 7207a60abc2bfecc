"""`gpnas catalogue` and `export`."""

import json


def test_the_catalogue_is_listed_beside_the_published_figures(gpnas):
    code, out, _ = gpnas("catalogue")
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["yolov9-c"])
    assert code == 0 and row[1:10] == ["25.29M", "25.3M", "-0.04", "%", "102.14G", "102.1G", "+0.04", "%", "53.0"]
    assert next(line.split() for line in out.splitlines() if "resnext50-csp" in line)[1:3] == ["20.50M", "20.50M"]
    assert "N log N (N log N)" in out and "vovnet-99-elan: nearest" in out
    code, out, _ = gpnas("catalogue", "--json")
    assert {json.loads(line)["name"] for line in out.splitlines()} >= {"gelan-c", "yolor-prn", "yolov5l"}


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
