"""The page of a data set, and its tables, from facts by hand."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gpnas.report.data_report import LabelledBox, LabelledPicture, colour, sides_svg, write_data_report
from gpnas.report.data_tables import rich_table, shares_text, sheets

SIDES = {"p5": 4.4, "p25": 10.0, "median": 20.6, "p75": 40.0, "p95": 81.0}

FACTS: dict[str, Any] = {
    "source": "/data/my <pets>",
    "format": "COCO",
    "shares": "",
    "imgsz": 320,
    "splits": {
        "train": {"images": 5, "boxes": 9, "crowds": 2, "empty": 1, "median_boxes": 1.5, "most_boxes": 4},
        "val": {"images": 3, "boxes": 7, "crowds": 0, "empty": 0, "median_boxes": 2.0, "most_boxes": 3},
    },
    "classes": [
        {"name": "cat", "boxes": {"train": 9, "val": 6}, "sides": SIDES},
        {"name": "[red] a<b", "boxes": {"train": 0, "val": 1}, "sides": None},
    ],
    "sides": SIDES,
    "size_shares": {"small": 0.25, "medium": 0.5, "large": 0.25},
    "bars": [
        {"low": 8.0, "high": 16.0, "count": 2},
        {"low": 16.0, "high": 32.0, "count": 0},
        {"low": 32.0, "high": 64.0, "count": 7},
    ],
    "vanishing": 0,
    "enough_imgsz": 320,
    "image_sizes": [{"width": 640, "height": 480, "count": 6}],
    "other_sizes": 2,
    "long_side": 640.0,
    "problems": [],
    "problems_text": ["3 of 19 boxes leave their image and were cut: a.xml, object 1 <x>"],
    "notes": ["divided 70/15/15"],
    "advice": ["label more & better"],
    "refusal": "",
}

PICTURES = [
    LabelledPicture("train", "one & two.jpg", b"\xff\xd8one", 640, 480, [LabelledBox(0, 10, 40, 110, 70.5)]),
    LabelledPicture("val", "b.jpg", b"\xff\xd8two", 100, 200, [LabelledBox(1, 0, 0, 90, 150, is_crowd=True)] * 13),
]


@pytest.fixture
def page(tmp_path: Path) -> str:
    write_data_report(tmp_path / "data.html", FACTS, PICTURES)
    return (tmp_path / "data.html").read_text()


def rows(page: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_the_tables_hold_the_facts(page: str) -> None:
    assert rows(page) == [
        ["images", "without boxes", "boxes", "crowds", "boxes an image (median)", "most", "split"],
        ["5", "1", "9", "2", "1.5", "4", "train"],
        ["3", "0", "7", "0", "2", "3", "val"],
        ["train", "val", "class"],
        ["9", "6", "cat"],
        ["0", "1", "[red] a&lt;b"],
        ["5 %", "25 %", "median", "75 %", "95 %", "class"],
        ["4", "10", "21", "40", "81", "all"],
        ["4", "10", "21", "40", "81", "cat"],
        ["-", "-", "-", "-", "-", "[red] a&lt;b"],
        ["images", "width x height"],
        ["6", "640 x 480"],
        ["2", "other sizes"],
    ]
    assert "<dt>boxes</dt><dd>16</dd><dd class=note>2.0 an image</dd>" in page
    assert "<dd>21 px</dd>" in page


def test_a_terminal_shows_the_same_rows_and_keeps_brackets() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for sheet in sheets(FACTS):
        console.print(rich_table(sheet))
    told = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "5 1 9 2 1.5 4 train" in told and "0 1 [red] a<b" in told and "2 other sizes" in told


def test_counts_above_a_thousand_are_not_rounded() -> None:
    splits = {"train": FACTS["splits"]["train"] | {"boxes": 1234567}}
    assert sheets(FACTS | {"splits": splits})[0].rows[0][2] == "1234567"


def test_one_class_needs_no_sides_of_its_own() -> None:
    assert [row[-1] for row in sheets(FACTS | {"classes": FACTS["classes"][:1]})[2].rows] == ["all"]


def test_shares_are_told_with_their_limits() -> None:
    assert shares_text(FACTS) == (
        "objects in train, as COCO calls them, at --imgsz 320: small (under 32 pixels) 25%, medium 50%, large (over 96) 25%"
    )


def test_what_is_wrong_is_said_and_escaped(page: str) -> None:
    assert "<li>3 of 19 boxes leave their image and were cut: a.xml, object 1 &lt;x&gt;</li>" in page
    assert "<li>label more &amp; better</li>" in page and "<li>divided 70/15/15</li>" in page
    assert "my &lt;pets&gt;" in page and "<pets>" not in page
    assert "refuse" not in page


def test_a_refusal_comes_before_the_problems(tmp_path: Path) -> None:
    write_data_report(tmp_path / "p.html", FACTS | {"refusal": "too many"}, [])
    page = (tmp_path / "p.html").read_text()
    assert 0 < page.index("<li>too many</li>") < page.index("<h2>Problems</h2>")


def test_no_problems_are_said_too(tmp_path: Path) -> None:
    write_data_report(tmp_path / "p.html", FACTS | {"problems_text": [], "advice": [], "notes": []}, [])
    page = (tmp_path / "p.html").read_text()
    assert "<h2>Problems</h2><p>none</p>" in page and "<h2>Advice</h2>" not in page and "<h2>Labels</h2>" not in page


def test_bars_are_as_high_as_their_counts() -> None:
    svg = sides_svg(FACTS)
    drawn = re.findall(r'<rect class="dot" x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"><title>(.*?)<', svg)
    assert [title for *_, title in drawn] == ["8.0 to 16.0 pixels: 2 objects", "32.0 to 64.0 pixels: 7 objects"]
    (x1, width, low), (x2, _, high) = ((float(x), float(w), float(h)) for x, w, h, _ in drawn)
    assert high / low == pytest.approx(3.5, abs=0.01)
    assert x2 - x1 == pytest.approx(2 * (width + 1), abs=0.2)  # two bars to the right, by the logarithm
    assert "P2 below 16" in svg


def test_a_histogram_of_nothing_says_so() -> None:
    assert "there are no objects" in sides_svg(FACTS | {"bars": []})


def test_labels_are_drawn_over_pictures_in_pixels_of_the_image(page: str) -> None:
    assert '<svg viewBox="0 0 640 480"' in page
    assert '<image href="data:image/jpeg;base64,/9hvbmU=" width="640" height="480"' in page
    assert f'<rect class="box" x="10.0" y="40.0" width="100.0" height="30.5" stroke="{colour(0)}"><title>cat, 100 x 30' in page
    assert "<figcaption>one &amp; two.jpg, 640 x 480, 1 box</figcaption>" in page
    assert "<figcaption>b.jpg, 100 x 200, 13 boxes</figcaption>" in page
    assert page.index("<h3>train</h3>") < page.index("one &amp; two.jpg") < page.index("<h3>val</h3>") < page.index("b.jpg")


def test_crowds_are_dashed_and_named(page: str) -> None:
    assert page.count('stroke-dasharray="6 4"><title>[red] a&lt;b (crowd), 90 x 150 pixels</title>') == 13


def test_letters_stand_in_pictures_of_few_boxes_only(page: str) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text></svg><figcaption>|<text[^>]*font-size[^>]*>([^<]*)</text>", page)
    assert [a or b for a, b in texts] == ["cat"]  # the other picture has 13 boxes


def test_long_tables_are_folded_away(tmp_path: Path) -> None:
    def folded(classes: int) -> int:
        many = [{"name": f"c{i}", "boxes": {"train": 1, "val": 1}, "sides": SIDES} for i in range(classes)]
        write_data_report(tmp_path / "p.html", FACTS | {"classes": many}, [])
        return (tmp_path / "p.html").read_text().count("<details>")

    # The table of sides has one row more, for all classes.
    assert [folded(14), folded(15), folded(16)] == [0, 1, 2]


def test_letters_stand_above_the_box_or_inside_where_there_is_no_room(tmp_path: Path) -> None:
    boxes = [LabelledBox(0, 10, 13, 60, 90), LabelledBox(0, 100, 12, 160, 95)]
    write_data_report(tmp_path / "p.html", FACTS, [LabelledPicture("train", "a.jpg", b"", 260, 200, boxes)])
    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" font-size="10.0"', (tmp_path / "p.html").read_text())
    assert sorted(places) == [("101.7", "22.0"), ("11.7", "10.5")]  # 13 - 10 / 4, and 12 + 10


def test_letters_at_the_right_edge_end_there(tmp_path: Path) -> None:
    near = LabelledPicture("train", "a.jpg", b"", 640, 480, [LabelledBox(0, 620, 100, 636, 130)])
    write_data_report(tmp_path / "p.html", FACTS, [near])
    assert re.search(r'<text x="636.0" [^>]*text-anchor="end"[^>]*>cat<', (tmp_path / "p.html").read_text())


def test_the_legend_names_the_classes_of_the_pictures(page: str) -> None:
    legend = re.search(r"<div class=legend>(.*?)</div>", page)
    assert legend is not None
    assert re.findall(r"</i>(.*?)</span>", legend[1]) == ["cat", "[red] a&lt;b"]


def test_colours_of_classes_differ() -> None:
    assert len({colour(label) for label in range(80)}) > 70


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert "default-src 'none'" in page
    assert set(re.findall(r'(?:src|href)="([a-z]+):', page)) == {"data"}
    assert not re.search(r"url\(|@import|<script", page)
