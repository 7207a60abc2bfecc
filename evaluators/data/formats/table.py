"""CSV: one row for each box, as TensorFlow's tools, Roboflow, keras-retinanet, Google AutoML and makesense.ai write it.

    filename,width,height,class,xmin,ymin,xmax,ymax            # a header names the columns, in any order
    a.jpg,640,480,cat,10,20,30,40

    images/a.jpg,10,20,30,40,cat                               # keras-retinanet: no header
    images/b.jpg,,,,,                                          # an image without boxes

    TRAIN,gs://bucket/a.jpg,cat,0.1,0.1,,,0.3,0.3,,            # AutoML: shares of width and height

The split of a row is named by its column `split`, or by the path of the file, or by the folder of the image. A table gives
shares of the image where most boxes have no number much above 1: in pixels, they would all lie in the first pixel.
"""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Literal

from evaluators.data.annotations import Annotations, ClassNames, RawData
from evaluators.data.formats.assigned import assigned
from evaluators.data.formats.image_names import image_called
from evaluators.data.formats.numerals import number, pixels
from evaluators.data.images import IMAGE_SUFFIXES
from evaluators.data.problems import Kind
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError

SAMPLED = 1000
"""CSV files that are looked into at first; a folder with more tables of other kinds is no data set of this format."""

_LOOKED_AT = 5  # rows
_HEAD = 65536  # characters of a row
_DELIMITERS = (",", ";", "\t")
_LARGEST_SHARE = 1.5
"""A box with a larger number is in pixels; shares are above 1 where a box leaves its image a little."""

# The names of columns: in lower case, letters and digits only; of several that a table has, the first one counts.
_IMAGE = ("filename", "imagepath", "imgpath", "filepath", "imagename", "image", "img", "path", "file", "imageid")
_LABEL = ("class", "classname", "label", "labelname", "category", "categoryname")
_SPLIT = ("split", "set", "subset", "partition", "mluse")
_CROWD = ("iscrowd", "isgroupof")
_IMAGE_SIZE = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("width", "height"))

Form = Literal["corners", "origin", "centre"]
"""What four numbers say: x1 y1 x2 y2; x1 y1 and width and height of the box; or its centre and its width and height.
x and y alone are the corner, as in COCO and makesense.ai; who writes centres calls them so."""

_BOX: dict[tuple[str, str, str, str], Form] = {
    ("xmin", "ymin", "xmax", "ymax"): "corners",
    ("x1", "y1", "x2", "y2"): "corners",
    ("x0", "y0", "x1", "y1"): "corners",
    ("left", "top", "right", "bottom"): "corners",
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"): "corners",
    ("bboxx1", "bboxy1", "bboxx2", "bboxy2"): "corners",
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"): "origin",
    ("bboxx", "bboxy", "bboxw", "bboxh"): "origin",
    ("x", "y", "w", "h"): "origin",
    ("x", "y", "width", "height"): "origin",
    ("left", "top", "width", "height"): "origin",
    ("cx", "cy", "w", "h"): "centre",
    ("xcenter", "ycenter", "w", "h"): "centre",
    ("xcenter", "ycenter", "width", "height"): "centre",
}

_WITHOUT_HEADER = (
    ("filename", "xmin", "ymin", "xmax", "ymax", "class"),  # keras-retinanet
    ("split", "filename", "class", "xmin", "ymin", "", "", "xmax", "ymax", "", ""),  # AutoML, which may give all four corners
    ("class", "x", "y", "w", "h", "filename", "imagewidth", "imageheight"),  # makesense.ai
)


@dataclass(frozen=True)
class Table:
    """Where the columns of a file stand; -1 for one that it does not have."""

    file: Path
    delimiter: str
    has_header: bool
    columns: int
    image: int
    label: int
    box: tuple[int, ...]  # four
    form: Form
    width: int
    height: int
    split: int
    crowd: int


def find_csv(tree: Tree) -> list[Path]:
    """The CSV files whose columns are an image and a box."""
    files = tree.files(".csv")
    sample = files[:: max(1, math.ceil(len(files) / SAMPLED))]
    found = [file for file in sample if _table(file)]
    return found if len(sample) == len(files) or not found else [file for file in files if _table(file)]


def read_csv(tree: Tree, files: list[Path]) -> RawData:
    """Raises DataError for a table that lacks a column of classes, is no text in UTF-8, or has no rows, and when one table
    gives pixels and another shares."""
    raw = RawData((), {})
    images = _Images(tree)
    classes = ClassNames()
    relative: dict[bool, Path] = {}
    for table in filter(None, map(_table, files)):
        boxes, shares = _read_rows(tree, table, raw, images, classes)
        if boxes:
            relative.setdefault(2 * shares > boxes, table.file)
    if len(relative) > 1:
        raise DataError(
            f"{relative[False]} gives boxes in pixels, {relative[True]} as shares of the image; write both in pixels"
        )
    for split in images.splits.values():
        split.relative = True in relative
    if not images.splits:
        raise DataError(f"{tree.given} has no row that names an image; give the table of the boxes")
    raw.names, raw.splits = assigned(classes, images.splits, raw.notes)
    return raw


