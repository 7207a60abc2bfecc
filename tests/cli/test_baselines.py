"""Baselines of `gpnas search`: which start, what is said of them, and how the best compares with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpnas.cli.baselines import baselines_within, first_candidates
from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Branch
from gpnas.run.journal import Journal
from gpnas.run.settings import RunSettings
from gpnas.search.limits import Limits
from gpnas.search.trial import Candidate, Evaluation, Fidelity, Report, TrialState
from search_spaces.architecture import build, classes_of, read_architecture, with_classes
from search_spaces.blueprint import Blueprint, open_catalogue
from tests.cli.conftest import Gpnas
from tests.cli.pictures import write_coco
from tests.cli.untrained import ContextWorkers, Untrained, search, trials

FULL = 2 * deployed_cost(build(with_classes(open_catalogue("gelan-t"), 1)), 64).macs
"""FLOPs of the published GELAN-T with one class at 64 pixels; YOLOv9-T has as many, its auxiliary branch costs none."""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "data")


def within(limits: Limits, typical_macs: float = 1e9, seats: int = 2, start: Blueprint | None = None) -> dict[str, Blueprint]:
    """The baselines for one class at 64 pixels."""
    chosen = baselines_within(limits, 1, 64, typical_macs, seats, start)
    read = {name: read_architecture(text) for name, text in chosen.items()}
    assert all(isinstance(baseline, Blueprint) and classes_of(baseline) == 1 for baseline in read.values())
    return {name: baseline for name, baseline in read.items() if isinstance(baseline, Blueprint)}


def flops(baseline: Blueprint) -> int:
    return deployed_cost(build(baseline), 64).flops


def test_without_limits_baselines_are_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    baselines = within(Limits(), typical_macs=FULL / 2 / 3.9)
    assert list(baselines) == ["gelan-t", "yolov9-t"]
    assert {flops(baseline) for baseline in baselines.values()} == {FULL}
    assert capsys.readouterr().out == ""
    branches = [{out.branch for out in build(baseline).outputs} for baseline in baselines.values()]
    assert branches == [{Branch.MAIN}, {Branch.MAIN, Branch.AUXILIARY}]


def test_baselines_are_narrowed_to_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    baselines = within(Limits(FULL / 2, 5e5))
    costs = [deployed_cost(build(baseline), 64) for baseline in baselines.values()]
    assert len(costs) == 2 and all(cost.flops <= FULL / 2 and 2e5 < cost.params <= 5e5 for cost in costs)
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" has ")[0] for line in told] == ["baseline gelan-t", "baseline yolov9-t"]
    assert all("; narrowed to " in line and "% of the limit)" in line for line in told)


def test_without_a_limit_on_flops_a_costly_baseline_is_narrowed_to_a_typical_candidate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typical = FULL / 2 / 4.1
    baselines = within(Limits(None, 1e6), typical)
    assert all(typical < flops(baseline) <= 2 * typical for baseline in baselines.values()) and len(baselines) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "baseline gelan-t would cost as much as 4.1 typical candidates, so it must be as cheap as one of them"
    assert len(told) == 4


def test_a_limit_on_flops_alone_decides_where_it_is_given() -> None:
    assert {flops(baseline) for baseline in within(Limits(FULL), typical_macs=1.0).values()} == {FULL}


def test_a_baseline_that_cannot_meet_the_limits_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert within(Limits(1e4)) == {}
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["baseline gelan-t is left out", "baseline yolov9-t is left out"]
    assert all("even at its narrowest it has" in line for line in told)


@pytest.mark.parametrize(("seats", "names"), [(0, []), (1, ["gelan-t"]), (3, ["gelan-t", "yolov9-t"])])
def test_baselines_without_a_seat_are_left_out(seats: int, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(within(Limits(), seats=seats)) == names
    left_out = [name for name in ("gelan-t", "yolov9-t") if name not in names]
    assert capsys.readouterr().out.splitlines() == [
        f"baseline {name} is left out: the first candidates are too few to have room for it" for name in left_out
    ]


def test_the_start_is_no_baseline_too(capsys: pytest.CaptureFixture[str]) -> None:
    start = with_classes(open_catalogue("gelan-t"), 1)
    assert isinstance(start, Blueprint)
    assert list(within(Limits(), seats=1, start=start)) == ["yolov9-t"]
    assert capsys.readouterr().out == "baseline gelan-t is left out: it is the start\n"


@pytest.mark.parametrize(
    ("wave", "known", "spread", "words"),
    [
        (9, [], True, "9 candidates of all sizes"),
        (9, [], False, "9 candidates near the limits"),
        (9, ["gelan-t", "yolov9-t"], True, "9 candidates: gelan-t, yolov9-t and 7 of all sizes"),
        (4, ["gelan-t"], False, "4 candidates: gelan-t and 3 near the limits"),
        (1, ["the start"], False, "1 candidates: the start"),
    ],
)
def test_the_first_wave_in_words(wave: int, known: list[str], spread: bool, words: str) -> None:
    assert first_candidates(wave, known, spread) == words


def script(monkeypatch: pytest.MonkeyPatch, baseline: float, other: float) -> None:
    """Every evaluation of GELAN-T reaches `baseline`, every one of YOLOv9-T 0.125, and all others reach `other`."""
    aps = {"gelan-t": baseline, "yolov9-t": 0.125}

    def evaluate(self: Untrained, candidate: Candidate, fidelity: Fidelity, folder: Path, report: Report) -> Evaluation:
        ap = aps.get(json.loads(candidate.genotype).get("name", ""), other)
        return Evaluation(TrialState.COMPLETE, {"ap": ap}, 0.5, fidelity.epochs)

    monkeypatch.setattr(Untrained, "evaluate", evaluate)


class Summaries:
    """In place of W&B: keeps what a search sends at its end."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def __call__(self, *_: object, **__: object) -> Summaries:
        return self

    def trial(self, row: dict[str, Any]) -> None:
        pass

    def front(self, rows: list[dict[str, Any]]) -> None:
        pass

    def finish(self, summary: dict[str, Any]) -> None:
        self.sent.append(summary)


