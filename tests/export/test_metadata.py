"""What exported files say about themselves, and how it is read again."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from gpnas.errors import InputError
from gpnas.export.metadata import FileFacts, read_facts
from tests.export.detectors import ABOUT


def test_values_are_text_in_the_form_that_ultralytics_reads() -> None:
    strings = replace(ABOUT, names=("it's", 'a "b"', "ä"), batch=4).strings()
    assert all(isinstance(value, str) for value in strings.values())
    assert {key: strings[key] for key in ("task", "stride", "batch", "imgsz", "channels", "end2end")} == {
        "task": "detect",
        "stride": "16",
        "batch": "4",
        "imgsz": "[64, 64]",
        "channels": "3",
        "end2end": "False",
    }
    assert ast.literal_eval(strings["names"]) == {0: "it's", 1: 'a "b"', 2: "ä"}
    assert ast.literal_eval(strings["args"]) == {"batch": 4, "dynamic": False, "nms": False}


def test_a_file_without_trained_weights_says_so() -> None:
    assert ABOUT.strings()["description"] == "gpnas detector of small.yaml, not trained: its weights are random"
    assert ABOUT.strings()["weights"] == "random (seed 0)"
    assert replace(ABOUT, is_trained=True).strings()["description"] == "gpnas detector of small.yaml, trained"


@pytest.mark.parametrize("nms", [False, True])
def test_what_was_written_is_read(nms: bool) -> None:
    strings = replace(ABOUT, nms=nms).strings()
    assert read_facts(strings, "x.onnx") == FileFacts(("red", "green", "blue"), 64, nms, "random (seed 0)")


def test_files_of_other_programs_are_read_by_the_same_keys() -> None:
    theirs = {"names": "{0: 'cat', 1: 'dog'}", "imgsz": "[320, 320]", "args": "{'nms': True}"}
    assert read_facts(theirs, "x.onnx") == FileFacts(("cat", "dog"), 320, True, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": None}, r"^x\.onnx: its metadata have no names; export it again with `gpnas export --format onnx`$"),
        ({"imgsz": "wide"}, r"^x\.onnx: its metadata have imgsz 'wide'; export it again"),
        ({"imgsz": "[64, 96]"}, r"^x\.onnx: its input has 64 x 96 pixels; gpnas runs files with square inputs only$"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, str | None], message: str) -> None:
    strings = {key: value for key, value in (ABOUT.strings() | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        read_facts(strings, "x.onnx")


def test_a_batch_below_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--batch 0: must be at least 1; for any number of images give --dynamic$"):
        replace(ABOUT, batch=0)
