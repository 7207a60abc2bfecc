"""Input that people gave: one line that names the value and the remedy, exit code 2, before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco

MODULES = """
import torch

network = torch.nn.Conv2d(3, 4, 3)
number = 7

def needs(width):
    return torch.nn.Conv2d(3, width, 3)

def raises():
    raise KeyError("no such weights")
"""


@pytest.mark.parametrize("command", [["train", "gelan-t"], ["val", "best.pt"], ["predict", "best.pt", "photos"]])
def test_an_image_size_of_two_numbers_is_named(refused: Refused, command: list[str]) -> None:
    told = "gpnas: --imgsz 640x480: must be a number of pixels; images are square, so give one number such as 640\n"
    assert refused(*command, "--imgsz", "640x480") == told


def test_an_image_size_of_two_numbers_is_named_by_search_and_export_too(refused: Refused) -> None:
    assert "--imgsz 640x480" in refused("search", "--budget", "1trials", "--imgsz", "640x480")
    assert "--imgsz 1e3" in refused("export", "gelan-t", "--imgsz", "1e3")


def test_an_image_size_of_0_is_not_the_default(refused: Refused, tmp_path: Path) -> None:
    told = refused("train", "gelan-t", "--data", write_coco(tmp_path / "data"), "--imgsz", 0)
    assert "--imgsz 0: must be a positive multiple of 32; try 32" in told


@pytest.mark.parametrize(("option", "value"), [("--epochs", "many"), ("--seed", "0.5"), ("--patience", "")])
def test_a_usage_error_names_the_value(refused: Refused, option: str, value: str) -> None:
    told = refused("train", "gelan-t", option, value)
    assert option in told and value in told


def test_a_size_that_the_strides_do_not_divide_names_one_that_works(refused: Refused) -> None:
    assert refused("analyze", "gelan-t", "--input", "3x650x330").endswith("; try 3x640x320\n")
    assert refused("analyze", "gelan-t", "--input", "3x16x48").endswith("; try 3x32x64\n")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("needs", "needs: failed when it was called without arguments (TypeError: needs() missing 1 required positional"),
        ("raises", "raises: failed when it was called without arguments (KeyError: 'no such weights')"),
        ("number", "number: is int; give a torch.nn.Module, or a callable that returns one"),
        ("absent", "absent: cannot be imported (AttributeError: "),
    ],
)
def test_a_callable_that_fails_is_named(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    (tmp_path / "bad_input_modules.py").write_text(MODULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert f"gpnas: bad_input_modules:{told}" in refused("analyze", f"bad_input_modules:{name}", "--input", "3x32x32")


def test_a_module_that_cannot_be_imported_is_named(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_input_syntax.py").write_text("def network(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "bad_input_syntax:network: cannot be imported (SyntaxError" in refused("analyze", "bad_input_syntax:network")
    assert "./mods:network: cannot be imported (" in refused("analyze", "./mods:network")


def test_files_are_written_into_folders_that_were_not_there(gpnas: Gpnas, tmp_path: Path) -> None:
    code, _, err = gpnas("export", "gelan-t", "--out", tmp_path / "new" / "a.yaml")
    assert (code, err) == (0, "") and (tmp_path / "new" / "a.yaml").read_text().startswith("schema: 1")
    code, _, err = gpnas("analyze", "plain", "--input", "3x32x32", "--timeline", tmp_path / "other" / "a.svg")
    assert (code, err) == (0, "") and (tmp_path / "other" / "a.svg").read_text().startswith("<svg")


def test_a_file_in_place_of_a_folder_is_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"--out: the folder {tmp_path}/file cannot be made" in refused(
        "export", "gelan-t", "--out", tmp_path / "file" / "a.yaml"
    )
    told = refused("val", tmp_path / "best.pt", "--save", tmp_path)
    assert told == f"gpnas: --save {tmp_path}: is a folder; give the path of a file\n"
