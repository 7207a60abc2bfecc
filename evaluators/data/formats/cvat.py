"""CVAT's own XML, "CVAT for images 1.1" and "CVAT for video 1.1" (docs.cvat.ai, "XML annotation format").

    annotations.xml    <annotations> <meta> ... <labels> </meta> <image name="a.jpg"> <box label="cat" xtl= ytl= xbr= ybr= />
    images/a.jpg       or images/<subset>/a.jpg, as a project exports them

The classes are the labels of <meta>, in their order. A video has tracks instead of images; its frames are read when they lie
there as frame_000000.PNG. What has no extent (polyline, points, tag, skeleton) is left out, and a note counts it.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from evaluators.data.annotations import Annotations, ClassNames, RawData
from evaluators.data.formats.numerals import number, pixels
from evaluators.data.formats.outlines import NOWHERE, extent, polygon_area, turned_box, turned_ellipse
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError

_HEAD = 4096
"""Bytes in which the root element of a CVAT file, and one of the elements below it, begin."""

_ASIDE = re.compile(rb"<\?.*?\?>|<!--.*?-->", re.DOTALL)
_ELEMENT = re.compile(rb"<([A-Za-z_][^\s/>]*)")
_BELOW_ROOT = frozenset({b"version", b"meta", b"image", b"track"})
_FRAME = re.compile(r"frame_(\d+)")
_AS_IMAGES = "export it as CVAT for images, with images"

Outline = tuple[list[float], float]
"""The extent x1, y1, x2, y2 of a shape in pixels, and its area; math.nan where the extent tells the area."""


@dataclass
class _Reading:
    """What is known while the files are read. labels: of <meta>. used: number of shapes of each label."""

    tree: Tree
    splits: dict[str, Annotations] = field(default_factory=dict)
    images: dict[tuple[str, Path], int] = field(default_factory=dict)
    labels: dict[str, None] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    names: ClassNames = field(default_factory=ClassNames)

    @cached_property
    def existing(self) -> frozenset[Path]:
        return frozenset(self.tree.images)


@dataclass
class _Meta:
    """What <meta> says of all images of a file."""

    subset: str = ""
    is_project: bool = False
    size: tuple[int, int] = (0, 0)  # of the frames of a video; 0 where it is not told


def find_cvat(tree: Tree) -> list[Path]:
    """The XML files of CVAT in the tree, by their heads."""
    return [file for file in tree.files(".xml") if _is_cvat(file)]


def _is_cvat(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            tags = _ELEMENT.findall(_ASIDE.sub(b"", stream.read(_HEAD)))
    except OSError:
        return False
    return tags[:1] == [b"annotations"] and not _BELOW_ROOT.isdisjoint(tags)


def read_cvat(tree: Tree, files: list[Path]) -> RawData:
    """The images of all `files`. Raises DataError for labels that <meta> does not list, an image that stands there twice, a
    video without its frames, and a file that is broken or declares entities."""
    reading = _Reading(tree)
    for file in files:
        _refuse_declarations(file, reading.tree.told(file))
        _read_file(file, reading)
    _check_labels(files, reading)
    names = reading.names.sort(reading.splits.values(), listed=reading.labels)
    return RawData(names, reading.splits, notes=_notes(reading.left_out))


def _refuse_declarations(file: Path, told: str) -> None:
    """A file of a few hundred bytes that declares entities can fill the memory; CVAT writes none."""

    class RootReached(Exception):
        pass

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{told} has a <!DOCTYPE, which CVAT does not write; export it again, or remove the declaration")

    def stop(*_: object) -> NoReturn:
        raise RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    with suppress(RootReached, expat.ExpatError), file.open("rb") as stream:  # broken files are told by _elements
        parser.ParseFile(stream)


def _elements(file: Path, told: str) -> Iterator[ET.Element]:
    """The elements below the root, one after the other; each is forgotten when the next one comes."""
    try:
        root, depth = None, 0
        with file.open("rb") as stream:
            for event, element in ET.iterparse(stream, ("start", "end")):
                root = element if root is None else root
                depth += 1 if event == "start" else -1
                if event == "end" and depth == 1:
                    yield element
                    root.clear()
    except (ET.ParseError, OSError) as error:
        raise DataError(f"{told} is not valid XML ({error}); export it again") from error


def _read_file(file: Path, reading: _Reading) -> None:
    told, meta = reading.tree.told(file), _Meta()
    tracks: Counter[str] = Counter()
    frames: _Frames | None = None
    has_images = False
    for element in _elements(file, told):
        if element.tag == "meta":
            meta = _read_meta(element, reading.labels)
        elif element.tag == "image":
            has_images = True
            _read_image(element, file, meta, reading)
        elif element.tag == "track":
            frames = frames or _frames(file, meta, reading)
            _read_track(element, frames, f"{told}, track {_number_of(tracks, 'track')}", reading)
    if frames is None and not has_images:
        if not meta.size[0]:
            raise DataError(f"{told} has no <image> and no <track>; {_AS_IMAGES}")
        _frames(file, meta, reading)  # a video without objects


def _read_meta(meta: ET.Element, labels: dict[str, None]) -> _Meta:
    for label in meta.iter("label"):
        name = label.findtext("name")
        if name and label.find("parent") is None:  # a label with a parent is a point of a skeleton
            labels.setdefault(name)
    width, height = (meta.findtext(f".//original_size/{side}", "0") for side in ("width", "height"))
    subset = meta.findtext("task/subset") or meta.findtext("job/subset") or ""
    return _Meta(subset, meta.find("project") is not None, (pixels(width), pixels(height)))


def _read_image(image: ET.Element, file: Path, meta: _Meta, reading: _Reading) -> None:
    told, name = reading.tree.told(file), image.get("name", "")
    if not name:
        raise DataError(f"{told} has an <image> without a name (id {image.get('id')}); {_AS_IMAGES}")
    subset = image.get("subset") or meta.subset
    split = split_of(Path(subset))
    path = _image_file(file, name, subset, split, reading)
    split = split or _split_of_files(path, Path(name), file, reading.tree)
    size = pixels(image.get("width")), pixels(image.get("height"))
    index = _add_image(split, path, size, f"{told} names the image {name}", reading)
    counts: Counter[str] = Counter()
    for shape in image:
        where = f"{told}, image {name}, {shape.tag} {_number_of(counts, shape.tag)}"
        _add_shape(shape, shape.get("label", ""), split, index, where, reading)


def _image_file(file: Path, name: str, subset: str, split: str, reading: _Reading) -> Path:
    """The image lies in images/ beside the file, a project's in a folder of its subset there; or wherever it is found."""
    for folder in (file.parent / "images" / subset, file.parent / "images"):
        if folder / name in reading.existing:
            return folder / name
    found = reading.tree.image_named(name, file, split)
    return found if found in reading.existing else file.parent / "images" / subset / name


