"""Detections on images from a folder: which files are read, what is kept, what JSON and drawings show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import evaluators.predict
from evaluators.data.bank import load_bank
from evaluators.judge import detect, load_split
from evaluators.predict import as_json, drawn, image_records, jpeg, predict
from evaluators.training.loop import new_network
from gpnas.errors import DataError
from tests.small_detector import NAMES, small_graph

ROWS = np.array([[10.04, 20.0, 50.0, 80.006, 0.87654, 2], [30.0, 25.0, 90.0, 60.0, 0.5, 0]])


def write(path: Path, width: int, height: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_a_folder_is_read_to_its_depth_and_by_name(tmp_path: Path) -> None:
    files = [write(tmp_path / name, 40, 30) for name in ("b.png", "a/z.JPG", "a/c.png")]
    (tmp_path / "notes.txt").write_text("no image")
    records, broken = image_records(tmp_path)
    assert broken == []
    assert [record.path for record in records] == [files[2], files[1], files[0]]
    assert [(r.image_id, r.width, r.height, r.boxes.shape) for r in records] == [(i, 40, 30, (0, 4)) for i in range(3)]
    assert [record.path for record in image_records(files[0])[0]] == [files[0]]


def test_nothing_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image or folder at '.*absent'; give one that is there"):
        image_records(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"holds no images \(.*\.png.*\); give another folder"):
        image_records(tmp_path)
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"x\.png has no readable header .*; none of 1 images can be read"):
        image_records(tmp_path)


def test_every_image_has_its_detections_above_the_score_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, (width, height) in enumerate([(64, 48), (40, 64), (90, 50)]):
        write(tmp_path / f"{i}.png", width, height)
    records, network = image_records(tmp_path)[0], new_network(small_graph(8), 3, 64, 0)
    torch.nn.init.normal_(next(network.parameters()), std=3.0)
    expected = detect(network, load_split(records, 64), 3)
    score = float(np.median(np.concatenate(expected)[:, 4]))
    batches: list[int] = []

    def counted(records: Any, *rest: Any, **more: Any) -> Any:
        batches.append(len(records))
        return load_bank(records, *rest, **more)

    monkeypatch.setattr(evaluators.predict, "load_bank", counted)
    monkeypatch.setattr(evaluators.predict, "_BATCH", 2)
    pairs = list(predict(network, records, imgsz=64, names=NAMES, least_score=score, device="cpu"))
    assert batches == [2, 1] and [record for record, _ in pairs] == records
    for (_, rows), every in zip(pairs, expected, strict=True):
        np.testing.assert_allclose(rows, every[every[:, 4] >= score], rtol=1e-4, atol=1e-3)
    kept = sum(len(rows) for _, rows in pairs)
    assert 0 < kept < sum(len(rows) for rows in expected)


def test_images_that_cannot_be_read_are_named_and_the_others_predicted(tmp_path: Path) -> None:
    """Four of five are damaged: too many for a training."""
    for i in range(5):
        path = write(tmp_path / f"{i}.png", 64, 48)
        if i != 2:
            path.write_bytes(path.read_bytes()[:-20] if i else b"")
    records, broken = image_records(tmp_path)
    assert len(records) == 4 and len(broken) == 1 and "0.png has no readable header" in broken[0]
    told: list[str] = []
    network = new_network(small_graph(8), 3, 64, 0)
    pairs = list(predict(network, records, imgsz=64, names=NAMES, least_score=0.5, device="cpu", tell=told.append))
    assert [record.path for record, _ in pairs] == [tmp_path / "2.png"]
    assert told == [f"the image {tmp_path}/{i}.png is truncated; it is left out" for i in (1, 3, 4)]


@pytest.mark.parametrize("most", [1, 7, 140])
def test_as_many_detections_are_found_as_are_asked_for(tmp_path: Path, most: int) -> None:
    """COCO counts 100; an untrained network finds something in every cell."""
    write(tmp_path / "a.png", 256, 256)
    network = new_network(small_graph(8), 3, 256, 0)
    torch.nn.init.normal_(next(network.parameters()), std=3.0)
    [(_, rows)] = predict(network, image_records(tmp_path)[0], imgsz=256, names=NAMES, least_score=0.0, most=most, device="cpu")
    assert len(rows) == most and (np.diff(rows[:, 4]) <= 0).all()


def test_json_rounds_scores_and_pixels(tmp_path: Path) -> None:
    [record], _ = image_records(write(tmp_path / "a.png", 100, 90))
    assert as_json(record, ROWS, NAMES) == {
        "file": str(tmp_path / "a.png"),
        "width": 100,
        "height": 90,
        "boxes": [
            {"class": "blue", "score": 0.8765, "box": [10.04, 20.0, 50.0, 80.01]},
            {"class": "red", "score": 0.5, "box": [30.0, 25.0, 90.0, 60.0]},
        ],
    }


def colours_at(image: NDArray[np.uint8], points: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    return [tuple(map(int, image[y, x])) for x, y in points]


def test_boxes_are_drawn_in_the_colour_of_their_class_and_the_best_on_top() -> None:
    grey = np.full((90, 100, 3), 128, np.uint8)
    image = drawn(grey, ROWS, NAMES)
    blue, red = (22, 128, 86), (47, 109, 181)  # the colours of classes 2 and 0
    assert (grey == 128).all()
    # Left and right sides of the better box, and the right and bottom sides of the other.
    assert colours_at(image, [(10, 60), (50, 70), (90, 50), (80, 60)]) == [blue, blue, red, red]
    assert colours_at(image, [(50, 60)]) == [blue]  # where both have a side
    assert colours_at(image, [(5, 85), (95, 85), (30, 70), (70, 50)]) == [(128, 128, 128)] * 4


def test_seven_classes_have_colours_of_their_own_and_further_ones_repeat_them() -> None:
    names = [str(i) for i in range(9)]
    grey = np.full((40, 300, 3), 128, np.uint8)
    rows = np.array([[30.0 * i + 5, 20, 30.0 * i + 25, 35, 0.9, i] for i in range(9)])
    colours = colours_at(drawn(grey, rows, names), [(30 * i + 5, 28) for i in range(9)])
    assert len(set(colours[:7])) == 7 and colours[7:] == colours[:2]


def test_the_label_lies_above_the_box_or_inside_the_image() -> None:
    grey = np.full((200, 300, 3), 128, np.uint8)
    colour = (22, 128, 86)
    (width, height), descent = cv2.getTextSize("blue 0.90", cv2.FONT_HERSHEY_SIMPLEX, 0.35, 1)

    def label_rows(top: float) -> list[int]:
        image = drawn(grey, np.array([[20.0, top, 250.0, 190.0, 0.9, 2]]), NAMES)
        return np.flatnonzero((image[:, 20 + width - 1] == colour).all(axis=1)).tolist()

    above = label_rows(100)
    assert (above[0], above[-2]) == (100 - height - descent, 100)  # and the last row is the bottom of the box
    inside = label_rows(3)
    assert (inside[0], inside[-2]) == (0, height + descent)


def test_lines_grow_with_the_image() -> None:
    grey = np.full((1300, 1600, 3), 128, np.uint8)
    image = drawn(grey, np.array([[400.0, 500.0, 1200.0, 1100.0, 0.9, 2]]), NAMES)
    cv2.rectangle(grey, (400, 500), (1200, 1100), (22, 128, 86), 5)  # 2 pixels for each 640 pixels of the long side
    assert np.array_equal(image[600:], grey[600:])


def test_a_jpeg_shows_the_image() -> None:
    image = np.zeros((24, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (200, 30, 60), (20, 180, 90)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg(image), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert decoded.shape == image.shape
    assert np.abs(decoded[:, [5, 35]].astype(int) - image[:, [5, 35]]).max() < 8
