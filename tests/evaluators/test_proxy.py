import csv
import math
import pickle
from pathlib import Path

import cv2
import pytest
import torch

import evaluators.proxy
from evaluators.proxy import ProxyEvaluator
from evaluators.training.step import OutOfMemory
from gpnas.errors import InputError
from gpnas.graph.network import Network
from gpnas.search.trial import Cause, Evaluation, Fidelity, TrialState
from tests.small_detector import NAMES, candidate, small_graph, square_data

SMALL = candidate(small_graph(8))


def nothing(row):
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> str:
    """The squares as a data.yaml, its images and its label files."""
    root: Path = tmp_path_factory.mktemp("squares")
    for split, records in square_data(train=8, val=3).splits.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for r in records:
            cv2.imwrite(str(root / "images" / split / f"{r.image_id}.png"), r.pixels[..., ::-1])
            rows = [
                f"{k} {(x1 + x2) / 2 / r.width} {(y1 + y2) / 2 / r.height} {(x2 - x1) / r.width} {(y2 - y1) / r.height}"
                for (x1, y1, x2, y2), k in zip(r.boxes.tolist(), r.classes, strict=True)
            ]
            (root / "labels" / split / f"{r.image_id}.txt").write_text("\n".join(rows))
    names = ", ".join(NAMES)
    (root / "data.yaml").write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [{names}]\n")
    return str(root / "data.yaml")


def proxy(spec: str, seed: int = 0) -> ProxyEvaluator:
    return ProxyEvaluator(spec, device="cpu", seed=seed, batch_size=4, precision="fp32")


def checkpoint(folder: Path, epochs: int) -> dict:
    return torch.load(folder / f"checkpoint-{epochs}.pt", weights_only=True)


def test_an_evaluation_is_complete_and_leaves_a_checkpoint_and_a_log(spec, tmp_path):
    rows = []
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, rows.append)
    assert result.state is TrialState.COMPLETE and result.epochs == 2 and result.message == ""
    assert {"ap", "ap50", "ap75"} <= result.metrics.keys()
    assert [(row["epoch"], row["epochs"]) for row in rows] == [(1, 2), (2, 2)]
    assert all(math.isfinite(row["loss"]) for row in rows)
    left = checkpoint(tmp_path, 2)
    assert (left["hash"], left["epochs"]) == (SMALL.hash, 2)
    Network(SMALL.graph).load_state_dict(left["ema"])
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "log.csv").open())] == ["1", "2"]


def test_it_is_the_same_again_and_after_pickling_and_another_with_another_seed(spec, tmp_path):
    models = []
    for name, evaluator in (("a", proxy(spec)), ("b", pickle.loads(pickle.dumps(proxy(spec)))), ("c", proxy(spec, 1))):
        (tmp_path / name).mkdir()
        evaluator.evaluate(SMALL, Fidelity(1, 64, 0.5), tmp_path / name, nothing)
        models.append(checkpoint(tmp_path / name, 1)["model"])
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert not all(torch.equal(models[0][key], models[2][key]) for key in models[0])


def test_a_higher_fidelity_goes_on_from_the_raw_weights_of_a_lower_one(spec, tmp_path, monkeypatch):
    proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)
    left, starts, real_fit = checkpoint(tmp_path, 1), [], evaluators.proxy.fit

    def watching_fit(network, train, val, names, recipe, **options):
        starts.append(({key: value.clone() for key, value in network.state_dict().items()}, recipe.epochs))
        return real_fit(network, train, val, names, recipe, **options)

    monkeypatch.setattr(evaluators.proxy, "fit", watching_fit)
    rows = []
    result = proxy(spec).evaluate(SMALL, Fidelity(3, 64), tmp_path, rows.append)
    [(start, epochs)] = starts
    assert epochs == result.epochs == 2
    assert all(torch.equal(start[key], left["model"][key]) for key in start)
    assert [(row["epoch"], row["epochs"]) for row in rows] == [(2, 3), (3, 3)]
    assert checkpoint(tmp_path, 3)["epochs"] == 3
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "log.csv").open())] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ({"format": 1, "hash": "other", "epochs": 1}, "is of candidate other, not hash-small"),
        (None, "is broken or no checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_continued_is_not_and_the_message_says_so(spec, tmp_path, left, message):
    if left:
        torch.save(left, tmp_path / "checkpoint-1.pt")
    else:
        (tmp_path / "checkpoint-1.pt").write_text("weights")
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, nothing)
    assert result.epochs == 2
    assert result.message.startswith("trained from scratch: ") and message in result.message
    assert checkpoint(tmp_path, 2)["hash"] == SMALL.hash


