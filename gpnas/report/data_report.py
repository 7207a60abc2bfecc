"""The report of a data set as one HTML page: what was found, what is wrong with it, and pictures with their labels.

    write_data_report(Path("data.html"), facts, [LabelledPicture("train", "a.jpg", jpeg, 640, 480, boxes), ...])

Labels are drawn over the pictures as SVG: they stay sharp at any size, and the pointer shows the class of a box.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.report.data_tables import Sheet, shares_text, sheets
from gpnas.report.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, axis, drawing, empty, frame, page, table

NAMED_BOXES = 12
"""In a picture with more boxes their classes are told by colours, and by the pointer, alone."""

MOST_IN_LEGEND = 40
"""Classes that the legend shows at most, those that are in the pictures."""

LONG_SHEET = 15
"""A table with more rows is folded away."""

_SIDES = ((16, "P2 below"), (32, "small below"), (96, "large above"))
"""Sides in pixels that the histogram marks: a level of stride 4 helps below the first one; COCO's sizes."""


@dataclass(frozen=True)
class LabelledBox:
    """label: index of the class. Corners in pixels of the original image. is_crowd: a box around many objects."""

    label: int
    x1: float
    y1: float
    x2: float
    y2: float
    is_crowd: bool = False


@dataclass(frozen=True)
class LabelledPicture:
    """jpeg: the image as a JPEG file of any size. width, height: of the original image, in whose pixels the boxes are."""

    split: str
    name: str
    jpeg: bytes
    width: int
    height: int
    boxes: Sequence[LabelledBox]


def write_data_report(path: Path, facts: Mapping[str, Any], pictures: Sequence[LabelledPicture]) -> None:
    """Write the page. facts: what `gpnas data --json` prints."""
    write_text(path, page(f"gpnas: {facts['source']}", [_STYLE, *_sections(facts, pictures)]))


def _sections(facts: Mapping[str, Any], pictures: Sequence[LabelledPicture]) -> list[str]:
    names = [each["name"] for each in facts["classes"]]
    source = facts["source"]
    title = Path(source).name or source
    sections = [
        f"<h1>{escape(title)} <small>{escape(facts['format'])}</small></h1>",
        f"<p>{escape(source)}</p>" if source != title else "",
        _tiles(facts),
        _list("Why a search would refuse these data", [facts["refusal"]] if facts["refusal"] else [], "refusal"),
        _list("Problems", facts["problems_text"], "problems") or "<h2>Problems</h2><p>none</p>",
        _list("Advice", facts["advice"]),
        _list("Notes", facts["notes"]),
    ]
    of_splits, of_classes, of_sides, of_images = sheets(facts)
    sections += [_sheet(of_splits), _sheet(of_classes), _sheet(of_sides)]
    sections += [
        f"<p class=under>{escape(shares_text(facts))}</p>",
        f"<div class=wide>{sides_svg(facts)}</div>",
        _sheet(of_images),
    ]
    return sections + _gallery(pictures, names)


def _tiles(facts: Mapping[str, Any]) -> str:
    splits = facts["splits"].values()
    images, boxes = (sum(split[key] for split in splits) for key in ("images", "boxes"))
    median = "-" if facts["sides"] is None else f"{facts['sides']['median']:.0f} px"
    tiles = [
        ("images", f"{images}", ", ".join(f"{split['images']} {name}" for name, split in facts["splits"].items())),
        ("boxes", f"{boxes}", f"{boxes / max(1, images):.1f} an image"),
        ("classes", f"{len(facts['classes'])}", ""),
        ("median side", median, f"of an object at --imgsz {facts['imgsz']}"),
    ]
    cells = (f"<div><dt>{name}</dt><dd>{value}</dd><dd class=note>{escape(note)}</dd></div>" for name, value, note in tiles)
    return f"<dl class=tiles>{''.join(cells)}</dl>"


def _list(title: str, texts: Sequence[str], style: str = "") -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<h2>{escape(title)}</h2><ul class='said {style}'>{items}</ul>"


def _sheet(sheet: Sheet) -> str:
    rows = table(sheet.head, sheet.rows, text_from=sheet.text_from)
    if len(sheet.rows) > LONG_SHEET:
        rows = f"<details><summary>{len(sheet.rows)} rows</summary>{rows}</details>"
    return f"<h2>{escape(sheet.title)}</h2>{rows}"


