"""The files of a data set: listed once, so that each format can look for its own and find the images that it names.

tree = Tree.of(Path("cells"))            # a folder, or one annotation file
tree.files(".json")
tree.image_named("../images/a.jpg", near=Path("cells/annotations/train.json"))
split_of(Path("instances_train2017.json"))                                          # "train"
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from evaluators.data.annotations import NO_SPLIT
from evaluators.data.images import IMAGE_SUFFIXES
from gpnas.errors import DataError

MOST_FILES = 5_000_000
"""A folder with more files is not a data set; somebody gave the root of a disk."""

_ANNOTATION_FOLDERS = frozenset({"annotations", "labels", "imagesets"})
"""Folders beside which the images lie. An annotation file that is given alone brings the folder above as its data set."""

_IMAGE_FOLDERS = frozenset({"images", "jpegimages"})

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


class Tree:
    """The files below `root`, without hidden ones. given: the path that the user gave, `root` itself or a file in it."""

    def __init__(self, root: Path, given: Path) -> None:
        self.root = root
        self.given = given
        self._split_of_folder: dict[str, str] = {}

    @classmethod
    def of(cls, path: Path) -> Tree:
        """The tree of a folder, or the one that a file belongs to."""
        path = Path(os.path.normpath(path))
        if path.is_dir():
            return cls(path, path)
        above = path.parent
        return cls(above.parent if above.name.lower() in _ANNOTATION_FOLDERS else above, path)

    def files(self, *suffixes: str) -> list[Path]:
        """The files with these suffixes, in lower case and with a dot, sorted by path; only the given file, where a file was
        given. An image is no such file: see `images`."""
        if self.given != self.root:
            return [self.given] if self.given.suffix.lower() in suffixes else []
        return sorted((path for suffix in suffixes for path in self._by_suffix.get(suffix, ())), key=str)

    @cached_property
    def images(self) -> list[Path]:
        """All images, sorted by path."""
        return sorted((path for suffix in IMAGE_SUFFIXES for path in self._by_suffix.get(suffix, ())), key=str)

    def image_named(self, name: str, near: Path, split: str = NO_SPLIT) -> Path:
        """The file of the image that the annotation file `near` calls `name`.

        It lies where the name says, seen from the folder of `near` or from the root; or elsewhere below the root under the same
        name, but not in a folder of another split. Of several, the one is meant that shares most folders with the name and
        lies in a folder of `split`. Raises DataError when two are as likely. A file that is nowhere is returned as if it lay
        beside `near`; the images that have no file are counted when the data set is cleaned.
        """
        text = name.replace("\\", "/")  # Windows
        for folder in (near.parent, self.root):
            path = self._by_path.get(os.path.normpath(os.path.join(folder, text)))
            if path is not None:
                return path
        tail = PurePosixPath(text)
        if tail.is_absolute() and tail.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(tail):
            return Path(tail)
        candidates = self._of_split(self._by_name.get(tail.name, []), split)
        if len(candidates) < 2:
            missing = near.parent / (tail.name if tail.is_absolute() else tail)
            return candidates[0] if candidates else missing
        first, second = sorted((self._distance(path, tail, near, split), path) for path in candidates)[:2]
        if first[0] == second[0]:
            raise DataError(f"{near} names the image {name}, which may be {first[1]} or {second[1]}; remove one of them")
        return first[1]

    def image_of_stem(self, file: Path, split: str | None = None) -> Path | None:
        """The image that the annotation file `file` describes by its own name: the nearest one of that stem that lies in no
        folder of another split; None where there is none. split: of the annotation; None for the one that its folder names."""
        split = self.split_of_folder(file) if split is None else split
        candidates = self._of_split(self._by_stem.get(file.stem, []), split)
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        tail = PurePosixPath(file.stem)
        return min((self._distance(path, tail, file, split), path) for path in candidates)[1]

    def _of_split(self, images: list[Path], split: str) -> list[Path]:
        """The images that may belong to `split`: those in a folder of it or of no split."""
        return [path for path in images if self.split_of_folder(path) in (split, NO_SPLIT)] if split else images

    def _distance(self, path: Path, tail: PurePosixPath, near: Path, split: str) -> tuple[int, int, int, int]:
        """How unlikely it is that `path` is the image `tail` of the annotation file `near`; the least is meant.

        Images that share folders with the name come first, then those of the split, then those in a folder called `images`
        (masks and depths have the same names), then the nearest.
        """
        shared = 0
        for mine, named in zip(reversed(path.parts[:-1]), reversed(tail.parts[:-1]), strict=False):
            if mine != named:
                break
            shared += 1
        below = path.parts[len(self.root.parts) :] if path.is_relative_to(self.root) else path.parts
        is_elsewhere = _IMAGE_FOLDERS.isdisjoint(part.lower() for part in below[:-1])
        away = len(path.parts) + len(near.parts) - 2 * len(Path(os.path.commonpath([path, near])).parts)
        return -shared, int(self.split_of_folder(path) != split), int(is_elsewhere), away

    def told(self, file: Path) -> str:
        """How a file is named in messages: by its path below the root, where it lies there."""
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)

    def split_of_folder(self, file: Path) -> str:
        """The split that the folders of `file`, below the root, name: for an image, and for the annotations of one image."""
        folder = os.path.dirname(file)
        if folder not in self._split_of_folder:
            below = file.parent.relative_to(self.root) if file.is_relative_to(self.root) else Path()
            self._split_of_folder[folder] = split_of(below)
        return self._split_of_folder[folder]

    @cached_property
    def _by_suffix(self) -> dict[str, list[Path]]:
        listed: dict[str, list[Path]] = {}
        for count, path in enumerate(_walk(self.root)):
            if count >= MOST_FILES:
                raise DataError(f"{self.root} holds more than {MOST_FILES} files; give the folder of one data set")
            listed.setdefault(path.suffix.lower(), []).append(path)
        return listed

    @cached_property
    def existing(self) -> frozenset[str]:
        """The paths of all files, to ask for many of them without asking the disk for each."""
        return frozenset(str(path) for paths in self._by_suffix.values() for path in paths)

    @cached_property
    def _by_path(self) -> dict[str, Path]:
        """The images by their paths, to ask for many of them without asking the disk for each."""
        return {str(path): path for path in self.images}

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        for path in self.images:
            named.setdefault(path.name, []).append(path)
        return named

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        for path in self.images:
            named.setdefault(path.stem, []).append(path)
        return named


def split_of(path: Path) -> str:
    """The split that a path names, by the last of its parts that names one: "train", "val", "test" or NO_SPLIT.

    A part names a split by a whole word: "val2017", "my-train" and "test_images" do, "retrained" does not. Give a path relative
    to the data set, because a data set may lie in a folder called "test"; and only the folder of an image, because the name of
    an image says nothing.
    """
    for part in reversed(path.parts):
        words = re.findall(r"[a-z]+", part.lower())
        named = [_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS]
        if named:
            return named[-1]
    return NO_SPLIT


def _walk(root: Path) -> Iterator[Path]:
    """The files below `root`, in linked folders too; a link that leads to a folder above itself is not followed for ever."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        yield from (Path(folder, name) for name in names if not name.startswith("."))
