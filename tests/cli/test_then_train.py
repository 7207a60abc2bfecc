"""`gpnas search --then-train`: the full training after a search, and what resume does of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.training.checkpoint import load_detector
from gpnas.search.trial import Candidate, Cause, Evaluation, Fidelity, Report, TrialState, failure
from search_spaces.architecture import read_architecture
from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco
from tests.cli.untrained import ContextWorkers, Untrained, search, trials


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "data")


class Killed(BaseException):
    """In place of kill -9: nothing catches it."""


def kill_at_call(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    """Die in that call of a function, counted from 1."""
    left = [call]

    def maybe(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise Killed
        return original(*arguments, **options)

    module, _, name = function.rpartition(".")
    original = getattr(__import__(module, fromlist=[name]), name)
    monkeypatch.setattr(function, maybe)


def small_search(gpnas: Gpnas, run: Path, data: Path, *options: object) -> tuple[int, str, str]:
    return search(gpnas, run, "--budget", "2trials", "--max-flops", "8M", "--no-baselines", "--data", data, *options)


def losses(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return [(row["epoch"], row["loss"], row["ap"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("epochs", ["0", "-1", "1.5", "all", ""])
def test_epochs_that_are_none_are_refused(refused: Refused, tmp_path: Path, epochs: str) -> None:
    told = refused("search", "--budget", "1m", "--out", tmp_path / "run", "--then-train", epochs)
    assert told == f"gpnas: --then-train {epochs}: must be a number of epochs, at least 1; leave it out to train nothing\n"


def test_the_best_is_trained_as_gpnas_train_would_and_the_search_is_the_same(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path
) -> None:
    run, alone, plain = tmp_path / "run", tmp_path / "alone", tmp_path / "plain"
    code, out, err = small_search(gpnas, run, data, "--then-train", "2")
    assert code == 0 and "--then-train 2: beginning the training of the best" in out, err
    assert f"training {run}/best.yaml on {data} for 2 epochs at 64 px into {run}/train" in out and "next:" not in out
    shown = trials(gpnas, run)
    result = shown["trained"]
    assert shown["state"] == "done" and result["folder"] == f"{run}/train"
    assert (result["trial"], result["hash"]) == (shown["best"], shown["trials"][shown["best"]]["hash"])
    assert (result["epochs"], result["imgsz"], result["split"], result["data"]) == (2, 64, "val", str(data))

    same = ("--data", data, "--epochs", "2", "--seed", "5", "--device", "cpu", "--out", alone)
    assert gpnas("train", run / "best.yaml", *same)[0] == 0
    ours, theirs = load_detector(run / "train" / "best.pt"), load_detector(alone / "best.pt")
    assert all(torch.equal(ours.weights[name], value) for name, value in theirs.weights.items())
    assert json.loads((alone / "result.json").read_text())["metrics"] == result["metrics"]
    assert (run / "train" / "report.html").exists() and losses(run / "train") == losses(alone)

    text = f"trained in full: trial {shown['best']}, 2 epochs at 64 px, val: AP {result['metrics']['ap']:.3f}"
    assert text in gpnas("show", run)[1]
    before = {path: path.stat().st_mtime_ns for path in (run / "train").iterdir()}
    code, out, err = gpnas("resume", run)
    assert code == 0 and text in out and out.endswith(f"in {run}/train; nothing is left to do\n"), err
    assert {path: path.stat().st_mtime_ns for path in (run / "train").iterdir()} == before

    code, out, err = small_search(gpnas, plain, data)
    assert code == 0 and out.endswith(f"next: gpnas train {plain}/best.yaml --data {data}\n"), err
    assert "trained in full" not in gpnas("show", plain)[1]
    unlike = {"run": "", "budget": {}, "trained": None}
    assert {**trials(gpnas, plain), **unlike} == {**shown, **unlike} and trials(gpnas, plain)["trained"] is None


@pytest.mark.parametrize(
    ("function", "call", "epochs", "how"),
    [
        ("evaluators.training.train_detector.train_detector", 1, 0, "beginning"),
        ("evaluators.training.train_detector.write_history", 1, 0, "going on with"),  # last.pt of epoch 1 is written
        ("evaluators.training.train_detector.save_checkpoint", 4, 1, "going on with"),  # best.pt of epoch 2 is written
        ("evaluators.training.train_detector.write_history", 2, 1, "going on with"),  # the training is complete
        ("gpnas.report.training_report.write_training_report", 1, 2, "going on with"),
        ("gpnas.run.trained.write_result", 1, 2, "going on with"),
    ],
)
def test_a_training_that_was_killed_is_continued_and_ends_as_if_it_had_not_been(
    gpnas: Gpnas,
    evaluators: list[Untrained],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
    call: int,
    epochs: int,
    how: str,
) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    with monkeypatch.context() as patch:
        kill_at_call(patch, function, call)
        with pytest.raises(Killed):
            small_search(gpnas, run, data, "--then-train", "2")
    capsys.readouterr()
    shown = trials(gpnas, run)
    assert shown["state"] == "done" and shown["trained"] is None
    assert f"trained in full: {epochs} of 2 epochs so far, in {run}/train" in gpnas("show", run)[1]
    with monkeypatch.context() as patch:
        patch.setattr("gpnas.run.loop.search", lambda *_, **__: pytest.fail("the search is done"))
        code, out, err = gpnas("resume", run)
    assert code == 0 and f"resuming {run}: its search is done" in out and f"--then-train 2: {how} the training" in out, err
    assert trials(gpnas, run)["trained"]["epochs"] == 2 and (run / "train" / "report.html").exists()
    common = ("--data", data, "--epochs", "2", "--seed", "5", "--device", "cpu")
    assert gpnas("train", run / "best.yaml", *common, "--out", alone)[0] == 0
    assert losses(run / "train") == losses(alone)


def test_a_search_that_is_interrupted_trains_nothing_until_it_is_resumed(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(ContextWorkers, "interrupt_at", 3)
    code, _, err = small_search(gpnas, run, data, "--then-train", "1")
    assert code != 0 and f"interrupted; go on with: gpnas resume {run}" in err
    assert not (run / "train").exists() and "trained in full" not in gpnas("show", run)[1]
    monkeypatch.setattr(ContextWorkers, "interrupt_at", -1)
    code, out, err = gpnas("resume", run)
    assert code == 0 and "evaluations are finished" in out and trials(gpnas, run)["trained"]["epochs"] == 1, err


def test_a_kill_before_best_yaml_was_written_does_not_train_an_older_best(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("gpnas.cli.search.train_best", lambda *_: None)
        assert small_search(gpnas, run, data, "--then-train", "1")[0] == 0
    best = trials(gpnas, run)["best"]
    (run / "best.yaml").write_text(gpnas("export", run, "--trial", 1 - best)[1])
    assert gpnas("resume", run)[0] == 0
    assert trials(gpnas, run)["trained"]["trial"] == best


def test_a_search_in_which_nothing_trains_has_no_training_after_it(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(Untrained, "evaluate", lambda *_: failure(Cause.NAN, "loss is nan"))
    for code, _, err in (small_search(gpnas, run, data, "--then-train", "1"), gpnas("resume", run)):
        assert code == 1 and "no candidate could be trained within the budget" in err
    assert not (run / "train").exists()


def test_ctrl_c_in_the_training_names_the_command_that_goes_on(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluators.training.train_detector.train_detector", interrupt)
    code, _, err = small_search(gpnas, tmp_path / "run", data, "--then-train", "1")
    assert code != 0 and err.endswith(f"interrupted; go on with: gpnas resume {tmp_path / 'run'}\n")


def rising(_: Untrained, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
    """Later trials are better."""
    trial = trial_dir if trial_dir.name.isdigit() else trial_dir.parent  # a further seed has a folder in that of its trial
    return Evaluation(TrialState.COMPLETE, {"ap": int(trial.name) / 100 + 0.1}, 0.5, fidelity.epochs)


def test_a_larger_budget_trains_the_new_best_and_keeps_the_training_of_the_old_one(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(Untrained, "evaluate", rising)
    assert small_search(gpnas, run, data, "--then-train", "1")[0] == 0
    old = trials(gpnas, run)["trained"]
    code, out, err = gpnas("resume", run, "--budget", "9trials")
    assert code == 0, err
    shown = trials(gpnas, run)
    assert shown["trained"]["hash"] == shown["trials"][shown["best"]]["hash"] != old["hash"]
    assert f"{run}/train was the training of an architecture that is the best no longer; it is now {run}/train-1" in out
    assert json.loads((run / "train-1" / "result.json").read_text())["hash"] == old["hash"]
    genotype = load_detector(run / "train" / "best.pt").genotype
    assert read_architecture(genotype).hash == shown["trained"]["hash"]
