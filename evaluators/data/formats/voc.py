"""Pascal VOC: one XML file for each image, by the development kit of the challenge (VOC2007, section 3.4), LabelImg, Roboflow.

    Annotations/a.xml, JPEGImages/a.jpg, ImageSets/Main/train.txt, val.txt           or
    train/a.xml, train/a.jpg, valid/...                                              or any folders of XML files and images

Corners are read as they are written. VOC itself counts pixels from 1, and xmax is the last pixel of the object, so that the box
begins at xmin - 1; detectron2 and mmdetection read all VOC files so. The tools that write VOC today (LabelImg, Roboflow, CVAT,
Label Studio) write edges that begin at 0, which torchvision leaves alone. The files do not tell the two apart, and the
difference is one pixel.

An object that is marked difficult is an ordinary object, and a note counts them. VOC's evaluation ignores them; but a crowd,
which is the only thing to be ignored here, covers many objects, so that any number of detections inside of it is forgiven.
detectron2 trains on difficult objects too.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from evaluators.data.annotations import Annotations, ClassNames, RawData
from evaluators.data.formats.assigned import assigned
from evaluators.data.formats.image_names import image_described
from evaluators.data.formats.numerals import number, pixels
from evaluators.data.formats.outlines import NOWHERE, extent, turned_box
from evaluators.data.images import IMAGE_SUFFIXES
from evaluators.data.problems import EXAMPLES, Findings, Kind
from evaluators.data.tree import Tree
from gpnas.errors import DataError

SAMPLED = 20
"""XML files that are looked into to tell whether there is one of this format."""

_HEAD = 4096  # bytes; <filename> or <size> stands in them, because they come before the objects
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FIRST_TAG = re.compile(r"<([A-Za-z][\w.:-]*)")
_OF_VOC = ("filename", "size", "object")
"""Children of <annotation>; a file with none of them is another program's."""

_LISTS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
"""The split of each list in ImageSets/Main. Lists of one class (aeroplane_train.txt) say nothing about splits."""

Lists = Mapping[Path, Mapping[str, tuple[str, ...]]]
"""For each folder that holds ImageSets: the splits of each stem."""


def find_voc(tree: Tree) -> list[Path]:
    """All XML files of the tree, when one of a few that are looked into is of this format; otherwise none."""
    files = tree.files(".xml")
    sample = files[:: max(1, math.ceil(len(files) / SAMPLED))]
    return files if any(_looks_like_voc(file) for file in sample) else []


def read_voc(tree: Tree, files: list[Path]) -> RawData:
    """Read `files`, without those of other programs.

    Raises DataError for an object without a name, an XML file with a document type, two files about one image, and lists of
    ImageSets/Main that fit no file.
    """
    lists = _lists(tree)
    listed = {file: _listed_splits(file, lists) for file in files}
    unlisted = [file for file, named in listed.items() if named == ()]
    if len(unlisted) == len(files) > 0:
        _refuse_lists(tree, lists)
    raw = RawData((), {})
    splits: dict[str, Annotations] = defaultdict(Annotations)
    classes = ClassNames()
    file_of: dict[Path, Path] = {}
    difficult = 0
    for file, named in listed.items():
        root = None if named == () else _parse(tree, file, raw.found)
        if root is None:
            continue
        split = named[0] if named else tree.split_of_folder(file)
        image = image_described(tree, file, _text(root, "filename"), split)
        _refuse_second(tree, file, image, file_of)
        for each in named or (split or tree.split_of_folder(image),):
            difficult += _add_image(splits[each], root, image, classes, tree.told(file))
    if not splits:
        _refuse_nothing(tree, raw.found)
    raw.names, raw.splits = assigned(classes, splits, raw.notes)
    raw.notes += _notes(tree, files, lists, unlisted, raw.splits, difficult)
    return raw


def _looks_like_voc(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    text = _COMMENT.sub("", head.replace(b"\0", b"").decode("latin-1"))  # without the zeros of UTF-16
    first = _FIRST_TAG.search(text)
    return first is not None and first[1] == "annotation" and any(f"<{child}" in text for child in _OF_VOC)


class _DocumentTypeError(Exception):
    """The file declares a document type; the only argument is its name, which is that of the root."""


class _Builder(ElementTree.TreeBuilder):
    """Stops at a document type: the entities in it may expand to gigabytes, and no annotation tool writes one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DocumentTypeError(name)


def _parse(tree: Tree, file: Path, found: Findings) -> Element | None:
    """The root of an annotation file; None for a file of another program, and for broken XML, which is counted."""
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(file.read_bytes().lstrip())  # a blank line before <?xml is no XML
        root: Element = parser.close()
    except _DocumentTypeError as error:
        if error.args[0] != "annotation":
            return None
        raise DataError(f"{file} declares a document type (<!DOCTYPE), which may hide entities; remove it") from None
    except (ElementTree.ParseError, ValueError, OSError) as error:  # ValueError: an encoding that expat does not know
        found.add(Kind.UNREADABLE, f"{tree.told(file)} ({error})")
        return None
    is_voc = root.tag == "annotation" and any(root.find(child) is not None for child in _OF_VOC)
    return root if is_voc else None


def _lists(tree: Tree) -> Lists:
    """The lists of ImageSets/Main. trainval.txt counts as train.txt where neither train.txt nor val.txt lies beside it."""
    found: dict[Path, dict[str, Path]] = defaultdict(dict)
    for file in tree.files(".txt"):
        if [part.lower() for part in file.parts[-3:-1]] == ["imagesets", "main"]:
            found[file.parents[2]][file.stem.lower()] = file
    lists: dict[Path, dict[str, tuple[str, ...]]] = {}
    for folder, named in found.items():
        texts = {name: split for name, split in _LISTS.items() if name in named}
        if "trainval" in named and not {"train", "val"} & set(texts.values()):
            texts["trainval"] = "train"
        splits: dict[str, tuple[str, ...]] = {}
        for name, split in texts.items():
            for stem in _stems(named[name]):
                splits[stem] = tuple(dict.fromkeys((*splits.get(stem, ()), split)))
        if splits:
            lists[folder] = splits
    return lists


def _stems(file: Path) -> Iterator[str]:
    """The names in a list. Some tools write them with the folder and the suffix of the image."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read {file} as text ({error}); write it in UTF-8") from error
    for line in lines:
        path = PurePosixPath(line.strip().replace("\\", "/"))
        if path.name:
            yield path.stem if path.suffix.lower() in {*IMAGE_SUFFIXES, ".xml"} else path.name


