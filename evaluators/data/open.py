"""Detection data: from a COCO folder or a data.yaml to checked records, and from records to images on a device.

    data = open_data("digits")                            # or a COCO folder, or the path of a data.yaml
    bank = load_bank(data.splits["train"], size=320, device="cuda")
    as_images(bank.pixels[:16])                           # float32 (16, 3, 320, 320) in [0, 1]

`open_data` checks everything that it can without decoding: what is wrong is one `DataError` that names it. A split is
decoded once for each image size and then lives on the device as bytes, so that an epoch reads no file.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from evaluators.data.formats.coco import _open_coco
from evaluators.data.formats.yolo import _open_yaml
from evaluators.data.records import DetectionData
from gpnas.errors import DataError


def open_data(spec: str) -> DetectionData:
    """The data set that `spec` names: "digits" (built in), a COCO folder, or the path of a data.yaml.

    Raises DataError, in one line, for whatever could not be trained on or judged. ("./digits" is a folder.)
    """
    if spec == "digits":
        from evaluators.data.digits import digit_scenes  # late: scenes.py builds on this module

        return digit_scenes()
    path = Path(spec).expanduser()
    if path.is_dir():
        data = _open_coco(path)
    elif path.is_file() and path.suffix in (".yaml", ".yml"):
        data = _open_yaml(path)
    elif path.exists():
        raise DataError(f"{path} is neither a folder nor a .yaml file; give a COCO folder or the path of a data.yaml")
    else:
        near = difflib.get_close_matches(spec, ["digits"])
        hint = " (did you mean 'digits'?)" if near else ""
        raise DataError(f"no data at '{spec}'{hint}; give 'digits', a COCO folder, or the path of a data.yaml")
    for name, records in data.splits.items():
        if not records:
            raise DataError(f"{spec}: the split '{name}' has no images; add images to it or remove the split")
    for name in ("train", "val"):  # without boxes there is nothing to learn, and no AP
        if all(record.crowd.all() for record in data.splits[name]):
            raise DataError(f"{spec}: no image of the split '{name}' has a box; check that its labels are in place")
    return data
