import csv
import math
import os
import random
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import evaluators.training.loop
import evaluators.training.optimizer
from evaluators.data.augment import Augmentation, train_batches
from evaluators.data.bank import load_bank
from evaluators.device import pick_dtype
from evaluators.judge import evaluate, load_split, validate
from evaluators.training.average import _Average
from evaluators.training.batch_size import fitting_batch
from evaluators.training.checkpoint import load_detector, load_weights, save_checkpoint
from evaluators.training.distributed import ALONE
from evaluators.training.loop import TrainingDiverged, fit, new_network
from evaluators.training.optimizer import _optimizer
from evaluators.training.recipe import Recipe
from evaluators.training.step import OutOfMemory, _gradients, _Step, is_out_of_memory
from evaluators.training.train_detector import train_detector
from gpnas.errors import InputError
from gpnas.graph.graph import Branch
from gpnas.graph.network import Network
from tests.small_detector import NAMES, small_graph, square_data, squares

PLAIN = Augmentation(mosaic=0.0, scale=0.0, translate=0.0, flip=0.0, hue=0.0, saturation=0.0, value=0.0)
QUICK = Recipe(3, 64, batch_size=4, device="cpu", precision="fp32")


def nothing(row):
    """A report that nobody reads."""


def trained(recipe, graph=None, records=None, val=None, **options):
    """A small network after `fit`, and the result."""
    network = new_network(graph or small_graph(8), 3, recipe.imgsz, recipe.seed)
    bank = load_bank(records or squares(8), recipe.imgsz)
    split = load_split(val, recipe.imgsz) if val else None
    return network, fit(network, bank, split, NAMES, recipe, **{"report": nothing, **options})


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_it_overfits_eight_images():
    records = squares(8)
    recipe = Recipe(40, 64, batch_size=4, lr=8e-3, augmentation=PLAIN, eval_every=0, device="cpu")
    _, result = trained(recipe, small_graph(16), records, records)
    assert result.metrics["ap50"] > 0.8
    split = load_split(records, 64)
    fused, _ = evaluate(result.averaged.fused(), split, NAMES, precision="fp32")
    unfused, _ = evaluate(_Unfused(result.averaged), split, NAMES, precision="fp32")
    assert fused.keys() == unfused.keys()
    assert all(fused[key] == pytest.approx(unfused[key], abs=1e-3) for key in fused)


class _Unfused(nn.Module):
    """A network that claims to be fused already, so that it is evaluated as it stands."""

    is_fused = True

    def __init__(self, network):
        super().__init__()
        self.network, self.graph = network, network.graph.inference()

    def forward(self, images):
        return self.network(images)


def test_detections_are_in_pixels_of_the_original_image():
    records = squares(4, size=128)
    network, _ = trained(Recipe(30, 64, batch_size=2, lr=8e-3, augmentation=PLAIN, device="cpu"), small_graph(16), records)
    metrics, found = evaluate(network, load_split(records, 64), NAMES)
    assert metrics["ap50"] > 0.5
    best = found[0][0]
    centre = (best[:2] + best[2:4]) / 2
    centres = (records[0].boxes[:, :2] + records[0].boxes[:, 2:]) / 2
    assert np.abs(centres - centre).max(axis=1).min() < 12


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    (a, _), (b, _), (c, _) = (trained(replace(QUICK, epochs=1, seed=seed)) for seed in (0, 0, 1))
    assert same(a.state_dict(), b.state_dict())
    assert not same(a.state_dict(), c.state_dict())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(optimizer, tmp_path):
    recipe = replace(QUICK, epochs=4, plain_epochs=1, optimizer=optimizer)
    data, graph = square_data(), small_graph(8, auxiliary=0.25)

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    train_detector(graph, "g", data, recipe, tmp_path / "whole", resume=False, report=nothing)
    with pytest.raises(KeyboardInterrupt):
        train_detector(graph, "g", data, recipe, tmp_path / "parts", resume=False, report=stop)
    done = train_detector(graph, "g", data, recipe, tmp_path / "parts", resume=True, report=nothing)
    assert done.result.epochs == 4
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert same(whole["model"], parts["model"]) and same(whole["ema"], parts["ema"])
    assert torch.equal(whole["generator"], parts["generator"])
    rows = list(csv.DictReader((tmp_path / "parts" / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    for ours, theirs in zip(rows, csv.DictReader((tmp_path / "whole" / "results.csv").open()), strict=True):
        assert {**ours, "seconds": "", "waiting": ""} == {**theirs, "seconds": "", "waiting": ""}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("vectors"), "lacks vectors; resume from the last.pt of this version's gpnas train"),
        (lambda state: _halve(state["vectors"]["state"][0]), "laid out by another version of gpnas; train again"),
    ],
)
def test_a_state_of_another_version_is_refused(spoil, message, tmp_path):
    data, graph = square_data(), small_graph(8)
    train_detector(graph, "g", data, replace(QUICK, epochs=1), tmp_path, resume=False, report=nothing)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(InputError, match=message):
        train_detector(graph, "g", data, replace(QUICK, epochs=1), tmp_path, resume=True, report=nothing)