def _listed_splits(file: Path, lists: Lists) -> tuple[str, ...] | None:
    """The splits whose lists name the file; None where no lists belong to it."""
    for folder in file.parents:
        if folder in lists:
            return lists[folder].get(file.stem, ())
    return None


def _refuse_second(tree: Tree, file: Path, image: Path, file_of: dict[Path, Path]) -> None:
    """Remember that `file` describes `image`. Raises DataError when another file does."""
    first = file_of.setdefault(image, file)
    if first != file and str(image) in tree.existing:
        raise DataError(f"{first} and {file} both describe the image {image}; remove one of them")


def _refuse_lists(tree: Tree, lists: Lists) -> None:
    folder, splits = next(iter(lists.items()))
    raise DataError(
        f"the lists in {folder / 'ImageSets' / 'Main'} fit no XML file of {tree.given} (they name {next(iter(splits))}); "
        "list the names of the XML files without suffix, or remove ImageSets"
    )


def _refuse_nothing(tree: Tree, found: Findings) -> None:
    if Kind.UNREADABLE in found.examples:
        raise DataError(f"{tree.given} has no XML file that can be read: {found.examples[Kind.UNREADABLE][0]}; export it again")
    raise DataError(f"{tree.given} has no Pascal VOC file, <annotation> with <filename> and <object>; give their folder")


def _add_image(split: Annotations, root: Element, path: Path, classes: ClassNames, where: str) -> int:
    """Add an image and its objects; returns how many are marked difficult."""
    image = split.add_image(path, pixels(_text(root, "size/width")), pixels(_text(root, "size/height")))
    difficult = 0
    for i, entry in enumerate(root.findall("object"), 1):
        if _text(entry, "deleted") == "1":  # the LabelMe of the MIT
            continue
        name = _text(entry, "name")
        if not name:
            raise DataError(f"{where}, object {i} has no <name>; name its class or remove the object")
        split.add_box(image, classes.number(name), _corners(entry), f"{where}, object {i}")
        difficult += _text(entry, "difficult") == "1"
    return difficult


def _corners(entry: Element) -> Sequence[float]:
    """x1, y1, x2, y2 of an object: its <bndbox>, or the extent of a rotated box or a polygon. The boxes of <part> do not count.

    Of what an object lacks, the numbers are math.nan.
    """
    box, rotated, polygon = (entry.find(tag) for tag in ("bndbox", "robndbox", "polygon"))
    if box is not None:
        return [number(_text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax")]
    if rotated is not None:  # of roLabelImg, whose angle is in radians
        return turned_box(*(number(_text(rotated, tag)) for tag in ("cx", "cy", "w", "h", "angle")))
    return _extent_of_polygon(polygon) if polygon is not None else NOWHERE


def _extent_of_polygon(polygon: Element) -> list[float]:
    """Roboflow writes the corners as <x1>, <y1>, <x2>, ...; the LabelMe of the MIT as <pt><x/><y/></pt>."""
    xs = [number(part.text) for part in polygon.iter() if re.fullmatch(r"x\d*", part.tag)]
    ys = [number(part.text) for part in polygon.iter() if re.fullmatch(r"y\d*", part.tag)]
    return extent(xs, ys)


def _notes(
    tree: Tree, files: list[Path], lists: Lists, unlisted: list[Path], splits: Mapping[str, Annotations], difficult: int
) -> Iterator[str]:
    if unlisted:
        count = f"{len(unlisted)} of {len(files)} XML files"
        yield f"{count} stand in no list of ImageSets/Main and stayed out: {_examples(tree, unlisted)}"
    stems = {(folder, file.stem) for file in files for folder in file.parents if folder in lists}
    absent = [stem for folder, splits in lists.items() for stem in splits if (folder, stem) not in stems]
    if absent:
        shown = ", ".join(absent[:EXAMPLES]) + (", ..." if len(absent) > EXAMPLES else "")
        yield f"{len(absent)} names in the lists of ImageSets/Main have no XML file: {shown}"
    if difficult:
        total = sum(map(len, splits.values()))
        yield f"marked difficult: {difficult} of {total} boxes; VOC's own evaluation ignores such boxes, here they count"


def _examples(tree: Tree, files: list[Path]) -> str:
    return ", ".join(tree.told(file) for file in files[:EXAMPLES]) + (", ..." if len(files) > EXAMPLES else "")


def _text(element: Element, tag: str) -> str:
    found = element.find(tag)
    return (found.text or "").strip() if found is not None else ""
