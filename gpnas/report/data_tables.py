"""A data set in tables, for the terminal and for the page: both show the facts that `gpnas data --json` prints.

for sheet in sheets(facts):
    print(sheet.title)
    console.print(rich_table(sheet))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text


class Sheet(NamedTuple):
    """A table. The columns before number `text_from` hold numbers."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    text_from: int


def sheets(facts: Mapping[str, Any]) -> list[Sheet]:
    """The tables of a data set. facts: what `gpnas data --json` prints."""
    return [_splits(facts), _classes(facts), _sides(facts), _image_sizes(facts)]


def rich_table(sheet: Sheet) -> Table:
    """The rows of a table for a terminal, without its title, which rich would break to the width of the rows."""
    table = Table(box=None)
    for i, name in enumerate(sheet.head):
        table.add_column(name, justify="right" if i < sheet.text_from else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(Text, row))  # a class may be called [red]
    return table


def _splits(facts: Mapping[str, Any]) -> Sheet:
    head = ("images", "without boxes", "boxes", "crowds", "boxes an image (median)", "most", "split")
    keys = ("images", "empty", "boxes", "crowds", "median_boxes", "most_boxes")
    rows = [(*(f"{split[key]:.10g}" for key in keys), name) for name, split in facts["splits"].items()]
    return Sheet("Images and boxes", head, rows, text_from=len(keys))


def _classes(facts: Mapping[str, Any]) -> Sheet:
    splits = tuple(facts["splits"])
    rows = [(*(str(each["boxes"][split]) for split in splits), each["name"]) for each in facts["classes"]]
    return Sheet("Boxes of each class", (*splits, "class"), rows, text_from=len(splits))


_PERCENTILES = ("p5", "p25", "median", "p75", "p95")


def _sides(facts: Mapping[str, Any]) -> Sheet:
    every = [("all", facts["sides"]), *((each["name"], each["sides"]) for each in facts["classes"])]
    rows = [(*_side_cells(sides), name) for name, sides in every if len(facts["classes"]) > 1 or name == "all"]
    title = f"Sides of objects in train, in pixels at --imgsz {facts['imgsz']}: square roots of the areas of boxes"
    return Sheet(title, ("5 %", "25 %", "median", "75 %", "95 %", "class"), rows, text_from=len(_PERCENTILES))


def _side_cells(sides: Mapping[str, float] | None) -> Sequence[str]:
    return ["-"] * len(_PERCENTILES) if sides is None else [f"{sides[key]:.0f}" for key in _PERCENTILES]


def _image_sizes(facts: Mapping[str, Any]) -> Sheet:
    rows: list[tuple[str, ...]] = [(str(size["count"]), f"{size['width']} x {size['height']}") for size in facts["image_sizes"]]
    if facts["other_sizes"]:
        rows.append((str(facts["other_sizes"]), "other sizes"))
    return Sheet("Sizes of images", ("images", "width x height"), rows, text_from=1)


def shares_text(facts: Mapping[str, Any]) -> str:
    """How many objects are small, medium and large."""
    shares = facts["size_shares"]
    sizes = (
        f"small (under 32 pixels) {shares['small']:.0%}, medium {shares['medium']:.0%}, large (over 96) {shares['large']:.0%}"
    )
    return f"objects in train, as COCO calls them, at --imgsz {facts['imgsz']}: {sizes}"
