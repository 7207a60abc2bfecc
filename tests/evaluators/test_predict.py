"""Detections on images from a folder: which files are read, what is kept, what JSON and drawings show."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import evaluators.predict
from evaluators.data.letterbox import letterbox
from evaluators.data.records import Record
from evaluators.judge import detect, load_split
from evaluators.predict import (
    Detector,
    as_json,
    detections,
    drawing_name,
    drawn,
    encoded,
    image_records,
    is_predictions,
    jpeg,
    judge_records,
    predict,
)
from evaluators.training.loop import new_network
from gpnas.errors import DataError, InputError
from gpnas.export.decoding import DecodedNetwork
from gpnas.graph.network import Network
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


def detector(network: Network, imgsz: int, batch: int | None = None) -> Detector:
    decoding = DecodedNetwork(network.fused(), 3, imgsz)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        assert batch is None or len(images) == batch
        with torch.no_grad():
            return decoding(torch.from_numpy(images)).numpy()

    return Detector(NAMES, imgsz, run, batch=batch)


def excited_network(imgsz: int) -> Network:
    network = new_network(small_graph(8), 3, imgsz, 0)
    torch.nn.init.normal_(next(network.parameters()), std=3.0)
    return network


def test_every_image_has_its_detections_above_the_score_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Square images have no grey, so the detections are those of the trainer's own path."""
    for i, size in enumerate([64, 48, 90]):
        write(tmp_path / f"{i}.png", size, size)
    records, network = image_records(tmp_path)[0], excited_network(64)
    expected = detect(network, load_split(records, 64), 3)
    scores = np.sort(np.concatenate(expected)[:, 4])
    middle = len(scores) // 3 + int(np.diff(scores)[len(scores) // 3 : -len(scores) // 3].argmax())
    score = float(scores[middle : middle + 2].mean())  # in a gap: rounding, which batches change, moves no score across it
    monkeypatch.setattr(evaluators.predict, "_BATCH", 2)
    for batch in (None, 2):  # a file of a fixed batch gets a black image with the third one
        pairs = list(predict(detector(network, 64, batch), records, least_score=score, most=100))
        assert [record for record, _ in pairs] == records
        for (_, rows), every in zip(pairs, expected, strict=True):
            above = every[every[:, 4] >= score]
            assert len(rows) == len(above)
            for row in rows:  # equal scores may change places
                assert np.isclose(above, row, rtol=1e-4, atol=1e-3).all(axis=1).any()
        kept = sum(len(rows) for _, rows in pairs)
        assert 0 < kept < sum(len(rows) for rows in expected)


