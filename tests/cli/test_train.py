"""`gpnas train`, `val` and `predict`."""

import json
from pathlib import Path

import cv2

from tests.cli.pictures import write_coco


def test_a_missing_checkpoint(refused, tmp_path):
    assert "best.pt" in refused("val", tmp_path / "best.pt")


def test_a_trained_detector_is_measured_as_coco_does_and_predicts_with_boxes_drawn(gpnas, refused, architecture, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    data, folder, file = write_coco(tmp_path / "data", images=8), tmp_path / "full", tmp_path / "results.json"
    options = ("--data", data, "--imgsz", "64", "--batch", "4", "--out", folder)
    code, out, _ = gpnas("train", architecture, "--epochs", "40", *options)
    assert code == 0 and "report.html" in out
    page = (folder / "report.html").read_text()
    assert all(text in page for text in ("AP on val", "Precision over recall at IoU 0.5", "Losses", "square", "image/jpeg"))
    code, out, _ = gpnas("val", folder / "best.pt", "--data", data, "--save", file)
    assert code == 0 and "square" in out
    truth = COCO(str(data / "annotations" / "instances_val.json"))
    judge = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert f"val: AP {judge.stats[0]:.3f}  AP50 {judge.stats[1]:.3f}" in out and judge.stats[1] > 0.3
    images = data / "images"
    code, out, _ = gpnas("predict", folder / "best.pt", images, "--score", "0.1", "--out", tmp_path / "seen")
    rows = json.loads((tmp_path / "seen" / "predictions.json").read_text())
    assert code == 0 and "16 images" in out and len(rows) == 16
    found = [row for row in rows if row["boxes"]]
    assert found and all(box["class"] == "square" and box["score"] >= 0.1 for row in found for box in row["boxes"])
    drawn = cv2.imread(str(tmp_path / "seen" / f"{Path(found[0]['file']).name}.jpg"))
    assert drawn.shape == (64, 64, 3) and (drawn.std(axis=2) > 20).any()  # colours on a grey image
    assert gpnas("predict", folder / "best.pt", images / "0.png", "--out", tmp_path / "one")[0] == 0
    assert "no image or folder" in refused("predict", folder / "best.pt", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("predict", folder / "best.pt", tmp_path / "empty")
    assert "--score 2.0" in refused("predict", folder / "best.pt", images, "--score", "2")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "not a readable image" in refused("predict", folder / "best.pt", tmp_path / "broken.png")
