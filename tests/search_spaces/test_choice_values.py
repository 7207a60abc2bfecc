"""The values of choices: ready spaces and space files narrow them, and errors name the key."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gpnas.errors import GenotypeError
from search_spaces.choice_values import SPACES, narrow, union_values
from search_spaces.gradient_path import GradientPathSpace, open_space
from tests.genotypes import space
from tests.search_spaces.test_gradient_path import stages


def opened(tmp_path: Path, text: str) -> GradientPathSpace:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    return open_space(str(file), 3)


def test_a_space_file_narrows_its_base(tmp_path: Path) -> None:
    narrowed = opened(
        tmp_path, "base: elan\nvalues: {family: [elan], depth: [1], backbone.0.width: [16, 24], pgi.levels: [[8, 16]]}"
    )
    for seed in range(20):
        sample = narrowed.propose([], random.Random(seed))
        assert all((stage["family"], stage["depth"]) == ("elan", 1) for stage in stages(sample))
        assert stages(sample)[0]["width"] in (16, 24)
    assert narrowed.values["pgi.levels"] == [(8, 16)]
    assert narrowed.values["pgi.kind"] == ["none"]


def test_a_space_file_without_a_base_narrows_the_union_space(tmp_path: Path) -> None:
    assert opened(tmp_path, "values: {spp: [none]}").values["spp"] == ["none"]
    assert opened(tmp_path, "base: gradient-path").values == space(small=False).values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("values: [", "not valid YAML"),
        ("- a", "a space file has the keys base and values"),
        ("", "a space file has the keys base and values, got None"),
        ("colour: red", "a space file has the keys base and values"),
        ("base: resnet", "base must be one of gradient-path, prn, csp, elan, gelan, pgi, got 'resnet'"),
        ("values: [1]", r"values must map labels to lists, got \[1\]"),
        ("values: {colour: [1]}", "no choice is named 'colour'; choices end in width, activation"),
        ("values: {depth: 3}", "depth needs a list of at least one value, got 3"),
        ("values: {depth: []}", r"depth needs a list of at least one value, got \[\]"),
        ("values: {fusion: [middle]}", "fusion must be among .*, got 'middle'"),
        ("values: {backbone.0.family: [plain, vgg]}", "backbone.0.family must be among .*, got 'vgg'"),
        ("values: {pgi.levels: [[64]]}", r"pgi.levels must be among .*, got \(64,\)"),
    ],
)
def test_a_bad_space_file_is_an_error_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=f"space.yaml: .*{message}"):
        opened(tmp_path, text)


def test_an_unknown_space_names_the_ready_ones() -> None:
    with pytest.raises(GenotypeError, match="--space resnet: no such space or file; ready spaces are gradient-path, prn"):
        open_space("resnet", 3)


IMPOSSIBLE: list[Mapping[str, Sequence[Any]]] = [
    {"split_ratio": (1.5,)},
    {"backbone.0.depth": (0,)},
    {"head.depth": (8,)},
    {"stem.width": (16.5,)},
    {"stem.width": (True,)},
    {"stem.width": (17, "wide")},
    {"spp": (1,)},
    {"backbone.0.width": (128,), "backbone.1.width": (24,)},
]


@pytest.mark.parametrize("narrowed", IMPOSSIBLE)
def test_values_that_no_genotype_can_have_are_an_error_when_the_space_is_opened(narrowed: Mapping[str, Sequence[Any]]) -> None:
    with pytest.raises(GenotypeError):
        GradientPathSpace(3, narrowed)


@pytest.mark.parametrize("narrowed", [{"family": (1,)}, {"pgi.kind": (1,)}, {"pgi.levels": (8,)}, {"depth": (2, 2)}])
def test_values_of_a_wrong_kind_or_given_twice_are_an_error_too(narrowed: Mapping[str, Sequence[Any]]) -> None:
    with pytest.raises(GenotypeError):
        GradientPathSpace(3, narrowed)


def test_a_full_label_narrows_one_choice_and_an_ending_all_that_end_so() -> None:
    result = narrow(union_values(), {"depth": (3, 1), "neck.2.groups": (8,)}, "space")
    changed = {label: values for label, values in result.items() if values != union_values()[label]}
    depths = {f"{part}.{i}.depth": [1, 3] for part in ("backbone", "neck") for i in range(4)}
    assert changed == depths | {"head.depth": [1, 3], "neck.2.groups": [8]}


def test_the_labels_and_the_number_of_values_of_the_union_space() -> None:
    """8 stages of 10 choices, 4 of them with a downsampling; stem, activation, spp, 3 of the head, 4 of PGI."""
    values = union_values()
    assert len(values) == 8 * 10 + 4 + 3 + 3 + 4
    assert [len(values[f"{part}.{i}.width"]) for part in ("backbone", "neck") for i in range(4)] == [7, 8, 9, 8, 9, 8, 9, 8]
    assert all(list(options) == sorted(options) for label, options in values.items() if label.endswith(("width", "ratio")))


@pytest.mark.parametrize("key", sorted({key for narrowed in SPACES.values() for key in narrowed}))
def test_ready_spaces_narrow_choices_that_exist(key: str) -> None:
    assert any(label == key or label.endswith(f".{key}") for label in union_values())


def test_widths_that_can_only_just_rise_are_accepted() -> None:
    """32 at stage 0 leaves 48 at stage 1 and nothing but 48 at stage 2; one less at stage 2 is an error."""
    widths = {"backbone.0.width": (32,), "backbone.1.width": (24, 48), "backbone.2.width": (32, 48), "backbone.3.width": (64,)}
    assert narrow(union_values(), widths, "space")["backbone.1.width"] == [24, 48]
    with pytest.raises(GenotypeError, match=r"space: backbone.2.width has no value as wide as the stage before it \(48\)"):
        narrow(union_values(), widths | {"backbone.2.width": (32, 40)}, "space")
