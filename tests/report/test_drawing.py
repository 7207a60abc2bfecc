"""Axes, marks, tables and pages: numbers by hand, well-formed markup, no text of a user becomes markup."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from gpnas.report.drawing import Axis, axis, dot, drawing, empty, frame, line, page, rung_look, short, steps, table

SVG = "{http://www.w3.org/2000/svg}"


def test_linear_axes_have_round_ticks_and_a_margin() -> None:
    made = axis([0.0, 0.42], 0, 100, "AP")
    assert made.ticks == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert (made.low, made.high) == pytest.approx((0.0, 0.42 * 1.06))  # no value is negative: the margin ends at 0
    assert made(0.42 * 1.06) == pytest.approx(100.0) and made(0.0) == 0.0
    assert [made.text(tick) for tick in made.ticks[:2]] == ["0.0", "0.1"]


def test_an_axis_may_point_upwards_and_go_below_zero_to_its_floor() -> None:
    made = axis([-1.0, 3.0], 352, 44, "score")
    assert (made.low, made.high) == pytest.approx((-1.24, 3.24))
    assert made(-1.24) == pytest.approx(352) and made(3.24) == pytest.approx(44)
    assert made(1.0) == pytest.approx(198)
    assert axis([-1.0, 3.0], 352, 44, "score", floor=-1.0).low == -1.0


def test_equal_values_stand_in_the_middle() -> None:
    assert axis([2.0, 2.0], 0, 100, "x")(2.0) == pytest.approx(50.0)
    assert axis([0.0], 0, 100, "x").high == 0.5


def test_logarithmic_axes_are_for_values_that_span_a_factor_of_four() -> None:
    made = axis([1e9, 9e9], 0, 100, "FLOPs", log=True)
    assert made.log and made.ticks == (1e9, 2e9, 3e9, 4e9, 6e9, 8e9, 1e10)
    assert [made.text(tick) for tick in made.ticks[:2]] == ["1G", "2G"]
    assert made(3e9) == pytest.approx(50.0)  # the geometric mean stands in the middle
    assert axis([1.0, 4.0], 0, 100, "x", log=True).log and not axis([1.0, 3.9], 0, 100, "x", log=True).log
    assert not axis([0.0, 3.9], 0, 100, "x", log=True).log
    assert axis([1e3, 1e6], 0, 100, "x", log=True).ticks == (1e3, 1e4, 1e5, 1e6)
    assert axis([1e3, 1e5], 0, 100, "x", log=True).ticks == (1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5)


@pytest.mark.parametrize(
    ("ticks", "tick", "text"),
    [
        ((0.0, 0.05), 0.05, "0.05"),
        ((0.0, 1.0), 1.0, "1"),
        ((0.0, 20.0), 20.0, "20"),
        ((0.0, 2000.0), 2000.0, "2K"),
        ((7.0,), 7.0, "7"),
    ],
)
def test_ticks_have_as_many_digits_as_they_need(ticks: tuple[float, ...], tick: float, text: str) -> None:
    assert Axis("x", 0.0, 1.0, 0.0, 1.0, ticks, False).text(tick) == text


def test_short_counts_drop_zeros() -> None:
    assert [short(value) for value in (2e9, 2.5e9, 640.0)] == ["2G", "2.50G", "640"]


def test_marks_of_higher_rungs_are_larger_and_more_solid() -> None:
    assert [rung_look(rung, 2) for rung in (0, 1, 2)] == [
        pytest.approx((3.5, 0.3)),
        pytest.approx((4.5, 0.6)),
        pytest.approx((5.5, 0.9)),
    ]
    assert rung_look(0, 0) == pytest.approx((5.5, 0.9))


def test_a_mark_and_lines_stand_where_they_are_told_to() -> None:
    mark = ET.fromstring(dot(12.34, 56.78, "a < b", "front", 4.0, 0.5))
    assert {name: mark.get(name) for name in ("class", "cx", "cy", "r", "fill-opacity")} == {
        "class": "front",
        "cx": "12.3",
        "cy": "56.8",
        "r": "4.0",
        "fill-opacity": "0.50",
    }
    assert mark.findtext("title") == "a < b"
    assert ET.fromstring(steps([(1, 9), (3, 5), (7, 2)], 10, "front")).get("d") == "M1.0 9.0H3.0V5.0H7.0V2.0H10.0"
    assert steps([], 10, "front") == ""
    assert ET.fromstring(line([(1, 9), (3, 5)], "line2", "AP")).get("d") == "M1.0 9.0L3.0 5.0"


def test_a_frame_has_a_grid_line_and_a_label_for_each_tick() -> None:
    x = Axis("FLOPs & more", 0.0, 4.0, 64.0, 736.0, (1.0, 2.0), False)
    y = Axis("AP", 0.0, 1.0, 352.0, 44.0, (0.0, 0.5, 1.0), False)
    root = ET.fromstring(f"<g>{frame(x, y)}</g>")
    grid = [(g.get("x1"), g.get("x2"), g.get("y1"), g.get("y2")) for g in root.iter("line") if g.get("class") == "grid"]
    assert grid == [
        *(("64", "736", y_, y_) for y_ in ("352.0", "198.0", "44.0")),
        *((x_, x_, "44", "352") for x_ in ("232.0", "400.0")),
    ]
    assert [(t.text, t.get("x"), t.get("y"), t.get("transform"), t.get("text-anchor")) for t in root.iter("text")] == [
        ("0.0", "56", "356.0", None, "end"),
        ("0.5", "56", "202.0", None, "end"),
        ("1.0", "56", "48.0", None, "end"),
        ("1", "232.0", "370", None, "middle"),
        ("2", "400.0", "370", None, "middle"),
        ("FLOPs & more", "400.0", "390", None, "middle"),
        ("AP", None, None, "translate(16 198.0) rotate(-90)", "middle"),
    ]
    (bottom,) = [g for g in root.iter("line") if g.get("class") == "axis"]
    assert [bottom.get(name) for name in ("x1", "x2", "y1", "y2")] == ["64", "736", "352", "352"]


def test_a_legend_stands_at_the_right_in_order() -> None:
    svg = ET.fromstring(drawing("t", "s", [], [("line front", "best"), ("mark dot 1 2", "rung 1"), ("mark dot", "others")]))
    texts = [(float(t.get("x", "nan")), t.text) for t in svg.iter(f"{SVG}text") if t.get("class") is None]
    assert [text for _, text in sorted(texts)] == ["best", "rung 1", "others"]
    assert max(texts)[0] == pytest.approx(736 - 6.4 * len("others"), abs=0.05)
    radii = [circle.get("r") for circle in svg.iter(f"{SVG}circle")]
    assert radii == ["4.5", "4.5"]


def test_an_empty_drawing_says_why() -> None:
    root = ET.fromstring(empty("AP & time", "no <trial> yet"))
    assert root.get("aria-label") == "AP & time: no <trial> yet"
    assert root.findtext(f"{SVG}desc") == "no <trial> yet"
    assert [text.text for text in root.iter(f"{SVG}text")] == ["AP & time", "no <trial> yet"]


def test_a_table_aligns_numbers_and_lets_long_text_break() -> None:
    rows = [("7", "<b>", "x" * 41), ("8", "y", "z" * 40)]
    root = ET.fromstring(
        table(("id", "name", "text"), rows, text_from=1)
        .replace("=wide", '="wide"')
        .replace("=number", '="number"')
        .replace("=wrap", '="wrap"')
    )
    cells = [[(cell.get("class"), cell.text) for cell in row] for row in root.iter("tr")]
    assert cells == [
        [("number", "id"), (None, "name"), (None, "text")],
        [("number", "7"), (None, "<b>"), ("wrap", "x" * 41)],
        [("number", "8"), (None, "y"), (None, "z" * 40)],
    ]
    assert '<td colspan="2">none</td>' in table(("a", "b"), [], text_from=0)


def test_a_page_escapes_its_title_and_may_load_nothing() -> None:
    text = page("a < b", ["<h1>one</h1>", "<p>two</p>"])
    assert "<title>a &lt; b</title>" in text
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert "<main>\n<h1>one</h1>\n<p>two</p>\n</main>" in text
