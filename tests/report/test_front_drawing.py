"""The drawing of the front: where marks, bars, lines and labels stand."""

from __future__ import annotations

import itertools

import pytest

from gpnas.report.front_drawing import FrontPoint, front_svg
from tests.report.svg import SVG, named, parsed

POINTS = [
    FrontPoint(0, flops=1e9, ap=0.2, rung=0),
    FrontPoint(1, flops=2e9, ap=0.4, rung=1),
    FrontPoint(2, flops=3e9, ap=0.3, rung=1),
]


def test_every_point_is_drawn_where_it_belongs() -> None:
    svg = front_svg(POINTS, front=[0, 1], best=1)
    others, front = named(svg, "dot"), named(svg, "on-front")
    assert "trial 2: AP 0.300, 3.00G FLOPs, rung 1" in others
    first, second = front["trial 0: AP 0.200, 1.00G FLOPs, rung 0"], front["trial 1: AP 0.400, 2.00G FLOPs, rung 1"]
    third = others["trial 2: AP 0.300, 3.00G FLOPs, rung 1"]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)  # FLOPs 1, 2, 3 on a linear axis
    assert third[1] == pytest.approx((first[1] + second[1]) / 2, abs=0.1)  # AP 0.3 between 0.2 and 0.4
    assert first[1] > second[1]  # a higher AP stands higher


def test_the_front_is_a_step_line_to_the_right() -> None:
    svg = front_svg(POINTS, front=[0, 1], best=1)
    front = named(svg, "on-front")
    (x0, y0), (x1, y1) = (
        front[f"trial {t}: AP {ap} FLOPs, rung {r}"] for t, ap, r in [(0, "0.200, 1.00G", 0), (1, "0.400, 2.00G", 1)]
    )
    lines = [path.get("d") for path in parsed(svg).iter(f"{SVG}path") if path.get("class") == "front"]
    assert f"M{x0} {y0}H{x1}V{y1}H736.0" in lines


def test_best_and_limit_are_marked() -> None:
    svg = front_svg(POINTS, front=[0, 1], best=1, max_flops=2.5e9)
    texts = [text.text for text in parsed(svg).iter(f"{SVG}text")]
    assert "trial 1, AP 0.400" in texts
    assert "limit 2.50G" in texts
    front = named(svg, "on-front")["trial 1: AP 0.400, 2.00G FLOPs, rung 1"]
    best = next(c for c in parsed(svg).iter(f"{SVG}circle") if c.get("class") == "best")
    assert (float(best.get("cx", "nan")), float(best.get("cy", "nan"))) == front
    limit = next(line for line in parsed(svg).iter(f"{SVG}line") if line.get("class") == "limit")
    assert front[0] < float(limit.get("x1", "nan")) < named(svg, "dot")["trial 2: AP 0.300, 3.00G FLOPs, rung 1"][0]
    assert not [line for line in parsed(front_svg(POINTS, front=[])).iter() if line.get("class") in ("limit", "best")]


def test_baselines_are_labelled_by_name_on_the_front_and_off_it() -> None:
    named_points = [
        FrontPoint(0, 1e9, 0.2, 1, "gelan-t"),
        FrontPoint(1, 2e9, 0.4, 1),
        FrontPoint(2, 3e9, 0.3, 1, "a<b"),
        FrontPoint(3, 3.5e9, 0.1, 0),
    ]
    svg = front_svg(named_points, front=[0, 1], best=1)
    labels = [text.text for text in parsed(svg).iter(f"{SVG}text") if (text.get("class") or "").startswith("label")]
    assert labels == ["trial 1, AP 0.400", "a<b", "gelan-t"]
    assert "trial 0 (gelan-t): AP 0.200, 1.00G FLOPs, rung 1" in named(svg, "on-front")
    best = front_svg(named_points, front=[0, 1], best=0)
    assert "gelan-t, AP 0.200" in [text.text for text in parsed(best).iter(f"{SVG}text")]


@pytest.mark.parametrize("ap", [0.3, 0.0])
def test_baselines_that_are_near_copies_are_both_named(ap: float) -> None:
    points = [FrontPoint(0, 2e9, ap, 1, "gelan-t"), FrontPoint(1, 2e9, ap, 1, "yolov9-t"), FrontPoint(2, 1e9, 0.6, 1)]
    root = parsed(front_svg(points, front=[2], best=2))
    labels = {t.text: t for t in root.iter(f"{SVG}text") if (t.get("class") or "").startswith("label")}
    assert labels.keys() == {"trial 2, AP 0.600", "gelan-t", "yolov9-t"}
    heights = [float(labels[name].get("y", "nan")) for name in ("gelan-t", "yolov9-t")]
    assert abs(heights[0] - heights[1]) >= 12 and all(44 < y < 352 for y in heights)


def test_a_name_has_its_place_before_the_ids_around_it() -> None:
    points = [FrontPoint(0, 2e9, 0.3, 1, "gelan-t"), FrontPoint(1, 2e9, 0.305, 1), FrontPoint(2, 1e9, 0.6, 1)]
    svg = front_svg(points, front=[1, 2], best=2)
    label = next(t for t in parsed(svg).iter(f"{SVG}text") if t.text == "gelan-t")
    at = named(svg, "dot")["trial 0 (gelan-t): AP 0.300, 2.00G FLOPs, rung 1"]
    assert float(label.get("y", "nan")) == pytest.approx(at[1] - 8, abs=0.1)


def test_a_drawing_tells_what_it_shows_to_those_who_cannot_see_it() -> None:
    root = parsed(front_svg(POINTS, front=[0, 1], title="AP & FLOPs"))
    assert root.get("role") == "img"
    assert root.get("aria-label") == "AP & FLOPs: 3 measured trials, 2 of them on the Pareto front"


