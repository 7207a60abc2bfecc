from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import evaluators.training.train_detector
from evaluators.data.batches import Batch
from evaluators.judge import judge_split
from evaluators.training.checkpoint import load_detector, load_weights, save_checkpoint
from evaluators.training.distributed import ALONE, Group
from evaluators.training.step import GradientAccumulator
from evaluators.training.train_detector import TrainedDetector, train_detector
from gpnas.errors import InputError
from gpnas.graph.graph import Graph, Output
from gpnas.graph.network import Network
from tests.evaluators.training.short_training import QUICK, equal, ignore
from tests.small_detector import NAMES, rectangle_data, rectangles, small_graph

SHORT = replace(QUICK, epochs=1)
AS_IT_WAS: dict[str, Any] = {"graph": small_graph(8), "genotype": "g", "data": rectangle_data(), "report": ignore}


def train(out: Path, **changes: Any) -> TrainedDetector:
    done = train_detector(**AS_IT_WAS | {"recipe": SHORT, "out": out, "resume": False} | changes)
    assert done is not None
    return done


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv, without the columns that hold times."""
    rows = csv.DictReader((folder / "results.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in ("seconds", "waiting")} for row in rows]


def test_a_measured_batch_is_that_of_the_loaded_data_and_a_resumed_training_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([3, 5])  # of two measurements; the second is not asked for

    def measured(graph: Graph, classes: int, imgsz: int, device: torch.device, precision: str, group: Group) -> int:
        assert (graph, classes, imgsz, device.type, precision, group) == (small_graph(8), 3, 64, "cpu", "fp32", ALONE)
        return next(sizes)

    monkeypatch.setattr(evaluators.training.train_detector, "automatic_batch", measured)
    recipe = replace(QUICK, epochs=2)

    def stop(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe=recipe, measure_batch=True, report=stop)
    assert content_of(tmp_path / "last.pt")["recipe"]["batch_size"] == 3
    assert train(tmp_path, recipe=recipe, measure_batch=True, resume=True).epochs == 2
    assert content_of(tmp_path / "last.pt")["recipe"]["batch_size"] == 3
    with pytest.raises(InputError, match="was trained with batch_size 3, not 4; resume with the same"):
        train(tmp_path, recipe=recipe, resume=True)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(optimizer: str, tmp_path: Path) -> None:
    recipe = replace(QUICK, epochs=4, plain_epochs=1, optimizer=optimizer)

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    changes = {"recipe": recipe, "graph": small_graph(8, auxiliary=0.25)}
    train(tmp_path / "whole", **changes)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", **changes, report=stop)
    done = train(tmp_path / "parts", **changes, resume=True)
    assert done.epochs == 4
    whole, parts = (content_of(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert equal(whole["model"], parts["model"]) and equal(whole["ema"], parts["ema"])
    assert torch.equal(whole["generator"], parts["generator"])
    assert [row["epoch"] for row in rows_of(tmp_path / "parts")] == ["1", "2", "3", "4"]
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")


def test_a_training_that_is_killed_in_an_epoch_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"recipe": QUICK, "graph": small_graph(8, auxiliary=0.25)}
    train(tmp_path / "whole", **changes)
    backward, steps = GradientAccumulator.backward, iter(range(6))

    def dies(gradients: GradientAccumulator, batch: Batch, outputs: list[Output]) -> Tensor:
        if next(steps) == 3:  # the second of the two steps of epoch 2
            raise KeyboardInterrupt
        return backward(gradients, batch, outputs)

    monkeypatch.setattr(GradientAccumulator, "backward", dies)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", **changes)
    monkeypatch.undo()
    train(tmp_path / "parts", **changes, resume=True)
    whole, parts = (content_of(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert equal(whole["model"], parts["model"]) and equal(whole["ema"], parts["ema"])


def test_a_finished_training_is_a_detector(tmp_path: Path) -> None:
    done = train(tmp_path, recipe=QUICK, genotype="the genotype")
    detector = load_detector(tmp_path / "best.pt")
    assert (detector.genotype, detector.names, detector.imgsz) == ("the genotype", NAMES, 64)
    assert (detector.epoch, detector.metrics) == (done.best_epoch, done.evaluation.metrics)
    aps = [row["ap"] for row in done.history]
    assert done.best_epoch == 1 + aps.index(max(aps)) and done.loaded == ""
    network = Network(small_graph(8))
    load_weights(network, detector.weights, tmp_path / "best.pt")
    evaluation, detections, _ = judge_split(network, AS_IT_WAS["data"], "val", 64, device="cpu", precision="fp32")
    assert evaluation == done.evaluation
    assert done.split == "val" and all(map(np.array_equal, detections, done.detections))
    names = ["best.pt", "last.pt", "recipe.yaml", "results.csv", "splits.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names

    again = train(tmp_path, recipe=QUICK, genotype="the genotype", resume=True, report=pytest.fail)
    assert (again.evaluation, again.epochs, again.history) == (done.evaluation, 3, done.history)


def test_the_test_split_is_judged_where_there_is_one(tmp_path: Path) -> None:
    data = rectangle_data()
    data = replace(data, splits={**data.splits, "test": rectangles(3, seed=2, first_id=2000)})
    done = train(tmp_path, data=data)
    network = Network(small_graph(8))
    load_weights(network, load_detector(tmp_path / "best.pt").weights, tmp_path / "best.pt")
    evaluation, *_ = judge_split(network, data, "test", 64, device="cpu", precision="fp32")
    assert done.split == "test" and done.evaluation == evaluation


def test_a_training_starts_from_the_matching_weights_of_another(tmp_path: Path) -> None:
    train(tmp_path / "a")
    best, slow = tmp_path / "a" / "best.pt", replace(SHORT, lr=1e-9)
    done = train(tmp_path / "b", recipe=slow, weights=best)
    assert "(100%) are taken from" in done.loaded
    theirs, ours = load_detector(best).weights, content_of(tmp_path / "b" / "last.pt")["model"]
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours if key.endswith(("weight", "bias")))
    wider = train(tmp_path / "c", graph=small_graph(12), weights=best)
    assert "are taken from" in wider.loaded and "(100%)" not in wider.loaded
    resumed = train(tmp_path / "b", recipe=slow, weights=tmp_path / "absent.pt", resume=True)  # it has its own weights
    assert resumed.loaded == ""


def test_images_are_not_mirrored_where_the_data_forbid_it(tmp_path: Path) -> None:
    train(tmp_path, data=replace(rectangle_data(), may_flip=False))
    assert content_of(tmp_path / "last.pt")["recipe"]["augmentation"]["flip"] == 0.0


@pytest.fixture(scope="module")
def one_epoch_of_three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last.pt of QUICK after one of its epochs."""
    folder = tmp_path_factory.mktemp("training")
    train(folder)
    content = content_of(folder / "last.pt")
    content["recipe"]["epochs"] = 3
    return content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": replace(QUICK, lr=0.5)}, r"last.pt was trained with lr 0.004, not 0.5; resume with the same"),
        ({"genotype": "h"}, "another architecture"),
        ({"graph": small_graph(12)}, r"last.pt \(\d+ parameters\) do not fit this network \(\d+ parameters\)"),
        ({"resume": False}, "holds a training already"),
        ({"graph": small_graph(8, classes=4)}, "this network cannot be used here: .* predicts 4 classes, but the data have 3"),
        ({"data": replace(rectangle_data(), names=("a", "b", "c"))}, "detects red, green, blue, the data have a, b, c"),
    ],
)
def test_a_training_is_resumed_only_as_it_was(
    changes: dict[str, Any], message: str, one_epoch_of_three: dict[str, Any], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "last.pt", one_epoch_of_three)
    with pytest.raises(InputError, match=message):
        train(tmp_path, **{"recipe": QUICK, "resume": True} | changes)


def test_a_training_may_be_resumed_on_another_device(one_epoch_of_three: dict[str, Any], tmp_path: Path) -> None:
    recipe = one_epoch_of_three["recipe"] | {"device": "cuda:3", "precision": "bf16"}
    save_checkpoint(tmp_path / "last.pt", one_epoch_of_three | {"recipe": recipe, "epoch": 3})
    save_checkpoint(tmp_path / "best.pt", one_epoch_of_three)
    assert train(tmp_path, recipe=QUICK, resume=True).epochs == 3


def halve_the_moments(state: dict[str, Any]) -> None:
    moments = state["vectors"]["state"][0]
    moments |= {name: value[: len(value) // 2] for name, value in moments.items() if value.ndim}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("vectors"), "lacks vectors; resume from the last.pt of this version's gpnas train"),
        (halve_the_moments, "laid out by another version of gpnas; train again"),
    ],
)
def test_a_state_of_another_version_is_refused(spoil: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    train(tmp_path)
    state = content_of(tmp_path / "last.pt")
    spoil(state)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(InputError, match=message):
        train(tmp_path, resume=True)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"last.pt does not exist: nothing to resume; train without --resume"):
        train(tmp_path, resume=True)
