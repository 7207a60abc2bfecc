"""Write a data set as Pascal VOC: one XML file for each image (VOC2007 development kit, section 3.4).

    Annotations/a.xml, JPEGImages/a.jpg, ImageSets/Main/train.txt, val.txt, trainval.txt, test.txt

Corners are written as they are, with fractions, and start at 0; most tools write and read VOC so today. Crowds are left out: an
object that is marked difficult is an ordinary object to most readers (evaluators.data.formats.voc). The lists separate names by
white space, so that a name has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from evaluators.data.images import IMAGE_SUFFIXES
from evaluators.data.records import DetectionData, Record
from evaluators.data.writers.placing import by_stem, own_name, put_image, unique_names
from gpnas.errors import InputError
from gpnas.files import write_text


def write_voc(data: DetectionData, folder: Path) -> int:
    """Write into `folder`; returns how many images got a new name.

    Raises InputError for names of classes that XML cannot tell apart, and OSError when the files cannot be written.
    """
    classes = class_names(data.names)
    annotations, images, lists = folder / "Annotations", folder / "JPEGImages", folder / "ImageSets" / "Main"
    for new in (annotations, images, lists):
        new.mkdir(parents=True)
    splits = [(split, record) for split, records in data.splits.items() for record in records]
    records = [record for _, record in splits]
    names = unique_names(records, by_stem, _fit_for_lists)
    stems: dict[str, list[str]] = {split: [] for split in data.splits}
    for (split, record), name in zip(splits, names, strict=True):
        put_image(record, images / name)
        root = _annotation(record, name, classes)
        indent(root)
        stem = PurePath(name).stem
        write_text(annotations / f"{stem}.xml", tostring(root, encoding="unicode") + "\n")
        stems[split].append(stem)
    stems["trainval"] = [*stems["train"], *stems["val"]]
    for name, listed in stems.items():
        write_text(lists / f"{name}.txt", "".join(f"{stem}\n" for stem in listed))
    return sum(name != own_name(record) for name, record in zip(names, records, strict=True))


def class_names(names: Sequence[str]) -> list[str]:
    """The names as a reader of XML gets them back: with single spaces, without characters that XML cannot hold.

    Raises InputError when a name is then empty or that of another class.
    """
    texts = [" ".join("".join(c if c.isprintable() else " " for c in name).split()) for name in names]
    for i, text in enumerate(texts):
        if not text or text in texts[:i]:
            why = "is empty" if not text else f"is like '{names[texts.index(text)]}'"
            raise InputError(f"--to voc: the class name {names[i]!r} {why} without its white space; rename the class")
    return texts


def _fit_for_lists(name: str) -> str:
    """A name without white space, whose stem ("a.jpg" of "a.jpg.png") does not look like the name of another file."""
    path = PurePath("_".join(name.split()))
    stem = path.stem
    if PurePath(stem).suffix.lower() in {*IMAGE_SUFFIXES, ".xml"}:
        stem = stem.replace(".", "_")
    return stem + path.suffix


def _annotation(record: Record, name: str, classes: Sequence[str]) -> Element:
    root = Element("annotation")
    _add(root, folder="JPEGImages", filename=name)
    _add(SubElement(root, "size"), width=record.width, height=record.height, depth=3)
    _add(root, segmented=0)
    for box, label, crowd in zip(record.boxes, record.classes.tolist(), record.crowd.tolist(), strict=True):
        if crowd:
            continue
        entry = SubElement(root, "object")
        _add(entry, name=classes[label], pose="Unspecified", truncated=0, difficult=0)
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        _add(SubElement(entry, "bndbox"), **{tag: str(value).removesuffix(".0") for tag, value in corners})
    return root


def _add(parent: Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        SubElement(parent, tag).text = str(text)
