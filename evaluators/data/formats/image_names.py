"""The image that an annotation file means: by the name in the file, which may lack its suffix, or by the file's own name."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from evaluators.data.annotations import NO_SPLIT
from evaluators.data.images import IMAGE_SUFFIXES
from evaluators.data.tree import Tree


def image_called(tree: Tree, name: str, near: Path, split: str = NO_SPLIT) -> Path:
    """The image that the file `near` calls `name`, with its suffix or without. Raises DataError when two are as likely."""
    if PureWindowsPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        of_stem = tree.image_of_stem(near.with_name(f"{PureWindowsPath(name).name}{near.suffix}"), split)
        if of_stem is not None:
            return of_stem
    return tree.image_named(name, near, split)


def image_described(tree: Tree, file: Path, name: str, split: str = NO_SPLIT) -> Path:
    """The image of an annotation file that describes one image and calls it `name` (perhaps "").

    When the two names differ, the image is meant that is called like the file, if there is one: data sets are renamed, image
    and annotation file together, and the name inside stays behind; it may even be that of another image now. Raises DataError
    when two images are as likely.
    """
    own = tree.image_of_stem(file, split or None)
    if not name:
        return own or file.with_suffix(".jpg")
    if own is not None and _stem(PureWindowsPath(name).name) != file.stem:
        return own
    named = image_called(tree, name, file, split)
    return named if own is None or str(named) in tree.existing else own


def _stem(name: str) -> str:
    """The name without the suffix of an image: "a.v2.jpg" and "a.v2" have the stem "a.v2"."""
    path = PureWindowsPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name