def _halve(moments):
    moments |= {name: value[: len(value) // 2] for name, value in moments.items() if value.ndim}


def test_a_finished_training_is_a_detector(tmp_path):
    data, graph = square_data(), small_graph(8)
    done = train_detector(graph, "the genotype", data, QUICK, tmp_path, resume=False, report=nothing)
    result, detector = done.result, load_detector(tmp_path / "best.pt")
    assert detector["genotype"] == "the genotype" and detector["names"] == list(NAMES) and detector["imgsz"] == 64
    assert detector["epoch"] == result.best_epoch
    network = Network(graph)
    load_weights(network, detector, tmp_path / "best.pt")
    judgement, found = validate(network, data, "val", 64, device="cpu", precision="fp32")
    assert judgement == done.judgement and judgement.metrics == result.metrics == detector["metrics"]
    assert done.split == "val" and all(np.array_equal(a, b) for a, b in zip(found, done.found, strict=True))
    again = train_detector(graph, "the genotype", data, QUICK, tmp_path, resume=True, report=pytest.fail)
    assert again.result.metrics == result.metrics and again.result.epochs == 3 and len(again.history) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt", "results.csv"]


def test_the_test_split_is_judged_where_there_is_one(tmp_path):
    data = square_data()
    data = replace(data, splits={**data.splits, "test": squares(3, seed=2, first_id=2000)})
    graph = small_graph(8)
    done = train_detector(graph, "g", data, replace(QUICK, epochs=1), tmp_path, resume=False, report=nothing)
    network = Network(graph)
    load_weights(network, load_detector(tmp_path / "best.pt"), tmp_path / "best.pt")
    judgement, _ = validate(network, data, "test", 64, device="cpu", precision="fp32")
    assert done.split == "test" and done.judgement == judgement


def test_a_training_that_is_killed_in_the_middle_of_an_epoch_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    recipe, data, graph = replace(QUICK, epochs=3), square_data(), small_graph(8, auxiliary=0.25)
    train_detector(graph, "g", data, recipe, tmp_path / "whole", resume=False, report=nothing)
    gradients, steps = evaluators.training.loop._gradients, iter(range(1000))

    def dies(*arguments):
        if next(steps) == random.Random(7).randrange(3, 5):  # two steps an epoch
            raise KeyboardInterrupt
        return gradients(*arguments)

    monkeypatch.setattr(evaluators.training.loop, "_gradients", dies)
    with pytest.raises(KeyboardInterrupt):
        train_detector(graph, "g", data, recipe, tmp_path / "parts", resume=False, report=nothing)
    monkeypatch.undo()
    train_detector(graph, "g", data, recipe, tmp_path / "parts", resume=True, report=nothing)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert same(whole["model"], parts["model"]) and same(whole["ema"], parts["ema"])


def test_weights_of_another_network_are_taken_over_where_names_and_shapes_match(tmp_path):
    data = square_data()
    train_detector(small_graph(8), "g", data, replace(QUICK, epochs=1), tmp_path / "a", resume=False, report=nothing)
    recipe = replace(QUICK, epochs=1, lr=1e-9)
    best = tmp_path / "a" / "best.pt"
    taken = train_detector(small_graph(8), "g", data, recipe, tmp_path / "b", resume=False, report=nothing, weights=best)
    assert "(100%) are taken from" in taken.loaded
    theirs = load_detector(best)["model"]
    ours = torch.load(tmp_path / "b" / "last.pt", weights_only=True)["model"]
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours if key.endswith(("weight", "bias")))
    other = train_detector(small_graph(12), "g", data, recipe, tmp_path / "c", resume=False, report=nothing, weights=best)
    assert "are taken from" in other.loaded and "(100%)" not in other.loaded


def test_two_processes_train_as_one_that_does_its_batches_in_two_pieces(tmp_path):
    """torch's DDP over gloo: the same weights, to the order of sums, though each process sees half of the images."""
    script = tmp_path / "both.py"
    script.write_text(TWO_PROCESSES)
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for start, folder in ((run, "two"), ([sys.executable], "one")):
        done = subprocess.run(
            [*start, str(script), str(tmp_path / folder)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    for key, value in one["model"].items():
        if key.endswith(("weight", "bias")):
            torch.testing.assert_close(two["model"][key], value, rtol=1e-3, atol=1e-5)
    rows = [list(csv.DictReader((tmp_path / name / "results.csv").open())) for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 2
    assert [float(row["loss"]) for row in rows[1]] == pytest.approx([float(row["loss"]) for row in rows[0]], rel=1e-3)


TWO_PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path

import evaluators.training.loop
import evaluators.training.optimizer
from evaluators.training.recipe import Recipe
from evaluators.training.train_detector import train_detector
from tests.small_detector import small_graph, square_data
from torch import distributed

if not distributed.is_torchelastic_launched():
    whole = evaluators.training.loop._gradients
    evaluators.training.loop._gradients = lambda step, pieces: whole(step, 2)
recipe = Recipe(2, 64, batch_size=4, optimizer="sgd", lr=1e-3, device="cpu", precision="fp32")
train_detector(small_graph(8, auxiliary=0.25), "g", square_data(), recipe, Path(sys.argv[1]), resume=False, report=print)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": replace(QUICK, lr=0.5)}, "trained with lr .*, not 0.5"),
        ({"genotype": "h"}, "another architecture"),
        ({"graph": small_graph(12)}, r"last.pt \(\d+ parameters\) do not fit this network \(\d+ parameters\)"),
        ({"resume": False}, "holds a training already"),
        ({"graph": small_graph(8, classes=4)}, "predicts 4 classes, but the data have 3"),
        ({"data": replace(square_data(), names=("a", "b", "c"))}, "detects red, green, blue, the data have a, b, c"),
    ],
)
def test_a_training_is_resumed_only_as_it_was(change, message, tmp_path):
    as_it_was = {"graph": small_graph(8), "genotype": "g", "data": square_data(), "recipe": QUICK, "out": tmp_path}
    train_detector(**as_it_was | {"recipe": replace(QUICK, epochs=1)}, resume=False, report=nothing)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    content["recipe"]["epochs"] = 3
    save_checkpoint(tmp_path / "last.pt", content)
    with pytest.raises(InputError, match=message):
        train_detector(**{**as_it_was, "resume": True, **change}, report=nothing)


def test_files_that_are_no_checkpoints_are_named(tmp_path):
    path = tmp_path / "best.pt"
    with pytest.raises(InputError, match=r"cannot read .*best\.pt: No such file"):
        load_detector(path)
    for broken in (b"", b"rubbish", b"PK\x03\x04rubbish"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"best\.pt is broken or no checkpoint"):
            load_detector(path)
    torch.save({"format": 1, "model": Recipe}, path)  # a class: it would run code
    with pytest.raises(InputError, match=r"best\.pt is broken or no checkpoint"):
        load_detector(path)
    torch.save({"format": 7}, path)
    with pytest.raises(InputError, match="format 7, not 1"):
        load_detector(path)
    torch.save({"format": 1}, path)
    with pytest.raises(InputError, match="lacks 'ema'"):
        load_detector(path)
    with pytest.raises(InputError, match=r"last.pt does not exist: nothing to resume"):
        train_detector(small_graph(8), "g", square_data(), QUICK, tmp_path, resume=True, report=nothing)


def test_a_failed_write_leaves_the_checkpoint_that_was_there(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1})
    with pytest.raises(Exception, match="lambda"):
        save_checkpoint(path, {"epoch": 2, "x": lambda: None})
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_the_auxiliary_output_is_trained_and_absent_from_evaluation():
    graph = small_graph(8, auxiliary=0.5)
    before = new_network(graph, 3, 64, 0).state_dict()
    network, result = trained(replace(QUICK, epochs=1), graph, val=squares(2))
    after = network.state_dict()
    prediction = next(key for key in after if "auxiliary8" in key and "class" in key and key.endswith("weight"))
    assert not torch.equal(before[prediction], after[prediction])
    assert len(network.train()(torch.zeros(2, 3, 64, 64))) == 3
    assert len(result.averaged(torch.zeros(1, 3, 64, 64))) == 2
    assert not any("auxiliary8" in key for key in result.averaged.fused().state_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(value):
    network = new_network(small_graph(8), 3, 64, 0)
    nn.init.constant_(next(network.parameters()), value)
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1: loss nan"):
        fit(network, load_bank(squares(4), 64), None, NAMES, QUICK, report=nothing)


def test_a_loss_that_explodes_ends_the_training():
    network = new_network(small_graph(8), 3, 64, 0)
    for op, kind in enumerate(network.graph.ops):
        if kind.name.endswith(".class"):
            nn.init.constant_(network.layer(op).conv.bias, 1e6)
    with pytest.raises(TrainingDiverged, match="epoch 1, step 1: loss"):
        fit(network, load_bank(squares(4), 64), None, NAMES, QUICK, report=nothing)


class _ShortOfMemory(Network):
    """Takes at most `most` images at a time while it trains."""

    most = 2

    def forward(self, images):
        if self.training and len(images) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return super().forward(images)


def test_long_gradients_are_shortened_and_short_ones_are_not(monkeypatch):
    seen = []

    class Watched(torch.optim.SGD):
        def step(self):
            seen.append(float(nn.utils.get_total_norm([p.grad for group in self.param_groups for p in group["params"]])))
            super().step()

    monkeypatch.setitem(evaluators.training.optimizer._OPTIMIZERS, "sgd", lambda groups, recipe: Watched(groups, lr=1e-4))
    for most in (0.5, 1e6):
        monkeypatch.setattr(evaluators.training.loop, "_MOST_NORM", most)
        trained(Recipe(1, 64, 4, optimizer="sgd", eval_every=0))
    half = len(seen) // 2
    assert seen[:half] == pytest.approx([0.5] * half, rel=1e-4)
    assert min(seen[half:]) > 0.6


def test_a_batch_that_does_not_fit_is_accumulated_from_pieces():
    batches = []

    class Counting(_ShortOfMemory):
        def forward(self, images):
            if self.training:
                batches.append(len(images))
            return super().forward(images)

    network = Counting(small_graph(8))
    fit(network, load_bank(squares(8), 64), None, NAMES, replace(QUICK, epochs=1, batch_size=8), report=nothing)
    assert batches == [8, 4, 2, 2, 2, 2]


def test_two_images_that_do_not_fit_are_out_of_memory():
    network = _ShortOfMemory(small_graph(8))
    network.most = 1
    with pytest.raises(OutOfMemory, match="2 images of 64 pixels do not fit into memory"):
        fit(network, load_bank(squares(8), 64), None, NAMES, QUICK, report=nothing)


def test_accumulated_gradients_are_those_of_the_mean_over_pieces():
    # With equal target sums in both halves (the same image twice) pieces change nothing but the normalisation's statistics.
    network = new_network(small_graph(8), 3, 64, 0)
    bank = load_bank(squares(1) * 4, 64)
    batch = next(train_batches(bank, 4, PLAIN, torch.Generator().manual_seed(0)))
    gradients, optimizer = [], _optimizer(network, QUICK)
    for pieces in (1, 2):
        step = _Step(network.train(), optimizer, network.graph.outputs, batch, 3, "fp32", ALONE)
        _gradients(step, pieces)
        gradients.append([p.grad.clone() for p in network.parameters()])
    for whole, halves in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, halves, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("room", "batch"), [(100, 2), (1000 + 3 * 50, 4), (1000 + 15 * 50 - 101, 8), (1000 + 16 * 50 - 100, 16), (10**9, 128)]
)
def test_the_automatic_batch_is_the_largest_power_of_two_that_fits(room, batch):
    assert fitting_batch(lambda images: 1000 + 50 * (images - 2), room) == batch


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("not enough memory: you tried to allocate 1 bytes"))
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_learning_rate_warms_up_and_comes_down_by_a_cosine():
    recipe = Recipe(100, 64, lr=1.0, final_lr=0.1, warmup_epochs=5)
    assert recipe.lr_at(0) == pytest.approx(0.05)
    assert recipe.lr_at(2.5) == pytest.approx(0.525)
    assert recipe.lr_at(5) == pytest.approx(1.0)
    assert recipe.lr_at(52.5) == pytest.approx(0.55)
    assert recipe.lr_at(100) == pytest.approx(0.1)
    assert Recipe(10, 64, lr=1.0, warmup_epochs=5).lr_at(1) == pytest.approx(1.0)  # a tenth of a short training