def found_in(run: Path) -> tuple[str, dict[str, Any]]:
    """The name of best.yaml's architecture, and its section `found`."""
    best = read_architecture((run / "best.yaml").read_text())
    assert best.found is not None
    return getattr(best, "name", ""), best.found


def test_a_search_that_a_baseline_wins_says_that_it_found_nothing_better(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, baseline=0.5, other=0.25)
    wandb = Summaries()
    monkeypatch.setattr("gpnas.report.tracking.Tracker", wandb)
    run = tmp_path / "run"
    code, out, err = search(gpnas, run, "--budget", "4trials", "--data", data, "--max-flops", "20M")
    assert code == 0, err
    assert "first 4 candidates: gelan-t, yolov9-t and 2 near the limits, then one at a time" in out
    shown = trials(gpnas, run)
    assert [(row["name"], row["trial"], row["ap"]) for row in shown["baselines"]] == [
        ("gelan-t", 0, 0.5),
        ("yolov9-t", 1, 0.125),
    ]
    gelan = shown["baselines"][0]
    assert shown["best"] == 0 and gelan["rung"] == 2 and gelan["flops"] == shown["trials"][0]["flops"] <= 20e6

    heads = ("the search found nothing better", "best found", "nothing was confirmed")
    words = [line for line in out.splitlines() if line.startswith(heads)]
    assert words[0].startswith("the search found nothing better than gelan-t, which is trial 0: AP 0.500, ")
    assert ": -0.250, on rung " in words[1] and "baseline gelan-t 0.500" in words[1] and len(words) == 4
    assert "a larger --budget helps" in words[3]
    assert gpnas("show", run)[1].splitlines()[-4:] == words
    assert wandb.sent[0]["baselines"] == " | ".join(words)
    page = (run / "report.html").read_text()
    assert f"<p>T{words[0][1:]}.</p>" in page and ">gelan-t, AP 0.500</text>" in page and ">yolov9-t</text>" in page
    assert "<tr><td>baselines</td><td>gelan-t, yolov9-t</td></tr>" in page

    name, found = found_in(run)
    assert name == "gelan-t" and found["origin"] == "baseline gelan-t"
    assert [(row["name"], row["trial"], row["ap"], row["found_ap"]) for row in found["baselines"]] == [
        ("yolov9-t", 1, 0.125, 0.5)
    ]
    assert any(line.endswith(",baseline gelan-t") for line in (run / "pareto.csv").read_text().splitlines())


