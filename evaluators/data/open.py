"""Open a data set in any supported format.

    data = open_data("digits")                            # or a folder, or the path of an annotation file
    data.splits["train"], data.problems, data.notes
    open_data(DataSource("photos", split="80/20", strict=True))

The format is found by looking at the files. `open_data` reads annotations, mends and counts what can be mended (clean.py), and
divides data that have no splits (splitting.py). It reads the headers of images where nothing else tells their size, and decodes
none but to find images that look the same, in data that it must divide. A problem is one `DataError` that names the file and
the remedy.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluators.data.annotations import NO_SPLIT, RawData
from evaluators.data.clean import clean_records
from evaluators.data.digits import digit_scenes
from evaluators.data.formats.coco import find_coco, read_coco
from evaluators.data.formats.cvat import find_cvat, read_cvat
from evaluators.data.formats.fiftyone import find_fiftyone, read_fiftyone
from evaluators.data.formats.json_files import read_json
from evaluators.data.formats.label_studio import find_label_studio, read_label_studio
from evaluators.data.formats.labelme import find_labelme, read_labelme
from evaluators.data.formats.table import find_csv, read_csv
from evaluators.data.formats.voc import find_voc, read_voc
from evaluators.data.formats.yolo import find_data_yaml, find_label_files, read_data_yaml, read_label_files
from evaluators.data.problems import EXAMPLES, Findings, Kind, check_problems
from evaluators.data.records import SPLITS, DetectionData, Record
from evaluators.data.similar import alike, same_files
from evaluators.data.splitting import DEFAULT_SHARES, assign, parse_shares
from evaluators.data.tree import Tree
from gpnas.errors import DataError, InputError

BUILT_IN = {"digits": digit_scenes}


class Format(NamedTuple):
    """A format of data sets. find: its annotation files in a tree, none where the data set has another format. read: what they
    say; it raises DataError for what is wrong. part_of: the format to which such files belong too."""

    find: Callable[[Tree], list[Path]]
    read: Callable[[Tree, list[Path]], RawData]
    part_of: str = ""


FORMATS = {
    "COCO": Format(find_coco, read_coco),
    "data.yaml": Format(find_data_yaml, read_data_yaml),
    "FiftyOne": Format(find_fiftyone, read_fiftyone),
    "Label Studio": Format(find_label_studio, read_label_studio),
    "CVAT": Format(find_cvat, read_cvat),
    "Pascal VOC": Format(find_voc, read_voc),
    "LabelMe": Format(find_labelme, read_labelme),
    "CSV": Format(find_csv, read_csv),
    "YOLO label files": Format(find_label_files, read_label_files, part_of="data.yaml"),
}
"""The first format that a data set has is read."""

_JSON_TRIED = 20
"""JSON files that are read to see whether they are broken, in a folder without any annotations that are known."""

Splits = Mapping[str, tuple[Record, ...]]


class _Read(NamedTuple):
    """What the files of a data set say, mended and counted, before it is divided. names: of the classes. ids: the COCO id of
    each. notes: for the user."""

    format: str
    names: tuple[str, ...]
    ids: tuple[int, ...]
    splits: Splits
    found: Findings
    totals: dict[str, int]
    notes: list[str]


class _Arranged(NamedTuple):
    """The splits of a data set. shares: by which they were divided; "" for the data's own. notes: for the user."""

    splits: Splits
    shares: str
    notes: list[str]


@dataclass(frozen=True)
class DataSource:
    """Which data a command works on.

    path: the name of built-in data, a folder, or the path of an annotation file. split: shares of train, val and test, such as
    "70/15/15", that divide all images anew; "" for the splits that the data have, or DEFAULT_SHARES where they have none.
    val: the path of another data set, all of whose images are the val split; "" for none. strict: whether a problem that could
    be mended is an error.
    """

    path: str
    split: str = ""
    val: str = ""
    strict: bool = False


