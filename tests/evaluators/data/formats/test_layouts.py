"""Public data sets as they lie in their folders open to the same records as their COCO twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluators.data.open import DataSource, open_data
from evaluators.data.records import SPLITS, DetectionData
from tests.evaluators.data.formats import layouts_coco_yolo as coco_yolo
from tests.evaluators.data.formats import layouts_cvat_studio_fiftyone as studio
from tests.evaluators.data.formats import layouts_voc_csv_labelme as voc
from tests.evaluators.data.formats.twin import TwinData, example

Write = Callable[[Path, TwinData], Path]

WITH_SPLITS: dict[str, tuple[Write, str]] = {
    "COCO beside images": (coco_yolo.write_coco_beside, "COCO"),
    "COCO by Roboflow": (coco_yolo.write_coco_roboflow, "COCO"),
    "Ultralytics": (coco_yolo.write_ultralytics, "data.yaml"),
    "Ultralytics with lists": (coco_yolo.write_ultralytics_lists, "data.yaml"),
    "darknet by Roboflow": (coco_yolo.write_darknet_roboflow, "YOLO label files"),
    "darknet by CVAT": (coco_yolo.write_darknet, "YOLO label files"),
    "VOC": (voc.write_voc, "Pascal VOC"),
    "VOC by Roboflow": (voc.write_voc_roboflow, "Pascal VOC"),
    "CSV by Roboflow": (voc.write_csv, "CSV"),
    "CSV for RetinaNet": (voc.write_csv_retinanet, "CSV"),
    "CSV for AutoML": (voc.write_csv_automl, "CSV"),
    "CVAT": (studio.write_cvat, "CVAT"),
    "FiftyOne": (studio.write_fiftyone, "FiftyOne"),
    "FiftyOne detections": (studio.write_fiftyone_detections, "FiftyOne"),
}
WITHOUT_SPLIT: dict[str, tuple[Write, str]] = {
    "COCO by CVAT": (coco_yolo.write_coco_cvat, "COCO"),
    "COCO by Label Studio": (coco_yolo.write_coco_studio, "COCO"),
    "YOLO by Label Studio": (coco_yolo.write_yolo_labels, "YOLO label files"),
    "LabelMe": (voc.write_labelme, "LabelMe"),
    "Label Studio": (studio.write_label_studio, "Label Studio"),
    "VOC without lists": (voc.write_voc, "Pascal VOC"),
    "CVAT without subsets": (studio.write_cvat, "CVAT"),
    "FiftyOne without tags": (studio.write_fiftyone, "FiftyOne"),
}


def facts(data: DetectionData) -> dict[str, list[tuple[object, ...]]]:
    """The images and boxes of each split, by the name of the file, without the order of images and boxes."""
    return {
        split: sorted(
            (
                r.path.name if r.path else "",
                r.width,
                r.height,
                sorted((data.names[c], *np.round(box, 1).tolist()) for c, box in zip(r.classes, r.boxes, strict=True)),
                sorted(np.round(r.areas).tolist()),
                bool(r.crowd.any()),
            )
            for r in records
        )
        for split, records in data.splits.items()
    }


def all_of(data: DetectionData) -> list[tuple[object, ...]]:
    return sorted(image for images in facts(data).values() for image in images)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    return open_data(str(coco_yolo.write_coco(tmp_path_factory.mktemp("coco"), example())))


def test_the_twin_is_what_was_written(twin: DetectionData) -> None:
    assert twin.format == "COCO" and twin.names == ("cat", "dog", "traffic light")
    train = {image[0]: image[3] for image in facts(twin)["train"]}
    assert train["street.png"] == [("cat", 60, 30, 118, 79), ("traffic light", 10, 5, 30, 45)] and train["sky.png"] == []
    assert [image[0] for image in facts(twin)["val"]] == ["park.v2.jpg", "yard.png"]


@pytest.mark.parametrize("layout", WITH_SPLITS)
def test_a_layout_with_splits_opens_to_the_records_of_its_coco_twin(tmp_path: Path, layout: str, twin: DetectionData) -> None:
    write, format_name = WITH_SPLITS[layout]
    data = open_data(DataSource(str(write(tmp_path / "set", example())), strict=True))
    assert data.format == format_name and data.names == twin.names
    wanted = facts(twin)
    if layout in ("CSV by Roboflow",):  # an image without boxes has no row
        wanted["train"] = [image for image in wanted["train"] if image[0] != "sky.png"]
    assert facts(data) == wanted


@pytest.mark.parametrize("layout", WITHOUT_SPLIT)
def test_a_layout_without_a_split_opens_to_the_same_images_divided(tmp_path: Path, layout: str, twin: DetectionData) -> None:
    write, format_name = WITHOUT_SPLIT[layout]
    data = open_data(DataSource(str(write(tmp_path / "set", example().without_split())), strict=True))
    assert data.format == format_name and data.names == twin.names and data.shares == "70/15/15"
    assert all_of(data) == all_of(twin)
    assert set(data.splits) <= set(SPLITS) and {"train", "val"} <= set(data.splits)
    assert any(note.startswith("divided 70/15/15 because the data have no val split") for note in data.notes)
