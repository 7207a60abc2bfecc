"""What an exported file says about itself: strings by the keys that Ultralytics and the programs beside it read."""

from __future__ import annotations

import ast
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpnas.errors import InputError

RUNNABLE = (".onnx", ".xml")
"""Suffixes of exported files that gpnas runs (runtimes.py)."""


class Layout(enum.StrEnum):
    """For which program inputs and outputs are laid out. `onnx_file` has the shapes; triton is plain, in a model repository."""

    PLAIN = "plain"
    DEEPSTREAM = "deepstream"
    TRITON = "triton"


@dataclass(frozen=True)
class Metadata:
    """About a detector and its file.

    names: of the classes. imgsz: height and width of the input, in pixels. stride: of the coarsest level, in pixels. source: of
    the architecture, as the user named it. weights: where they come from; `is_trained` is False for an architecture without
    weights, whose weights are random. version: of gpnas. batch: images at once; any number if `dynamic`. nms: suppression is
    part of the file. split, data_digest: how the data of the training were divided, and what they were, so that `gpnas val`
    divides them in the same way. Raises InputError for a batch below 1.
    """

    names: tuple[str, ...]
    imgsz: int
    stride: int
    source: str
    weights: str
    is_trained: bool
    version: str
    batch: int = 1
    dynamic: bool = False
    nms: bool = False
    layout: Layout = Layout.PLAIN
    split: str = ""
    data_digest: str = ""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"--batch {self.batch}: must be at least 1; for any number of images give --dynamic")

    def strings(self) -> dict[str, str]:
        """Text by key. Lists and dictionaries are Python literals, as Ultralytics writes and reads them."""
        args = {"batch": self.batch, "dynamic": self.dynamic, "nms": self.nms}
        state = "trained" if self.is_trained else "not trained: its weights are random"
        return {
            "description": f"gpnas detector of {self.source}, {state}",
            "author": "gpnas",
            "version": self.version,
            "task": "detect",
            "stride": str(self.stride),
            "batch": str(self.batch),
            "imgsz": str([self.imgsz, self.imgsz]),
            "names": str(dict(enumerate(self.names))),
            "args": str(args),
            "channels": "3",
            "end2end": str(self.nms),
            "layout": str(self.layout),
            "weights": self.weights,
            "split": self.split,
            "data_digest": self.data_digest,
        }


@dataclass(frozen=True)
class FileFacts:
    """What a program needs to know of an exported file: the names of the classes, pixels of the input, whether suppression is
    part of it, and where its weights come from. split, data_digest: as `Metadata` has them. "" where the file does not say."""

    names: tuple[str, ...]
    imgsz: int
    nms: bool
    weights: str = ""
    split: str = ""
    data_digest: str = ""


def read_facts(strings: Mapping[str, str], where: str) -> FileFacts:
    """The facts that `Metadata.strings` wrote, or another program with the same keys. Raises InputError that names what is
    missing in the file `where`."""
    names, imgsz = (_literal(strings, key, where) for key in ("names", "imgsz"))
    listed = list(names.values()) if isinstance(names, dict) else list(names)
    height, width = imgsz if isinstance(imgsz, (list, tuple)) else (imgsz, imgsz)
    if height != width:
        raise InputError(f"{where}: its input has {height} x {width} pixels; gpnas runs files with square inputs only")
    nms = bool(ast.literal_eval(strings.get("end2end", "False"))) or bool(_args(strings).get("nms", False))
    rest = {key: strings.get(key, "") for key in ("weights", "split", "data_digest")}
    return FileFacts(tuple(map(str, listed)), int(height), nms, **rest)


def _args(strings: Mapping[str, str]) -> dict[str, Any]:
    args = ast.literal_eval(strings.get("args", "{}"))
    return args if isinstance(args, dict) else {}


def _literal(strings: Mapping[str, str], key: str, where: str) -> Any:
    try:
        return ast.literal_eval(strings[key])
    except (KeyError, ValueError, SyntaxError):
        has = f"{key} {strings[key]!r}" if key in strings else f"no {key}"
        raise InputError(f"{where}: its metadata have {has}; export it again with `gpnas export --format onnx`") from None
