"""Fixtures that run the command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import pytest

from gpnas.cli.app import main
from gpnas.run.journal import Journal, TrialRow
from gpnas.search.trial import Evaluation, Fidelity, Origin, TrialState
from tests.settings import run_settings


class Gpnas(Protocol):
    """Runs `gpnas` with these arguments: (exit code, stdout, stderr)."""

    def __call__(self, *arguments: object) -> tuple[int, str, str]: ...


class Refused(Protocol):
    """Runs `gpnas` with arguments that must be refused by exit code 2 and exactly one line on stderr, which is returned."""

    def __call__(self, *arguments: object) -> str: ...


@pytest.fixture
def gpnas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gpnas:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpnas", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def refused(gpnas: Gpnas) -> Refused:
    def run(*arguments: object) -> str:
        code, _, err = gpnas(*arguments)
        assert code == 2, err
        assert err.count("\n") == 1 and err.startswith("gpnas: ")
        return err

    return run


@pytest.fixture(scope="session")
def genotype() -> str:
    """The smallest architecture of the space for two classes."""
    from search_spaces.gradient_path import open_space

    return open_space("gradient-path", classes=2).smallest().genotype


@pytest.fixture
def architecture(tmp_path: Path, genotype: str) -> Path:
    """A YAML of `genotype`."""
    from search_spaces.architecture import read_architecture

    path = tmp_path / "small.yaml"
    path.write_text(read_architecture(genotype).to_yaml())
    return path


@pytest.fixture
def run(tmp_path: Path, genotype: str) -> Path:
    """A run with trial 0 measured at AP 0.25, trial 1 at 0.5, and trial 2 not measured."""
    run = tmp_path / "run"
    with Journal.create(run, run_settings(imgsz=96).to_json()) as journal:
        for i in range(3):
            journal.add_trial(TrialRow(i, f"hash{i}", genotype, Origin("sample"), i / 7, 10, 20 + i))
        for i, ap in ((0, 0.25), (1, 0.5)):
            journal.start_evaluation(i, 0, Fidelity(2, 64 + 32 * i))
            journal.finish_evaluation(i, 0, Evaluation(TrialState.COMPLETE, {"ap": ap}))
    for i in range(4):
        (run / "trials" / str(i)).mkdir(parents=True)
    return run


@pytest.fixture
def evaluators(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Searches train nothing and look at few candidates; the scripted evaluators that they make."""
    from tests.cli.untrained import scripted_evaluators

    return scripted_evaluators(monkeypatch)
