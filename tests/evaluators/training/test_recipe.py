from dataclasses import asdict, replace
from typing import Any

import pytest

from evaluators.data.augment import Augmentation
from evaluators.training.optimizer import FACTORIES
from evaluators.training.recipe import OPTIMIZERS, PRESETS, Recipe, for_data
from gpnas.graph.graph import Branch
from tests.small_detector import rectangle_data, small_graph

RECIPE = Recipe(3, 64)


def test_the_defaults_are_those_of_the_published_numbers() -> None:
    """Results in docs/ and benchmarks/ were trained with them; whoever changes one must measure again."""
    assert asdict(RECIPE) == {
        "epochs": 3,
        "imgsz": 64,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 0.004,
        "final_lr": 0.02,
        "schedule": "cosine",
        "summed_loss": False,
        "momentum": 0.9,
        "weight_decay": 0.05,
        "nominal_batch": 0,
        "warmup_epochs": 3.0,
        "ema_decay": 0.9998,
        "class_gain": 1.0,
        "alignment": "iou",
        "sync_norm_below": 0,
        "augmentation": asdict(Augmentation()),
        "plain_epochs": 10,
        "auxiliary_end": 1.0,
        "eval_every": 1,
        "patience": 0,
        "seed": 0,
        "device": "auto",
        "precision": "auto",
    }


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    recipe = Recipe(100, 64, lr=2.0, final_lr=0.1, warmup_epochs=5)
    assert recipe.lr_at(0) == pytest.approx(0.1)  # 5 %
    assert recipe.lr_at(2) == pytest.approx(2 * (0.05 + 0.95 * 2 / 5))
    assert recipe.lr_at(5) == pytest.approx(2.0)
    assert recipe.lr_at(5 + 95 / 3) == pytest.approx(2 * (0.1 + 0.9 * 0.75))  # cos 60 degrees is 1/2
    assert recipe.lr_at(52.5) == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert recipe.lr_at(100) == pytest.approx(0.2)


def test_the_warmup_of_a_short_training_is_a_tenth_of_it() -> None:
    recipe = Recipe(10, 64, lr=1.0, warmup_epochs=5)
    assert recipe.lr_at(0.5) == pytest.approx(0.525)
    assert recipe.lr_at(1) == pytest.approx(1.0)
    assert recipe.lr_at(1.5) < 1.0


def test_along_a_line_the_learning_rate_falls_with_all_epochs() -> None:
    recipe = Recipe(100, 64, lr=2.0, final_lr=0.1, warmup_epochs=5, schedule="linear")
    assert recipe.lr_at(0) == pytest.approx(0.1)  # 5 %
    assert recipe.lr_at(2) == pytest.approx(2 * (0.05 + 0.95 * 2 / 5) * (1 - 0.9 * 0.02))
    assert recipe.lr_at(5) == pytest.approx(2 * (1 - 0.9 * 0.05))
    assert recipe.lr_at(40) == pytest.approx(2 * 0.64)
    assert recipe.lr_at(100) == pytest.approx(0.2)


def test_the_preset_for_full_trainings_has_the_published_values() -> None:
    """github.com/WongKinYiu/yolov9: data/hyps/hyp.scratch-high.yaml, the options of train_dual.py and its README."""
    recipe = Recipe(500, 640, 128, **PRESETS["full"])
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.01, 0.937, 5e-4)
    assert recipe.lr_at(250) == pytest.approx(0.01 * (0.5 * 0.99 + 0.01)) and recipe.lr_at(500) == pytest.approx(1e-4)
    assert recipe.scaled_weight_decay == pytest.approx(1e-3)  # 128 / 64
    assert replace(recipe, batch_size=16).scaled_weight_decay == pytest.approx(1.25e-4)
    varied = recipe.augmentation
    assert (varied.scale, varied.mosaic, varied.mixup, varied.flip, varied.translate) == (0.9, 1.0, 0.15, 0.5, 0.1)
    assert (varied.hue, varied.saturation, varied.value) == (0.015, 0.7, 0.4)
    assert (recipe.class_gain, recipe.alignment, recipe.summed_loss) == (0.5, "ciou", True)
    assert [recipe.augmentation_at(epoch).mosaic for epoch in (484, 485, 499)] == [1, 0, 0]
    assert Recipe(3, 64, **PRESETS["short"]) == RECIPE