def sides_svg(facts: Mapping[str, Any]) -> str:
    """The histogram of the sides of objects. facts: with "bars" and "imgsz"."""
    title = f"Sides of objects in train at --imgsz {facts['imgsz']}"
    bars = facts["bars"]
    if not bars:
        return empty(title, "there are no objects")
    edges = [bars[0]["low"], bars[-1]["high"], 8.0, 128.0]  # a range in which the marks lie
    x = axis(edges, LEFT, WIDTH - RIGHT, "square root of the area of a box, in pixels", log=True)
    y = axis([0, max(bar["count"] for bar in bars)], HEIGHT - BOTTOM, TOP, "objects", floor=0.0)
    parts = [frame(x, y)]
    for bar in bars:
        if bar["count"]:
            left, right, top = x(bar["low"]), x(bar["high"]), y(bar["count"])
            told = f"{bar['low']:.1f} to {bar['high']:.1f} pixels: {bar['count']} objects"
            parts.append(
                f'<rect class="dot" x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(1.0, right - left - 1):.1f}" '
                f'height="{y(0) - top:.1f}"><title>{told}</title></rect>'
            )
    for side, name in _SIDES:
        parts.append(f'<line class="limit" x1="{x(side):.1f}" x2="{x(side):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="label" x="{x(side) + 4:.1f}" y="{TOP + 12}">{name} {side}</text>')
    return drawing(title, f"{sum(bar['count'] for bar in bars)} objects", parts, [])


def _gallery(pictures: Sequence[LabelledPicture], names: Sequence[str]) -> list[str]:
    """The pictures of each split, under the colours of the classes that they show."""
    if not pictures:
        return []
    shown = sorted({box.label for picture in pictures for box in picture.boxes})
    entries = [f'<span><i style="background:{colour(label)}"></i>{escape(names[label])}</span>' for label in shown]
    if len(entries) > MOST_IN_LEGEND:
        entries[MOST_IN_LEGEND:] = [f"<span>and {len(shown) - MOST_IN_LEGEND} more</span>"]
    sections = ["<h2>Labels</h2>", f"<div class=legend>{''.join(entries)}</div>"]
    for split in dict.fromkeys(picture.split for picture in pictures):
        figures = "".join(_figure(picture, names) for picture in pictures if picture.split == split)
        sections.append(f"<h3>{escape(split)}</h3><div class=gallery>{figures}</div>")
    return sections


def _figure(picture: LabelledPicture, names: Sequence[str]) -> str:
    data = base64.b64encode(picture.jpeg).decode()
    width, height = picture.width, picture.height
    are_named = len(picture.boxes) <= NAMED_BOXES
    largest_first = sorted(picture.boxes, key=lambda box: (box.x1 - box.x2) * (box.y2 - box.y1))  # the pointer finds the small
    boxes = "".join(_box(box, names[box.label], are_named, width, height) for box in largest_first)
    count = len(picture.boxes)
    caption = f"{picture.name}, {width} x {height}, {count} {'box' if count == 1 else 'boxes'}"
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        f"{boxes}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _box(box: LabelledBox, name: str, is_named: bool, width: int, height: int) -> str:
    """One box in an image of that size."""
    paint = colour(box.label)
    place = f'x="{box.x1:.1f}" y="{box.y1:.1f}" width="{box.x2 - box.x1:.1f}" height="{box.y2 - box.y1:.1f}"'
    name = f"{name} (crowd)" if box.is_crowd else name
    dashes = ' stroke-dasharray="6 4"' if box.is_crowd else ""
    told = f"{name}, {box.x2 - box.x1:.0f} x {box.y2 - box.y1:.0f} pixels"
    drawn = (
        f'<rect class="halo" {place}/><rect class="box" {place} stroke="{paint}"{dashes}><title>{escape(told)}</title></rect>'
    )
    if not is_named:
        return drawn
    letters = max(width, height) / 26
    y = box.y1 - letters / 4 if box.y1 > 1.2 * letters else box.y1 + letters  # inside where there is no room above
    x, anchor = (box.x1 + letters / 6, "start") if box.x1 + 0.62 * letters * len(name) < width else (box.x2, "end")
    return drawn + (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{letters:.1f}" stroke-width="{letters / 5:.1f}" text-anchor="{anchor}" '
        f'fill="{paint}">{escape(name)}</text>'
    )


def colour(label: int) -> str:
    """The CSS colour of a class: hues far from those of the classes before, bright enough for dark pictures."""
    hue = (205 + 137.508 * label) % 360  # the golden angle
    return f"hsl({hue:.0f} 95% {(64, 56, 74)[label // 8 % 3]}%)"


_STYLE = """<style>
ul.said{margin:0;padding:10px 14px 10px 30px;background:var(--card);border:1px solid var(--line);border-radius:6px}
ul.said li{overflow-wrap:anywhere}ul.refusal{border-left:4px solid #d1242f}ul.problems{border-left:4px solid #bf8700}
.wide .gpnas{min-width:620px}p.under{margin:10px 0}
h3{font-size:15px;margin:20px 0 8px;color:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;border:1px solid #0006}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:12px;align-items:start}
.gallery figure{width:auto;margin:0}.gallery svg{border-radius:6px}
.gallery rect{fill:transparent;vector-effect:non-scaling-stroke}
.gallery .halo{stroke:#000;stroke-opacity:.4;stroke-width:3.6px}.gallery .box{stroke-width:2px}
.gallery .box:hover{fill:#fff3}
.gallery text{font-family:system-ui,sans-serif;font-weight:600;paint-order:stroke;stroke:#000b;stroke-linejoin:round}
</style>"""
