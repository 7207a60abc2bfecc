"""A data set of which only some images belong to a split: the rest is for training, or left out beside a train split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluators.data.annotations import NO_SPLIT, Annotations, ClassNames
from evaluators.data.records import SPLITS


def assigned(
    classes: ClassNames, splits: Mapping[str, Annotations], notes: list[str]
) -> tuple[tuple[str, ...], dict[str, Annotations]]:
    """The names of the classes, sorted, and the splits that have images.

    Images without a split are the train split of a data set that has only a val or a test split. Beside a train split they are
    left out, with the classes that only they have; a note says so.
    """
    filled = {split: splits[split] for split in (*SPLITS, NO_SPLIT) if split in splits and splits[split].images}
    if len(filled) > 1 and NO_SPLIT in filled:
        rest = filled.pop(NO_SPLIT)
        if "train" in filled:
            what = f"{len(rest.images)} images belong" if len(rest.images) > 1 else "1 image belongs"
            notes.append(f"{what} to no split, unlike the others, and stayed out: {rest.images[0].path}")
        else:
            filled = {"train": rest, **filled}
    return _used_names(classes.sort(filled.values()), filled), filled


def _used_names(names: tuple[str, ...], splits: Mapping[str, Annotations]) -> tuple[str, ...]:
    """The names of the classes that have a box; the labels of all `splits` are changed to their order."""
    used = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(split.labels for split in splits.values())]))
    new = np.full(len(names), -1)
    new[used] = np.arange(len(used))
    for split in splits.values():
        split.relabel(new.tolist())
    return tuple(names[label] for label in used.tolist())