def test_normalisation_is_shared_where_a_device_has_few_images() -> None:
    recipe = Recipe(1, 64, 64, sync_norm_below=16)
    assert [recipe.synchronises(devices) for devices in (1, 2, 4, 5, 8)] == [False, False, False, True, True]
    assert not Recipe(1, 64, 64).synchronises(8)


def test_auxiliary_losses_fade_linearly_where_the_recipe_says_so() -> None:
    outputs = small_graph(8, auxiliary=0.4).outputs
    fading = Recipe(10, 64, auxiliary_end=0.25)
    for recipe, epochs, expected in ((RECIPE, 2.0, 0.4), (fading, 0.0, 0.4), (fading, 4.0, 0.28), (fading, 10.0, 0.1)):
        weights = {out.name: out.weight for out in recipe.outputs_at(epochs, outputs)}
        assert weights == {out.name: pytest.approx(expected if out.branch is Branch.AUXILIARY else 1.0) for out in outputs}


@pytest.mark.parametrize(
    ("epochs", "plain_epochs", "mosaic"),
    [(8, 10, [0.7] * 6 + [0] * 2), (8, 1, [0.7] * 7 + [0]), (3, 10, [0.7] * 3), (7, 10, [0.7] * 6 + [0])],
)
def test_the_last_epochs_have_no_mosaic_but_all_else(epochs: int, plain_epochs: int, mosaic: list[float]) -> None:
    varied = Augmentation(mosaic=0.7, scale=0.3)
    recipe = Recipe(epochs, 64, plain_epochs=plain_epochs, augmentation=varied)
    assert [recipe.augmentation_at(epoch) for epoch in range(epochs)] == [replace(varied, mosaic=m) for m in mosaic]


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (0, [5])])
def test_evaluations_happen_at_intervals_and_after_the_last_epoch(every: int, epochs: list[int]) -> None:
    recipe = Recipe(5, 64, eval_every=every)
    assert [epoch for epoch in range(1, 6) if recipe.evaluates_after(epoch)] == epochs


def test_images_are_mirrored_only_where_the_data_allow_it() -> None:
    data = rectangle_data()
    assert for_data(RECIPE, data) == RECIPE
    recipe = for_data(RECIPE, replace(data, may_flip=False))
    assert recipe == replace(RECIPE, augmentation=Augmentation(flip=0.0))


def test_every_optimizer_of_the_recipe_exists() -> None:
    assert tuple(FACTORIES) == OPTIMIZERS


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("imgsz", 0, "imgsz must be at least 1, got 0"),
        ("batch_size", -1, "batch_size must be at least 1, got -1"),
        ("lr", 0.0, "lr must be positive, got 0.0"),
        ("lr", float("nan"), "lr must be positive, got nan"),
        ("auxiliary_end", 1.5, r"auxiliary_end must lie in \[0, 1\], got 1.5"),
        ("auxiliary_end", -0.5, r"auxiliary_end must lie in \[0, 1\], got -0.5"),
        ("class_gain", 0.0, "class_gain must be positive, got 0.0"),
        ("final_lr", 1.5, r"final_lr must lie in \[0, 1\], got 1.5"),
        ("momentum", float("nan"), r"momentum must lie in \[0, 1\], got nan"),
        ("weight_decay", -1.0, "weight_decay must be at least 0, got -1.0"),
        ("schedule", "step", "schedule must be one of cosine, linear, got 'step'"),
        ("alignment", "giou", "alignment must be one of iou, ciou, got 'giou'"),
        ("optimizer", "adam", "optimizer must be one of adamw, sgd, got 'adam'"),
        ("precision", "fp16", "precision must be one of auto, bf16, fp32, got 'fp16'"),
    ],
)
def test_a_recipe_refuses_what_it_cannot_do(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **{field: value})


@pytest.mark.parametrize("change", [{"epochs": 1}, {"batch_size": 1}, {"auxiliary_end": 0.0}, {"precision": "bf16"}])
def test_a_recipe_accepts_the_least_that_makes_sense(change: dict[str, Any]) -> None:
    assert asdict(replace(RECIPE, **change)) == asdict(RECIPE) | change