def open_data(source: str | DataSource, *, may_refuse: bool = True) -> DetectionData:
    """The data set that `source` names. "digits" is built in; "./digits" is a folder.

    may_refuse: whether too many problems that could be mended are an error; otherwise they are in the result, to be looked at.

    Raises DataError, in one line, for data that cannot be opened, or on which nothing could be trained or evaluated, and
    InputError for shares that are none.
    """
    wanted = DataSource(source) if isinstance(source, str) else source
    if wanted.path in BUILT_IN:
        data = BUILT_IN[wanted.path]()
        arranged = _arranged(data.splits, wanted, data.names)
        usable, dropped = _usable(arranged, wanted)
        notes = (*arranged.notes, *dropped)
        return replace(data, splits=usable, shares=arranged.shares, split=wanted.split, val=wanted.val, notes=notes)
    read = _read(wanted.path)
    arranged = _arranged(read.splits, wanted, read.names)
    _find_same(arranged.splits, read.found)
    used = sum(len(records) for records in arranged.splits.values())  # with --val, more than the data have
    problems = read.found.problems(read.totals | {"image": max(read.totals["image"], used)})
    if may_refuse:
        check_problems(wanted.path, problems, wanted.strict)
    try:
        usable, dropped = _usable(arranged, wanted)
    except DataError as error:  # where problems left nothing, they are the reason
        check_problems(wanted.path, problems, wanted.strict)
        raise DataError(". ".join([str(error), *map(str, problems)])) from None
    return DetectionData(
        source=wanted.path,
        names=read.names,
        splits=usable,
        category_ids=read.ids,
        shares=arranged.shares,
        split=wanted.split,
        val=wanted.val,
        format=read.format,
        problems=problems,
        notes=(*read.notes, *arranged.notes, *dropped),
    )


