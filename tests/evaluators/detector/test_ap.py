"""AP against cases worked out by hand from COCO's definition: precision at 101 recalls, interpolated from the right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.data.records import Record
from evaluators.detector.ap import coco_judgement, coco_metrics, coco_results
from gpnas.errors import DataError

NAMES = ("cat", "dog")
LARGE, MEDIUM, SMALL = [10, 10, 210, 210], [300, 300, 350, 350], [400, 10, 420, 30]


def record(boxes: list[list[float]], classes: list[int] | None = None, crowd: list[bool] | None = None) -> Record:
    return Record(
        image_id=41,
        width=640,
        height=480,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        classes=np.array(classes or [0] * len(boxes), dtype=np.int64),
        path=Path("unread.jpg"),
        crowd=np.array(crowd or [False] * len(boxes)),
    )


def found(*rows: tuple[list[float], float, int]) -> NDArray[np.float64]:
    """(n, 6) of (box, score, class) rows."""
    return np.array([[*box, score, label] for box, score, label in rows], dtype=np.float64).reshape(-1, 6)


def test_perfect_detections_have_an_ap_of_1_at_every_size() -> None:
    records = [record([LARGE, MEDIUM], [0, 1]), record([SMALL]), record([])]
    detections = [found((LARGE, 0.9, 0), (MEDIUM, 0.8, 1)), found((SMALL, 0.3, 0)), found()]
    metrics = coco_metrics(records, NAMES, detections)
    assert metrics == dict.fromkeys(["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"], pytest.approx(1.0))


def test_no_detections_have_an_ap_of_0() -> None:
    metrics = coco_metrics([record([LARGE]), record([])], NAMES, [found(), found()])
    assert metrics == {"ap": 0, "ap50": 0, "ap75": 0, "ap_large": 0}


def test_a_size_without_objects_is_absent() -> None:
    metrics = coco_metrics([record([MEDIUM])], NAMES, [found((MEDIUM, 0.9, 0))])
    assert set(metrics) == {"ap", "ap50", "ap75", "ap_medium"}


def test_a_false_positive_above_the_only_true_positive_halves_ap() -> None:
    """Precision is 1/2 at recall 1, and so at each recall below."""
    metrics = coco_metrics([record([LARGE])], NAMES, [found((MEDIUM, 0.9, 0), (LARGE, 0.8, 0))])
    assert metrics["ap"] == pytest.approx(0.5)


def test_a_false_positive_below_the_true_positives_costs_nothing() -> None:
    metrics = coco_metrics([record([LARGE])], NAMES, [found((MEDIUM, 0.7, 0), (LARGE, 0.8, 0))])
    assert metrics["ap"] == pytest.approx(1.0)


def test_a_second_detection_of_one_object_is_a_false_positive() -> None:
    """Above: LARGE (true), LARGE again (false), MEDIUM (true): precision 1 to recall 1/2 (51 of 101), then 2/3."""
    detections = [found((LARGE, 0.9, 0), (LARGE, 0.8, 0), (MEDIUM, 0.7, 0))]
    assert coco_metrics([record([LARGE, MEDIUM])], NAMES, detections)["ap"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_missed_box_ends_the_curve_at_its_recall() -> None:
    """One of two found: precision 1 at recalls 0, 0.01 ... 0.5, which are 51 of 101."""
    metrics = coco_metrics([record([LARGE, MEDIUM])], NAMES, [found((LARGE, 0.9, 0))])
    assert metrics["ap"] == pytest.approx(51 / 101)
    assert metrics["ap_large"] == pytest.approx(1.0)
    assert metrics["ap_medium"] == 0


def test_ap_is_the_mean_over_ten_overlaps() -> None:
    """200x200 against its left 200x126: IoU 0.63 passes 0.50, 0.55 and 0.60."""
    x1, y1, _, y2 = LARGE
    metrics = coco_metrics([record([LARGE])], NAMES, [found(([x1, y1, x1 + 126, y2], 0.9, 0))])
    assert metrics == {"ap": pytest.approx(0.3), "ap50": pytest.approx(1), "ap75": 0, "ap_large": pytest.approx(0.3)}


def test_the_right_box_of_the_wrong_class_is_not_found() -> None:
    assert coco_metrics([record([LARGE])], NAMES, [found((LARGE, 0.9, 1))])["ap"] == 0


def test_a_box_in_another_image_is_not_found_although_their_image_ids_are_equal() -> None:
    assert coco_metrics([record([LARGE]), record([])], NAMES, [found(), found((LARGE, 0.9, 0))])["ap"] == 0


def test_a_crowd_is_neither_to_be_found_nor_a_mistake_to_find() -> None:
    records = [record([LARGE, MEDIUM], crowd=[True, False])]
    inside = [20, 20, 80, 80]  # wholly in the crowd: overlap with a crowd is the share of the detection
    detections = [found((inside, 0.9, 0), (LARGE, 0.85, 0), (MEDIUM, 0.8, 0))]
    assert coco_metrics(records, NAMES, detections)["ap"] == pytest.approx(1.0)
    assert coco_metrics(records, NAMES, [found((MEDIUM, 0.8, 0))])["ap"] == pytest.approx(1.0)
    not_a_crowd = [record([LARGE, MEDIUM])]
    assert coco_metrics(not_a_crowd, NAMES, [found((MEDIUM, 0.8, 0))])["ap"] == pytest.approx(51 / 101)


def test_sizes_go_by_the_area_of_the_object_where_the_data_know_it() -> None:
    small = record([LARGE])
    outlined = Record(1, 640, 480, small.boxes, small.classes, small.path, areas=np.array([900], dtype=np.float32))
    metrics = coco_metrics([outlined], NAMES, [found((LARGE, 0.9, 0))])
    assert set(metrics) == {"ap", "ap50", "ap75", "ap_small"}


def test_ap_per_class_leaves_out_classes_without_objects() -> None:
    records = [record([LARGE, MEDIUM], [0, 1])]
    x1, y1, _, y2 = LARGE
    detections = [found(([x1, y1, x1 + 126, y2], 0.9, 0), (MEDIUM, 0.9, 1), (SMALL, 0.9, 2))]
    assert coco_judgement(records, ("cat", "dog", "cow"), detections).classes == {
        "cat": (pytest.approx(0.3), pytest.approx(1.0)),
        "dog": (pytest.approx(1.0), pytest.approx(1.0)),
    }
    assert coco_judgement(records, NAMES, [found()]).classes == {"cat": (0, 0), "dog": (0, 0)}


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    coco_metrics([record([LARGE])], NAMES, [found((LARGE, 0.9, 0))])
    coco_judgement([record([LARGE])], NAMES, [found((LARGE, 0.9, 0))])
    assert capsys.readouterr() == ("", "")


def test_results_are_entries_of_a_coco_results_file() -> None:
    entries = coco_results([record([]), record([LARGE])], (3, 7), [found(), found((LARGE, 0.75, 1))])
    assert json.loads(json.dumps(entries)) == [{"image_id": 41, "category_id": 7, "bbox": [10, 10, 200, 200], "score": 0.75}]


@pytest.mark.parametrize("records", [[], [record([])], [record([LARGE], crowd=[True])]])
def test_records_without_boxes_cannot_judge(records: list[Record]) -> None:
    with pytest.raises(DataError, match="no boxes to judge detections by; give a split with labels"):
        coco_metrics(records, NAMES, [found() for _ in records])


@pytest.mark.parametrize(
    ("detections", "said"),
    [
        ([], "1 records need as many arrays of detections, got 0"),
        ([np.zeros((2, 5))], r"shape \(2, 5\), not \(n, 6\)"),
        ([np.zeros(6)], r"shape \(6,\), not \(n, 6\)"),
        ([found((LARGE, float("nan"), 0))], "not finite"),
        ([found(([0, 0, float("inf"), 3], 0.5, 0))], "not finite"),
        ([found((LARGE, 0.5, 2))], r"classes \[2.\], not all in 0..1"),
        ([found((LARGE, 0.5, -1))], "not all in 0..1"),
    ],
)
def test_detections_that_cannot_be_are_refused(detections: list[NDArray[np.float64]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coco_metrics([record([LARGE])], NAMES, detections)