def test_a_search_that_beats_its_baselines_says_by_how_much(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, baseline=0.2, other=0.25)
    run = tmp_path / "run"
    code, out, err = search(gpnas, run, "--budget", "5trials", "--data", data, "--max-flops", "20M")
    assert code == 0, err
    assert "nothing better" not in out
    best = trials(gpnas, run)["best"]
    (line,) = (line for line in out.splitlines() if "baseline gelan-t 0.200" in line)
    assert line.startswith(f"best 0.250 (trial {best}, ") and ": +0.050, on rung " in line
    _, found = found_in(run)
    known = {row["name"]: (row["ap"], row["found_ap"], row["difference"]) for row in found["baselines"]}
    assert known == {"gelan-t": (0.2, 0.25, 0.05), "yolov9-t": (0.125, 0.25, 0.125)}
    other = next(trial["id"] for trial in trials(gpnas, run)["trials"] if trial["id"] not in (0, 1, best))
    assert f"trial: {other}\n" in (exported := gpnas("export", run, "--trial", other)[1]) and "name: gelan-t" in exported


def test_an_interrupted_search_goes_on_with_its_baselines_and_without_the_catalogue(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = ("--budget", "6trials", "--data", data, "--max-flops", "20M")
    assert search(gpnas, whole, *options)[0] == 0
    monkeypatch.setattr(ContextWorkers, "interrupt_at", 2)  # before the first wave is in the journal
    assert search(gpnas, run, *options)[0] != 0
    assert len(trials(gpnas, run)["trials"]) < 6
    monkeypatch.setattr(ContextWorkers, "interrupt_at", -1)
    monkeypatch.setattr("search_spaces.blueprint.open_catalogue", None)  # a call would fail
    code, out, err = gpnas("resume", run)
    assert code == 0, err
    assert "first 6 candidates: gelan-t, yolov9-t and 4 near the limits" in out
    assert {**trials(gpnas, run), "run": "", "budget": {}} == {**trials(gpnas, whole), "run": "", "budget": {}}


def test_a_run_of_an_older_gpnas_has_no_baselines(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert search(gpnas, run, "--budget", "2trials", "--data", data, "--no-baselines")[0] == 0
    with Journal.open(run, write=True) as journal:
        older = {key: value for key, value in journal.settings.items() if key != "baselines"}
        journal.update_settings(older)
    code, out, err = gpnas("resume", run, "--budget", "3trials")
    assert code == 0, err
    assert "baseline" not in out and trials(gpnas, run)["baselines"] == []
    assert "baseline" not in gpnas("show", run)[1] and "baselines" not in found_in(run)[1]


def test_a_start_stays_the_start_beside_baselines(
    gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, baseline=0.2, other=0.25)
    run = tmp_path / "run"
    options = ("--budget", "5trials", "--data", data, "--max-flops", "20M", "--start", "yolov9-s", "--warm-start")
    code, out, err = search(gpnas, run, *options)
    assert code == 0, err
    assert "baseline yolov9-t is left out" in out and "first 5 candidates: the start, gelan-t and 3 near the limits" in out
    assert "fresh seeds; children start from weights of their parents (--warm-start)" in out
    assert [row["name"] for row in trials(gpnas, run)["baselines"]] == ["start", "gelan-t"]
    assert "; start 0.250 (" in out and ": +0.000, on rung 0 (30 epochs, 64 px), the highest that both completed" in out


def test_with_other_levels_baselines_keep_theirs(gpnas: Gpnas, evaluators: list[Untrained], data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--budget", "2trials", "--data", data, "--max-flops", "500M", "--levels", "2-5")
    code, _, err = search(gpnas, run, *options)
    assert code == 0, err
    with Journal.open(run, write=False) as journal:
        settings, genotypes = RunSettings.from_json(journal.settings), [trial.genotype for trial in journal.trials()]
    assert settings.levels == "2-5"
    strides = [
        [out.stride for out in build(read_architecture(genotype)).outputs if out.branch is Branch.MAIN]
        for genotype in genotypes
    ]
    assert strides == [[8, 16, 32], [4, 8, 16, 32]]
