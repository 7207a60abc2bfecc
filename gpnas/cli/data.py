"""`gpnas data`: what a data set holds, what is wrong with it, and the same data in another format.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.cli.options import Shares, Strict, Val, check_imgsz, new_run_folder, parse_pixels, prepare_file
from gpnas.errors import GpnasError

if TYPE_CHECKING:
    from evaluators.data.records import DetectionData, Record
    from gpnas.report.data_report import LabelledPicture

PICTURES = 12
"""Pictures of each split on the page."""

PICTURE_SIDE = 480
"""Pixels of their long side."""

MANY_IMAGES = 5000
"""The time to decode so many is announced."""

SEED = 0
"""Of the choice of pictures."""


def data(
    path: Annotated[str, typer.Argument(help="folder of a data set in any known format, an annotation file, or digits")],
    imgsz: Annotated[
        int, typer.Option(help="image size in pixels at which objects are measured", parser=parse_pixels, metavar="PIXELS")
    ] = 640,
    split: Shares = "",
    val: Val = "",
    strict: Strict = False,
    quick: Annotated[bool, typer.Option("--quick", help="decode no image: damaged ones are not found")] = False,
    to: Annotated[
        tuple[str, Path] | None,
        typer.Option("--to", metavar="FORMAT FOLDER", help="write the data as coco, yolo or voc into a new folder"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder, or .html file, for the page (default: a new folder in runs/)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object; a page only with --out")] = False,
) -> None:
    """Print what a data set holds, and what is wrong with it; draw its labels; write it in another format."""
    from evaluators.data.damaged import Readable, without_damaged
    from evaluators.data.facts import data_facts
    from evaluators.data.open import DataSource, open_data
    from evaluators.data.writers.convert import check_target, convert

    check_imgsz(imgsz)
    if to is not None:
        check_target(*to, path)
    page = None if as_json and out is None else _page(out)
    prepare_file(page, "--out")
    found = open_data(DataSource(path, split, val, strict), may_refuse=False)
    if not quick:
        _tell_of_wait(found)
    readable = Readable(found, {}) if quick else without_damaged(found)
    facts = data_facts(found, readable, imgsz, strict)
    if page is not None:
        from gpnas.report.data_report import write_data_report

        write_data_report(page, facts, _pictures(readable.data))
    written = convert(readable.data, *to) if to is not None else ""
    if as_json:
        typer.echo(json.dumps(facts | {"page": page and str(page), "written": written}))
    else:
        _print(facts)
        typer.echo("\n".join(filter(None, (f"page: {page}", written))))
    if facts["refusal"]:
        raise GpnasError(f"{path}: a search would refuse these data: {facts['refusal']}")


def _tell_of_wait(images: DetectionData) -> None:
    count = sum(map(len, images.splits.values()))
    if count >= MANY_IMAGES:
        typer.echo(f"decoding {count} images to find damaged ones; --quick leaves this out", err=True)


def _page(out: Path | None) -> Path:
    """The file that `--out` means: itself where it is called .html, else data.html in that folder."""
    folder = out or new_run_folder("data")
    return folder if folder.suffix.lower() in (".html", ".htm") and not folder.is_dir() else folder / "data.html"


def _pictures(images: DetectionData) -> list[LabelledPicture]:
    """Pictures of each split. Where boxes were cut, images that have some come first."""
    from evaluators.data.pictures import sample
    from evaluators.data.problems import Kind

    has_cut = any(problem.kind is Kind.CUT for problem in images.problems)
    chosen = [
        (split, record)
        for split, records in images.splits.items()
        for record in sample(records, PICTURES, SEED, at_edge_first=has_cut)
    ]
    pictures = (_picture(split, record) for split, record in chosen)
    return [picture for picture in pictures if picture is not None]


def _picture(split: str, record: Record) -> LabelledPicture | None:
    from evaluators.data.pictures import small_jpeg
    from gpnas.report.data_report import LabelledBox, LabelledPicture

    jpeg = small_jpeg(record, PICTURE_SIDE)
    if jpeg is None:
        return None
    rows = zip(record.classes.tolist(), record.boxes.tolist(), record.crowd.tolist(), strict=True)
    boxes = [LabelledBox(label, x1, y1, x2, y2, crowd) for label, (x1, y1, x2, y2), crowd in rows]
    name = record.path.name if record.path else str(record.image_id)
    return LabelledPicture(split, name, jpeg, record.width, record.height, boxes)


def _print(facts: Mapping[str, Any]) -> None:
    from gpnas.report.data_tables import rich_table, shares_text, sheets
    from gpnas.report.tables import open_console

    console = open_console()
    typer.echo(f"{facts['source']}: {facts['format']}, {len(facts['classes'])} classes")
    for sheet in sheets(facts):
        typer.echo(f"\n{sheet.title}")
        console.print(rich_table(sheet))
    typer.echo(f"\n{shares_text(facts)}")
    for kind, texts in (("problem", facts["problems_text"]), ("note", facts["notes"]), ("advice", facts["advice"])):
        for text in texts:
            typer.echo(f"{kind}: {text}")
    if not facts["problems"]:
        typer.echo("no problems were found")
