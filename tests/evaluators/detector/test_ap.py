"""AP against cases worked out by hand from COCO's definition (precision at 101 recalls, interpolated from the right), and
against pycocotools used directly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluators.data.records import Record
from evaluators.detector.ap import CocoEvaluation, coco_evaluation, coco_results
from gpnas.errors import DataError

NAMES = ("cat", "dog")
METRICS = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
LARGE: list[float] = [10, 20, 210, 140]
MEDIUM: list[float] = [300, 310, 380, 350]
SMALL: list[float] = [400, 10, 430, 25]


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


def rows(*detections: tuple[list[float], float, int]) -> NDArray[np.float64]:
    """(n, 6) from one (box, score, class) a detection."""
    return np.array([[*box, score, label] for box, score, label in detections], dtype=np.float64).reshape(-1, 6)


def test_perfect_detections_have_an_ap_of_1_at_every_size() -> None:
    records = [record([LARGE, MEDIUM], [0, 1]), record([SMALL]), record([])]
    detections = [rows((LARGE, 0.9, 0), (MEDIUM, 0.8, 1)), rows((SMALL, 0.3, 0)), rows()]
    metrics = coco_evaluation(records, NAMES, detections).metrics
    assert metrics == dict.fromkeys(METRICS, pytest.approx(1.0))


def test_no_detections_have_an_ap_of_0() -> None:
    metrics = coco_evaluation([record([LARGE]), record([])], NAMES, [rows(), rows()]).metrics
    assert metrics == {"ap": 0, "ap50": 0, "ap75": 0, "ap_large": 0}


def test_a_size_without_objects_is_absent() -> None:
    metrics = coco_evaluation([record([MEDIUM])], NAMES, [rows((MEDIUM, 0.9, 0))]).metrics
    assert set(metrics) == {"ap", "ap50", "ap75", "ap_medium"}


def test_a_false_positive_above_the_only_true_positive_halves_ap() -> None:
    """Precision is 1/2 at recall 1, and so at each recall below."""
    metrics = coco_evaluation([record([LARGE])], NAMES, [rows((MEDIUM, 0.9, 0), (LARGE, 0.8, 0))]).metrics
    assert metrics["ap"] == pytest.approx(0.5)


def test_a_false_positive_below_the_true_positives_costs_nothing() -> None:
    metrics = coco_evaluation([record([LARGE])], NAMES, [rows((MEDIUM, 0.7, 0), (LARGE, 0.8, 0))]).metrics
    assert metrics["ap"] == pytest.approx(1.0)


def test_a_second_detection_of_one_object_is_a_false_positive() -> None:
    """Above: LARGE (true), LARGE again (false), MEDIUM (true): precision 1 to recall 1/2 (51 of 101), then 2/3."""
    detections = [rows((LARGE, 0.9, 0), (LARGE, 0.8, 0), (MEDIUM, 0.7, 0))]
    assert coco_evaluation([record([LARGE, MEDIUM])], NAMES, detections).metrics["ap"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_missed_box_ends_the_curve_at_its_recall() -> None:
    """One of two found: precision 1 at recalls 0, 0.01 ... 0.5, which are 51 of 101."""
    metrics = coco_evaluation([record([LARGE, MEDIUM])], NAMES, [rows((LARGE, 0.9, 0))]).metrics
    assert metrics["ap"] == pytest.approx(51 / 101)
    assert metrics["ap_large"] == pytest.approx(1.0)
    assert metrics["ap_medium"] == 0


@pytest.mark.parametrize(
    ("detection", "ap"),
    [
        ([10, 20, 136, 140], 0.3),  # 126 of its 200 columns: IoU 0.63 passes 0.50, 0.55 and 0.60
        ([10, 20, 210, 98], 0.4),  # 78 of its 120 rows: IoU 0.65 passes 0.65 too
        ([50, 20, 250, 140], 0.4),  # 40 to the right: IoU 160 / 240
        ([10, 40, 210, 160], 0.5),  # 20 down: IoU 100 / 140 = 0.71
    ],
)
def test_ap_is_the_mean_over_ten_overlaps(detection: list[float], ap: float) -> None:
    metrics = coco_evaluation([record([LARGE])], NAMES, [rows((detection, 0.9, 0))]).metrics
    assert metrics == {"ap": pytest.approx(ap), "ap50": pytest.approx(1), "ap75": 0, "ap_large": pytest.approx(ap)}


def test_the_right_box_of_the_wrong_class_is_not_found() -> None:
    assert coco_evaluation([record([LARGE])], NAMES, [rows((LARGE, 0.9, 1))]).metrics["ap"] == 0


def test_a_box_in_another_image_is_not_found_although_their_image_ids_are_equal() -> None:
    assert coco_evaluation([record([LARGE]), record([])], NAMES, [rows(), rows((LARGE, 0.9, 0))]).metrics["ap"] == 0


def test_a_crowd_is_neither_to_be_found_nor_a_mistake_to_find() -> None:
    records = [record([LARGE, MEDIUM], crowd=[True, False])]
    inside: list[float] = [20, 30, 80, 100]  # wholly in the crowd: overlap with a crowd is the share of the detection
    detections = [rows((inside, 0.9, 0), (LARGE, 0.85, 0), (MEDIUM, 0.8, 0))]
    assert coco_evaluation(records, NAMES, detections).metrics["ap"] == pytest.approx(1.0)
    assert coco_evaluation(records, NAMES, [rows((MEDIUM, 0.8, 0))]).metrics["ap"] == pytest.approx(1.0)
    not_a_crowd = [record([LARGE, MEDIUM])]
    assert coco_evaluation(not_a_crowd, NAMES, [rows((MEDIUM, 0.8, 0))]).metrics["ap"] == pytest.approx(51 / 101)


def test_sizes_go_by_the_area_of_the_object_where_the_data_know_it() -> None:
    small = record([LARGE])
    outlined = Record(1, 640, 480, small.boxes, small.classes, small.path, areas=np.array([900], dtype=np.float32))
    metrics = coco_evaluation([outlined], NAMES, [rows((LARGE, 0.9, 0))]).metrics
    assert set(metrics) == {"ap", "ap50", "ap75", "ap_small"}


def test_values_per_class_leave_out_classes_without_objects() -> None:
    records = [record([LARGE, MEDIUM, SMALL], [0, 1, 1])]
    x1, y1, _, y2 = LARGE
    # 104 of 200 columns: IoU 0.52 passes 0.50 alone.
    detections = [rows(([x1, y1, x1 + 104, y2], 0.9, 0), (MEDIUM, 0.9, 1), (SMALL, 0.9, 2))]
    evaluation = coco_evaluation(records, ("cat", "dog", "cow"), detections)
    assert list(evaluation.per_class) == ["cat", "dog"]
    assert evaluation.per_class["cat"] == pytest.approx((0.1, 1.0))
    assert evaluation.per_class["dog"] == pytest.approx((51 / 101, 51 / 101))
    assert evaluation.precision_curves == {"cat": pytest.approx([1.0] * 101), "dog": pytest.approx([1.0] * 51 + [0.0] * 50)}
    assert coco_evaluation(records, NAMES, [rows()]).per_class == {"cat": (0, 0), "dog": (0, 0)}


def test_values_per_class_count_a_hundred_detections_of_an_image() -> None:
    boxes: list[list[float]] = [[50.0 * i, 20, 50.0 * i + 30, 60] for i in range(12)]
    detections = [rows(*((box, 0.9 - 0.01 * i, 0) for i, box in enumerate(boxes)))]
    assert coco_evaluation([record(boxes)], NAMES, detections).per_class == {"cat": pytest.approx((1.0, 1.0))}


def random_split(rng: np.random.Generator) -> tuple[list[Record], list[NDArray[np.float64]]]:
    """Records with boxes of all sizes, crowds and outlines; detections that are close, doubled, confused or made up."""
    records, detections = [], []
    for i in range(8):
        count = int(rng.integers(0, 9))
        sides = np.exp(rng.uniform(np.log(8), np.log([300, 200]), (count, 2)))
        corners = rng.uniform(0, [640, 480] - sides)
        boxes = np.hstack([corners, corners + sides]).astype(np.float32)
        classes = rng.integers(0, 3, count)
        areas = (sides.prod(axis=1) * rng.uniform(0.4, 1, count)).astype(np.float32)
        crowd = rng.random(count) < 0.1
        records.append(Record(100 + i, 640, 480, boxes, classes, Path("unread.jpg"), crowd=crowd, areas=areas))
        close = boxes.repeat(2, axis=0) + rng.normal(0, 0.06, (2 * count, 4)) * np.hstack([sides, sides]).repeat(2, axis=0)
        made_up = rng.uniform([0, 0, 200, 200], [200, 200, 400, 400], (4, 4))
        every = np.vstack([close, made_up])
        labels = np.concatenate([np.where(rng.random(2 * count) < 0.8, classes.repeat(2), 0), rng.integers(0, 4, 4)])
        detections.append(np.column_stack([every, rng.random(len(every)), labels]))
    return records, detections


def evaluated_directly(
    records: list[Record], category_ids: list[int], results: list[dict[str, Any]], folder: Path
) -> list[float]:
    """The first six statistics of COCOeval for an annotation file and results in COCO's own format."""
    annotations = []
    for r in records:
        for (x1, y1, x2, y2), label, area, crowd in zip(r.boxes.tolist(), r.classes, r.areas, r.crowd, strict=True):
            truth = {"image_id": r.image_id, "category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(truth | {"id": len(annotations) + 1, "area": float(area), "iscrowd": int(crowd)})
    content = {
        "images": [{"id": r.image_id, "width": r.width, "height": r.height} for r in records],
        "categories": [{"id": i, "name": str(i)} for i in category_ids],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    truth_file = COCO(str(folder / "instances.json"))
    coco_eval = COCOeval(truth_file, truth_file.loadRes(results), "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return [float(value) for value in coco_eval.stats[:6]]


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_are_those_of_pycocotools_on_files(tmp_path: Path, seed: int) -> None:
    records, detections = random_split(np.random.default_rng(seed))
    category_ids = [3, 7, 8, 20]
    directly = evaluated_directly(records, category_ids, coco_results(records, category_ids, detections), tmp_path)
    metrics = coco_evaluation(records, ("a", "b", "c", "d"), detections).metrics
    assert metrics == pytest.approx(dict(zip(METRICS, directly, strict=True)), rel=1e-12)
    assert 0.1 < metrics["ap"] < 0.6  # the cases are neither all right nor all wrong


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    coco_evaluation([record([LARGE])], NAMES, [rows((LARGE, 0.9, 0))])
    assert capsys.readouterr() == ("", "")


def test_results_are_entries_of_a_coco_results_file() -> None:
    entries = coco_results([record([]), record([LARGE])], (3, 7), [rows(), rows((LARGE, 0.75, 1))])
    assert json.loads(json.dumps(entries)) == [{"image_id": 41, "category_id": 7, "bbox": [10, 20, 200, 120], "score": 0.75}]


@pytest.mark.parametrize("records", [[], [record([])], [record([LARGE], crowd=[True])]])
def test_records_without_boxes_cannot_judge(records: list[Record]) -> None:
    with pytest.raises(DataError, match="no boxes to judge detections by; give a split with labels"):
        coco_evaluation(records, NAMES, [rows() for _ in records])


@pytest.mark.parametrize(
    ("detections", "said"),
    [
        ([], "1 records need as many arrays of detections, got 0"),
        ([np.zeros((2, 5))], r"shape \(2, 5\), not \(n, 6\)"),
        ([np.zeros(6)], r"shape \(6,\), not \(n, 6\)"),
        ([rows((LARGE, float("nan"), 0))], "not finite"),
        ([rows(([0, 0, float("inf"), 3], 0.5, 0))], "not finite"),
        ([rows((LARGE, 0.5, 2))], r"classes \[2.\], not all in 0..1"),
        ([rows((LARGE, 0.5, -1))], "not all in 0..1"),
    ],
)
def test_detections_that_cannot_be_are_refused(detections: list[NDArray[np.float64]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coco_evaluation([record([LARGE])], NAMES, detections)


def assert_close(ours: CocoEvaluation, theirs: CocoEvaluation) -> None:
    assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-6)
    assert list(ours.per_class) == list(theirs.per_class)
    for name, ap in theirs.per_class.items():
        assert ours.per_class[name] == pytest.approx(ap, abs=1e-6)
        assert ours.precision_curves[name] == pytest.approx(theirs.precision_curves[name], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_fast_evaluation_agrees_to_a_millionth(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hotcoco")
    records, detections = random_split(np.random.default_rng(seed))
    names = ("a", "b", "c", "absent")
    cases = [
        (records, detections),
        (records, [rows() for _ in records]),
        (records[:1] * 3, detections[:1] * 3),
        ([record([LARGE, SMALL], crowd=[True, False])], [rows((LARGE, 0.5, 0), (SMALL, 0.5, 0), (MEDIUM, 0.5, 1))]),
    ]
    cases = [case for case in cases if not all(r.crowd.all() for r in case[0])]
    slow = [coco_evaluation(r, names, d) for r, d in cases]
    monkeypatch.setattr("pycocotools.cocoeval.COCOeval", None)  # from here on only hotcoco can evaluate
    for (split, found), expected in zip(cases, slow, strict=True):
        assert_close(coco_evaluation(split, names, found, fast=True), expected)
    assert len(cases) >= 3


def test_without_the_extra_the_fast_evaluation_is_that_of_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)  # importing it fails
    records, detections = random_split(np.random.default_rng(7))
    names = ("a", "b", "c", "d")
    assert coco_evaluation(records, names, detections, fast=True) == coco_evaluation(records, names, detections)
