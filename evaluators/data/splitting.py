"""A train, a val and a test split for data that have none: by class, and with images that look the same kept together.

    shares = parse_shares("70/15/15")
    assign(records, groups, shares)         # the split of each record

Classes are spread by iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, "On the Stratification of Multi-Label
Data", Algorithm 1), with groups of images in place of images: the class with the fewest images left comes first, and each
of its groups goes to the split that lacks most of that class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.data.records import SPLITS, Record
from gpnas.errors import InputError

DEFAULT_SHARES = "70/15/15"

SEED = 0
"""Of the order in which groups are assigned. It is the same for all commands, so that none trains on what another judges."""

LARGEST_GROUP = 0.1
"""A larger share of all images that looks the same, such as the frames of a camera that does not move, is cut into pieces of
this share, in the order of the names of the files."""

Shares = Mapping[str, float]
"""The share of each split; they add up to 1."""


def parse_shares(text: str) -> dict[str, float]:
    """The shares of "70/15/15" (train, val, test) or "80/20" (train, val). Raises InputError."""
    try:
        numbers = [float(part) for part in text.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(0 < number < float("inf") for number in numbers):
        raise InputError(f"--split {text}: must be the shares of train, val and test, such as 70/15/15, or 80/20 without test")
    return {split: number / sum(numbers) for split, number in zip(SPLITS, numbers, strict=False)}


def assign(
    records: Sequence[Record],
    groups: NDArray[np.int64],  # (records,): the group of each record, which stays together
    shares: Shares,
    seed: int = SEED,
) -> list[str]:
    """The split of each record. Every split gets boxes where there are enough groups with boxes; one that would have none stays
    empty. The same arguments give the same splits."""
    if not records:
        return []
    names = list(shares)
    wanted = np.array([shares[name] for name in names])
    members = _members(_cut(groups))
    order = np.random.default_rng(seed).permutation(len(members)).tolist()
    members = sorted((members[i] for i in order), key=len, reverse=True)  # what is large is hardest to place
    counts = _counts(records, members)  # (groups, 1 + classes): images, then boxes of each class
    lacking = wanted[:, None] * counts.sum(axis=0)  # (splits, 1 + classes)
    split_of = np.full(len(members), -1)
    while (split_of < 0).any():
        free = split_of < 0
        holders = (counts[free] > 0).sum(axis=0)[1:]  # groups left that have each class
        rarest = 1 + int(np.argmin(np.where(holders > 0, holders, np.iinfo(np.int64).max))) if holders.any() else 0
        for group in np.flatnonzero(free & (counts[:, rarest] > 0)):
            split = max(range(len(names)), key=lambda s: (lacking[s, rarest], lacking[s, 0], wanted[s]))
            split_of[group] = split
            lacking[split] -= counts[group]
    _give_each_boxes(split_of, np.asarray(counts[:, 1:].any(axis=1)), len(names))
    result = [""] * len(records)
    for together, number in zip(members, split_of.tolist(), strict=True):
        for i in together:
            result[i] = names[number]
    return result


def _cut(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups without too large ones: those are cut into pieces of LARGEST_GROUP of all images, in the order of the images."""
    largest = max(1, int(LARGEST_GROUP * len(groups)))
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    pieces = np.zeros(len(groups), dtype=np.int64)
    for start, size in zip(starts, sizes, strict=True):
        pieces[order[start : start + size]] = np.arange(size) // (largest if size > largest else size)
    return np.unique(np.column_stack([groups, pieces]), axis=0, return_inverse=True)[1].reshape(-1)


def _members(groups: NDArray[np.int64]) -> list[list[int]]:
    """The records of each group."""
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(i)
    return list(members.values())


def _counts(records: Sequence[Record], members: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(groups, 1 + classes): the images of each group, and its boxes of each class."""
    classes = 1 + max((int(record.classes.max()) for record in records if len(record.classes)), default=0)
    boxes = np.array([np.bincount(record.classes, minlength=classes) for record in records]).reshape(-1, classes)
    return np.array([[len(group), *boxes[list(group)].sum(axis=0)] for group in members], dtype=np.int64)


def _give_each_boxes(split_of: NDArray[np.int64], has_boxes: NDArray[np.bool_], splits: int) -> None:
    """Move a group with boxes into each split that has none, from the split with most of them; val comes before test.

    Where there are not enough of them, the images of the split go to train.
    """
    for split in range(splits):
        held = np.bincount(split_of[has_boxes], minlength=splits)
        donor = int(held.argmax())
        if held[split] == 0 and held[donor] > 1:
            split_of[np.flatnonzero((split_of == donor) & has_boxes)[-1]] = split  # the last: groups come by size
        elif held[split] == 0:
            split_of[split_of == split] = 0
