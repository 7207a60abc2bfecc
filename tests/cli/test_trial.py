"""`--trial` and `--start-trial`: a trial of a run as the source of an architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpnas.run.journal import Journal, TrialRow
from gpnas.run.settings import RunSettings
from gpnas.search.trial import Evaluation, Fidelity, Origin, TrialState
from search_spaces.architecture import candidate, read_architecture
from search_spaces.gradient_path import open_space
from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco
from tests.cli.untrained import Untrained, search
from tests.settings import run_settings

FAMILIES = ("prn", "csp", "elan")
"""Of the trials 0 to 2, which are the smallest architectures of these spaces for one class."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 96 pixels, whose trial 0 is the best, trial 1 is measured and trial 2 is not. It has no folders of trials."""
    run = tmp_path / "run"
    with Journal.create(run, run_settings(imgsz=96).to_json()) as journal:
        for i, family in enumerate(FAMILIES):
            small = open_space(family, classes=1).smallest()
            journal.add_trial(TrialRow(i, small.hash, small.genotype, Origin("sample"), 0.5, 10, 20))
        for i, ap in ((0, 0.5), (1, 0.25)):
            journal.start_evaluation(i, 0, Fidelity(2, 64))
            journal.finish_evaluation(i, 0, Evaluation(TrialState.COMPLETE, {"ap": ap}))
    return run


def hash_of(trial: int) -> str:
    return open_space(FAMILIES[trial], classes=1).smallest().hash


@pytest.mark.parametrize("trial", [1, 2])
def test_a_trial_is_exported_and_analysed_by_its_option_and_by_its_path(gpnas: Gpnas, run: Path, trial: int) -> None:
    code, text, err = gpnas("export", run, "--trial", trial)
    assert code == 0 and read_architecture(text).hash == hash_of(trial), err
    assert gpnas("export", run / "trials" / str(trial)) == (0, text, "")
    assert hash_of(trial) != read_architecture(gpnas("export", run)[1]).hash == hash_of(0)
    code, line, err = gpnas("analyze", run, "--trial", trial, "--input", "3x64x64", "--json")
    assert code == 0 and json.loads(line)["name"] == f"{run}/trials/{trial}", err
    assert gpnas("analyze", run / "trials" / str(trial), "--input", "3x64x64", "--json") == (0, line, "")
    assert json.loads(line)["params"] != json.loads(gpnas("analyze", run, "--input", "3x64x64", "--json")[1])["params"]


def test_a_trial_is_exported_for_other_classes(gpnas: Gpnas, run: Path) -> None:
    text = gpnas("export", run, "--trial", "1", "--classes", "3")[1]
    assert candidate(read_architecture(text)).hash == open_space(FAMILIES[1], classes=3).smallest().hash


def test_a_trial_is_trained_at_the_image_size_of_its_search(gpnas: Gpnas, run: Path, tmp_path: Path) -> None:
    data, full = write_coco(tmp_path / "data"), tmp_path / "full"
    common = ("--data", data, "--epochs", "1", "--device", "cpu", "--out", full)
    code, out, err = gpnas("train", run, "--trial", "1", *common)
    assert code == 0 and f"training {run}/trials/1 on {data} for 1 epochs at 96 px into {full}" in out, err
    result = json.loads((full / "result.json").read_text())
    assert (result["trial"], result["hash"], result["imgsz"]) == (1, hash_of(1), 96)
    assert (result["source"], result["data"]) == (f"{run}/trials/1", str(data))


def test_a_search_starts_from_a_trial_and_its_journal_names_it(
    gpnas: Gpnas, evaluators: list[Untrained], run: Path, tmp_path: Path
) -> None:
    data, other = write_coco(tmp_path / "data"), tmp_path / "other"
    options = ("--budget", "1trials", "--data", data, "--no-baselines")
    code, out, err = search(gpnas, other, *options, "--start", run, "--start-trial", "1")
    assert code == 0 and f"searching around {run}/trials/1 on {data}" in out, err
    with Journal.open(other, write=False) as journal:
        settings = RunSettings.from_json(journal.settings)
        assert journal.trials()[0].hash == hash_of(1)
    assert settings.start_source == f"{run}/trials/1"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["analyze"], "--trial"),
        (["export"], "--trial"),
        (["train"], "--trial"),
        (["search", "--budget", "1m", "--start"], "--start-trial"),
    ],
)
def test_a_trial_of_no_run_and_one_that_the_run_lacks_are_refused(
    refused: Refused, run: Path, architecture: Path, command: list[str], option: str
) -> None:
    remedy = "is no run; give the folder of a run, the --out of `gpnas search`\n"
    for source in ("gelan-t", architecture, run / "trials" / "0", "absent", "torch:nn"):
        assert refused(*command, source, option, "0") == f"gpnas: {option} 0: {source} {remedy}"
    for trial in (3, -1):
        told = refused(*command, run, option, trial)
        assert told == f"gpnas: {run}: the run has no trial {trial}; it has trials 0 to 2\n"
    assert f"{option} best" in refused(*command, run, option, "best")


def test_a_trial_to_start_from_needs_its_run(refused: Refused) -> None:
    told = refused("search", "--budget", "1m", "--start-trial", "0")
    assert told == "gpnas: --start-trial 0: name its run with --start\n"


def test_a_run_in_a_folder_called_trials_is_a_run(gpnas: Gpnas, run: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    moved = run.rename(tmp_path / "trials" / "7")
    assert read_architecture(gpnas("export", moved, "--trial", "1")[1]).hash == hash_of(1)
    code, line, err = gpnas("analyze", moved, "--input", "3x64x64", "--json")
    assert code == 0 and json.loads(line)["name"] == str(moved), err
