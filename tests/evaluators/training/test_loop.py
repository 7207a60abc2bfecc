from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evaluators.training.average
import evaluators.training.loop
import evaluators.training.optimizer
from evaluators.data.bank import load_bank
from evaluators.data.batches import Batch
from evaluators.detector.ap import CocoEvaluation
from evaluators.training.loop import fit, new_network, set_norm_momentum
from evaluators.training.recipe import Recipe
from evaluators.training.state import TrainingState
from evaluators.training.step import GradientAccumulator, Losses
from gpnas.errors import OutOfMemory, TrainingDiverged
from gpnas.graph.graph import Branch, Output
from gpnas.graph.network import Network
from tests.evaluators.training.short_training import PLAIN, QUICK, equal, ignore, trained
from tests.small_detector import NAMES, rectangles, small_graph


def test_it_overfits_eight_images() -> None:
    records = rectangles(8)
    recipe = Recipe(40, 64, batch_size=4, lr=8e-3, augmentation=PLAIN, eval_every=0, device="cpu")
    _, result = trained(recipe, small_graph(16), records, records)
    assert result.metrics["ap50"] > 0.8


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    (a, _), (b, _), (c, _) = (trained(replace(QUICK, epochs=1, seed=seed)) for seed in (0, 0, 1))
    assert equal(a.state_dict(), b.state_dict())
    assert not equal(a.state_dict(), c.state_dict())


