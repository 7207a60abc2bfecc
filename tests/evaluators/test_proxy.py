from __future__ import annotations

import csv
import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

import evaluators.proxy
import evaluators.training.loop
from evaluators.data.augment import Augmentation
from evaluators.data.bank import ImageBank
from evaluators.data.open import DataSource, open_data
from evaluators.judge import judge, judge_split
from evaluators.proxy import ProxyEvaluator
from evaluators.training.loop import FitResult, fit, new_network
from evaluators.training.recipe import Recipe
from gpnas.errors import InputError, OutOfMemory, TrainingDiverged
from gpnas.graph.network import Network
from gpnas.search.trial import CHECKPOINTS, MEMORY_BYTES, Cause, Evaluation, Fidelity, TrialState
from tests.small_detector import NAMES, candidate, rectangle_data, small_graph

SMALL = candidate(small_graph(8))


def ignore(row: dict[str, Any]) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The squares as a data.yaml, its images and its label files."""
    root: Path = tmp_path_factory.mktemp("rectangles")
    for split, records in rectangle_data(train=8, val=3).splits.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for r in records:
            assert r.pixels is not None
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
    return ProxyEvaluator(DataSource(spec), device="cpu", seed=seed, batch_size=4, precision="fp32")


def test_the_memory_of_a_gpu_is_measured_after_the_images_are_there_and_freed_at_the_end(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the calls that reach the GPU replaced."""
    calls: list[str] = []

    def recorded(name: str, result: Any = None) -> None:
        original = getattr(evaluators.proxy, name)

        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return original(*args, **options) if result is None else result

        monkeypatch.setattr(evaluators.proxy, name, call)

    for name in ("_val_split", "forget_peak", "fit", "free_cache"):
        recorded(name)
    recorded("peak_bytes", 12345)
    result = proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore)
    assert result.metrics[MEMORY_BYTES] == 12345
    assert calls == ["_val_split", "forget_peak", "fit", "peak_bytes", "free_cache"]


def checkpoint(folder: Path, epochs: int) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / f"checkpoint-{epochs}.pt", weights_only=True)
    return content