def _table(file: Path) -> Table | None:
    """The columns of a CSV file; None when it has no images and boxes. Never raises."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            lines = [line for line in (stream.readline(_HEAD) for _ in range(_LOOKED_AT)) if line.strip()]
    except OSError:
        return None
    for delimiter in _DELIMITERS:
        rows = [next(csv.reader([line], delimiter=delimiter, skipinitialspace=True)) for line in lines]
        tables = [_named_columns(file, delimiter, row) for row in rows[:1]]
        tables += [_usual_columns(file, delimiter, row) for row in rows]
        if any(tables):
            return next(filter(None, tables))
    return None


def _named_columns(file: Path, delimiter: str, header: Sequence[str]) -> Table | None:
    names = [re.sub(r"[\W_]+", "", name.lower()) for name in header]
    box = next((box for box in _BOX if set(box) <= set(names)), None)
    image = _position(names, _IMAGE)
    if box is None or image < 0:
        return None
    sizes = [pair for pair in _IMAGE_SIZE if set(pair) <= set(names) and not set(pair) & set(box)]
    width, height = sizes[0] if sizes else ("", "")
    return Table(
        file,
        delimiter,
        has_header=True,
        columns=len(names),
        image=image,
        label=_position(names, _LABEL),
        box=tuple(map(names.index, box)),
        form=_BOX[box],
        width=_position(names, [width]),
        height=_position(names, [height]),
        split=_position(names, _SPLIT),
        crowd=_position(names, _CROWD),
    )


def _usual_columns(file: Path, delimiter: str, row: Sequence[str]) -> Table | None:
    """The columns of a file without header, told by a row: an image, and numbers or nothing where they belong."""
    for names in _WITHOUT_HEADER:
        table = _named_columns(file, delimiter, names)
        if table is None or len(row) != len(names):
            continue
        is_image = PureWindowsPath(row[table.image].strip()).suffix.lower() in IMAGE_SUFFIXES
        if is_image and all(not row[i].strip() or math.isfinite(number(row[i])) for i in table.box):
            return replace(table, has_header=False)
    return None


def _position(names: Sequence[str], wanted: Iterable[str]) -> int:
    return next((names.index(name) for name in wanted if name and name in names), -1)


class _Images:
    """The images that rows name. Each is added to its split once."""

    def __init__(self, tree: Tree) -> None:
        self.splits: dict[str, Annotations] = defaultdict(Annotations)
        self._tree = tree
        self._named: dict[tuple[Path, str, str], tuple[Annotations, int]] = {}
        self._added: dict[tuple[str, Path], int] = {}

    def of_row(self, table: Table, row: Sequence[str], name: str, split: str) -> tuple[Annotations, int]:
        """The split of the image that a row calls `name`, and its number there."""
        key = table.file, name, split
        if key not in self._named:
            path = image_called(self._tree, name, table.file, split)
            split = split or self._tree.split_of_folder(path)
            if (split, path) not in self._added:
                size = (pixels(_cell(row, i)) for i in (table.width, table.height))
                self._added[split, path] = self.splits[split].add_image(path, *size)
            self._named[key] = self.splits[split], self._added[split, path]
        return self._named[key]


def _read_rows(tree: Tree, table: Table, raw: RawData, images: _Images, classes: ClassNames) -> tuple[int, int]:
    """Add the images and boxes of a table; returns how many boxes are four numbers, and how many of these look like shares."""
    if table.label < 0:
        raise DataError(f"{table.file} has no column of classes ({', '.join(_LABEL[:3])}); add it, or rename it so")
    below_root = table.file.relative_to(tree.root)
    place, of_file = below_root.as_posix(), split_of(below_root)
    boxes = shares = 0
    for line, row in _rows(table):
        raw.lines += 1
        where = f"{place}, line {line}"
        name, label, told_split = _cell(row, table.image), _cell(row, table.label), _cell(row, table.split)
        numbers = [_cell(row, i) for i in table.box]
        has_box = any(numbers) or bool(label)
        breaks = sum(cell.count("\n") for cell in row)
        if breaks:  # a quotation mark without its partner swallows lines
            raw.lines += breaks
            told = " ".join(table.delimiter.join(row).split())
            raw.found.add_all(Kind.NOT_A_LINE, breaks + 1, [f"{where} and before, in quotation marks ({told:.80})"])
            continue
        if not name or (has_box and not label) or any(row[table.columns :]):
            raw.found.add(Kind.NOT_A_LINE, f"{where} ({table.delimiter.join(row):.80})")
            continue
        split = (told_split and split_of(Path(told_split))) or of_file
        annotations, image = images.of_row(table, row, name, split)
        if has_box:
            corners = _corners([number(text) for text in numbers], table.form)
            annotations.add_box(image, classes.number(label), corners, where, crowd=_cell(row, table.crowd) in ("1", "True"))
            is_finite = all(map(math.isfinite, corners))
            boxes += is_finite
            shares += is_finite and max(corners) <= _LARGEST_SHARE
    return boxes, shares


def _rows(table: Table) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header that are not blank, with the number of their line."""
    try:
        with table.file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=table.delimiter, skipinitialspace=True)
            is_header = table.has_header
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells) and not is_header:
                    yield reader.line_num, cells
                is_header = is_header and not any(cells)
    except (csv.Error, ValueError, OSError) as error:
        raise DataError(f"cannot read {table.file} as a table ({error}); write it as CSV in UTF-8") from error


def _cell(row: Sequence[str], i: int) -> str:
    return row[i] if 0 <= i < len(row) else ""


def _corners(numbers: Sequence[float], form: Form) -> tuple[float, float, float, float]:
    a, b, c, d = numbers
    if form == "origin":
        return a, b, a + c, b + d
    if form == "centre":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d
