"""The layouts of CVAT, Label Studio and FiftyOne, written as these tools write them."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.evaluators.data.formats.twin import TwinData, TwinImage, write_image

SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}


def write_cvat(root: Path, data: TwinData) -> Path:
    """CVAT for images 1.1: the export of a project with a task for each split, or of a task that has no subset."""
    is_task = set(data.splits) == {""}
    annotations = ET.Element("annotations")
    ET.SubElement(annotations, "version").text = "1.1"
    meta = ET.SubElement(annotations, "meta")
    owner = ET.SubElement(meta, "task" if is_task else "project")
    ET.SubElement(owner, "id").text = "7"
    labels = ET.SubElement(owner, "labels")
    for name in data.names:
        listed = ET.SubElement(labels, "label")
        ET.SubElement(listed, "name").text = name
        ET.SubElement(listed, "color").text = "#ff007c"
        ET.SubElement(listed, "type").text = "any"
        ET.SubElement(listed, "attributes")
    ET.SubElement(meta, "dumped").text = "2024-05-06 07:08:09.101112+00:00"
    numbered = [(split, image) for split, images in data.splits.items() for image in images]
    for number, (split, image) in enumerate(numbered):
        project = {} if is_task else {"subset": SUBSETS[split], "task_id": str(list(data.splits).index(split) + 1)}
        size = {"width": str(image.width), "height": str(image.height)}
        element = ET.SubElement(annotations, "image", {"id": str(number), "name": image.file, **project, **size})
        for label, x1, y1, x2, y2 in image.boxes:
            corners = {"xtl": x1, "ytl": y1, "xbr": x2, "ybr": y2}
            box = {"label": data.names[label], "source": "manual", "occluded": "0"}
            ET.SubElement(element, "box", {**box, **{key: f"{v:.2f}" for key, v in corners.items()}, "z_order": "0"})
        write_image(root / "images" / SUBSETS.get(split, "") / image.file, image.width, image.height, number)
    ET.indent(annotations)
    path = root / "annotations.xml"
    path.write_bytes(ET.tostring(annotations, encoding="utf-8", xml_declaration=True))
    return path


def write_label_studio(root: Path, data: TwinData) -> Path:
    """The export "JSON" of a project for each split, beside the images as they were before they were uploaded."""
    for number, image in enumerate(data.images):
        write_image(root / "images" / image.file, image.width, image.height, number)
    for split, images in data.splits.items():
        tasks = [_task(number, image, data.names) for number, image in enumerate(images, 1)]
        name = f"{split}.json" if split else "project-1-at-2024-05-06-07-08-0a1b2c3d.json"
        (root / name).write_text(json.dumps(tasks), encoding="utf-8")
    return root


def _task(number: int, image: TwinImage, names: tuple[str, ...]) -> dict:
    upload = f"{number:08x}-" + re.sub(r"[^-\w.]", "", image.file.replace(" ", "_"))
    results = [
        {
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "value": {
                "x": 100 * x1 / image.width,
                "y": 100 * y1 / image.height,
                "width": 100 * (x2 - x1) / image.width,
                "height": 100 * (y2 - y1) / image.height,
                "rotation": 0,
                "rectanglelabels": [names[label]],
            },
            "id": f"region{position}",
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "origin": "manual",
        }
        for position, (label, x1, y1, x2, y2) in enumerate(image.boxes)
    ]
    annotation = {
        "id": number,
        "completed_by": 1,
        "result": results,
        "was_cancelled": False,
        "ground_truth": False,
        "task": number,
    }
    return {
        "id": number,
        "annotations": [annotation],
        "file_upload": upload,
        "drafts": [],
        "predictions": [],
        "data": {"image": f"/data/upload/1/{upload}"},
        "meta": {},
        "project": 1,
    }


def write_fiftyone_detections(root: Path, data: TwinData) -> Path:
    """A FiftyOneImageDetectionDataset, one for each split."""
    for split, images in data.splits.items():
        folder = root / split
        labels = {}
        for number, image in enumerate(images):
            write_image(folder / "data" / image.file, image.width, image.height, number)
            labels[Path(image.file).stem] = [
                {"label": label, "bounding_box": _shares(image, corners), "attributes": {}} for label, *corners in image.boxes
            ]
        (folder / "labels.json").write_text(json.dumps({"classes": list(data.names), "labels": labels}), encoding="utf-8")
    return root


def write_fiftyone(root: Path, data: TwinData) -> Path:
    """A FiftyOneDataset, whose samples have the splits as tags."""
    samples = []
    for split, images in data.splits.items():
        for image in images:
            write_image(root / "data" / image.file, image.width, image.height, len(samples))
            detections = [
                {
                    "_id": {"$oid": "66"},
                    "_cls": "Detection",
                    "attributes": {},
                    "tags": [],
                    "label": data.names[label],
                    "bounding_box": _shares(image, corners),
                }
                for label, *corners in image.boxes
            ]
            samples.append(
                {
                    "filepath": f"data/{image.file}",
                    "tags": [{"val": "validation"}.get(split, split)] if split else [],
                    "metadata": {"_cls": "ImageMetadata", "width": image.width, "height": image.height, "num_channels": 3},
                    "ground_truth": {"_cls": "Detections", "detections": detections},
                }
            )
    metadata = {"name": "twin", "media_type": "image", "classes": {"ground_truth": list(data.names)}, "default_classes": []}
    (root / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    (root / "samples.json").write_text(json.dumps({"samples": samples}), encoding="utf-8")
    return root


def _shares(image: TwinImage, corners: list[float]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [x1 / image.width, y1 / image.height, (x2 - x1) / image.width, (y2 - y1) / image.height]
