"""Fixtures that run the command line in this process."""

import json
import sys

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


@pytest.fixture
def architecture(tmp_path):
    """A small architecture, as YAML."""
    from search_spaces.gradient_path import open_space

    path = tmp_path / "small.yaml"
    space = open_space("gradient-path", classes=1)
    path.write_text(yaml.safe_dump(json.loads(space.smallest().genotype)))
    return path