def _split_of_files(image: Path, name: Path, file: Path, tree: Tree) -> str:
    """The split by the folders of the image, or by the annotation file and its folders."""
    return split_of(name.parent) or tree.split_of_folder(image) or split_of(file.relative_to(tree.root))


def _add_image(split: str, path: Path, size: tuple[int, int], told: str, reading: _Reading) -> int:
    if (split, path) in reading.images:
        raise DataError(f"{told} a second time (as {path}); export each image once")
    index = reading.splits.setdefault(split, Annotations()).add_image(path, *size)
    reading.images[split, path] = index
    return index


def _add_shape(shape: ET.Element, label: str, split: str, image: int, where: str, reading: _Reading) -> None:
    if shape.tag not in _OUTLINES:
        reading.left_out[shape.tag] += 1
        return
    xyxy, area = _OUTLINES[shape.tag](shape)
    reading.used[label] += 1
    reading.splits[split].add_box(image, reading.names.number(label), xyxy, where, area=area)


@dataclass(frozen=True)
class _Frames:
    """The frames of a video: the number of each one's image in the split."""

    split: str
    images: dict[int, int]


def _frames(file: Path, meta: _Meta, reading: _Reading) -> _Frames:
    """All frames of a video that lie in the folder of `file`; one without objects is a frame too."""
    told = reading.tree.told(file)
    if meta.is_project:
        raise DataError(f"{told} has the tracks of a project, whose videos share the numbers of frames; {_AS_IMAGES}")
    folder = file.parent / "images"
    near = [path for path in reading.tree.images if path.is_relative_to(file.parent) and _FRAME.fullmatch(path.stem)]
    found = [path for path in near if path.is_relative_to(folder)] or near
    if not found:
        raise DataError(f"{told} has tracks of a video, but no frame lies there as images/frame_000000.PNG; {_AS_IMAGES}")
    split = split_of(Path(meta.subset)) or _split_of_files(found[0], Path(), file, reading.tree)
    images: dict[int, int] = {}
    for path in found:
        frame = int(path.stem.removeprefix("frame_"))
        if frame in images:
            raise DataError(f"{told} has two images of frame {frame}, one of them {path}; remove one")
        images[frame] = _add_image(split, path, meta.size, f"{told} names frame {frame}", reading)
    return _Frames(split, images)


