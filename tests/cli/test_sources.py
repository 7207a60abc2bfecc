"""The sources of an architecture: catalogue names, YAML files, runs and their trials."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gpnas.cli import sources
from gpnas.errors import InputError, LimitError
from gpnas.graph.cost import deployed_cost
from gpnas.run.journal import Journal
from gpnas.search.limits import Limits
from search_spaces.architecture import build, classes_of, has_anchors, read_architecture
from search_spaces.blueprint import Blueprint, open_catalogue
from search_spaces.neighbourhood import Neighbourhood
from tests.settings import run_settings


def test_an_architecture_is_named_in_four_ways(run: Path, genotype: str, tmp_path: Path) -> None:
    expected = read_architecture(genotype).hash
    (tmp_path / "own.yaml").write_text(genotype)
    (run / "best.yaml").write_text(genotype)
    for source in (tmp_path / "own.yaml", run, run / "trials" / "2"):
        assert sources.read_source(str(source)).hash == expected
        assert sources.candidate_of(str(source)).hash == expected
    assert sources.read_source("yolov9-t").hash == open_catalogue("yolov9-t").hash


def test_a_file_comes_before_a_catalogue_name(tmp_path: Path, genotype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov9-t").write_text(genotype)
    assert sources.read_source("yolov9-t").hash == read_architecture(genotype).hash


def test_a_run_is_read_while_its_search_goes_on(run: Path, genotype: str) -> None:
    with Journal.open(run, write=True):
        assert sources.read_source(str(run / "trials" / "0")).hash == read_architecture(genotype).hash
        assert "trial: 1" in sources.trial_yaml(run, None)


def test_what_is_no_source_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing: no such file, run or architecture; the catalogue has darknet53, "):
        sources.read_source("nothing")
    with pytest.raises(InputError, match=r"run: the run has no trial 3; it has trials 0 to 2"):
        sources.read_source(str(run / "trials" / "3"))
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"image.yaml: cannot be read as an architecture YAML"):
        sources.read_source(str(tmp_path / "image.yaml"))


def test_the_yaml_of_a_run_is_that_of_its_best_or_of_a_measured_trial(run: Path) -> None:
    best, other = (read_architecture(sources.trial_yaml(run, trial_id)) for trial_id in (None, 0))
    assert best.found is not None and other.found is not None
    assert (best.found["trial"], best.found["measured"]) == (1, {"ap": 0.5, "epochs": 2, "imgsz": 96})
    assert (other.found["trial"], other.found["measured"]) == (0, {"ap": 0.25, "epochs": 2, "imgsz": 64})
    assert sources.searched_imgsz(best) == 96


def test_a_trial_that_was_not_measured_has_a_yaml_without_metrics(run: Path) -> None:
    found = read_architecture(sources.trial_yaml(run, 2)).found
    assert found is not None and (found["trial"], found["origin"], found["hash"]) == (2, "sample", "hash2")
    assert found["cost"] == {"flops": 44, "params": 10, "imgsz": 96} and "measured" not in found


def test_a_run_whose_best_yaml_is_not_written_yet_has_a_best(run: Path) -> None:
    assert not (run / "best.yaml").exists()
    found = sources.read_source(str(run)).found
    assert found is not None and found["trial"] == 1


def test_a_run_without_results_has_no_best(tmp_path: Path) -> None:
    Journal.create(tmp_path / "empty", run_settings().to_json()).close()
    with pytest.raises(InputError, match=r"empty: no trial is measured yet; `gpnas show .*empty` tells how far it is"):
        sources.trial_yaml(tmp_path / "empty", None)
    with pytest.raises(InputError, match=r"empty: the run has no trial 0; it has none yet"):
        sources.trial_yaml(tmp_path / "empty", 0)


def test_an_architecture_that_no_search_found_is_for_640_pixels(genotype: str) -> None:
    architecture = read_architecture(genotype)
    assert sources.searched_imgsz(architecture) == 640
    written_by_hand = architecture.to_yaml({"cost": {"imgsz": "large"}})
    assert sources.searched_imgsz(read_architecture(written_by_hand)) == 640


def test_a_blueprint_is_narrowed_to_limits_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = open_catalogue("yolov9-t")
    full = deployed_cost(build(tiny), 64)
    assert sources.narrowed(tiny, "yolov9-t", Limits(full.flops, full.params), 64) is tiny
    assert capsys.readouterr() == ("", "")
    small = sources.narrowed(tiny, "yolov9-t", Limits(full.flops / 2, None), 64, stderr=True)
    assert isinstance(small, Blueprint)
    cost = deployed_cost(build(small), 64)
    assert 0.98 * full.flops / 2 <= cost.flops <= full.flops / 2
    out, err = capsys.readouterr()
    assert out == ""
    size = f"{full.flops / 1e9:.3f}G FLOPs at 64 pixels and {full.params / 1e6:.3f}M parameters"
    used = f"{200 * cost.flops / full.flops:.1f} % of the limit"
    assert err == f"yolov9-t has {size}; narrowed to {cost.flops / 1e9:.3f}G ({used}) and {cost.params / 1e6:.3f}M\n"
    sources.narrowed(tiny, "yolov9-t", Limits(full.flops / 2, None), 64)
    assert capsys.readouterr() == (err, "")


@pytest.mark.parametrize(
    ("flops", "params", "told"),
    [
        (0.5, 0.25, r"narrowed to 0\.\d{3}G and \d\.\d{3}M \((9[89]\.\d|100\.0) % of the limit\)\n$"),
        (0.25, 0.5, r"narrowed to 0\.\d{3}G \((9[89]\.\d|100\.0) % of the limit\) and \d\.\d{3}M\n$"),
        (None, 0.5, r"narrowed to 0\.\d{3}G and \d\.\d{3}M \((9[89]\.\d|100\.0) % of the limit\)\n$"),
    ],
)
def test_the_message_tells_how_much_of_the_binding_limit_is_used(
    flops: float | None, params: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = open_catalogue("gelan-t")
    full = deployed_cost(build(tiny), 64)
    sources.narrowed(tiny, "gelan-t", Limits(flops and flops * full.flops, params * full.params), 64)
    assert re.search(told, capsys.readouterr().out)


def test_a_genotype_beyond_the_limits_is_refused(genotype: str) -> None:
    with pytest.raises(LimitError, match=r"mine: has .*G FLOPs at 64 pixels and .*M parameters, beyond the limits; raise them"):
        sources.narrowed(read_architecture(genotype), "mine", Limits(None, 5.0), 64)


def test_a_head_is_changed_to_the_classes_of_the_data_with_a_message(genotype: str, capsys: pytest.CaptureFixture[str]) -> None:
    two = read_architecture(genotype)
    assert sources.for_classes(two, 2) is two
    assert capsys.readouterr() == ("", "")
    assert classes_of(sources.for_classes(two, 5)) == 5
    message = "the architecture has a head for 2 classes; it gets one for the 5 classes of the data\n"
    assert capsys.readouterr() == (message, "")
    sources.for_classes(two, 5, stderr=True)
    assert capsys.readouterr() == ("", message)


def test_heads_with_anchors_are_replaced_even_for_the_same_classes(capsys: pytest.CaptureFixture[str]) -> None:
    anchors = open_catalogue("yolov5l")
    assert has_anchors(anchors)
    decoupled = sources.for_classes(anchors, classes_of(anchors))
    assert not has_anchors(decoupled) and classes_of(decoupled) == classes_of(anchors)
    assert capsys.readouterr().out == (
        f"the published heads with anchors are replaced by a decoupled head for {classes_of(anchors)} classes\n"
    )


def test_a_blueprint_is_searched_in_its_neighbourhood_and_nothing_else(genotype: str) -> None:
    assert isinstance(sources.space_around("gradient-path", open_catalogue("yolov9-t"), 3), Neighbourhood)
    space = sources.space_around("elan", read_architecture(genotype), 3)
    assert json.loads(space.smallest().genotype)["head"]["classes"] == 3
    with pytest.raises(InputError, match="--space elan: a published architecture is searched in its own neighbourhood"):
        sources.space_around("elan", open_catalogue("yolov9-t"), 3)
