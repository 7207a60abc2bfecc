"""The report of a full training: what its tables and curves show, from numbers by hand."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from gpnas.report.training_report import DetectorReport, write_training_report

HISTORY = [
    {"epoch": 1, "loss": 4.0, "box": 1.5, "lr": 0.01, "seconds": 30.0, "waiting": 0.25},
    {"epoch": 2, "loss": 3.0, "box": 1.25, "lr": 0.005, "ap": 0.125, "ap50": 0.25, "seconds": 65.0, "waiting": 0.125},
]

DETECTOR = DetectorReport(
    split="test",
    metrics={"ap": 0.25, "ap50": 0.5, "ap_small": 0.0625},
    per_class={"cat": (0.375, 0.75), "a<b": (0.125, 0.25)},
    precision_curves={"cat": [1.0] * 101, "a<b": [0.5] * 101},
    pictures=[("one & two.png", b"\xff\xd8picture")],
)


def rows(page: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def curve(page: str, name: str) -> list[tuple[float, float]]:
    """The points, in pixels, of the line with that title."""
    path = re.search(rf'<path class="line\d" d="M([^"]*)"><title>{re.escape(name)}</title>', page)
    assert path is not None, name
    return [(float(x), float(y)) for x, y in (point.split() for point in path[1].split("L"))]


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = write_training_report(tmp_path, "gelan-c on <data>", HISTORY, DETECTOR)
    assert path == tmp_path / "report.html"
    return path.read_text()


def test_metrics_and_classes_are_tables(page: str) -> None:
    assert rows(page) == [
        ["AP", "AP50", "AP small"],
        ["0.250", "0.500", "0.062"],
        ["AP", "AP50", "class"],
        ["0.375", "0.750", "cat"],
        ["0.125", "0.250", "a&lt;b"],
    ]
    assert "<h1>gelan-c on &lt;data&gt;</h1>" in page and "<h2>On test</h2>" in page
    assert "2 epochs; the last session took 1:05; training steps waited for images 18.8 % of the time" in page


def test_precision_is_drawn_for_the_mean_and_each_class(page: str) -> None:
    mean, cat, other = curve(page, "mean"), curve(page, "cat"), curve(page, "a&lt;b")
    assert len(mean) == len(cat) == 101
    assert mean[0][1] == pytest.approx((cat[0][1] + other[0][1]) / 2, abs=0.1)
    assert cat[0][1] < other[0][1]  # a higher precision stands higher
    steps = [b[0] - a[0] for a, b in itertools.pairwise(mean)]
    assert steps == pytest.approx([steps[0]] * 100, abs=0.15)


def test_only_the_best_classes_are_drawn(tmp_path: Path) -> None:
    names = [f"class{k}" for k in range(9)]
    detector = DetectorReport(
        "val", {"ap": 0.1}, {n: (0.9 - k / 10, k / 10) for k, n in enumerate(names)}, {n: [0.5] * 101 for n in names}, []
    )
    page = write_training_report(tmp_path, "t", HISTORY, detector).read_text()
    drawn = [name for name in names if f"<title>{name}</title>" in page]
    assert drawn == names[2:]  # the seven with the highest AP50


def test_curves_leave_out_epochs_without_a_value(page: str) -> None:
    assert len(curve(page, "loss")) == len(curve(page, "box")) == len(curve(page, "lr")) == 2
    assert len(curve(page, "ap")) == len(curve(page, "ap50")) == 1
    assert "<title>distribution</title>" not in page
    (_, high), (_, low) = curve(page, "loss")
    assert low > high  # the loss falls


def test_pictures_are_inside_the_page(page: str) -> None:
    assert '<img alt="one &amp; two.png" src="data:image/jpeg;base64,/9hwaWN0dXJl">' in page
    assert "<figcaption>one &amp; two.png</figcaption>" in page


def test_a_training_without_results_says_so(tmp_path: Path) -> None:
    page = write_training_report(tmp_path, "t", [], DetectorReport("val", {}, {}, {}, [])).read_text()
    assert "no class has objects" in page and page.count("nothing was measured") == 3 * 3
    assert "0 epochs; the last session took 0:00</p>" in page
