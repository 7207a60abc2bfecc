"""Tracking: an offline run is written, nothing leaves the machine unasked, no error ends a search."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gpnas.errors import InputError
from gpnas.graph.cost import deployed_cost
from gpnas.report.tracking import Tracker, evaluation_row, front_row
from gpnas.run.events import Finished
from gpnas.run.journal import TrialRow
from gpnas.run.results import TrialResult
from gpnas.search.controller import Suggestion
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, Trial, TrialState, failure
from tests.grid import grid_candidate

KEY = "x" * 40


@pytest.fixture
def logged_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


class BrokenRun:
    """A W&B run that fails at its second log, as a full disk would make it."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.finished = 0

    def log(self, row: dict[str, Any]) -> None:
        if self.logged:
            raise OSError("no space left\non device")
        self.logged.append(row)

    def finish(self) -> None:
        self.finished += 1


# The first session of a run and, with the same id, one that resumes it; then the records are read back from the files.
TWO_SESSIONS = '''
    import json, sys, time
    from pathlib import Path
    from gpnas.report.tracking import Tracker

    assert "wandb" not in sys.modules
    run = Path(sys.argv[1])
    for session in range(2):
        tracker = Tracker("offline", run, {"budget": "2h"}, run_id="abcd1234")
        tracker.trial({"trial": session, "rung": 0, "ap": 0.25, "state": "complete", "cause": None})
        tracker.front([{"trial": 0, "flops": 2e9, "ap": 0.25, "origin": "sample"}])
        tracker.finish({"best": session})
        tracker.finish({})
        assert tracker.error is None, tracker.error
        time.sleep(1.0)  # wandb names a session's folder by the second

    from wandb.proto.wandb_internal_pb2 import Record

    def records(data):
        """A .wandb file: a header of 7 bytes, then LevelDB's log format: pieces of records in blocks of 32 KiB."""
        at, pieces = 7, b""
        while at < len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            pieces, at = pieces + data[at + 7 : at + 7 + length], at + 7 + length
            if kind in (1, 4):  # a whole record, or its last piece
                yield Record.FromString(pieces)
                pieces = b""

    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        found = {"id": None, "history": {}, "summary": {}}
        for record in records(path.read_bytes()):
            found["id"] = record.run.run_id or found["id"]
            for name, items in (("history", record.history.item), ("summary", record.summary.update)):
                found[name] |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
        print(json.dumps(found))
'''


@pytest.mark.slow
def test_offline_sessions_are_written_under_one_run_id(tmp_path: Path) -> None:
    run = tmp_path / "run"
    # A fresh process: wandb watches the one that imports it. The proxy would fail whatever called home.
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_SESSIONS), str(run)],
        env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "WANDB_MODE": "online", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # silent
    sessions = [json.loads(line) for line in process.stdout.splitlines()]
    assert [session["id"] for session in sessions] == ["abcd1234", "abcd1234"]
    for number, session in enumerate(sessions):
        history = session["history"]
        assert (history["trial"], history["rung"], history["ap"], history["state"]) == (number, 0, 0.25, "complete")
        assert "cause" not in history
        assert any(name.startswith("front") for name in history)
        assert session["summary"]["best"] == number
    written = [path.name for path in (run / "wandb").rglob("*")]
    assert not {"requirements.txt", "wandb-metadata.json", "diff.patch", "output.log"} & set(written)


def test_off_does_nothing(tmp_path: Path) -> None:
    tracker = Tracker("off", tmp_path, {}, run_id="abcd1234")
    tracker.trial({"ap": 0.5})
    tracker.front([{"ap": 0.5, "flops": 1.0}])
    tracker.finish({})
    assert tracker.error is None
    assert list(tmp_path.iterdir()) == []


