"""TODO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluators.training.recipe import Recipe
from gpnas.errors import InputError
from gpnas.files import replacing
from gpnas.graph.network import Network

FORMAT = 1
"""Version of the checkpoints' contents."""

_STATE = ("model", "ema", "updates", "vectors", "generator", "epoch", "best", "best_epoch", "metrics", "history")


def _taken_from(network: Network, checkpoint: Path) -> str:
    """`take_over` the weights of `checkpoint`; says how many. Raises InputError when there are none."""
    count, whole = take_over(network, load_detector(checkpoint)["model"])
    if not count:
        raise InputError(f"--weights {checkpoint}: none of its weights has a name and shape of this network; leave it out")
    return f"{count} of {whole} values ({count / whole:.0%}) are taken from {checkpoint}"


def take_over(network: Network, theirs: Mapping[str, Tensor]) -> tuple[int, int]:
    """Copy the values that the network has under the same name and shape; how many they are, and how many it has in all."""
    ours = network.state_dict()
    same = {key: value for key, value in theirs.items() if key in ours and ours[key].shape == value.shape}
    network.load_state_dict(same, strict=False)
    return sum(value.numel() for value in same.values()), sum(value.numel() for value in ours.values())


def _start(last: Path, genotype: str, names: Sequence[str], recipe: Recipe) -> dict[str, Any]:
    """The state to resume from, checked to be that of the same training."""
    if not last.exists():
        raise InputError(f"{last} does not exist: nothing to resume; train without --resume")
    state = read_checkpoint(last)
    if missing := {"genotype", "names", "recipe", *_STATE} - state.keys():
        raise InputError(f"{last} lacks {', '.join(sorted(missing))}; resume from the last.pt of this version's gpnas train")
    if state["genotype"] != genotype:
        raise InputError(f"{last} is the training of another architecture; resume with its own, or train in another folder")
    if tuple(state["names"]) != tuple(names):
        raise InputError(f"{last} detects {', '.join(state['names'])}, the data have {', '.join(names)}; give its own data")
    now = asdict(recipe)
    for key in now.keys() - {"device", "precision"}:
        if state["recipe"].get(key) != now[key]:
            raise InputError(f"{last} was trained with {key} {state['recipe'].get(key)}, not {now[key]}; resume with the same")
    return state


def load_detector(checkpoint: Path) -> dict[str, Any]:
    """A trained detector: `model` (averaged weights), `genotype` (text), `names`, `imgsz` (pixels), `epoch`, `metrics`.

    Raises InputError for a file that is no checkpoint of gpnas train.
    """
    content = read_checkpoint(checkpoint)
    try:
        return {
            "model": content["ema"],
            "genotype": content["genotype"],
            "names": content["names"],
            "imgsz": content["recipe"]["imgsz"],
            "epoch": content["epoch"],
            "metrics": content["metrics"],
        }
    except KeyError as error:
        raise InputError(f"{checkpoint} lacks {error}; give the best.pt or last.pt of gpnas train") from error


def load_weights(network: Network, detector: Mapping[str, Any], checkpoint: Path) -> None:
    """Load the weights of `detector`, which was read from `checkpoint`; InputError when they are of another network."""
    try:
        network.load_state_dict(detector["model"])
    except RuntimeError as error:
        have = sum(p.numel() for p in network.parameters())
        theirs = sum(t.numel() for k, t in detector["model"].items() if not k.endswith(("running_mean", "running_var")))
        raise InputError(
            f"the weights of {checkpoint} ({theirs} parameters) do not fit this network ({have} parameters); "
            "rebuild it from the checkpoint's own genotype"
        ) from error


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write all of it or nothing: a crash leaves what was there."""
    with replacing(path) as temporary:
        torch.save(dict(content), temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a file by `save_checkpoint`, on the CPU. It is data only: nothing in it is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a checkpoint of gpnas train") from error
    except Exception as error:  # whatever bytes make of an unpickler: IndexError, KeyError, UnpicklingError ...
        raise InputError(f"{path} is broken or no checkpoint; give the best.pt or last.pt of gpnas train") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise InputError(f"{path} has checkpoint format {found}, not {FORMAT}; it was written by another program or version")
    return content
