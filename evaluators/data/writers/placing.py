"""Where the images of a data set go when it is written in another format: each under a name of its own, and never re-encoded.

names = unique_names(records, by_stem)
put_image(records[0], Path("out/images/train") / names[0])
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import cv2

from evaluators.data.records import Record
from gpnas.files import replacing


def by_name(name: str) -> str:
    """What must differ where an annotation names its image: the whole name. Some file systems do not tell A from a."""
    return name.casefold()


def by_stem(name: str) -> str:
    """What must differ where an annotation file is called like its image: the name without suffix."""
    return PurePath(name).stem.casefold()


def unique_names(
    records: Sequence[Record], key: Callable[[str], str], clean: Callable[[str], str] = lambda name: name
) -> list[str]:
    """A file name for each record, no two of which have the same key. clean: makes a name fit for the format.

    An image keeps its name where it can; of several that collide the first one keeps it and the others get _2, _3, ... The same
    records get the same names.
    """
    wanted = [clean(own_name(record)) for record in records]
    taken = {key(name) for name in wanted}
    kept: set[str] = set()
    copies: Counter[str] = Counter()
    names = []
    for name in wanted:
        if key(name) in kept:
            name = _next_free(name, key, taken, copies)
        kept.add(key(name))
        names.append(name)
    return names


def own_name(record: Record) -> str:
    """The name of a record's file, without characters that cannot be printed, and not hidden by a leading dot; of an image in
    memory, its id and .png."""
    if record.path is not None:
        name = record.path.name
    elif isinstance(record.image_id, int):
        name = f"{record.image_id:06d}.png"
    else:
        name = f"{record.image_id}.png".replace("/", "_").replace("\\", "_")
    name = "".join(character if character.isprintable() else "_" for character in name)
    return f"_{name}" if name.startswith(".") else name


def _next_free(name: str, key: Callable[[str], str], taken: set[str], copies: Counter[str]) -> str:
    """`name` with the next number that makes it a new one."""
    path = PurePath(name)
    while True:
        copies[key(name)] += 1
        numbered = f"{path.stem}_{copies[key(name)] + 1}{path.suffix}"
        if key(numbered) not in taken:
            taken.add(key(numbered))
            return numbered


def put_image(record: Record, target: Path) -> None:
    """Put the image of a record at `target`, in a folder that is there.

    It becomes a hard link to the record's file, or a copy where the file system cannot link; PNG where the image is in memory.
    Raises OSError when it cannot be written.
    """
    if record.path is None:
        assert record.pixels is not None  # Record checks it
        content = bytes(cv2.imencode(".png", cv2.cvtColor(record.pixels, cv2.COLOR_RGB2BGR))[1])
        with replacing(target) as temporary:
            temporary.write_bytes(content)
        return
    try:
        os.link(os.path.realpath(record.path), target)  # the file itself, where the path is a symbolic link
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(record.path, temporary)
