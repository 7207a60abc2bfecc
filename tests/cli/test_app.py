"""The command line as a whole: its commands, its version, its errors and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
import yaml

from gpnas import __version__
from gpnas.errors import InputError, JournalError
from tests.cli.conftest import Gpnas, Refused

COMMANDS = ("data", "search", "resume", "show", "report", "export", "analyze", "catalogue", "bench", "train", "val", "predict")


def test_help_lists_the_commands(gpnas: Gpnas) -> None:
    code, out, _ = gpnas("--help")
    assert code == 0 and all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(gpnas: Gpnas, command: str) -> None:
    code, out, err = gpnas(command, "--help")
    assert (code, err) == (0, "") and "Usage:" in out


def test_the_version_is_printed(gpnas: Gpnas) -> None:
    assert gpnas("--version") == (0, f"gpnas {__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("--x 3:\n  must be 2"), 2, "gpnas: --x 3: must be 2\n"),
        (JournalError("damaged"), 1, "gpnas: damaged\n"),
        (typer.Abort(), 1, "gpnas: stopped\n"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    gpnas: Gpnas, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(source: str) -> None:
        raise error

    monkeypatch.setattr("gpnas.cli.export.read_source", fail)
    assert gpnas("export", "yolov9-t") == (code, "", line)


def test_an_error_that_gpnas_does_not_raise_on_purpose_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpnas.cli.app import main

    def fail(source: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gpnas.cli.export.read_source", fail)
    monkeypatch.setattr("sys.argv", ["gpnas", "export", "yolov9-t"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_usage_errors_are_one_line(refused: Refused) -> None:
    assert "No such option" in refused("search", "--budget", "1m", "--nonsense")
    assert "No such command" in refused("dance")
    assert "--budget" in refused("search")


@pytest.mark.parametrize("command", ["train", "analyze", "export"])
def test_an_architecture_with_a_bad_key_or_ratio(refused: Refused, architecture: Path, command: str) -> None:
    document = yaml.safe_load(architecture.read_text())
    document["backbone"][2] |= {"split_ratio": 1.5}
    architecture.write_text(yaml.safe_dump(document))
    assert "split_ratio must lie in (0, 1], got 1.5 in backbone[2]" in refused(command, architecture)
    document["backbone"][2] |= {"split_ratio": 0.5, "colour": "red"}
    architecture.write_text(yaml.safe_dump(document))
    assert "unknown key 'colour' in backbone[2]" in refused(command, architecture)
