"""Open a data set in any supported format.

    data = open_data("digits")                            # or a COCO folder, or the path of a data.yaml
    bank = load_bank(data.splits["train"], size=320, device="cuda")
    as_images(bank.pixels[:16])                           # float32 (16, 3, 320, 320) in [0, 1]

`open_data` reads annotations and checks them; it decodes images only where nothing else tells their size. A problem is one
`DataError` that names the file and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evaluators.data.digits import digit_scenes
from evaluators.data.formats.coco import open_coco
from evaluators.data.formats.yolo import is_data_yaml, open_data_yaml
from evaluators.data.records import DetectionData
from gpnas.errors import DataError

BUILT_IN = {"digits": digit_scenes}


class Format(NamedTuple):
    """A format of data sets: whether a path looks like it, and its reader, which raises DataError for what is wrong."""

    fits: Callable[[Path], bool]
    read: Callable[[Path], DetectionData]


FORMATS = {
    "a COCO folder": Format(Path.is_dir, open_coco),
    "the path of a data.yaml": Format(is_data_yaml, open_data_yaml),
}
"""The first format that fits a path reads it."""


def open_data(spec: str) -> DetectionData:
    """The data set that `spec` names: "digits" (built in), a COCO folder, or the path of a data.yaml. "./digits" is a folder.

    Raises DataError, in one line, for data that cannot be opened, or on which nothing could be trained or evaluated.
    """
    data = BUILT_IN[spec]() if spec in BUILT_IN else _read(Path(spec).expanduser(), spec)
    for name, records in data.splits.items():
        if not records:
            raise DataError(f"{spec}: the split '{name}' has no images; add images to it or remove the split")
    for name in ("train", "val"):  # without boxes there is nothing to learn, and AP is not defined
        if all(record.crowd.all() for record in data.splits[name]):
            raise DataError(f"{spec}: no image of the split '{name}' has a box; check that its labels are in place")
    return data


def _read(path: Path, spec: str) -> DetectionData:
    for format_ in FORMATS.values():
        if format_.fits(path):
            return format_.read(path)
    if path.exists():
        raise DataError(f"{path} is neither a folder nor a .yaml file; give {' or '.join(FORMATS)}")
    near = difflib.get_close_matches(spec, BUILT_IN, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    choices = [*(f"'{name}'" for name in BUILT_IN), *FORMATS]
    raise DataError(f"no data at '{spec}'{hint}; give {', '.join(choices[:-1])}, or {choices[-1]}")