@pytest.mark.parametrize(
    "points",
    [
        [],
        [FrontPoint(0, 1e9, 0.0)],
        [FrontPoint(i, 1e9, 0.5) for i in range(3)],
        [FrontPoint(0, 0.0, 0.5), FrontPoint(1, 1e12, 1.0)],
        [FrontPoint(i, 10.0**i, 0.1) for i in range(1, 13)],
    ],
)
def test_any_points_are_drawn_inside_the_frame(points: list[FrontPoint]) -> None:
    svg = front_svg(points, front=[p.id for p in points[:1]], best=points[0].id if points else None)
    for style in ("dot", "on-front"):
        for name, (x, y) in named(svg, style).items():
            assert 64 <= x <= 736, name
            assert (44 <= y <= 352) or name.startswith("rung"), name
    assert "nan" not in svg.split("</style>")[1]


def test_labels_of_a_crowded_front_do_not_overlap() -> None:
    points = [FrontPoint(i, 1e9 * (1 + i / 50), 0.2 + i / 1000) for i in range(40)]
    root = parsed(front_svg(points, front=range(40), best=39))
    labels = [text for text in root.iter(f"{SVG}text") if (text.get("class") or "").startswith("label")]
    assert 1 < len(labels) < 40
    boxes = [(float(t.get("x", "nan")), float(t.get("y", "nan")), 6.6 * len(t.text or "")) for t in labels]
    for (x, y, w), (x2, y2, w2) in itertools.combinations(boxes, 2):
        assert x <= x2 - w2 or x2 <= x - w or abs(y - y2) >= 12


CONFIRMED = [
    FrontPoint(0, flops=1e9, ap=0.3, rung=1, error=0.05),
    FrontPoint(1, flops=2e9, ap=0.4, rung=1, error=0.025),
    FrontPoint(2, flops=3e9, ap=0.9, rung=1),
    FrontPoint(3, flops=1.5e9, ap=0.1, rung=0),
]


def test_confirmed_trials_have_bars_of_one_standard_error() -> None:
    svg = front_svg(CONFIRMED, front=[0, 1], best=1)
    marks = named(svg, "on-front")
    (x0, y0), (x1, y1) = (
        marks[f"trial {i}: AP {ap:.3f}, standard error {e:.3f}, {f}.00G FLOPs, rung 1, confirmed"]
        for i, ap, e, f in [(0, 0.3, 0.05, 1), (1, 0.4, 0.025, 2)]
    )
    step = (y0 - y1) / 0.1  # pixels of AP 1
    paths = [path.get("d") or "" for path in parsed(svg).iter(f"{SVG}path") if path.get("class") == "error"]
    bars = [path for path in paths if path.startswith((f"M{x0} ", f"M{x1} "))]
    assert len(bars) == 2 and len(paths) == 3  # one stands in the legend
    for bar, y, error in zip(bars, (y0, y1), (0.05, 0.025), strict=True):
        low, high = (float(part) for part in bar.split(" ")[1].split("M")[0].split("V"))
        assert (low - y, y - high) == pytest.approx((error * step, error * step), abs=0.2)


def test_a_trial_apart_on_the_same_rung_is_fainter_than_a_confirmed_one() -> None:
    svg = front_svg(CONFIRMED, front=[0, 1], best=1)
    assert "trial 2: AP 0.900, 3.00G FLOPs, rung 1" in named(svg, "dot")
    opacity = {c.findtext(f"{SVG}title"): float(c.get("fill-opacity", "nan")) for c in parsed(svg).iter(f"{SVG}circle")}
    # Three levels: rung 0 has 0.3, rung 1 half of the way to 0.9, and confirmed trials have 0.9.
    assert opacity["rung 0"] == opacity["trial 3: AP 0.100, 1.50G FLOPs, rung 0"] == 0.3
    assert opacity["rung 1"] == opacity["trial 2: AP 0.900, 3.00G FLOPs, rung 1"] == 0.6
    assert opacity["confirmed"] == opacity["trial 1: AP 0.400, standard error 0.025, 2.00G FLOPs, rung 1, confirmed"] == 0.9
    texts = [text.text for text in parsed(svg).iter(f"{SVG}text")]
    assert {"Pareto front", "rung 0", "rung 1", "confirmed", "standard error"} <= set(texts)
    assert parsed(svg).get("aria-label") == (
        "AP over FLOPs: 4 measured trials, 2 of them confirmed, 2 of them on the Pareto front"
    )


def test_a_bar_ends_at_an_ap_of_0_and_inside_the_frame() -> None:
    svg = front_svg([FrontPoint(0, 1e9, 0.01, 1, error=0.05), FrontPoint(1, 2e9, 0.5, 1, error=0.1)], front=[0, 1])
    ends = [
        float(part.split("M")[0])
        for path in parsed(svg).iter(f"{SVG}path")
        if path.get("class") == "error" and "V" in (path.get("d") or "")
        for part in (path.get("d") or "").split(" ", 1)[1].split("M")[0].split("V")
    ]
    assert len(ends) == 4 and all(44 <= end <= 352 for end in ends)
    assert max(ends) == 352.0  # the axis begins at 0, where the bar ends


def test_without_confirmed_trials_there_is_no_bar() -> None:
    svg = front_svg(POINTS, front=[1])
    assert not [path for path in parsed(svg).iter(f"{SVG}path") if path.get("class") == "error"]
    assert "confirmed" not in svg and "standard error" not in svg
