"""The results of a search in Weights & Biases: one W&B run for each run directory, offline unless asked otherwise.

    tracker = Tracker("offline", run, settings.to_json(), run_id=run_id)  # one id for all sessions of a run
    tracker.trial({"trial": 7, "rung": 0, "ap": 0.31, ...})               # after each finished evaluation
    tracker.front([{"trial": 7, "ap": 0.31, "flops": 4.1e9, ...}])        # at the end of a session
    tracker.finish({"best_ap": 0.31, "trials": 40})

Tracking never ends a search: the first error is printed on standard error and passed to `on_error`, and after it nothing is
sent. Offline, nothing leaves this machine; `wandb sync RUN/wandb/offline-run-*` sends it later.
"""

from __future__ import annotations

import netrc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpnas.errors import InputError
from gpnas.run.events import Finished
from gpnas.run.results import TrialResult, best_of, standing, standing_name
from gpnas.search.pareto import hypervolume

MODES = ("offline", "online", "off")

PROJECT = "gpnas"

INIT_TIMEOUT = 60.0
FINISH_TIMEOUT = 60.0
"""Seconds that a search waits for the server at its start and its end. Data that were not sent by then stay in RUN/wandb."""

Row = Mapping[str, float | int | str | None]


def check_mode(mode: str) -> None:
    """Raises InputError when `mode` is none of MODES."""
    if mode not in MODES:
        raise InputError(f"--wandb {mode}: must be offline, online or off")


def evaluation_row(event: Finished, results: Sequence[TrialResult], max_macs: float) -> dict[str, Any]:
    """A finished evaluation for `Tracker.trial`. results: of all trials so far. max_macs: the end of the hypervolume.

    `best_ap` and `hypervolume` are those of the standing results, of which `standing` says what they are: they may fall when a
    trial reaches a higher rung, and when the first one is confirmed.
    """
    trial, evaluation = event.suggestion.trial, event.evaluation
    best = best_of(results)
    return {
        "trial": trial.id,
        "rung": event.suggestion.rung,
        "seed": event.suggestion.fidelity.seed,
        "state": evaluation.state.value,
        **evaluation.metrics,
        "flops": trial.cost.flops,
        "params": trial.cost.params,
        "seconds": evaluation.seconds,
        "score": trial.score,
        "standing": standing_name(results) or None,
        "best_ap": best.ap if best else 0.0,
        "hypervolume": hypervolume([result.point for result in standing(results)], max_macs),
    }


def front_row(result: TrialResult) -> dict[str, Any]:
    """A trial of the Pareto front for `Tracker.front`."""
    return {
        "trial": result.trial.id,
        "ap": result.ap,
        "deviation": result.deviation,
        "seeds": result.seeds,
        "ap50": result.metrics.get("ap50"),
        "flops": result.trial.flops,
        "params": result.trial.params,
        "epochs": result.fidelity.epochs,
        "imgsz": result.fidelity.imgsz,
        "hash": result.trial.hash,
        "origin": str(result.trial.origin),
    }


class Tracker:
    """Logs to one W&B run. With mode "off" it does nothing and imports nothing.

    error: the first error, after which nothing was logged any more; None without one.
    """

    def __init__(
        self,
        mode: str,
        run_dir: Path,
        config: Mapping[str, Any],
        *,
        run_id: str,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        """config: the settings that W&B shows beside the run. Raises InputError for an unknown mode, and for mode "online" when
        nobody is logged in."""
        check_mode(mode)
        self.error: str | None = None
        self._on_error = on_error
        self._run: Any = None
        if mode == "off":
            return
        if mode == "online" and not _has_login():
            raise InputError("--wandb online: nobody is logged in to W&B; run `wandb login`, or use --wandb offline")
        try:
            self._run = _start(mode, run_dir, config, run_id)
        except InputError:
            raise
        except Exception as error:
            self._give_up(error)

    def trial(self, row: Row) -> None:
        """Log a finished evaluation: every value of the row under its own name, except None."""
        self._attempt(lambda run: run.log(_without_none(row)))

    def front(self, rows: Sequence[Row]) -> None:
        """Log the Pareto front as a table and as a chart of `ap` over `flops`. All rows have the columns of the first."""
        if rows:
            self._attempt(lambda run: _log_front(run, rows))

    def finish(self, summary: Row) -> None:
        """Log `summary` and end the W&B run. A second call does nothing."""
        self._attempt(lambda run: run.summary.update(_without_none(summary)))
        self._attempt(lambda run: run.finish())
        self._run = None

    def _attempt(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # no error of tracking is worth the loss of a search
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None  # wandb itself ends the run when the process exits
        self.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"warning: W&B tracking stops here and the search goes on ({self.error})", file=sys.stderr)
        if self._on_error is not None:
            self._on_error(self.error)


def _start(mode: str, run_dir: Path, config: Mapping[str, Any], run_id: str) -> Any:
    # wandb reads this when it is imported: it must not report its own errors to its makers.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb  # late: it takes a second
    except ImportError as error:
        missing = "wandb is not installed; run `pip install 'gpnas[wandb]'`, or use --wandb off"
        if mode == "online":
            raise InputError(f"--wandb online: {missing}") from error
        raise ImportError(missing) from error

    quiet = wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        init_timeout=INIT_TIMEOUT,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    if "finish_timeout" in wandb.Settings.model_fields:  # older versions wait for the server forever
        quiet.finish_timeout = FINISH_TIMEOUT
    (run_dir / "wandb").mkdir(parents=True, exist_ok=True)  # without it wandb writes to a temporary folder
    try:
        run = wandb.init(
            project=PROJECT,
            name=run_dir.resolve().name,
            id=run_id,
            resume="allow",
            mode="online" if mode == "online" else "offline",
            dir=run_dir,
            config=dict(config),
            settings=quiet,
        )
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        if mode != "online":
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"--wandb online: {reason}; run `wandb login`, or use --wandb offline") from error
    run.define_metric("ap", summary="none")  # the largest AP of a single training is a lucky one; `best_ap` counts
    return run


def _without_none(row: Row) -> dict[str, float | int | str]:
    return {name: value for name, value in row.items() if value is not None}


def _log_front(run: Any, rows: Sequence[Row]) -> None:
    import wandb

    columns = list(rows[0])
    table = wandb.Table(columns=columns, data=[[row[name] for name in columns] for row in rows])
    chart = wandb.plot.scatter(table, "flops", "ap", title="Pareto front: AP over FLOPs")
    run.log({"front": table, "ap_over_flops": chart})


def _has_login() -> bool:
    """Whether W&B will find an API key without asking: in the environment, or in the netrc file of `wandb login`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    named = os.environ.get("NETRC")
    paths = [Path(named).expanduser()] if named else [Path.home() / name for name in (".netrc", "_netrc")]
    for path in paths:
        try:
            if netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