def test_a_new_network_comes_from_its_seed_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = new_network(small_graph(8), 3, 64, 5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    assert equal(first, new_network(small_graph(8), 3, 64, 5).state_dict())
    assert not equal(first, new_network(small_graph(8), 3, 64, 6).state_dict())


@pytest.mark.parametrize(
    ("classes", "imgsz", "message"), [(4, 64, "predicts 3 classes, but the data have 4"), (3, 72, "no multiple of 16")]
)
def test_a_head_that_does_not_fit_is_refused(classes: int, imgsz: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_network(small_graph(8), classes, imgsz, 0)
    network, bank = new_network(small_graph(8), 3, 64, 0), load_bank(rectangles(4), imgsz)
    with pytest.raises(ValueError, match=message):
        fit(network, bank, None, [*NAMES, "grey"][:classes], replace(QUICK, imgsz=imgsz), report=ignore)


class Recorder:
    """Records, for each step, the losses of the batch, the weights of its outputs, and the number of images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.losses: list[Losses] = []
        self.outputs: list[Sequence[Output]] = []
        backward = GradientAccumulator.backward

        def recorded(gradients: GradientAccumulator, batch: Batch, outputs: Sequence[Output]) -> Tensor:
            losses = backward(gradients, batch, outputs)
            self.losses.append(Losses(*losses.tolist()))
            self.outputs.append(outputs)
            return losses

        monkeypatch.setattr(GradientAccumulator, "backward", recorded)


class WatchedSgd(torch.optim.SGD):
    """Records the learning rate and the norm of the gradients of each step."""

    steps: list[tuple[float, float]]

    def step(self, closure: Any = None) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        [lr] = {group["lr"] for group in self.param_groups}
        self.steps.append((lr, float(nn.utils.get_total_norm(gradients))))
        super().step()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """(learning rate, norm of the gradients) of each step of a training by SGD."""
    WatchedSgd.steps = []
    monkeypatch.setitem(evaluators.training.optimizer.FACTORIES, "sgd", lambda groups, lr, momentum: WatchedSgd(groups, lr))
    return WatchedSgd.steps


def test_every_step_has_the_learning_rate_and_the_outputs_of_its_point_and_a_row_has_their_means(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, float]]
) -> None:
    rows: list[dict[str, Any]] = []
    recorder = Recorder(monkeypatch)
    recipe = replace(QUICK, epochs=2, batch_size=3, optimizer="sgd", lr=1e-3, auxiliary_end=0.0)
    graph = small_graph(8, auxiliary=0.5)
    _, result = trained(recipe, graph, rectangles(8), report=rows.append)
    points = [0, 3 / 8, 6 / 8, 1, 1 + 3 / 8, 1 + 6 / 8]  # batches of 3, 3 and 2 images
    assert [lr for lr, _ in steps] == pytest.approx([recipe.lr_at(point) for point in points])
    for point, outputs in zip(points, recorder.outputs, strict=True):
        auxiliary = [out.weight for out in outputs if out.branch is Branch.AUXILIARY]
        assert auxiliary == pytest.approx([0.5 * (1 - point / 2)])
    for epoch, row in enumerate(rows):
        for i, name in enumerate(("loss", "box", "classes", "distribution")):
            of_steps = [losses[i] for losses in recorder.losses[3 * epoch : 3 * epoch + 3]]
            assert row[name] == pytest.approx(sum(of_steps) / 3, rel=1e-12)
        assert row["lr"] == steps[3 * epoch + 2][0]
        assert (row["epoch"], row["epochs"]) == (epoch + 1, 2)
    assert (result.metrics, result.epochs, result.best_epoch) == ({}, 2, 0)


class StepClock:
    """Every look at this clock is a second after the one before."""

    def __init__(self) -> None:
        self.perf_counter = itertools.count(0.0).__next__


def test_rows_hold_the_share_of_time_that_steps_waited_for_images_and_the_seconds_since_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluators.training.loop, "time", StepClock())
    rows: list[dict[str, Any]] = []
    _, result = trained(replace(QUICK, epochs=2), report=rows.append)
    # Looks: 0 start; 1 epoch begins; 2-3, 4-5 and 6-7 around two batches and the end of the batches; 8 epoch ends; 9 row.
    assert [(row["waiting"], row["seconds"]) for row in rows] == [(3 / 7, 9.0), (3 / 7, 18.0)]
    assert result.seconds == 19.0


def test_long_gradients_are_scaled_down_and_short_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, float]]
) -> None:
    recipe = Recipe(1, 64, 4, optimizer="sgd", lr=1e-4, eval_every=0)
    for limit in (0.5, 1e6):
        monkeypatch.setattr(evaluators.training.loop, "MAX_GRADIENT_NORM", limit)
        trained(recipe)
    norms = [norm for _, norm in steps]
    assert norms[:2] == pytest.approx([0.5, 0.5], rel=1e-4)
    assert min(norms[2:]) > 0.6


def test_the_limits_of_a_training() -> None:
    assert (evaluators.training.loop.MAX_GRADIENT_NORM, evaluators.training.loop.MAX_LOSS) == (10.0, 1e5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(value: float) -> None:
    network = new_network(small_graph(8), 3, 64, 0)
    nn.init.constant_(next(network.parameters()), value)
    lr = f"{QUICK.lr_at(0):g}"
    with pytest.raises(TrainingDiverged, match=f"epoch 1, step 1: loss nan, gradient norm nan at learning rate {lr}"):
        fit(network, load_bank(rectangles(4), 64), None, NAMES, QUICK, report=ignore)


@pytest.mark.parametrize(
    ("values", "step"),
    [([1e5, 3.0, 7.0, 100001.0, 5.0], "epoch 2, step 2"), ([1e5, 3.0, 100001.0, 100002.0], "epoch 2, step 1")],
)
def test_a_loss_that_explodes_ends_the_training_and_is_that_of_its_step(
    monkeypatch: pytest.MonkeyPatch, values: list[float], step: str
) -> None:
    """The last step of an epoch, and one whose numbers are read after the next step."""
    losses = iter(values)
    backward = GradientAccumulator.backward

    def exploding(gradients: GradientAccumulator, batch: Batch, outputs: Sequence[Output]) -> Tensor:
        return torch.cat([torch.tensor([next(losses)]), backward(gradients, batch, outputs)[1:]])

    monkeypatch.setattr(GradientAccumulator, "backward", exploding)
    with pytest.raises(TrainingDiverged, match=f"{step}: loss 100001,"):
        trained(QUICK)


def test_a_gradient_that_is_not_finite_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = GradientAccumulator.backward

    def overflowing(gradients: GradientAccumulator, batch: Batch, outputs: Sequence[Output]) -> Tensor:
        losses = backward(gradients, batch, outputs)
        parameter = next(gradients.network.parameters())
        assert parameter.grad is not None
        parameter.grad.fill_(math.inf)
        return losses

    monkeypatch.setattr(GradientAccumulator, "backward", overflowing)
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 1: loss .*, gradient norm inf"):
        trained(QUICK)


def test_memory_that_runs_out_where_no_pieces_help_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")

    monkeypatch.setattr(evaluators.training.average.WeightAverage, "update", full)
    with pytest.raises(
        OutOfMemory, match=r"a training at 64 pixels ran out of memory \(CUDA .* 2.00 GiB.\); use a smaller batch"
    ):
        trained(QUICK)


def test_gradients_that_left_the_optimizers_vectors_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = GradientAccumulator.backward

    def replacing(gradients: GradientAccumulator, batch: Batch, outputs: Sequence[Output]) -> Tensor:
        gradients.network.zero_grad()  # sets them to None, so that the backward pass makes new ones
        return backward(gradients, batch, outputs)

    monkeypatch.setattr(GradientAccumulator, "backward", replacing)
    with pytest.raises(RuntimeError, match="is no view of the optimizer's vectors any more"):
        trained(QUICK)


@pytest.mark.parametrize(("steps", "momentum"), [(40, 0.3), (100, 0.3), (120, 0.25), (300, 0.1), (1000, 0.03), (10**5, 0.03)])
def test_normalisation_statistics_span_thirty_steps_or_a_small_part_of_a_long_training(steps: int, momentum: float) -> None:
    network = new_network(small_graph(8), 3, 64, 0)
    set_norm_momentum(network, steps)
    [ours] = {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert ours == pytest.approx(momentum)


def test_the_momentum_of_normalisation_follows_from_the_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(evaluators.training.loop, "set_norm_momentum", lambda network, n: steps.append(n))
    trained(replace(QUICK, epochs=2, batch_size=3))  # eight images are three batches
    assert steps == [6]


def test_the_auxiliary_output_is_trained_and_absent_from_evaluation() -> None:
    graph = small_graph(8, auxiliary=0.5)
    before = new_network(graph, 3, 64, 0).state_dict()
    network, result = trained(replace(QUICK, epochs=1), graph, val=rectangles(2))
    after = network.state_dict()
    prediction = next(key for key in after if "auxiliary8" in key and "class" in key and key.endswith("weight"))
    assert not torch.equal(before[prediction], after[prediction])
    assert len(network.train()(torch.zeros(2, 3, 64, 64))) == 3
    assert len(result.averaged(torch.zeros(1, 3, 64, 64))) == 2
    assert not any("auxiliary8" in key for key in result.averaged.fused().state_dict())


def test_evaluation_happens_when_the_recipe_says_so() -> None:
    rows: list[dict[str, Any]] = []
    _, result = trained(replace(QUICK, eval_every=2), val=rectangles(2), report=rows.append)
    assert [(row["epoch"], row["epochs"], "ap" in row) for row in rows] == [(1, 3, False), (2, 3, True), (3, 3, True)]
    assert result.metrics == {key: rows[-1][key] for key in result.metrics} and "ap50" in result.metrics


def judged_with(monkeypatch: pytest.MonkeyPatch, aps: Sequence[float]) -> list[Network]:
    """Let the evaluations of a training return `aps`; returns the networks that they are given."""
    remaining, networks = iter(aps), []

    def judge(network: Network, *rest: Any, **options: Any) -> tuple[CocoEvaluation, list[Any]]:
        networks.append(network)
        return CocoEvaluation({"ap": next(remaining)}, {}, {}), []

    monkeypatch.setattr(evaluators.training.loop, "judge", judge)
    return networks


@pytest.mark.parametrize(
    ("aps", "patience", "epochs", "best_epoch"),
    [
        ([0.5, 0.5, 0.5], 2, 3, 1),
        ([0.0, 0.1, 0.3, 0.2, 0.3], 2, 5, 3),  # an equal AP is no progress
        ([0.0, 0.0, 0.0, 0.0], 0, 4, 1),
        ([0.1, 0.2, 0.3, 0.4], 1, 4, 4),
    ],
)
def test_training_stops_without_progress(
    monkeypatch: pytest.MonkeyPatch, aps: list[float], patience: int, epochs: int, best_epoch: int
) -> None:
    networks = judged_with(monkeypatch, aps)
    recipe = replace(QUICK, epochs=9 if patience == 2 else 4, patience=patience)
    states: list[TrainingState] = []
    _, result = trained(recipe, val=rectangles(2), save=states.append)
    assert (result.epochs, result.best_epoch) == (epochs, best_epoch)
    assert states[-1].best == max(aps)
    assert all(network is result.averaged for network in networks)


def test_a_training_that_is_complete_does_nothing_when_it_is_resumed() -> None:
    states: list[TrainingState] = []
    _, first = trained(QUICK, val=rectangles(2), save=states.append)
    network, again = trained(QUICK, val=rectangles(2), resume_from=states[-1].state_dict(), report=pytest.fail)
    assert (again.metrics, again.epochs, again.best_epoch) == (first.metrics, first.epochs, first.best_epoch)
    assert equal(network.state_dict(), states[-1].network.state_dict())


def first_losses(**changes: Any) -> dict[str, float]:
    rows: list[dict[str, Any]] = []
    recipe = replace(QUICK, epochs=1, batch_size=8, eval_every=0, augmentation=PLAIN, **changes)
    trained(recipe, small_graph(8), report=rows.append)
    return rows[0]


def test_the_loss_is_as_the_recipe_says() -> None:
    """One step: the losses of the untrained network."""
    plain, half, complete = first_losses(), first_losses(class_gain=0.5), first_losses(alignment="ciou")
    assert half["classes"] == pytest.approx(plain["classes"] / 2) and half["box"] == plain["box"]
    assert complete["classes"] != plain["classes"]


def test_the_optimizer_gets_the_weight_decay_of_the_batch_and_the_gradients_of_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def new_optimizer(*arguments: Any, **options: Any) -> Any:
        seen.append(options["weight_decay"])
        return original(*arguments, **options)

    original = evaluators.training.optimizer.new_optimizer
    monkeypatch.setattr(evaluators.training.loop, "new_optimizer", new_optimizer)
    first_losses(optimizer="sgd", weight_decay=0.5, nominal_batch=64)
    assert seen == [0.5 * 8 / 64]

    class Watched(GradientAccumulator):
        def backward(self, batch: Batch, outputs: Sequence[Output]) -> Tensor:
            seen.append(self.summed)
            return super().backward(batch, outputs)

    monkeypatch.setattr(evaluators.training.loop, "GradientAccumulator", Watched)
    first_losses(summed_loss=True)
    first_losses()
    assert seen[1:] == [0.05, True, 0.05, False]
