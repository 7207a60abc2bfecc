from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evaluators.training.checkpoint import (
    load_detector,
    load_matching,
    load_matching_from,
    load_resumable,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from evaluators.training.recipe import Recipe
from evaluators.training.state import STATE_KEYS
from gpnas.errors import InputError
from gpnas.graph.network import Network
from tests.small_detector import small_graph

DETECTOR = {
    "genotype": "g",
    "names": ["cat", "dog"],
    "recipe": {"imgsz": 96},
    "epoch": 7,
    "metrics": {"ap": 0.25},
    "model": {"weight": torch.zeros(1)},
    "ema": {"weight": torch.ones(2, 3)},
}


def test_a_detector_is_its_averaged_weights_and_what_they_need(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", DETECTOR)
    detector = load_detector(tmp_path / "best.pt")
    assert torch.equal(detector.weights["weight"], torch.ones(2, 3))
    assert (detector.genotype, detector.names, detector.imgsz, detector.epoch) == ("g", ("cat", "dog"), 96, 7)
    assert detector.metrics == {"ap": 0.25}


@pytest.mark.parametrize("key", ["ema", "genotype", "names", "recipe", "epoch", "metrics"])
def test_a_file_that_lacks_something_is_no_detector(key: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", {name: value for name, value in DETECTOR.items() if name != key})
    with pytest.raises(InputError, match=f"best.pt lacks '{key}'; give the best.pt or last.pt of gpnas train"):
        load_detector(tmp_path / "best.pt")


def test_files_that_are_no_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    with pytest.raises(InputError, match=r"cannot read .*best\.pt: No such file"):
        read_checkpoint(path)
    for broken in (b"", b"rubbish", b"PK\x03\x04rubbish"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"best\.pt is broken or no checkpoint"):
            read_checkpoint(path)
    torch.save({"format": 1, "model": Recipe}, path)  # a class: it would run code
    with pytest.raises(InputError, match=r"best\.pt is broken or no checkpoint"):
        read_checkpoint(path)
    for content, version in (({"format": 7}, "7"), ({"model": 1}, "None"), ([1, 2], "None")):
        torch.save(content, path)
        with pytest.raises(InputError, match=f"format {version}, not 1"):
            read_checkpoint(path)


def test_a_failed_write_leaves_the_checkpoint_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1})
    with pytest.raises(Exception, match="lambda"):
        save_checkpoint(path, {"epoch": 2, "x": lambda: None})
    assert torch.load(path, weights_only=True) == {"format": 1, "epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def small() -> Any:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_only_weights_of_the_same_name_and_shape_are_loaded() -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {"0.weight": torch.full((2, 4), 7.0), "0.bias": torch.tensor([5.0, -6.0]), "9.bias": torch.ones(2)}
    assert load_matching(network, weights) == (2, 6 + 2 + 4 * 2 + 1)  # kernel, bias, normalisation's four and its counter
    assert network[0].bias.tolist() == [5.0, -6.0]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items() if name != "0.bias")


def test_a_line_says_how_much_was_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save_checkpoint(path, DETECTOR | {"ema": {"0.weight": torch.full((2, 3), 7.0)}})
    network = small()
    assert load_matching_from(path, network) == f"6 of 17 values (35%) are taken from {path}"
    assert network[0].weight.tolist() == [[7.0] * 3] * 2
    save_checkpoint(path, DETECTOR)
    with pytest.raises(InputError, match=r"--weights .*best\.pt: none of its weights has a name and shape of this network"):
        load_matching_from(path, network)


def test_weights_of_another_network_are_refused_with_both_sizes() -> None:
    ours, theirs = Network(small_graph(8)), Network(small_graph(12))
    load_weights(ours, Network(small_graph(8)).state_dict(), Path("best.pt"))
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (theirs, ours)]
    message = rf"the weights of best.pt \({sizes[0]} parameters\) do not fit this network \({sizes[1]} parameters\)"
    with pytest.raises(InputError, match=message):
        load_weights(ours, theirs.state_dict(), Path("best.pt"))


def test_a_training_that_began_before_presets_existed_is_resumed(tmp_path: Path) -> None:
    """What a recipe could not say then was done as its default says now."""
    path, recipe = tmp_path / "last.pt", Recipe(3, 64)
    old = asdict(recipe)
    for key in ("schedule", "summed_loss", "nominal_batch", "class_gain", "alignment", "sync_norm_below"):
        del old[key]
    del old["augmentation"]["mixup"]
    save_checkpoint(path, {**DETECTOR, **dict.fromkeys(STATE_KEYS), "recipe": old})
    assert load_resumable(path, "g", ["cat", "dog"], recipe, "")["recipe"] == old
    with pytest.raises(InputError, match=r"trained with class_gain 1\.0, not 0\.5"):
        load_resumable(path, "g", ["cat", "dog"], replace(recipe, class_gain=0.5), "")
