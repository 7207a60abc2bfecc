"""Images that are the same, or nearly: in two splits they make a detector look better than it is.

    same_files({"train": [...], "val": [...]})            # the same bytes in two splits
    alike(paths)                                          # groups of images that look the same

Images look the same when their difference hashes do: whether each pixel of a very small grey copy is brighter than its
neighbour, to the right (64 bits) and below (64 bits). Another size, another compression, a brighter copy change few bits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from evaluators.data.cache import cache_folder, store_arrays, stored_arrays
from evaluators.data.images import decoding_threads

MOST_BITS = 7
"""Bits of 128 in which two images that look the same may differ. Two hashes with so few differences agree in at least one of
the 8 pieces of 16 bits, which finds them without comparing all pairs."""

_PIECES = 8
_SIDE = 8

Hashes = NDArray[np.uint16]
"""(images, 8): the 128 bits of each image."""


def same_files(splits: Mapping[str, Sequence[Path]]) -> list[tuple[Path, Path]]:
    """Pairs of files with equal bytes, the second in a later split than the first; only files of equal length are read."""
    by_length: dict[int, list[tuple[str, Path]]] = {}
    for split, paths in splits.items():
        for path in paths:
            by_length.setdefault(os.path.getsize(path), []).append((split, path))
    pairs = []
    for files in by_length.values():
        if len({split for split, _ in files}) == 1:
            continue
        first: dict[bytes, tuple[str, Path]] = {}
        for split, path in files:
            other_split, other = first.setdefault(_content_hash(path), (split, path))
            if other_split != split:
                pairs.append((other, path))
    return pairs


def _content_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def alike(paths: Sequence[Path]) -> NDArray[np.int64]:
    """The group of each image, (images,): images that look the same, also by way of others, have the same number."""
    return groups_of(difference_hashes(paths))


def groups_of(hashes: Hashes) -> NDArray[np.int64]:
    """The group of each hash; hashes that differ in MOST_BITS at most are in one group."""
    distinct, number = np.unique(hashes, axis=0, return_inverse=True)
    pairs = [pair for piece in range(_PIECES) for pair in _near(distinct, piece)]
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    links = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(distinct), len(distinct)))
    groups: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)[number.reshape(-1)]
    return groups


def _near(hashes: Hashes, piece: int) -> Iterable[tuple[int, int]]:
    """Pairs of hashes that are equal in one piece and differ in MOST_BITS at most: enough of them to connect each group.

    Each hash is reached from one other at most, so that thousands of frames of a camera give thousands of pairs, not millions.
    """
    order = np.argsort(hashes[:, piece], kind="stable")
    _, starts = np.unique(hashes[order, piece], return_index=True)
    for bucket in np.split(order, starts[1:]):
        rest, reached = bucket, bucket[:0]
        while len(rest):
            if not len(reached):
                reached, rest = rest[:1], rest[1:]
            one, reached = reached[0], reached[1:]
            differing = np.bitwise_count(hashes[rest] ^ hashes[one]).sum(axis=1)
            near = rest[differing <= MOST_BITS]
            yield from ((int(one), int(other)) for other in near)
            rest, reached = rest[differing > MOST_BITS], np.concatenate([reached, near])


def difference_hashes(paths: Sequence[Path]) -> Hashes:
    """The hash of each image, from a cache on disk where the same files (by path, length and time) were hashed before.

    An image that cannot be decoded gets a hash that no other image has.
    """
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:32]
    path = cache_folder().parent / "hashes" / f"{key}.npz"
    stored = stored_arrays(path, "hashes")
    if stored is not None and stored[0].shape == (len(paths), _PIECES):
        return stored[0]
    with ThreadPoolExecutor(decoding_threads()) as pool:
        hashes: Hashes = np.array(list(pool.map(_hash, paths)), dtype=np.uint16).reshape(-1, _PIECES)
    store_arrays(path, hashes=hashes)
    return hashes


def _hash(path: Path) -> Hashes:
    """The hash of one image, (8,)."""
    try:
        # A JPEG is decoded at an eighth of its size, which takes a fraction of the time.
        grey = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    except (OSError, cv2.error):
        grey = None
    if grey is None:
        return np.frombuffer(hashlib.sha256(str(path).encode()).digest()[: 2 * _PIECES], dtype=np.uint16)
    wide = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    high = cv2.resize(grey, (_SIDE, _SIDE + 1), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (high[1:] > high[:-1]).ravel()])
    return np.packbits(bits).view(np.uint16)
