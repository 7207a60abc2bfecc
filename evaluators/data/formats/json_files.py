"""JSON files of a data set: what stands at the top of one, told without building it, because a folder may hold 10,000 of them
or one of 450 MB.

    top_level(Path("train.json"))                              # TopLevel("object", {"images": "list"}, is_complete=False)
    has_keys(Path("train.json"), "images", "annotations")      # True, although the second key stands behind the head
    read_json(Path("train.json"))                              # the whole content

The scanner follows RFC 8259 only as far as it must to step over a value: it looks at quotes and brackets. A file that it takes
for JSON may still be broken; `read_json` says so.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gpnas.errors import DataError

HEAD = 64 * 1024
"""Bytes of a file that are read to tell what it is."""

SMALL = 1024 * 1024
"""Bytes of a file that may be read to its end, although nothing in its head speaks for it."""

Buffer = bytes | mmap.mmap

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb"[-+.\w]++")
_UP_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_KINDS = {b"{": "object", b"[": "list", b'"': "string", b"n": "null", b"t": "boolean", b"f": "boolean"}


@dataclass(frozen=True)
class TopLevel:
    """What stands at the top of a JSON file.

    keys: those of the object at the top, or of the first object in the list at the top, each with the kind of its value:
    "object", "list", "string", "number", "boolean" or "null". is_complete: whether these are all of them.
    """

    kind: Literal["object", "list"]
    keys: Mapping[str, str]
    is_complete: bool


def top_level(path: Path) -> TopLevel | None:
    """What the first HEAD bytes of a file tell; None for a file that cannot be read or that is no JSON object or list."""
    return _top_level(path, _stamp(path))


def has_keys(path: Path, *keys: str) -> bool:
    """Whether the object at the top of a file, or the first object of the list at its top, has all of these keys.

    A file above SMALL bytes is read beyond its head only when one of the keys stands in the head. Never raises.
    """
    return _has_keys(path, _stamp(path), keys)


def _stamp(path: Path) -> tuple[int, int]:
    """Length and time of a file: what is remembered of it holds until they change."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


@cache
def _top_level(path: Path, stamp: tuple[int, int]) -> TopLevel | None:
    return _scan_file(path, HEAD)


@cache
def _has_keys(path: Path, stamp: tuple[int, int], keys: tuple[str, ...]) -> bool:
    top = _top_level(path, stamp)
    if top is None:
        return False
    missing = set(keys) - set(top.keys)
    if not missing or top.is_complete:
        return not missing
    if len(missing) == len(keys) and stamp[0] > SMALL:
        return False
    whole = _scan_file(path, None, frozenset(keys))
    return whole is not None and set(keys) <= set(whole.keys)


def mentions(path: Path, *words: str) -> bool:
    """Whether one of the words stands, in quotes, in the first HEAD bytes of a file. Never raises."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError:
        return False
    return any(b'"%s"' % word.encode() in head for word in words)


def read_json(path: Path) -> Any:
    """The content of a file. Raises DataError when it is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:  # ValueError: both bad JSON and bad UTF-8
        raise DataError(f"{path} is not valid JSON ({error}); export it again") from error


def _scan_file(path: Path, limit: int | None, until: frozenset[str] = frozenset()) -> TopLevel | None:
    """Scan the first `limit` bytes; all, and without holding them in memory, where it is None."""
    try:
        with path.open("rb") as stream:
            if limit is not None:
                head = stream.read(limit + 1)
                return _scan(head[:limit], len(head) <= limit, until)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                return _scan(whole, True, until)
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped, and a key may be no UTF-8
        return None


def _scan(text: Buffer, is_whole: bool, until: frozenset[str]) -> TopLevel | None:
    """The top level of `text`, which may be cut off unless `is_whole`; stops when all keys of `until`, if any, are found."""
    at = _skip_space(text, len(_BOM) if text[: len(_BOM)] == _BOM else 0)
    kind: Literal["object", "list"] = "object"
    if text[at : at + 1] == b"[":
        kind, at = "list", _skip_space(text, at + 1)
        if text[at : at + 1] == b"]":
            return TopLevel(kind, {}, True)
    if text[at : at + 1] != b"{":
        is_list_of_others = kind == "list" and at < len(text)
        return TopLevel(kind, {}, True) if is_list_of_others else None
    return _scan_object(text, at + 1, kind, is_whole, until)


def _scan_object(
    text: Buffer, at: int, kind: Literal["object", "list"], is_whole: bool, until: frozenset[str]
) -> TopLevel | None:
    """The keys of the object whose content begins at `at`."""
    keys: dict[str, str] = {}
    cut_off = None if is_whole else TopLevel(kind, keys, False)  # a whole file that ends within its object is no JSON
    while True:
        at = _skip_space(text, at)
        if text[at : at + 1] == b"}":
            return TopLevel(kind, keys, True)
        key = _STRING.match(text, at)
        if key is None:
            return cut_off if text[at : at + 1] in (b"", b'"') else None
        at = _skip_space(text, key.end())
        if text[at : at + 1] not in (b":", b""):
            return None
        at = _skip_space(text, at + 1)
        if at >= len(text):
            return cut_off
        keys[json.loads(key.group())] = _KINDS.get(text[at : at + 1], "number")
        if until and until <= keys.keys():
            return TopLevel(kind, keys, False)
        end = _skip_value(text, at)
        if end is None:
            return cut_off
        at = _skip_space(text, end)
        if text[at : at + 1] == b",":
            at += 1
        elif text[at : at + 1] != b"}":
            return cut_off if at >= len(text) else None


def _skip_space(text: Buffer, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _skip_value(text: Buffer, at: int) -> int | None:
    """Where the value that begins at `at` ends; None when the text ends before."""
    first = text[at : at + 1]
    if first not in (b"{", b"["):
        found = (_STRING if first == b'"' else _SCALAR).match(text, at)
        return found.end() if found else None
    depth = 0
    while True:
        bracket = text[at : at + 1]
        if bracket not in (b"{", b"[", b"}", b"]"):  # the end, or a string that does not end
            return None
        depth += 1 if bracket in (b"{", b"[") else -1
        at += 1
        if not depth:
            return at
        found = _UP_TO_BRACKET.match(text, at)
        at = found.end() if found else at
