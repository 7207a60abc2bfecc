from pathlib import Path

import pytest
import torch

from evaluators.training.checkpoint import read_checkpoint, save_checkpoint
from evaluators.training.state import STATE_KEYS, TrainingState
from tests.evaluators.training.short_training import QUICK, equal, trained
from tests.small_detector import rectangles


def test_a_state_survives_a_checkpoint(tmp_path: Path) -> None:
    states: list[TrainingState] = []
    trained(QUICK, val=rectangles(3, seed=1), save=states.append)
    state = states[-1]
    save_checkpoint(tmp_path / "last.pt", state.state_dict())
    content = read_checkpoint(tmp_path / "last.pt")
    assert tuple(content) == ("format", *STATE_KEYS)

    trained(QUICK.__class__(1, 64, batch_size=4, seed=7, device="cpu"), save=states.append)
    other = states[-1]
    other.load_state_dict(content)
    ours, theirs = state.state_dict(), other.state_dict()
    assert equal(ours["model"], theirs["model"]) and equal(ours["ema"], theirs["ema"])
    assert torch.equal(ours["generator"], theirs["generator"])
    moments = [s["vectors"]["state"] for s in (ours, theirs)]
    assert moments[0].keys() == moments[1].keys() == {0, 1}
    assert all(equal(moments[0][i], moments[1][i]) for i in (0, 1))
    rest = ("updates", "epoch", "best", "best_epoch", "metrics", "history")
    assert {key: ours[key] for key in rest} == {key: theirs[key] for key in rest}
    assert (other.epoch, other.average.updates, len(other.history)) == (3, 6, 3)
    assert other.best == max(row["ap"] for row in other.history)


def test_a_loaded_history_is_a_copy() -> None:
    states: list[TrainingState] = []
    trained(QUICK, save=states.append)
    content = states[-1].state_dict() | {"history": [{"epoch": 1}], "metrics": {"ap": 0.25}}
    states[-1].load_state_dict(content)
    states[-1].history.append({"epoch": 2})
    states[-1].metrics["ap"] = 0.5
    assert content["history"] == [{"epoch": 1}] and content["metrics"] == {"ap": pytest.approx(0.25)}