class Fits:
    """Records what `fit` is called with, and calls it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: list[dict[str, torch.Tensor]] = []
        self.banks: list[ImageBank] = []
        self.recipes: list[Recipe] = []
        self._fit = fit
        monkeypatch.setattr(evaluators.proxy, "fit", self)

    def __call__(self, network: Network, train: ImageBank, val: Any, names: Any, recipe: Recipe, **options: Any) -> FitResult:
        self.starts.append({key: value.clone() for key, value in network.state_dict().items()})
        self.banks.append(train)
        self.recipes.append(recipe)
        return self._fit(network, train, val, names, recipe, **options)


def test_an_evaluation_is_complete_and_leaves_a_checkpoint_and_a_log(spec: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, rows.append)
    assert result.state is TrialState.COMPLETE and result.epochs == 2 and result.message == ""
    assert [(row["epoch"], row["epochs"]) for row in rows] == [(1, 2), (2, 2)]
    left = checkpoint(tmp_path, 2)
    assert (left["hash"], left["genotype"], left["epochs"], left["imgsz"]) == (SMALL.hash, SMALL.genotype, 2, 64)
    assert left["history"] == [{key: row[key] for key in row if key != "epochs"} | {"imgsz": 64} for row in rows]
    log = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [(row["epoch"], row["imgsz"], row["loss"]) for row in log] == [
        (str(row["epoch"]), "64", f"{row['loss']:.6g}") for row in rows
    ]


def test_its_metrics_are_those_of_the_averaged_weights_on_val(spec: str, tmp_path: Path) -> None:
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, ignore)
    network = Network(SMALL.graph)
    network.load_state_dict(checkpoint(tmp_path, 2)["ema"])
    evaluation, *_ = judge_split(network, open_data(spec), "val", 64, device="cpu", precision="fp32")
    assert result.metrics == evaluation.metrics == checkpoint(tmp_path, 2)["metrics"]
    assert MEMORY_BYTES not in result.metrics  # a CPU has no memory of its own


def test_it_is_evaluated_once_on_so_many_images_of_val_and_always_the_same(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def judged(network: Any, split: Any, *arguments: Any, **options: Any) -> Any:
        seen.append([record.image_id for record in split.records])
        assert not options.get("fast")  # the AP of a trial is reported
        return judge(network, split, *arguments, **options)

    monkeypatch.setattr(evaluators.training.loop, "judge", judged)
    monkeypatch.setattr(evaluators.proxy, "MOST_VAL_IMAGES", 2)
    for name in ("a", "b"):
        evaluators.proxy._val_split.cache_clear()
        (tmp_path / name).mkdir()
        proxy(spec).evaluate(SMALL, Fidelity(2, 32), tmp_path / name, ignore)
    evaluators.proxy._val_split.cache_clear()
    assert len(seen) == 2 and seen[0] == seen[1] and len(set(seen[0])) == 2


def test_the_recipe_is_short_and_its_seed_depends_on_candidate_and_fidelity(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = Fits(monkeypatch)
    proxy(spec, seed=3).evaluate(SMALL, Fidelity(1, 64, 0.5), tmp_path, ignore)
    [recipe] = fits.recipes
    assert recipe == Recipe(
        epochs=1,
        imgsz=64,
        batch_size=4,
        augmentation=Augmentation(mosaic=0.5),
        eval_every=0,
        seed=275240878694951,  # the published searches depend on how it is derived
        device="cpu",
        precision="fp32",
    )


def test_the_defaults_are_those_of_the_published_searches() -> None:
    evaluator = ProxyEvaluator(DataSource("digits"))
    assert (evaluator.threads, evaluator.seed, evaluator.batch_size) == (1, 0, 8)
    assert (evaluator.device, evaluator.precision) == ("auto", "auto")
    assert evaluators.proxy.MOST_VAL_IMAGES == 1000


def test_it_is_the_same_again_and_after_pickling_and_another_with_another_seed(spec: str, tmp_path: Path) -> None:
    models = []
    for name, evaluator in (("a", proxy(spec)), ("b", pickle.loads(pickle.dumps(proxy(spec)))), ("c", proxy(spec, 1))):
        (tmp_path / name).mkdir()
        evaluator.evaluate(SMALL, Fidelity(1, 64, 0.5), tmp_path / name, ignore)
        models.append(checkpoint(tmp_path / name, 1)["model"])
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert not all(torch.equal(models[0][key], models[2][key]) for key in models[0])


def test_it_trains_on_its_share_of_the_images_at_its_size(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Fits(monkeypatch)
    for share in (1.0, 0.5, 0.25):
        folder = tmp_path / str(share)
        folder.mkdir()
        proxy(spec).evaluate(SMALL, Fidelity(1, 64, share), folder, ignore)
    whole, half, quarter = ({image.numpy().tobytes() for image in bank.pixels} for bank in fits.banks)
    assert quarter < half < whole and (len(whole), len(half), len(quarter)) == (8, 4, 2)
    proxy(spec).evaluate(SMALL, Fidelity(1, 32), tmp_path, ignore)
    assert fits.banks[3].pixels.shape == (8, 32, 32, 3)


def test_a_higher_fidelity_continues_from_the_raw_weights_of_the_next_lower_one(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epochs in (1, 2, 5):  # the checkpoint of 5 epochs is that of a higher fidelity
        proxy(spec).evaluate(SMALL, Fidelity(epochs, 64), tmp_path, ignore)
    left, fits = checkpoint(tmp_path, 2), Fits(monkeypatch)
    rows: list[dict[str, Any]] = []
    result = proxy(spec).evaluate(SMALL, Fidelity(4, 64), tmp_path, rows.append)
    [start], [recipe] = fits.starts, fits.recipes
    assert recipe.epochs == result.epochs == 2
    assert all(torch.equal(start[key], left["model"][key]) for key in start)
    assert [(row["epoch"], row["epochs"]) for row in rows] == [(3, 4), (4, 4)]
    assert checkpoint(tmp_path, 4)["epochs"] == 4
    log = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert [row["epoch"] for row in log] == ["1", "2", "3", "4"]


def test_without_checkpoints_it_trains_from_scratch_and_says_so(spec: str, tmp_path: Path) -> None:
    proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore)
    for path in tmp_path.glob(CHECKPOINTS):
        path.unlink()
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, ignore)
    assert (result.epochs, result.message) == (2, "trained from scratch: an earlier training left no weights")


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ({"format": 1, "hash": "other", "epochs": 1}, "is of candidate other, not hash-small"),
        (None, "is broken or no checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_continued_is_not_and_the_message_says_so(
    spec: str, tmp_path: Path, left: dict[str, Any] | None, message: str
) -> None:
    if left:
        torch.save(left, tmp_path / "checkpoint-1.pt")
    else:
        (tmp_path / "checkpoint-1.pt").write_text("weights")
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, ignore)
    assert result.epochs == 2
    assert result.message.startswith("trained from scratch: ") and message in result.message
    assert checkpoint(tmp_path, 2)["hash"] == SMALL.hash


def test_an_evaluation_that_was_killed_before_it_was_known_ends_with_the_same_weights(spec: str, tmp_path: Path) -> None:
    proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore)
    proxy(spec).evaluate(SMALL, Fidelity(3, 64), tmp_path, ignore)
    first = checkpoint(tmp_path, 3)["model"]
    proxy(spec).evaluate(SMALL, Fidelity(3, 64), tmp_path, ignore)
    again = checkpoint(tmp_path, 3)["model"]
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_child_starts_from_the_weights_of_its_lender(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wider, child, lender = candidate(small_graph(16)), tmp_path / "child", tmp_path / "lender"
    child.mkdir()
    lender.mkdir()
    (child / "lender").symlink_to(lender)
    proxy(spec).evaluate(SMALL, Fidelity(2, 64), lender, ignore)
    fits = Fits(monkeypatch)
    result = proxy(spec).evaluate(wider, Fidelity(2, 64), child, ignore)
    left, start = checkpoint(lender, 2)["model"], fits.starts[0]
    same = {key for key in start if left[key].shape == start[key].shape}
    assert same and same != start.keys() and all(torch.equal(start[key], left[key]) for key in same)
    share = sum(start[key].numel() for key in same) / sum(value.numel() for value in start.values())
    assert result.message == f"started with {share:.0%} of its weights from another trial"
    assert result.epochs == 2
    higher = proxy(spec).evaluate(wider, Fidelity(3, 64), child, ignore)  # then it continues from its own weights
    own = checkpoint(child, 2)["model"]
    assert all(torch.equal(fits.starts[1][key], own[key]) for key in own)
    assert (higher.epochs, higher.message) == (1, "")


def test_a_lender_without_weights_is_an_error(spec: str, tmp_path: Path) -> None:
    (tmp_path / "lender").symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match=r"cannot read .*lender/checkpoint-1.pt"):
        proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore)


def fails(error: BaseException) -> Callable[..., FitResult]:
    """A `fit` that reports one epoch and raises `error` in the second."""

    def failing_fit(*arguments: Any, report: Callable[[dict[str, Any]], None], **options: Any) -> FitResult:
        report({"epoch": 1, "loss": 3.5})
        raise error

    return failing_fit


def test_a_training_that_diverges_ends_with_cause_nan(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(*arguments: Any) -> Network:
        network = new_network(*arguments)
        torch.nn.init.constant_(next(network.parameters()), math.nan)
        return network

    monkeypatch.setattr(evaluators.proxy, "new_network", spoiled)
    result = proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore)
    assert (result.state, result.cause, result.epochs) == (TrialState.FAILED, Cause.NAN, 0)
    assert result.message.startswith("epoch 1, step 1: loss nan") and "\n" not in result.message
    assert not list(tmp_path.glob(CHECKPOINTS))


@pytest.mark.parametrize(
    ("error", "cause", "message"),
    [
        (TrainingDiverged("epoch 2, step 1: loss nan"), Cause.NAN, "epoch 2, step 1: loss nan"),
        (OutOfMemory("2 images of 64 pixels do not fit"), Cause.OOM, "2 images of 64 pixels do not fit"),
        (RuntimeError("DefaultCPUAllocator: not enough memory\nmore"), Cause.OOM, "DefaultCPUAllocator: not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.OOM, "CUDA out of memory"),
        (MemoryError(), Cause.OOM, "MemoryError"),
    ],
)
def test_an_expected_failure_has_a_cause_and_counts_its_epochs_and_seconds(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, cause: Cause, message: str
) -> None:
    monkeypatch.setattr(evaluators.proxy, "fit", fails(error))
    monkeypatch.setattr(evaluators.proxy, "time", StepClock())
    result = proxy(spec).evaluate(SMALL, Fidelity(2, 64), tmp_path, ignore)
    assert result == Evaluation(TrialState.FAILED, {}, 1.0, 1, cause, message)


class StepClock:
    """Every look at this clock is a second after the one before."""

    def __init__(self) -> None:
        self.perf_counter = itertools.count(5.0).__next__


def test_the_seconds_are_those_of_the_evaluation(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluators.proxy, "time", StepClock())
    assert proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore).seconds == 1.0


def test_other_errors_are_raised(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluators.proxy, "fit", fails(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        proxy(spec).evaluate(SMALL, Fidelity(1, 64), tmp_path, ignore)


def test_a_head_for_other_classes_is_not_trained(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="predicts 5 classes, but the data have 3"):
        proxy(spec).evaluate(candidate(small_graph(8, classes=5)), Fidelity(1, 64), tmp_path, ignore)


def test_the_threads_are_those_asked_for(spec: str, tmp_path: Path) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        ProxyEvaluator(DataSource(spec), device="cpu", threads=2, batch_size=4).evaluate(
            SMALL, Fidelity(1, 64), tmp_path, ignore
        )
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
