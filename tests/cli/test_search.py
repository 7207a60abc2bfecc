"""`gpnas search`, `resume`, `show`, `report` and `export` of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.data.open import DataSource
from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Branch
from gpnas.run.journal import Journal
from gpnas.run.settings import RunSettings
from gpnas.search.budget import Budget
from gpnas.search.limits import Limits
from gpnas.search.trial import Cause, failure
from search_spaces.architecture import build, read_architecture
from search_spaces.gradient_path import open_space
from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco
from tests.cli.untrained import ContextWorkers, Untrained, search, searching, trials


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "data")


def test_a_budget_that_is_none(refused: Refused) -> None:
    assert "--budget soon: not a budget; write 90s" in refused("search", "--budget", "soon")


def test_an_impossible_limit_names_the_smallest_architecture(refused: Refused, data: Path, tmp_path: Path) -> None:
    line = refused("search", "--data", data, "--budget", "1m", "--max-flops", "1", "--out", tmp_path / "run")
    assert "--max-flops 1: nothing in the space is that small; its smallest architecture" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-flops", "lots"], "--max-flops lots: not a positive number"),
        (["--imgsz", "100"], "--imgsz 100: must be a positive multiple of 32; try 96"),
        (["--proxy-imgsz", "half"], "--proxy-imgsz half: must be a number of pixels"),
        (["--proxy-imgsz", "100"], "--proxy-imgsz 100: must be a positive multiple of 32; try 96"),
        (["--proxy-imgsz", "0"], "--proxy-imgsz 0: must be a positive multiple of 32; try 32"),
        (["--imgsz", "320", "--proxy-imgsz", "352"], "--proxy-imgsz 352: must be at most --imgsz, which is 320"),
        (["--levels", "4-5"], "--levels 4-5: must be one of auto, 3-5, 2-5, 3-6"),
        (["--levels", "3-6", "--imgsz", "672"], "--imgsz 672: must be a positive multiple of 64, the stride of the deepest"),
        (["--levels", "3-6", "--imgsz", "672"], "level; try 640"),
        (
            ["--levels", "3-6", "--proxy-imgsz", "352"],
            "--proxy-imgsz 352: must be a positive multiple of 64, the stride of the",
        ),
        (
            ["--levels", "2-5", "--start", "gelan-t"],
            "--levels 2-5: a search around an architecture keeps its levels, 3-5; leave",
        ),
        (["--levels", "2-5", "--max-flops", "300M"], "--max-flops 3e+08: nothing in the space is that small"),
        (["--space", "nowhere"], "--space nowhere: no such space or file; ready spaces are gradient-path"),
        (["--workers", "many"], "--workers many: must be auto or local:N"),
        (["--device", "cuda:0"], "--device cuda:0: no CUDA device is here"),
        (["--wandb", "maybe"], "--wandb maybe: must be offline, online or off"),
        (["--start", "absent.yaml"], "absent.yaml: no such file"),
        (["--data", "absent"], "absent"),
        (["--start", "yolov9-t", "--space", "elan"], "leave out --space"),
        (["--start", "yolov9-t", "--max-flops", "1K"], "even at its narrowest"),
    ],
)
def test_options_out_of_range_are_named(refused: Refused, data: Path, arguments: list[str], message: str) -> None:
    assert message in refused("search", "--budget", "1m", "--data", data, *arguments)


def test_an_out_that_is_no_run_is_left_alone(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    line = refused("search", "--budget", "1m", "--out", tmp_path / "precious")
    assert "exists and is not a gpnas run; choose another folder" in line
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]


def missing_images(document: dict[str, Any]) -> None:
    for i, image in enumerate(document["images"]):
        image["file_name"] = f"gone{i}.png"


def boxes_outside(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"] = [70, 30, 40, 20]


def unknown_category(document: dict[str, Any]) -> None:
    document["annotations"][0]["category_id"] = 99


def empty_split(document: dict[str, Any]) -> None:
    document["images"].clear()
    document["annotations"].clear()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing_images, ["images have no file", "gone0.png", "gone2.png; ..."]),
        (boxes_outside, ["boxes lie outside of their image", "[70, 30, 110, 50]"]),
        (unknown_category, ["99"]),
        (empty_split, ["train", "no image"]),
    ],
)
def test_coco_data_that_cannot_be_trained_on(
    refused: Refused, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: list[str]
) -> None:
    folder = write_coco(tmp_path / "data", change)
    line = refused("search", "--budget", "1m", "--data", folder, "--out", tmp_path / "run")
    assert all(word in line for word in words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["show", "resume", "report"])
def test_a_folder_that_is_no_run_cannot_be_shown_or_resumed(refused: Refused, tmp_path: Path, command: str) -> None:
    assert "does not exist" in refused(command, tmp_path / "absent")
    assert "is not a gpnas run" in refused(command, tmp_path)


def test_a_search_writes_its_results_and_can_be_shown_reported_and_exported(
    gpnas: Gpnas, refused: Refused, evaluators: list[Untrained], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    limits = ("--max-flops", "60M", "--max-params", "3M")
    code, out, err = search(gpnas, run, "--budget", "3trials", "--data", data, *limits, "--no-baselines")
    assert code == 0, err
    with Journal.open(run, write=False) as journal:
        settings = RunSettings.from_json(journal.settings)
    assert (settings.budget, settings.budget_text, settings.limits) == (Budget("trials", 3), "3trials", Limits(6e7, 3e6))
    assert (settings.data.source, settings.data.names, settings.data.images) == (str(data), ("bar",), {"train": 4, "val": 4})
    assert (settings.seed, settings.slots, settings.imgsz, settings.warm_start) == (5, 2, 64, False)
    assert {k: v for k, v in evaluators[0].options.items() if k != "threads"} == {
        "data": DataSource(str(data)),
        "device": "cpu",
        "batch_size": 8,
        "seed": 5,
        "sharers": 2,
    }
    assert out.startswith("a worker does 10.22G training FLOPs a second here\n")
    head = out.splitlines()[1:3]
    assert head[0].endswith(f"searching gradient-path on {data} (4 images) for 3trials with 2 workers on cpu")
    assert head[1].startswith("rungs: 30 epochs at 64 px, 60 epochs at 64 px, 120 epochs at 64 px; first 3 candidates near")
    assert head[1].endswith("then the best are trained again with fresh seeds") and "baseline" not in out
    assert "the search ended: all 3 candidates were trained\n" in out

    shown = trials(gpnas, run)
    assert shown["state"] == "done" and len(shown["trials"]) == 3
    assert all(trial["state"] == "complete" and trial["flops"] <= 60e6 for trial in shown["trials"])
    best = read_architecture((run / "best.yaml").read_text())
    assert best.found is not None
    cost = deployed_cost(build(best), 64)
    assert best.found["hash"] == best.hash == shown["trials"][shown["best"]]["hash"]
    assert (best.found["cost"]["flops"], best.found["cost"]["params"]) == (cost.flops, cost.params)
    assert f"3 candidates trained, {len(shown['front'])} on the front." in out and f"next: gpnas train {run}/best.yaml" in out

    page = (run / "report.html").read_bytes()
    assert gpnas("report", run) == (0, f"{run / 'report.html'}\n", "")
    assert (run / "report.html").read_bytes() == page
    code, out, _ = gpnas("show", run)
    assert code == 0 and "spent of 3trials, 3 of 3 candidates measured" in out and "Pareto front" in out
    assert gpnas("export", run)[1] == (run / "best.yaml").read_text()
    other = next(i for i in range(3) if i != shown["best"])
    exported = read_architecture(gpnas("export", run, "--trial", other)[1])
    assert exported.found is not None and exported.found["trial"] == other
    assert f"{run}: the run has no trial 7; it has trials 0 to 2" in refused("export", run, "--trial", "7")


def test_an_interrupted_search_goes_on_where_it_stopped(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    monkeypatch.setattr(ContextWorkers, "interrupt_at", 3)
    code, _, err = search(gpnas, run, "--budget", "3trials", "--data", data)
    assert code != 0 and f"interrupted; go on with: gpnas resume {run}" in err
    assert trials(gpnas, run)["state"] == "interrupted" and (run / "report.html").exists()
    monkeypatch.setattr(ContextWorkers, "interrupt_at", -1)
    code, out, _ = gpnas("resume", run)
    assert code == 0 and "1 evaluations are finished, 2 were interrupted and start again" in out
    assert search(gpnas, whole, "--budget", "3trials", "--data", data)[0] == 0
    assert {**trials(gpnas, run), "run": "", "budget": {}} == {**trials(gpnas, whole), "run": "", "budget": {}}


def test_a_resumed_search_may_have_a_larger_budget_of_the_same_kind_on_the_same_data(
    gpnas: Gpnas, refused: Refused, evaluators: list[Untrained], tmp_path: Path
) -> None:
    run, data = tmp_path / "run", write_coco(tmp_path / "data")
    assert search(gpnas, run, "--budget", "2trials", "--data", data)[0] == 0
    before = trials(gpnas, run)
    with Journal.open(run, write=False) as journal:
        done = len(journal.evaluations())
    code, out, _ = gpnas("resume", run, "--budget", "3trials")
    assert code == 0 and f"resuming {run}: {done} evaluations are finished, 0 were interrupted and start again" in out
    after = trials(gpnas, run)
    assert after["budget"]["text"] == "3trials" and len(after["trials"]) == 3
    assert [t["hash"] for t in after["trials"]][:2] == [t["hash"] for t in before["trials"]]
    assert "this run counts trials; give a budget in them" in refused("resume", run, "--budget", "2h")
    written = (run / "best.yaml").read_text()
    (run / "best.yaml").write_text("stale")  # as a kill between the journal and the files leaves it
    assert gpnas("resume", run)[0] == 0 and (run / "best.yaml").read_text() == written
    document = json.loads((data / "annotations" / "instances_train.json").read_text())
    document["annotations"][0]["bbox"] = [12, 16, 40, 23]
    (data / "annotations" / "instances_train.json").write_text(json.dumps(document))
    assert f"the data changed since {run} began; start a new search" in refused("resume", run)


def test_a_search_in_which_nothing_trains_fails_with_a_report(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(Untrained, "evaluate", lambda *_: failure(Cause.NAN, "loss is nan"))
    code, _, err = search(gpnas, run, "--budget", "2trials", "--data", data)
    assert code == 1
    assert f"no candidate could be trained within the budget; see {run}/report.html and {run}/trials/*/error.txt" in err
    assert (run / "report.html").exists() and not (run / "best.yaml").exists()
    assert "0 of 2 candidates measured" in gpnas("show", run)[1]


def test_a_search_starts_from_a_published_architecture_as_wide_as_the_limits_allow(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, out, err = search(gpnas, run, "--start", "yolov9-t", "--budget", "2trials", "--max-flops", "8M", "--data", data)
    assert code == 0, err
    assert "searching around yolov9-t" in out and "yolov9-t has" in out and "; narrowed to 0.008G (" in out
    shown = trials(gpnas, run)
    assert len(shown["trials"]) == 2 and all(trial["flops"] <= 8e6 for trial in shown["trials"])
    best = read_architecture((run / "best.yaml").read_text())
    assert best.hash == shown["trials"][shown["best"]]["hash"]
    assert gpnas("resume", run, "--budget", "3trials")[0] == 0 and len(trials(gpnas, run)["trials"]) == 3


def tiny_objects(document: dict[str, Any]) -> None:
    """Boxes of 1 x 1.2 of 64 pixels: squares of 1.0954, which are 8.76 at 512 pixels."""
    for annotation in document["annotations"]:
        annotation["bbox"] = [10, 20, 1, 1.2]


def main_strides(candidate: dict[str, Any], run: Path) -> list[int]:
    with Journal.open(run, write=False) as journal:
        genotype = next(trial.genotype for trial in journal.trials() if trial.hash == candidate["hash"])
    return [out.stride for out in build(read_architecture(genotype)).outputs if out.branch is Branch.MAIN]


def test_the_levels_and_the_proxies_follow_the_objects(gpnas: Gpnas, evaluators: list[Untrained], tmp_path: Path) -> None:
    """8 pixels, two cells of stride 4, are reached at 512 * 8 / 8.76 = 467 pixels: 480 in multiples of 32."""
    run, data = tmp_path / "run", write_coco(tmp_path / "data", tiny_objects)
    code, out, err = search(gpnas, run, "--budget", "2trials", "--data", data, "--imgsz", "512", "--no-baselines")
    assert code == 0, err
    assert out.splitlines()[:2] == [
        "levels: 2-5 (stride 4 too), because half of the smaller objects have under 9 px at 512",
        "proxies: images of up to 480 px, where half of the smaller objects have at least 8 px",
    ]
    assert "rungs: 30 epochs at 256 px, 60 epochs at 352 px, 120 epochs at 480 px" in out
    with Journal.open(run, write=False) as journal:
        before = RunSettings.from_json(journal.settings)
    assert before.levels == "2-5" and before.ladder.fidelities[-1].imgsz == 480
    assert gpnas("resume", run, "--budget", "3trials")[0] == 0
    with Journal.open(run, write=False) as journal:
        assert RunSettings.from_json(journal.settings).ladder == before.ladder
    shown = trials(gpnas, run)["trials"]
    assert len(shown) == 3 and all(main_strides(trial, run) == [4, 8, 16, 32] for trial in shown)


def test_levels_and_proxies_that_were_given_are_taken_and_told(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = ("--levels", "3-6", "--proxy-imgsz", "256", "--imgsz", "512")
    code, out, err = search(gpnas, run, "--budget", "1trials", "--data", data, *given)
    assert code == 0, err
    assert out.splitlines()[:2] == ["levels: 3-6 (stride 64 too), as given", "proxies: images of up to 256 px, as given"]
    assert "rungs: 30 epochs at 128 px, 60 epochs at 192 px, 120 epochs at 256 px" in out
    assert main_strides(trials(gpnas, run)["trials"][0], run) == [8, 16, 32, 64]


def test_a_search_around_an_architecture_of_other_levels_keeps_them(
    gpnas: Gpnas, refused: Refused, evaluators: list[Untrained], data: Path, tmp_path: Path
) -> None:
    start, run = tmp_path / "start.yaml", tmp_path / "run"
    start.write_text(open_space("csp", 1, "3-6").smallest().genotype)
    options = ("--budget", "2trials", "--data", data, "--start", start)
    assert "--imgsz 96: must be a positive multiple of 64" in refused(*searching(run, *options, "--imgsz", "96"))
    assert "keeps its levels, 3-6; leave out --levels" in refused(*searching(run, *options, "--levels", "3-5"))
    code, out, err = search(gpnas, run, *options, "--imgsz", "128", "--levels", "3-6")
    assert code == 0, err
    assert out.splitlines()[0] == "levels: 3-6 (stride 64 too), those of --start"
    assert all(main_strides(trial, run) == [8, 16, 32, 64] for trial in trials(gpnas, run)["trials"])


@pytest.mark.slow
def test_a_real_search_from_data_to_best_yaml_then_training_and_validation(gpnas: Gpnas, data: Path, tmp_path: Path) -> None:
    """The whole way on four tiny images, with worker processes, W&B and training; the numbers mean nothing."""
    run = tmp_path / "run"
    common = ("--data", data, "--imgsz", "64", "--seed", "1", "--out", run, "--workers", "local:1")
    code, out, err = gpnas("search", *common, "--budget", "2epochs", "--max-flops", "6M")
    assert code == 0, err
    assert "best.yaml" in out and "Pareto front" in out
    assert all((run / name).is_file() for name in ("journal.sqlite", "pareto.csv", "best.yaml", "report.html"))
    assert list((run / "wandb").glob("offline-run-*"))
    code, out, err = gpnas("train", run, "--data", data, "--epochs", "2", "--out", tmp_path / "full", "--device", "cpu")
    assert code == 0, err
    assert (tmp_path / "full" / "best.pt").is_file()
    code, out, err = gpnas("val", tmp_path / "full" / "best.pt", "--data", data)
    assert code == 0 and "AP50" in out, err
