"""The genotype's YAML: it rebuilds exactly, it is read strictly, and its hash is that of the choices alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from gpnas.errors import EXIT_BAD_INPUT, GenotypeError
from gpnas.graph.graph import Graph
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate
from search_spaces.detector import build_detector
from search_spaces.genotype import read_genotype
from tests.genotypes import genotypes, space

Document = dict[str, Any]

sampling = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)

TEXT = """
schema: 1
activation: silu
stem: {width: 16}
backbone:
- {family: plain, width: 16, depth: 1, downsample: strided}
- {family: masked_residual, width: 24, depth: 2, hidden_ratio: 0.5, mask_ratio: 0.25, downsample: max_pool}
- {family: csp, width: 32, depth: 1, unit: residual, split_ratio: 0.5, hidden_ratio: 0.5, fusion: last, downsample: aconv}
- {family: elan, width: 48, depth: 1, repeats: 2, split_ratio: 0.5, hidden_ratio: 0.5, downsample: adown}
spp: sppf
neck:
  top_down:
  - {family: osa, width: 32, depth: 2, repeats: 1, hidden_ratio: 0.25}
  - {family: dense, width: 24, depth: 2, hidden_ratio: 0.5}
  bottom_up:
  - {family: gelan, width: 32, depth: 1, repeats: 1, unit: rep_residual, split_ratio: 0.5, hidden_ratio: 0.5}
  - {family: csp, width: 48, depth: 1, unit: masked_residual, split_ratio: 0.5, hidden_ratio: 0.5, mask_ratio: 0.5, fusion: csp}