def test_online_without_a_login_names_the_remedy(logged_out: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `wandb login`, or use --wandb offline"):
        Tracker("online", tmp_path / "run", {}, run_id="abcd1234")
    (tmp_path / "netrc").write_text(f"machine elsewhere.example login user password {KEY}\n")
    (tmp_path / ".netrc").write_text("this is no netrc file\n")
    with pytest.raises(InputError, match="nobody is logged in"):
        Tracker("online", tmp_path / "run", {}, run_id="abcd1234")


@pytest.mark.parametrize("where", ["environment", "token file", "netrc", "home", "own server"])
def test_a_login_is_found(
    logged_out: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("gpnas.report.tracking._start", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    login = f"machine api.wandb.ai\n  login user\n  password {KEY}\n"
    match where:
        case "environment":
            monkeypatch.setenv("WANDB_API_KEY", KEY)
        case "token file":
            monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", "/a/file")
        case "netrc":
            (tmp_path / "netrc").write_text(login)
        case "home":
            monkeypatch.delenv("NETRC")
            (tmp_path / "_netrc").write_text(login)
        case "own server":
            monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example:8080/path")
            (tmp_path / "netrc").write_text(login.replace("api.wandb.ai", "wandb.example"))
    errors: list[str] = []
    tracker = Tracker("online", tmp_path / "run", {}, run_id="abcd1234", on_error=errors.append)
    tracker.trial({"ap": 0.5})
    tracker.finish({})
    assert tracker.error == "ConnectionError: no network"
    assert errors == [tracker.error]
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_in_the_middle_is_printed_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = BrokenRun()
    monkeypatch.setattr("gpnas.report.tracking._start", lambda *args: broken)
    errors: list[str] = []
    tracker = Tracker("offline", tmp_path, {}, run_id="abcd1234", on_error=errors.append)
    for i in range(4):
        tracker.trial({"trial": i})
    tracker.finish({"best": 1})
    assert broken.logged == [{"trial": 0}]
    assert errors == [tracker.error] == ["OSError: no space left on device"]
    assert capsys.readouterr().err == (
        "warning: W&B tracking stops here and the search goes on (OSError: no space left on device)\n"
    )


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--wandb sometimes: must be offline, online or off"):
        Tracker("sometimes", tmp_path, {}, run_id="abcd1234")


@pytest.mark.parametrize("mode", ["offline", "off"])
def test_no_front_is_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    broken = BrokenRun()
    monkeypatch.setattr("gpnas.report.tracking._start", lambda *args: broken)
    tracker = Tracker(mode, tmp_path, {}, run_id="abcd1234")
    tracker.front([])
    assert broken.logged == []


class StubWandb(ModuleType):
    """In place of wandb: keeps the settings and the arguments of init."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.errors = SimpleNamespace(AuthenticationError=PermissionError, UsageError=NotImplementedError)
        self.settings: dict[str, Any] = {}
        self.arguments: dict[str, Any] = {}
        self.metrics: list[tuple[str, str]] = []
        self.refusal: Exception | None = None

    def Settings(self, **settings: Any) -> SimpleNamespace:  # the name of wandb's class
        self.settings = settings
        return SimpleNamespace(**settings)

    def init(self, **arguments: Any) -> SimpleNamespace:
        if self.refusal:
            raise self.refusal
        self.arguments = arguments
        return SimpleNamespace(define_metric=lambda name, summary: self.metrics.append((name, summary)))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubWandb:
    stub = StubWandb()
    stub.Settings.__func__.model_fields = {"finish_timeout": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return stub


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_wandb_is_told_to_stay_quiet_and_to_send_nothing_about_the_machine(tmp_path: Path, stub: StubWandb, mode: str) -> None:
    Tracker(mode, tmp_path / "my run", {"budget": "2h"}, run_id="abcd1234")
    assert stub.settings == {
        "console": "off",
        "init_timeout": 60.0,
        "save_code": False,
        "x_save_requirements": False,
        **dict.fromkeys(("silent", "disable_code", "disable_git", "disable_job_creation"), True),
        **dict.fromkeys(("x_disable_machine_info", "x_disable_meta", "x_disable_stats"), True),
    }
    settings = stub.arguments.pop("settings")
    assert settings.finish_timeout == 60.0
    assert stub.arguments == {
        "project": "gpnas",
        "name": "my run",
        "id": "abcd1234",
        "resume": "allow",
        "mode": mode,
        "dir": tmp_path / "my run",
        "config": {"budget": "2h"},
    }
    assert stub.metrics == [("ap", "none")]
    assert (tmp_path / "my run" / "wandb").is_dir()  # without it wandb writes to a temporary folder
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_a_login_that_the_server_refuses_is_an_input_error_online_alone(
    tmp_path: Path, stub: StubWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.refusal = PermissionError("invalid\nkey")
    with pytest.raises(InputError, match="--wandb online: invalid key; run `wandb login`, or use --wandb offline"):
        Tracker("online", tmp_path, {}, run_id="abcd1234")
    assert Tracker("offline", tmp_path, {}, run_id="abcd1234").error == "PermissionError: invalid key"
    assert "the search goes on" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_without_the_package_the_install_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """A search that only tracks by default goes on; one that was asked to report online does not start."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    missing = "wandb is not installed; run `pip install 'gpnas[wandb]'`, or use --wandb off"
    if mode == "online":
        with pytest.raises(InputError, match=re.escape(f"--wandb online: {missing}")):
            Tracker(mode, tmp_path, {}, run_id="abcd1234")
        return
    tracker = Tracker(mode, tmp_path, {}, run_id="abcd1234")
    assert tracker.error == f"ImportError: {missing}"
    assert missing in capsys.readouterr().err


def result(i: int, ap: float, macs: int, rung: int) -> TrialResult:
    row = TrialRow(i, f"hash{i}", "", Origin("sample"), 0.25, 700 + i, macs)
    return TrialResult(row, rung, Fidelity(6, 96), (Evaluation(TrialState.COMPLETE, {"ap": ap}, 9.0, 6),))


def test_an_evaluation_is_logged_with_the_best_so_far_and_the_hypervolume() -> None:
    candidate = grid_candidate(8, 3)
    cost = deployed_cost(candidate.graph, 32)
    suggestion = Suggestion(Trial(5, candidate, Origin("sample"), {"score": 1.5}, cost), 1, Fidelity(6, 96))
    evaluation = Evaluation(TrialState.COMPLETE, {"ap": 0.25, "ap50": 0.5}, 12.5, 4)
    # Area over (AP, MACs / 400): 0.5 from 0.25 to 1, and 0.2 more from 0.5 to 1. Trial 4 is beyond the limit, 6 on rung 0.
    results = [*(result(i, ap, macs, 1) for i, ap, macs in [(1, 0.5, 100), (2, 0.7, 200), (3, 0.6, 300), (4, 0.9, 400)])]
    results.append(result(6, 0.95, 50, 0))
    assert evaluation_row(Finished(suggestion, evaluation), results, 400) == {
        "trial": 5,
        "rung": 1,
        "seed": 0,
        "state": "complete",
        "ap": 0.25,
        "ap50": 0.5,
        "flops": 2 * cost.macs,
        "params": cost.params,
        "seconds": 12.5,
        "score": 1.5,
        "standing": "rung 1",
        "best_ap": 0.9,
        "hypervolume": pytest.approx(0.5 * 0.75 + 0.2 * 0.5),
    }
    failed = evaluation_row(Finished(suggestion, failure(Cause.NAN, "loss is nan", 3.0)), [], 400)
    assert (failed["state"], failed["best_ap"], failed["hypervolume"]) == ("failed", 0.0, 0.0)
    assert "ap" not in failed and failed["standing"] is None


def confirmed(i: int, macs: int, *aps: float) -> TrialResult:
    evaluations = tuple(Evaluation(TrialState.COMPLETE, {"ap": ap, "ap50": ap}) for ap in aps)
    return TrialResult(result(i, 0.0, macs, 2).trial, 2, Fidelity(6, 96), evaluations, confirmed=True)


def test_a_fresh_seed_is_logged_with_the_means_of_the_confirmed_trials() -> None:
    candidate = grid_candidate(8, 3)
    trial = Trial(5, candidate, Origin("sample"), {"score": 1.5}, deployed_cost(candidate.graph, 32))
    event = Finished(Suggestion(trial, 2, Fidelity(6, 96, seed=11)), Evaluation(TrialState.COMPLETE, {"ap": 0.75}))
    results = [confirmed(1, 100, 0.25, 0.5), result(2, 0.9, 50, 2), confirmed(3, 200, 0.75, 0.5, 0.25)]
    row = evaluation_row(event, results, 400)
    assert (row["seed"], row["ap"], row["standing"]) == (11, 0.75, "confirmed")
    # Means .375 from a quarter to the whole, and .5 from a half. Variances .03125 and .0625, (.03125 + .125) / 3 together: the
    # standard error is the root of .0521 x 5 / 6, .208, so the cheaper trial ties with the one of .5.
    assert row["hypervolume"] == pytest.approx(0.375 * 0.75 + 0.125 * 0.5)
    assert row["best_ap"] == 0.375
    shown = front_row(results[2])
    assert (shown["ap"], shown["seeds"], shown["deviation"], shown["ap50"]) == (0.5, 3, 0.25, 0.5)


def test_a_row_of_the_front_holds_cost_and_fidelity() -> None:
    assert front_row(result(3, 0.6, 300, 1)) == {
        "trial": 3,
        "ap": 0.6,
        "deviation": None,
        "seeds": 1,
        "ap50": None,
        "flops": 600,
        "params": 703,
        "epochs": 6,
        "imgsz": 96,
        "hash": "hash3",
        "origin": "sample",
    }