def test_auxiliary_losses_fade_in_a_line_where_the_recipe_says_so():
    outputs = small_graph(8, auxiliary=0.4).outputs
    fading = replace(QUICK, epochs=10, auxiliary_end=0.5)
    for recipe, expected in ((QUICK, 0.4), (replace(fading, auxiliary_end=1.0), 0.4), (fading, 0.3)):
        weights = [out.weight for out in recipe.outputs_at(recipe.epochs / 2, outputs)]
        assert weights == pytest.approx([expected if out.branch is Branch.AUXILIARY else 1.0 for out in outputs])
    assert max(out.weight for out in fading.outputs_at(10, outputs) if out.branch is Branch.AUXILIARY) == pytest.approx(0.2)


def test_the_last_epochs_have_no_mosaic():
    recipe = Recipe(8, 64, plain_epochs=10, augmentation=Augmentation(mosaic=0.7))
    assert [recipe.augmentation_at(epoch).mosaic for epoch in range(8)] == [0.7] * 6 + [0, 0]


def within(part, whole):
    return whole.data_ptr() <= part.data_ptr() < whole.data_ptr() + whole.nbytes


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_vectors_of_parameters_step_as_the_parameters_would_and_only_kernels_decay(optimizer):
    ours, theirs = (new_network(small_graph(8), 3, 64, 0).to(memory_format=torch.channels_last) for _ in range(2))
    recipe = Recipe(1, 64, optimizer=optimizer, lr=0.01, weight_decay=0.1)
    of_vectors = _optimizer(ours, recipe)
    kernels, others = ([p for p in theirs.parameters() if (p.ndim > 1) is is_kernel] for is_kernel in (True, False))
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[optimizer]
    rest = {"adamw": {"betas": (0.9, 0.999)}, "sgd": {"momentum": 0.9, "nesterov": True}}[optimizer]
    plain = kind([{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01, **rest)
    for seed in range(3):
        pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        for network, steps in ((ours, of_vectors), (theirs, plain)):
            steps.zero_grad(set_to_none=steps is plain)
            sum(out.square().sum() for out in network.train()(pixels)).backward()
            steps.step()
    assert len(of_vectors.param_groups) == 2
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
        assert mine.stride() == other.stride()
        [vector] = [v for group in of_vectors.param_groups for v in group["params"] if within(mine, v)]
        assert (mine.data_ptr() - vector.data_ptr()) % 64 == 0 and within(mine.grad, vector.grad)


def test_the_average_ramps_up():
    network = nn.Module()
    network.weight = nn.Parameter(torch.zeros(1))
    averaged = _Average(network, decay=0.25)
    network.weight.data.fill_(1.0)
    averaged.update()  # decay 2 / 11
    assert averaged.network.weight.item() == pytest.approx(9 / 11)
    averaged.update()  # decay 3 / 12
    assert averaged.network.weight.item() == pytest.approx(9 / 11 / 4 + 3 / 4)
    averaged.update()  # 4 / 13 is more than 0.25
    assert averaged.network.weight.item() == pytest.approx((9 / 11 / 4 + 3 / 4) / 4 + 3 / 4)


def test_evaluation_happens_when_asked_and_after_the_last_epoch():
    rows = []
    trained(replace(QUICK, epochs=3, eval_every=2), val=squares(2), report=rows.append)
    assert [(row["epoch"], row["epochs"], "ap" in row) for row in rows] == [(1, 3, False), (2, 3, True), (3, 3, True)]


def test_training_stops_without_progress(monkeypatch):
    monkeypatch.setattr(evaluators.training.loop, "evaluate", lambda *args, **kwargs: ({"ap": 0.5}, []))
    rows = []
    recipe = replace(QUICK, epochs=9, patience=2)
    _, result = trained(recipe, val=squares(2), report=rows.append)
    assert result.epochs == len(rows) == 3 and result.best_epoch == 1


def test_bf16_is_chosen_on_cuda_alone():
    assert pick_dtype(torch.device("cpu"), "auto") == torch.float32
    assert pick_dtype(torch.device("cpu"), "bf16") == torch.bfloat16
    assert pick_dtype(torch.device("cuda"), "auto") == torch.bfloat16
    assert pick_dtype(torch.device("cuda"), "fp32") == torch.float32


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("lr", 0.0, "lr must be positive, got 0.0"),
        ("optimizer", "adam", "optimizer must be one of adamw, sgd, got 'adam'"),
        ("precision", "fp16", "precision must be auto, bf16 or fp32, got 'fp16'"),
    ],
)
def test_a_recipe_refuses_what_it_cannot_do(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(QUICK, **{field: value})