def _read(spec: str) -> _Read:
    """Read the files at a path in the first format that they have."""
    path = Path(os.path.expanduser(spec))  # which leaves "~nobody" as it is
    if not path.exists():
        near = difflib.get_close_matches(spec, BUILT_IN, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise DataError(f"no data at '{spec}'{hint}; give {', '.join(BUILT_IN)}, a folder, or the path of an annotation file")
    tree = Tree.of(path)
    files: dict[str, list[Path]] = {}
    for name, format_ in FORMATS.items():
        if format_.part_of not in files and (found := format_.find(tree)):
            files[name] = found
    if not files:
        raise DataError(_no_annotations(tree, path))
    name, *others = files
    notes = [f"read as {name}; not read: {_some(files[other], tree)} ({other})" for other in others]
    raw = FORMATS[name].read(tree, files[name])
    notes += _unnamed(tree, raw)
    splits, totals = clean_records(raw, raw.found)
    ids = raw.category_ids or tuple(range(len(raw.names)))
    return _Read(name, raw.names, ids, splits, raw.found, totals, [*notes, *raw.notes])


def _unnamed(tree: Tree, raw: RawData) -> list[str]:
    """A note on images of the folder that no annotation names; they may be forgotten ones, or pictures without objects."""
    if tree.given != tree.root:
        return []
    named = {os.path.abspath(image.path) for split in raw.splits.values() for image in split.images}
    rest = [path for path in tree.images if os.path.abspath(path) not in named]
    if not rest:
        return []
    what = "1 image of the folder is" if len(rest) == 1 else f"{len(rest)} images of the folder are"
    return [f"{what} in no annotation and not used: {_some(rest, tree)}"]


def _some(files: Sequence[Path], tree: Tree) -> str:
    first = tree.told(files[0])
    return first if len(files) == 1 else f"{first} and {len(files) - 1} more"


def _no_annotations(tree: Tree, path: Path) -> str:
    for file in tree.files(".json")[:_JSON_TRIED]:
        read_json(file)  # raises the error of a file that is broken, which may be the reason
    looked = ", ".join(FORMATS)
    if path.is_file():
        return f"{path} holds no annotations that are known ({looked}); give the folder of the data set"
    images = len(tree.images)
    if not images:
        return f"{path} holds neither images nor annotations; give the folder of a data set"
    return f"{path} holds {images} images, but no annotations that are known ({looked}); add the labels"


def _arranged(splits: Splits, wanted: DataSource, names: tuple[str, ...]) -> _Arranged:
    """The splits that were asked for. Raises InputError for --split and --val together."""
    if wanted.val and wanted.split:
        raise InputError(f"--split {wanted.split} and --val {wanted.val}: both say what val is; give one of them")
    if wanted.val:
        return _with_val(splits, wanted, names)
    if wanted.split:
        return _divided(_all(splits), {}, wanted.split, "as --split says")
    rest, train = splits.get(NO_SPLIT, ()), splits.get("train", ())
    notes = [f"{len(rest)} images are in no split, unlike the others, and were left out"] if rest and train else []
    if "val" in splits:
        own = {"train": train or rest} | {split: splits[split] for split in SPLITS[1:] if split in splits}
        return _Arranged(own, "", notes)
    kept = {"test": splits["test"]} if "test" in splits else {}
    divided = _divided(train or rest, kept, DEFAULT_SHARES, "because the data have no val split")
    return divided._replace(notes=[*notes, *divided.notes])


def _with_val(splits: Splits, wanted: DataSource, names: tuple[str, ...]) -> _Arranged:
    """The train split, or all images of data without splits, with all images of another data set as val."""
    if wanted.val in BUILT_IN:
        raise InputError(f"--val {wanted.val}: must be a folder or an annotation file; built-in data have a val split")
    other = _read(wanted.val)
    problems = other.found.problems(other.totals)
    check_problems(f"--val {wanted.val}", problems, wanted.strict)
    own = {"train": splits.get("train") or splits.get(NO_SPLIT) or ()} | {s: splits[s] for s in ("test",) if s in splits}
    instead = f", in place of the {len(splits['val'])} val images of the data" if splits.get("val") else ""
    val = _matched(other, names, wanted.val)
    told = [*map(str, problems), *other.notes]
    return _Arranged(own | {"val": val}, "", [f"val is {wanted.val}, {len(val)} images{instead}", *told])


def _all(splits: Splits) -> tuple[Record, ...]:
    return tuple(record for records in splits.values() for record in records)


def _divided(pool: tuple[Record, ...], kept: Splits, shares_text: str, why: str) -> _Arranged:
    """`pool` divided by shares, except for the splits that are `kept`."""
    shares = {split: share for split, share in parse_shares(shares_text).items() if split not in kept}
    shares = {split: share / sum(shares.values()) for split, share in shares.items()}
    paths = [record.path for record in pool if record.path is not None]
    groups = alike(paths) if len(paths) == len(pool) else np.arange(len(pool))
    names = assign(pool, groups, shares)
    made = {split: tuple(r for r, name in zip(pool, names, strict=True) if name == split) for split in shares}
    counts = ", ".join(f"{len(made[split])} {split}" for split in shares)
    together = len(pool) - len(np.unique(groups))
    note = f"divided {shares_text} {why}: {counts} images, by class"
    note += f"; images that look alike stay together ({together} more than one of each)" if together else ""
    return _Arranged({**{split: records for split, records in made.items() if records}, **kept}, shares_text, [note])


def _matched(other: _Read, names: tuple[str, ...], spec: str) -> tuple[Record, ...]:
    """All records of another data set, with the classes of this one. Raises DataError for a class that this one lacks."""
    unknown = [name for name in other.names if name not in names]
    records = _all(other.splits)
    if any(other.names[label] in unknown for record in records for label in record.classes.tolist()):
        raise DataError(f"--val {spec} has the classes {', '.join(unknown)}, which the data lack; make the names agree")
    new = np.array([names.index(name) if name in names else -1 for name in other.names], dtype=np.int64)
    return tuple(replace(record, classes=new[record.classes]) for record in records)


def _find_same(splits: Splits, found: Findings) -> None:
    paths = {split: [record.path for record in records if record.path is not None] for split, records in splits.items()}
    pairs = same_files(paths)
    found.add_all(Kind.TWO_SPLITS, len(pairs), [f"{one} = {other}" for one, other in pairs[:EXAMPLES]])


def _usable(arranged: _Arranged, wanted: DataSource) -> tuple[Splits, list[str]]:
    """The splits that can be used, and notes on a test split that cannot. Raises DataError when train or val cannot."""
    splits = arranged.splits
    for name in ("train", "val"):
        where = f"--val {wanted.val}" if name == "val" and wanted.val else wanted.path
        if arranged.shares and not splits.get(name):
            total = len(_all(splits))
            raise DataError(f"{where}: {total} images are too few to be divided into train and val; add images with boxes")
        if not splits.get(name):
            raise DataError(f"{where}: the split '{name}' has no images; add images to it, or give --split {DEFAULT_SHARES}")
        if all(record.crowd.all() for record in splits[name]):  # without boxes there is nothing to learn, and AP is not defined
            raise DataError(f"{where}: no image of the split '{name}' has a box; check that its labels are in place")
    test = splits.get("test")
    if test is None:
        return splits, []
    if not test or all(record.crowd.all() for record in test):
        what = "no images" if not test else f"no box in any of its {len(test)} images"
        return {name: splits[name] for name in ("train", "val")}, [f"the test split has {what}, and is not used"]
    return splits, []