def bright_spot(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """A detector of one class that finds the bright pixels of each image, and a second, worse box in the left grey."""
    found = []
    for image in images:
        ys, xs = np.nonzero(image[0] > 0.9)
        x1, y1, x2, y2 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        found.append([[(x1 + x2) / 2, 0.5], [(y1 + y2) / 2, 0.5], [x2 - x1, 1], [y2 - y1, 1], [0.8, 0.4]])
    return np.array(found, dtype=np.float32)


def suppressed_spot(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same, as a file with suppression gives it: three rows, the last one empty."""
    centred = bright_spot(images).transpose(0, 2, 1)
    half = centred[..., 2:4] / 2
    rows = np.concatenate([centred[..., :2] - half, centred[..., :2] + half, centred[..., 4:], 0 * half[..., :1]], axis=-1)
    return np.concatenate([rows, 0 * rows[:, :1]], axis=1).astype(np.float32)


@pytest.mark.parametrize("size", [(80, 40), (40, 100), (64, 64)])
@pytest.mark.parametrize("is_suppressed", [False, True])
def test_boxes_are_in_pixels_of_the_image_wherever_it_lay_in_the_square(size: tuple[int, int], is_suppressed: bool) -> None:
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[10:30, 20:35] = 255
    run = suppressed_spot if is_suppressed else bright_spot
    [rows] = detections(Detector(("spot",), max(size), run, is_suppressed), [image])
    assert rows[0] == pytest.approx([20, 10, 35, 30, 0.8, 0])
    # The box of one pixel at the top left corner of the square lies in the image only where there is no grey.
    assert len(rows) == (2 if height == width else 1)


def test_an_image_of_twice_the_size_has_boxes_of_twice_the_size() -> None:
    image = np.zeros((60, 120, 3), np.uint8)
    image[20:40, 50:90] = 255
    [rows] = detections(Detector(("spot",), 60, bright_spot), [image])
    assert rows[0, :4] == pytest.approx([50, 20, 90, 40])
    assert letterbox(image, 60).top == 15


def test_a_detector_is_called_with_paths_arrays_folders_and_lists(tmp_path: Path) -> None:
    spot = Detector(("spot", "other"), 64, bright_spot)
    image = np.zeros((32, 64, 3), np.uint8)
    image[8:20, 40:60] = 255
    for name in ("b.png", "a.png"):
        assert cv2.imwrite(str(tmp_path / name), image)
    one = spot(image)
    assert not isinstance(one, list)
    assert one.boxes.tolist() == [[40, 8, 60, 20]] and one.classes.tolist() == [0] and len(one) == 1
    assert [str(values.dtype) for values in (one.boxes, one.scores, one.classes)] == ["float32", "float32", "int64"]
    assert one.scores == pytest.approx([0.8]) and one.names == ("spot", "other")
    for many in (spot([image, tmp_path / "a.png"]), spot(tmp_path), spot(str(tmp_path))):
        assert isinstance(many, list) and [found.boxes.tolist() for found in many] == [one.boxes.tolist()] * 2
    assert len(spot(image, score=0.9)) == 0
    with pytest.raises(InputError, match=r"array \(height, width, 3\) of uint8 in RGB, got shape \(32, 64\) of uint8$"):
        spot(image[..., 0])
    with pytest.raises(InputError, match=r"got shape .* of float64"):
        spot(image / 255)
    with pytest.raises(DataError, match=r"c\.png cannot be read"):
        spot(tmp_path / "c.png")


def test_supervision_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    image = np.full((8, 8, 3), 255, np.uint8)
    with pytest.raises(InputError, match="to_supervision needs supervision, which is not installed"):
        Detector(("spot",), 8, bright_spot)(image).to_supervision()


def test_supervision_gets_the_same_boxes() -> None:
    pytest.importorskip("supervision", reason="it is no dependency: pip install supervision")
    image = np.zeros((32, 64, 3), np.uint8)
    image[8:20, 40:60] = 255
    theirs = Detector(("spot",), 64, bright_spot)(image).to_supervision()
    assert theirs.xyxy.tolist() == [[40, 8, 60, 20]] and theirs.class_id.tolist() == [0]
    assert theirs.confidence == pytest.approx([0.8]) and theirs.data["class_name"].tolist() == ["spot"]


def test_detections_are_judged_by_coco_and_broken_images_are_left_out(tmp_path: Path) -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[8:20, 40:60] = 255
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        assert cv2.imwrite(str(file), image)
    files[1].write_bytes(files[1].read_bytes()[:-20])
    box, label = np.array([[40, 8, 60, 20]], np.float32), np.zeros(1, np.int64)
    records = [Record(i, 64, 32, box, label, path=file) for i, file in enumerate(files)]
    evaluation, found, read, broken = judge_records(Detector(("spot",), 64, bright_spot), records)
    assert evaluation.metrics["ap"] == pytest.approx(1.0)
    assert len(found) == 2 and read == [records[0], records[2]]
    assert broken == [f"the image {files[1]} is truncated; it is left out"]
    with pytest.raises(DataError, match=r"no image can be used: the image .* is truncated; it is left out; restore the files"):
        judge_records(Detector(("spot",), 64, bright_spot), records[1:2])


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
    pairs = list(predict(detector(network, 64), records, least_score=0.5, tell=told.append))
    assert [record.path for record, _ in pairs] == [tmp_path / "2.png"]
    assert told == [f"the image {tmp_path}/{i}.png is truncated; it is left out" for i in (1, 3, 4)]


@pytest.mark.parametrize("most", [1, 7, 140])
def test_as_many_detections_are_found_as_are_asked_for(tmp_path: Path, most: int) -> None:
    """COCO counts 100; an untrained network finds something in every cell."""
    write(tmp_path / "a.png", 256, 256)
    [(_, rows)] = predict(detector(excited_network(256), 256), image_records(tmp_path)[0], least_score=0.0, most=most)
    assert len(rows) == most and (np.diff(rows[:, 4]) <= 0).all()


def test_drawings_of_an_earlier_call_are_no_images(tmp_path: Path) -> None:
    photo = write(tmp_path / "photos" / "a.png", 40, 30)
    write(tmp_path / "photos" / "seen" / "deep" / "a.png", 40, 30)
    assert len(image_records(tmp_path / "photos")[0]) == 2
    (tmp_path / "photos" / "seen" / "predictions.json").write_text('[{"file": "a.png", "boxes": []}]')
    assert [record.path for record in image_records(tmp_path / "photos")[0]] == [photo]
    with pytest.raises(DataError, match="seen holds only drawings of `gpnas predict`; give the folder of the images"):
        image_records(tmp_path / "photos" / "seen")
    for text in ('{"file": 1}', '[{"file": "a.png"}]', "no json"):  # the file of another program
        (tmp_path / "photos" / "seen" / "predictions.json").write_text(text)
        assert not is_predictions(tmp_path / "photos" / "seen" / "predictions.json")
        assert len(image_records(tmp_path / "photos")[0]) == 2


@pytest.mark.parametrize(
    ("name", "drawing"),
    [("00001.jpg", "00001.jpg"), ("b/a.PNG", "b/a.PNG"), ("c.jfif", "c.jfif"), ("d.tif", "d.tif"), ("e.gif", "e.gif.jpg")],
)
def test_a_drawing_keeps_the_name_of_its_image_where_its_format_can_be_written(name: str, drawing: str) -> None:
    assert drawing_name(Path(name)) == Path(drawing)
    content = encoded(np.full((5, 7, 3), (200, 20, 90), np.uint8), Path(drawing).suffix)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    colour = decoded[2, 3, ::-1].astype(int)
    assert np.abs(colour - [200, 20, 90]).max() < 8


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
