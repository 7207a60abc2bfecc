"""Strict reading: what is refused, and messages that name key, value, bounds and place; canonical lines and their hash."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from gpnas.errors import GenotypeError
from search_spaces.strict_yaml import (
    StrictModel,
    canonical_hash,
    canonical_json,
    keys_of,
    parse_yaml,
    shortened,
    validate,
)

Share = Annotated[float, Field(gt=0, le=1)]


class Wheel(StrictModel):
    spokes: Annotated[int, Field(ge=3, lt=100)]
    share: Share | None = None
    kind: Literal["solid", "air"] = "air"


class Car(StrictModel):
    version: Annotated[int, Field(alias="schema", ge=2, le=2)]
    wheels: Annotated[list[Wheel], Field(min_length=1)]
    spare: Wheel | None = None
    length: Annotated[float, Field(gt=1.5)] = 4
    height: Annotated[float, Field(le=3)] = 2


GOOD: dict[str, Any] = {"schema": 2, "wheels": [{"spokes": 12}, {"spokes": 30, "share": 0.5}]}


def test_a_valid_document_is_read() -> None:
    car = validate(Car, GOOD, "car.yaml")
    assert (car.version, car.wheels[1].share, car.length) == (2, 0.5, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 3}, "schema must lie in [2, 2], got 3"),
        ({"length": 1.5}, "length must lie in (1.5, inf), got 1.5"),
        ({"height": 4}, "height must lie in (-inf, 3], got 4"),
        ({"wheels": [{"spokes": 2}]}, "spokes must lie in [3, 100), got 2 in wheels[0]"),
        ({"wheels": [{"spokes": 9}, {"spokes": 100}]}, "spokes must lie in [3, 100), got 100 in wheels[1]"),
        ({"spare": {"spokes": 9, "share": 0}}, "share must lie in (0, 1], got 0 in spare"),
        ({"spare": {"spokes": 9, "share": 1.5}}, "share must lie in (0, 1], got 1.5 in spare"),
        ({"spare": {"spokes": 9, "kind": "oval"}}, "kind must be one of 'solid' or 'air', got 'oval' in spare"),
        ({"spare": {}}, "missing key 'spokes' in spare"),
        ({"spare": {"spokes": 9, "colour": 1}}, "unknown key 'colour' in spare; remove it or check its spelling"),
        ({"colour": 1}, "unknown key 'colour'; remove it or check its spelling"),
        ({"wheels": []}, "wheels: List should have at least 1 item after validation, not 0, got []"),
        ({"wheels": [{"spokes": True}]}, "spokes: Input should be a valid integer, got True in wheels[0]"),
    ],
)
def test_an_error_names_key_value_bounds_and_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        validate(Car, GOOD | changes, "car.yaml")
    assert str(error.value) == f"car.yaml: {message}"


def test_a_document_that_is_no_mapping_is_an_error() -> None:
    with pytest.raises(GenotypeError, match=r"car.yaml: .* got 'a car'"):
        validate(Car, "a car", "car.yaml")


def test_keys_are_those_of_the_file() -> None:
    assert keys_of(Car) == "schema, wheels, spare, length, height"


@pytest.mark.parametrize("text", ["{a: [1, 2.5, x], b: null}", '{"a": [1, 2.5, "x"], "b": null}', "a:\n- 1\n- 2.5\n- x\nb:\n"])
def test_yaml_in_either_style_and_json_are_the_same(text: str) -> None:
    assert parse_yaml(text, "t") == {"a": [1, 2.5, "x"], "b": None}


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 1\n", "{a: 1, b: 2, a: 3}", '{"b": 2, "a": 1, "a": 3}', "c: {a: 1, a: 2}", '{"c": {"a": 1, "a": 2}}'],
)
def test_a_key_given_twice_is_an_error(text: str) -> None:
    with pytest.raises(GenotypeError, match=r"t\.yaml: not valid YAML: .*key 'a' is given twice"):
        parse_yaml(text, "t.yaml")


def test_merged_keys_may_be_given_again() -> None:
    assert parse_yaml("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n", "t")["y"] == {"a": 1, "b": 3}


def test_yaml_builds_no_python_objects() -> None:
    with pytest.raises(GenotypeError, match="could not determine a constructor"):
        parse_yaml("!!python/object:os.system x", "t")


def test_a_canonical_line_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": [2, None], "a": {"d": 0.5, "c": "é"}}) == '{"a":{"c":"\\u00e9","d":0.5},"b":[2,null]}'
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


def test_a_hash_is_the_beginning_of_sha_256() -> None:
    assert canonical_hash("abc") == "ba7816bf8f01cfea"  # FIPS 180-4, the first example
    assert canonical_hash("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()[:16]


@pytest.mark.parametrize(("length", "expected"), [(58, 60), (59, 60), (500, 60), (3, 5)])
def test_values_in_messages_have_at_most_60_characters(length: int, expected: int) -> None:
    text = shortened("x" * length)  # with two quotation marks
    assert len(text) == expected
    assert text.endswith("...") == (length > 58)
