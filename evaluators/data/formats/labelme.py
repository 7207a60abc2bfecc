"""LabelMe (github.com/wkentaro/labelme) and AnyLabeling: one JSON file for each image, beside it.

    {"imagePath": "a.jpg", "imageWidth": 640, "imageHeight": 480, "imageData": "...",
     "shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[30, 40], [10, 20]]}]}

The box of a shape is the extent of its points, whichever corner was drawn first; that of a circle is around its rim. Points and
lines have no box. `imageData` is the image itself in base64; it is not read.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.data.annotations import Annotations, ClassNames, RawData
from evaluators.data.formats.assigned import assigned
from evaluators.data.formats.image_names import image_described
from evaluators.data.formats.json_files import top_level
from evaluators.data.formats.numerals import number, pixels
from evaluators.data.problems import Findings, Kind
from evaluators.data.tree import Tree
from gpnas.errors import DataError

SAMPLED = 20
"""JSON files that are looked into to tell whether there is one of this format."""

_WITHOUT_BOX = frozenset({"point", "points", "line", "linestrip"})

Content = Mapping[str, Any]


def find_labelme(tree: Tree) -> list[Path]:
    """All JSON files of the tree, when one of a few that are looked into is of this format; otherwise none."""
    files = tree.files(".json")
    sample = files[:: max(1, math.ceil(len(files) / SAMPLED))]
    return files if any(_looks_like_labelme(file) for file in sample) else []


def read_labelme(tree: Tree, files: list[Path]) -> RawData:
    """Read `files`, without those of other programs.

    Raises DataError for a shape without a label, two files about one image, and when no file is of this format.
    """
    raw = RawData((), {})
    splits: dict[str, Annotations] = defaultdict(Annotations)
    classes = ClassNames()
    file_of: dict[Path, Path] = {}
    boxless: Counter[str] = Counter()
    for file in files:
        content = _content(tree, file, raw.found)
        if content is None:
            continue
        path = _image(tree, file, content, raw.found)
        if path is None:
            continue
        first = file_of.setdefault(path, file)
        if first != file and str(path) in tree.existing:
            raise DataError(f"{first} and {file} both describe the image {path}; remove one of them")
        split = tree.split_of_folder(file) or tree.split_of_folder(path)
        boxless += _add_image(splits[split], content, path, classes, tree.told(file))
    if not splits:
        _refuse_nothing(tree, raw.found)
    raw.names, raw.splits = assigned(classes, splits, raw.notes)
    if boxless:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(boxless.items()))
        raw.notes.append(f"shapes without a box stayed out: {kinds}")
    return raw


def _looks_like_labelme(file: Path) -> bool:
    top = top_level(file)
    if top is None or top.kind != "object":
        return False
    needed = {"imagePath", "shapes"}  # one of them may stand behind the head of a long file
    return needed <= top.keys.keys() or (not top.is_complete and bool((needed | {"imageData"}) & top.keys.keys()))


def _content(tree: Tree, file: Path, found: Findings) -> Content | None:
    """What a file says; None for one of another program, and for broken JSON, which is counted."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        found.add(Kind.UNREADABLE, f"{tree.told(file)} ({error})")
        return None
    is_labelme = isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content
    return content if is_labelme else None


def _image(tree: Tree, file: Path, content: Content, found: Findings) -> Path | None:
    """The path of the image; None, and counted, where the image stands in the JSON file alone."""
    name = content["imagePath"]
    path = image_described(tree, file, name if isinstance(name, str) else "", tree.split_of_folder(file))
    if not content.get("imageData") or str(path) in tree.existing or path.is_file():
        return path
    place = f"it stands only in the imageData of {tree.told(file)}; labelme_export_json writes it to a file"
    found.add(Kind.MISSING, f"{path.name} ({place})")
    return None


def _refuse_nothing(tree: Tree, found: Findings) -> None:
    for kind, what in ((Kind.MISSING, "no image that has a file"), (Kind.UNREADABLE, "no JSON file that can be read")):
        if kind in found.examples:
            raise DataError(f"{tree.given} has {what}: {found.examples[kind][0]}")
    raise DataError(f"{tree.given} has no LabelMe file, a JSON object with imagePath and shapes; give their folder")


def _add_image(split: Annotations, content: Content, path: Path, classes: ClassNames, where: str) -> Counter[str]:
    """Add an image and its boxes; returns how many shapes of each kind have no box."""
    image = split.add_image(path, pixels(content.get("imageWidth")), pixels(content.get("imageHeight")))
    boxless: Counter[str] = Counter()
    for i, shape in enumerate(content["shapes"], 1):
        shape = shape if isinstance(shape, dict) else {}
        kind = str(shape.get("shape_type") or "polygon")  # the first versions knew no other
        if kind in _WITHOUT_BOX:
            boxless[kind] += 1
            continue
        label = shape.get("label")
        name = str(label).strip() if isinstance(label, str | int) else ""
        if not name:
            raise DataError(f"{where}, shape {i} has the label {label!r}; name its class or remove the shape")
        split.add_box(image, classes.number(name), _extent(shape.get("points"), kind), f"{where}, shape {i}")
    return boxless


def _extent(points: Any, kind: str) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 around the points, or around a circle, which is its centre and a point of its rim; math.nan for what is
    no list of at least two points."""
    pairs = points if isinstance(points, list) else []
    xy = [(number(pair[0]), number(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
    if len(xy) < 2 or len(xy) != len(pairs) or not all(math.isfinite(v) for pair in xy for v in pair):
        return (math.nan,) * 4
    if kind == "circle":
        (x, y), rim = xy[0], xy[1]
        radius = math.dist((x, y), rim)
        return x - radius, y - radius, x + radius, y + radius
    xs, ys = zip(*xy, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
