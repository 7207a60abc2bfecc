"""Checkpoint files: written whole or not at all, read as data only, and checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluators.training.recipe import Recipe
from evaluators.training.state import STATE_KEYS
from gpnas.errors import InputError
from gpnas.files import replacing
from gpnas.graph.network import Network

FORMAT = 1
"""Version of the files' contents."""


@dataclass(frozen=True)
class DetectorCheckpoint:
    """A trained detector: what best.pt and last.pt have in common.

    weights: the averaged weights, by name. genotype: the YAML text that rebuilds the network. names: of the classes. imgsz:
    pixels that it was trained at. epoch: after which the file was written, from 1. metrics: COCO's on val. data_digest: of the
    data, "" in older files. split, val: the options by which the data were divided (records.DetectionData).
    """

    weights: Mapping[str, Tensor]
    genotype: str
    names: tuple[str, ...]
    imgsz: int
    epoch: int
    metrics: Mapping[str, float]
    data_digest: str = ""
    split: str = ""
    val: str = ""


def load_detector(path: Path) -> DetectorCheckpoint:
    """Read best.pt or last.pt. Raises InputError for another file."""
    content = read_checkpoint(path)
    try:
        return DetectorCheckpoint(
            weights=content["ema"],
            genotype=content["genotype"],
            names=tuple(content["names"]),
            imgsz=content["recipe"]["imgsz"],
            epoch=content["epoch"],
            metrics=content["metrics"],
            data_digest=content.get("data_digest", ""),
            split=content.get("split", ""),
            val=content.get("val", ""),
        )
    except KeyError as error:
        raise InputError(f"{path} lacks {error}; give the best.pt or last.pt of gpnas train") from error


def load_weights(network: Network, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load `weights`, which were read from `path`. Raises InputError when they are those of another network."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        ours = sum(p.numel() for p in network.parameters())
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        theirs = sum(value.numel() for name, value in weights.items() if not name.endswith(statistics))
        raise InputError(
            f"the weights of {path} ({theirs} parameters) do not fit this network ({ours} parameters); "
            "rebuild it from the checkpoint's own genotype"
        ) from error


def load_matching(network: Network, weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Load those `weights` whose name and shape the network has too.

    Returns the number of values that were loaded, and the number of values of the network.
    """
    ours = network.state_dict()
    matching = {name: value for name, value in weights.items() if name in ours and ours[name].shape == value.shape}
    network.load_state_dict(matching, strict=False)
    return sum(value.numel() for value in matching.values()), sum(value.numel() for value in ours.values())


def load_matching_from(path: Path, network: Network) -> str:
    """`load_matching` from a checkpoint of gpnas train; returns a line that says how much was loaded.

    Raises InputError when nothing matches.
    """
    count, total = load_matching(network, load_detector(path).weights)
    if not count:
        raise InputError(f"--weights {path}: none of its weights has a name and shape of this network; leave it out")
    return f"{count} of {total} values ({count / total:.0%}) are taken from {path}"


def load_resumable(
    path: Path, genotype: str, names: Sequence[str], recipe: Recipe, data_digest: str, *, any_batch: bool = False
) -> dict[str, Any]:
    """The content of last.pt, which includes a `TrainingState.state_dict`.

    Raises InputError unless it belongs to a training with this `genotype`, these class `names`, this `recipe` (device and
    precision may differ, with `any_batch` the batch size too) and data of this digest.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: nothing to resume; train without --resume")
    content = read_checkpoint(path)
    if missing := {"genotype", "names", "recipe", *STATE_KEYS} - content.keys():
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}; resume from the last.pt of this version's gpnas train")
    if content["genotype"] != genotype:
        raise InputError(f"{path} is the training of another architecture; resume with its own, or train in another folder")
    if tuple(content["names"]) != tuple(names):
        raise InputError(f"{path} detects {', '.join(content['names'])}, the data have {', '.join(names)}; give its own data")
    if content.get("data_digest", data_digest) != data_digest:
        asked = " ".join(f"--{option} {content[option]}" for option in ("split", "val") if content.get(option))
        remedy = f"give {asked}, as before" if asked else "give the same data, and no --split or --val"
        raise InputError(f"{path} was trained on other images, or on others of these; {remedy}, or train in another folder")
    trained_with = _with_defaults(content["recipe"])
    free = ("device", "precision", *(["batch_size"] if any_batch else []))
    for key, value in asdict(recipe).items():
        if key not in free and trained_with[key] != value:
            raise InputError(f"{path} was trained with {key} {trained_with[key]}, not {value}; resume with the same")
    return content


def _with_defaults(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe. Those that did not exist when it was saved have their defaults, which do what was done then."""
    defaults = asdict(Recipe(epochs=1, imgsz=1))
    return {**defaults, **recipe, "augmentation": {**defaults["augmentation"], **recipe.get("augmentation", {})}}


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` and FORMAT. A crash leaves the old file or the new one."""
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a file that `save_checkpoint` wrote, on the CPU. Nothing in the file is executed. Raises InputError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a checkpoint of gpnas train") from error
    except Exception as error:  # other bytes make the unpickler raise anything: IndexError, KeyError, UnpicklingError ...
        raise InputError(f"{path} is broken or no checkpoint; give the best.pt or last.pt of gpnas train") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise InputError(f"{path} has checkpoint format {version}, not {FORMAT}; it was written by another program or version")
    return dict(content)