head: {classes: 3, width: 16, depth: 1, reg_max: 16}
pgi: {kind: reversible, levels: [8, 32], integration: multi, weight: 0.25}
"""


def document() -> Document:
    result: Document = yaml.safe_load(TEXT)
    return result


@sampling
@given(genotypes(small=False))
def test_yaml_rebuilds_the_same_genotype_and_the_same_graph(proposed: Candidate) -> None:
    genotype = read_genotype(proposed.genotype)
    again = read_genotype(genotype.to_yaml(found={"ap": 0.5}))
    assert again.hash == genotype.hash == proposed.hash
    assert build_detector(again).hash == proposed.graph.hash
    assert read_genotype(again.to_json()) == genotype


def test_yaml_by_hand_rebuilds_too() -> None:
    genotype = read_genotype(TEXT)
    assert yaml.safe_load(genotype.to_yaml()) == document()
    assert read_genotype(genotype.to_yaml()) == genotype


def test_found_is_kept_and_does_not_change_the_hash() -> None:
    found = {"run": "runs/7", "ap": 0.41, "seed": 0}
    genotype = read_genotype(read_genotype(TEXT).to_yaml(found))
    assert genotype.found == found
    assert genotype.hash == read_genotype(TEXT).hash


def test_order_of_keys_comments_and_writing_do_not_change_the_hash() -> None:
    def reversed_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reversed_keys(value[key]) for key in reversed(value)}
        return [reversed_keys(item) for item in value] if isinstance(value, list) else value

    expected = read_genotype(TEXT).hash
    assert read_genotype(yaml.safe_dump(reversed_keys(document()), sort_keys=False)).hash == expected
    assert read_genotype("# found by hand\n" + TEXT.replace("0.5", "5.0e-1")).hash == expected
    assert read_genotype(json.dumps(document())).hash == expected


def test_a_default_that_is_written_out_does_not_change_the_hash() -> None:
    short = document()
    del short["activation"], short["head"]["reg_max"]
    assert read_genotype(yaml.safe_dump(short)).hash == read_genotype(TEXT).hash


def test_an_integer_is_a_ratio_too() -> None:
    whole, real = document(), document()
    whole["backbone"][3]["split_ratio"], real["backbone"][3]["split_ratio"] = 1, 1.0
    assert read_genotype(yaml.safe_dump(whole)).hash == read_genotype(yaml.safe_dump(real)).hash


CHANGES: list[Callable[[Document], object]] = [
    lambda d: d.update(activation="relu"),
    lambda d: d.update(spp="none"),
    lambda d: d["stem"].update(width=24),
    lambda d: d["backbone"][0].update(width=20),
    lambda d: d["backbone"][0].update(depth=2),
    lambda d: d["backbone"][0].update(downsample="max_pool"),
    lambda d: d["backbone"][1].update(mask_ratio=0.5),
    lambda d: d["backbone"][2].update(fusion="first"),
    lambda d: d["backbone"][2].update(unit="plain"),
    lambda d: d["backbone"][3].update(repeats=1),
    lambda d: d["backbone"][3].update(split_ratio=0.75),
    lambda d: d["neck"]["top_down"][1].update(hidden_ratio=1.0),
    lambda d: d["neck"]["top_down"].reverse(),
    lambda d: d["head"].update(classes=4),
    lambda d: d["head"].update(depth=2),
    lambda d: d["head"].update(reg_max=8),
    lambda d: d["pgi"].update(weight=0.5),
    lambda d: d["pgi"].update(levels=[8, 16, 32]),
    lambda d: d["pgi"].update(integration="own"),
    lambda d: d.update(pgi={"kind": "none"}),
]


def test_every_choice_changes_the_hash_and_the_graph() -> None:
    built: list[tuple[str, Graph]] = []
    for change in CHANGES:
        changed = document()
        change(changed)
        genotype = read_genotype(yaml.safe_dump(changed))
        built.append((genotype.hash, build_detector(genotype)))
    assert len({text for text, _ in built}) == len(CHANGES)
    assert len({graph.hash for _, graph in built}) == len(CHANGES)
    assert read_genotype(TEXT).hash not in {text for text, _ in built}


WRONG: list[tuple[Callable[[Document], object], str]] = [
    (lambda d: d["backbone"][2].update(split_ratio=1.5), "split_ratio must lie in (0, 1], got 1.5 in backbone[2]"),
    (lambda d: d["backbone"][2].update(split_ratio=0), "split_ratio must lie in (0, 1], got 0 in backbone[2]"),
    (lambda d: d["backbone"][1].update(mask_ratio=-0.1), "mask_ratio must lie in (0, 1), got -0.1 in backbone[1]"),
    (lambda d: d["backbone"][3].update(hidden_ratio=float("nan")), "hidden_ratio must lie in (0, 1], got nan in backbone[3]"),
    (lambda d: d["neck"]["top_down"][1].update(depth=0), "depth must lie in [1, 32], got 0 in neck.top_down[1]"),
    (lambda d: d["stem"].update(width=3), "width must lie in [4, 4096], got 3 in stem"),
    (lambda d: d["head"].update(depth=5), "depth must lie in [0, 4], got 5 in head"),
    (lambda d: d["head"].update(classes=0), "classes must lie in [1, 10000], got 0 in head"),
    (lambda d: d["pgi"].update(weight=0), "weight must lie in (0, 10], got 0 in pgi"),
    (lambda d: d.update(colour="red"), "unknown key 'colour'; remove it or check its spelling"),
    (lambda d: d["backbone"][0].update(widht=8), "unknown key 'widht' in backbone[0]; remove it or check its spelling"),
    (lambda d: d["backbone"][0].update(channel_step=2), "unknown key 'channel_step' in backbone[0]"),
    (lambda d: d["neck"]["bottom_up"][0].update(downsample="adown"), "unknown key 'downsample' in neck.bottom_up[0]"),
    (lambda d: d.pop("head"), "missing key 'head'"),
    (lambda d: d["backbone"][1].pop("width"), "missing key 'width' in backbone[1]"),
    (lambda d: d["backbone"][1].pop("mask_ratio"), "family masked_residual needs mask_ratio; add it in backbone[1]"),
    (lambda d: d["backbone"][0].update(repeats=2), "repeats has no effect in family plain; remove it in backbone[0]"),
    (
        lambda d: d["backbone"][2].update(mask_ratio=0.5),
        "mask_ratio has no effect in family csp with unit residual; remove it in backbone[2]",
    ),
    (lambda d: d["neck"]["bottom_up"][1].pop("mask_ratio"), "family csp needs mask_ratio; add it in neck.bottom_up[1]"),
    (lambda d: d.update(pgi={"kind": "none", "weight": 0.1}), "weight has no effect in kind none; remove it in pgi"),
    (lambda d: d["pgi"].pop("levels"), "kind reversible needs levels; add it in pgi"),
    (lambda d: d["pgi"].update(levels=[32, 8]), "levels must be rising strides out of 8, 16, 32, got [32, 8] in pgi.levels"),
    (lambda d: d["pgi"].update(levels=[]), "levels must be rising strides out of 8, 16, 32, got [] in pgi.levels"),
    (lambda d: d["pgi"].update(levels=[4]), "levels must be rising strides out of 8, 16, 32, got [4] in pgi.levels"),
    (lambda d: d.update(activation="gelu"), "activation must be one of 'silu', 'relu' or 'leaky_relu', got 'gelu'"),
    (lambda d: d["backbone"][0].update(width=True), "width: Input should be a valid integer, got True in backbone[0]"),
    (lambda d: d["backbone"][0].update(width=16.0), "width: Input should be a valid integer, got 16.0 in backbone[0]"),
    (lambda d: d["backbone"][0].update(width="16"), "width: Input should be a valid integer, got '16' in backbone[0]"),
    (lambda d: d["backbone"].pop(), "backbone must have 4 stages with levels 3-5, got 3"),
    (lambda d: d.update(schema=2), "schema must be 1, got 2; this file is of another gpnas version"),
    (lambda d: d.update(schema=True), "schema: Input should be a valid integer, got True"),
    (lambda d: d.pop("schema"), "schema must be 1, got None"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG, ids=[message for _, message in WRONG])
def test_an_impossible_genotype_is_one_line_that_names_key_value_and_place(
    spoil: Callable[[Document], object], message: str
) -> None:
    spoilt = document()
    spoil(spoilt)
    with pytest.raises(GenotypeError) as error:
        read_genotype(yaml.safe_dump(spoilt), "best.yaml")
    assert str(error.value).startswith("best.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with the keys schema, activation, stem"),
        ("- a\n- b", r"got \['a', 'b'\]"),
        ("yolov9", "expected a mapping .* got 'yolov9'"),
        ("backbone: [", "not valid YAML: while parsing a flow node"),
        ("a: b: c", "not valid YAML: mapping values are not allowed here"),
        ('{"schema": 1', "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("schema: 1\nfound: !!python/object:os.system x", "not valid YAML: could not determine a constructor"),
    ],
)
def test_text_that_is_no_genotype_is_an_error(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        read_genotype(text)


def test_an_impossible_date_is_an_error_of_the_genotype() -> None:
    with pytest.raises(GenotypeError):
        read_genotype(TEXT + "found: {when: 2026-02-30}\n")


def test_a_genotype_in_flow_style_is_yaml() -> None:
    flow = yaml.safe_dump(document(), default_flow_style=True, width=10000)
    assert flow.startswith("{") and read_genotype(flow).hash == read_genotype(TEXT).hash


def test_a_key_that_is_given_twice_is_an_error() -> None:
    with pytest.raises(GenotypeError):
        read_genotype(TEXT + "stem: {width: 64}\n")


def test_a_key_that_is_given_twice_is_an_error_in_json_too() -> None:
    text = read_genotype(TEXT).to_json()
    with pytest.raises(GenotypeError, match="'stem' is given twice"):
        read_genotype(text.removesuffix("}") + ',"stem":{"width":64}}')


def test_stages_that_share_choices_may_be_merged() -> None:
    merged = TEXT.replace("- {family: plain,", "- &first {family: plain,").replace(
        "- {family: masked_residual, width: 24, depth: 2, hidden_ratio: 0.5, mask_ratio: 0.25, downsample: max_pool}",
        "- {<<: *first, width: 24}",
    )
    assert read_genotype(merged).backbone[1].width == 24


@pytest.mark.parametrize("text", ["[" * 3000, '{"schema":' + "[" * 200_000])
def test_text_that_is_nested_too_deeply_is_an_error(text: str) -> None:
    with pytest.raises(GenotypeError):
        read_genotype(text)


def test_a_split_that_leaves_no_channels_is_an_error_of_the_genotype() -> None:
    thin = document()
    thin["backbone"][2]["width"] = 4  # with fusion last, 4 channels for the crossing path and none for the units
    with pytest.raises(GenotypeError):
        space().read(yaml.safe_dump(thin))


def test_a_candidate_carries_its_text_hash_and_graph() -> None:
    made = candidate(read_genotype(TEXT))
    assert space().read(made.genotype) == made
    assert made.hash == read_genotype(made.genotype).hash
    assert made.graph == build_detector(read_genotype(TEXT))