def test_an_evaluation_that_was_killed_before_it_was_known_ends_with_the_same_weights(spec, tmp_path):
    proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)
    proxy(spec).evaluate(SMALL, Fidelity(3, 64), tmp_path, nothing)
    first = checkpoint(tmp_path, 3)["model"]
    proxy(spec).evaluate(SMALL, Fidelity(3, 64), tmp_path, nothing)
    again = checkpoint(tmp_path, 3)["model"]
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_child_starts_from_the_weights_of_its_lender(spec, tmp_path, monkeypatch):
    wider, child, lender = candidate(small_graph(16)), tmp_path / "child", tmp_path / "lender"
    child.mkdir()
    lender.mkdir()
    (child / "lender").symlink_to(lender)
    proxy(spec).evaluate(SMALL, Fidelity(2, 64), lender, nothing)
    starts, real_fit = [], evaluators.proxy.fit

    def watching_fit(network, *rest, **options):
        starts.append({key: value.clone() for key, value in network.state_dict().items()})
        return real_fit(network, *rest, **options)

    monkeypatch.setattr(evaluators.proxy, "fit", watching_fit)
    result = proxy(spec).evaluate(wider, Fidelity(2, 64), child, nothing)
    left = checkpoint(lender, 2)["model"]
    same = {key for key in starts[0] if left[key].shape == starts[0][key].shape}
    assert same and same != starts[0].keys() and all(torch.equal(starts[0][key], left[key]) for key in same)
    assert result.message.endswith("% of its weights from another trial") and result.epochs == 2
    proxy(spec).evaluate(wider, Fidelity(3, 64), child, nothing)  # then it goes on from its own
    own = checkpoint(child, 2)["model"]
    assert all(torch.equal(starts[1][key], own[key]) for key in own)


def test_a_lender_without_weights_is_an_error(spec, tmp_path):
    (tmp_path / "lender").symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match=r"cannot read .*lender/checkpoint-1.pt"):
        proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)


def broken(monkeypatch, spoil) -> None:
    """Spoil each network that the proxy makes."""
    make = evaluators.proxy.new_network

    def spoiled(*args):
        network = make(*args)
        spoil(network)
        return network

    monkeypatch.setattr(evaluators.proxy, "new_network", spoiled)


def test_nan_ends_with_cause_nan(spec, tmp_path, monkeypatch):
    broken(monkeypatch, lambda network: torch.nn.init.constant_(next(network.parameters()), math.nan))
    result = proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)
    assert (result.state, result.cause, result.epochs) == (TrialState.FAILED, Cause.NAN, 0)
    assert "epoch 1, step 1: loss nan" in result.message and "\n" not in result.message
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemory("2 images of 64 pixels do not fit into memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory\nmore lines"),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
    ],
)
def test_want_of_memory_ends_with_cause_oom(spec, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs) -> Evaluation:
        raise error

    monkeypatch.setattr(evaluators.proxy, "fit", fail)
    result = proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)
    assert result.cause is Cause.OOM
    assert result.message and "\n" not in result.message


def test_other_errors_are_raised(spec, tmp_path, monkeypatch):
    def fail(*args, **kwargs) -> Evaluation:
        raise RuntimeError("a bug")

    monkeypatch.setattr(evaluators.proxy, "fit", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)


def test_a_head_for_other_classes_is_not_trained(spec, tmp_path):
    with pytest.raises(ValueError, match="predicts 5 classes, but the data have 3"):
        proxy(spec).evaluate(candidate(small_graph(8, classes=5)), Fidelity(1, 64), tmp_path, nothing)


def test_the_threads_are_those_asked_for(spec, tmp_path):
    before = torch.get_num_threads()
    try:
        ProxyEvaluator(spec, device="cpu", threads=2, batch_size=4).evaluate(SMALL, Fidelity(1, 64), tmp_path, nothing)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