def _read_track(track: ET.Element, frames: _Frames, where: str, reading: _Reading) -> None:
    for shape in track:
        if shape.get("outside") == "1":  # the object has left the picture
            continue
        told = shape.get("frame", "")
        frame = int(told) if told.isdecimal() else None
        if frame is None or frame not in frames.images:
            raise DataError(f"{where}, has a {shape.tag} on frame {told}, whose image does not lie there; {_AS_IMAGES}")
        at = f"{where}, {shape.tag} of frame {frame}"
        _add_shape(shape, track.get("label", ""), frames.split, frames.images[frame], at, reading)


def _check_labels(files: list[Path], reading: _Reading) -> None:
    """Where no file lists labels, any label is a class; but each shape has one."""
    known = reading.labels or dict.fromkeys(name for name in reading.used if name)
    unknown = {name: count for name, count in reading.used.items() if name not in known}
    if unknown:
        listed = ", ".join(f"{name!r} ({count})" for name, count in sorted(unknown.items()))
        told = ", ".join(reading.tree.told(file) for file in files)
        remedy = f"add them to <meta>, or rename them to one of {', '.join(known)}" if known else "give each shape a label"
        raise DataError(f"{told}: shapes have labels that <meta> does not list: {listed}; {remedy}")


def _notes(left_out: Counter[str]) -> list[str]:
    if not left_out:
        return []
    listed = ", ".join(f"{count} <{tag}>" for tag, count in sorted(left_out.items()))
    return [f"What has no box was left out: {listed}."]


def _box(shape: ET.Element) -> Outline:
    """A rotated box is turned clockwise about its centre; its extent is wider and higher than it is."""
    x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    angle = math.radians(_rotation(shape))
    if not angle or not (x1 < x2 and y1 < y2):
        return [x1, y1, x2, y2], math.nan
    width, height = x2 - x1, y2 - y1
    return turned_box((x1 + x2) / 2, (y1 + y2) / 2, width, height, angle), width * height


def _ellipse(shape: ET.Element) -> Outline:
    cx, cy, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
    return turned_ellipse(cx, cy, rx, ry, math.radians(_rotation(shape))), math.pi * rx * ry


def _polygon(shape: ET.Element) -> Outline:
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        return NOWHERE, math.nan
    xs, ys = ([number(pair[axis]) for pair in pairs] for axis in (0, 1))
    return extent(xs, ys), polygon_area(xs, ys)


def _mask(shape: ET.Element) -> Outline:
    """The run lengths begin with a run outside of the mask."""
    left, top, width, height = _numbers(shape, "left", "top", "width", "height")
    runs = [number(run) for run in shape.get("rle", "").split(",")]
    return [left, top, left + width, top + height], sum(runs[1::2]) if len(runs) > 1 else math.nan


def _cuboid(shape: ET.Element) -> Outline:
    """The extent of the eight corners that are drawn."""
    corners = [f"{side}{face}" for side in ("tl", "bl", "tr", "br") for face in (1, 2)]
    return extent(*(_numbers(shape, *(axis + corner for corner in corners)) for axis in "xy")), math.nan


_OUTLINES: dict[str, Callable[[ET.Element], Outline]] = {
    "box": _box,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "mask": _mask,
    "cuboid": _cuboid,
}


def _rotation(shape: ET.Element) -> float:
    """In degrees; CVAT writes it only where it is not 0."""
    return number(shape.get("rotation", "0"))


def _numbers(shape: ET.Element, *keys: str) -> list[float]:
    return [number(shape.get(key)) for key in keys]


def _number_of(counts: Counter[str], tag: str) -> int:
    """How many of this tag there were, this one included."""
    counts[tag] += 1
    return counts[tag]
