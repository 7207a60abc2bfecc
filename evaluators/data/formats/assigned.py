"""A data set of which only some images belong to a split: the others are left out, and that is said."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluators.data.annotations import NO_SPLIT, Annotations, ClassNames
from evaluators.data.records import SPLITS


def assigned(
    classes: ClassNames, splits: Mapping[str, Annotations], notes: list[str]
) -> tuple[tuple[str, ...], dict[str, Annotations]]:
    """The names of the classes, sorted, and the splits that have images.

    Where some images have a split and others none, the others are left out, with the classes that only they have; a note says
    so.
    """
    filled = {split: splits[split] for split in (*SPLITS, NO_SPLIT) if split in splits and splits[split].images}
    if len(filled) > 1 and NO_SPLIT in filled:
        left_out = filled.pop(NO_SPLIT).images
        what = f"{len(left_out)} images belong" if len(left_out) > 1 else "1 image belongs"
        notes.append(f"{what} to no split, unlike the others, and stayed out: {left_out[0].path}")
    names = classes.sort(filled.values())
    used = np.unique(np.concatenate([split.labels for split in filled.values()])) if filled else np.zeros(0, np.int64)
    new = np.full(len(names), -1)
    new[used] = np.arange(len(used))
    for split in filled.values():
        split.relabel(new.tolist())
    return tuple(names[label] for label in used.tolist()), filled
