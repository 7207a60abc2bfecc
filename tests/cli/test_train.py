"""`gpnas train`, `val` and `predict`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco") / "data", images=8)


def train(gpnas: Gpnas, architecture: Path, data: Path, folder: Path, epochs: int, *options: object) -> str:
    common = ("--data", data, "--imgsz", "64", "--batch", "4", "--device", "cpu", "--out", folder)
    code, out, err = gpnas("train", architecture, "--epochs", epochs, *common, *options)
    assert code == 0, err
    return out


def test_a_missing_checkpoint(refused: Refused, tmp_path: Path) -> None:
    assert "best.pt" in refused("val", tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs 0 --patience 0: must be at least 1 and 0"),
        (["--patience", "-1"], "--epochs 300 --patience -1: must be at least 1 and 0"),
        (["--batch", "0"], "--batch 0: must be auto or a number of at least 1"),
        (["--batch", "many"], "--batch many: must be auto or a number of at least 1"),
        (["--imgsz", "65"], "--imgsz 65: must be a positive multiple of 32; try 64"),
        (["--resume"], "--resume: name the folder of the training with --out"),
        (["--lr", "0"], "--lr 0.0: lr must be positive, got 0.0"),
        (["--optimizer", "adam"], "--optimizer adam: optimizer must be one of adamw, sgd, got 'adam'"),
        (["--recipe", "ful"], "--recipe ful: give short, full or the path of a YAML file"),
    ],
)
def test_options_of_a_training_are_checked(
    refused: Refused, architecture: Path, data: Path, options: list[str], message: str
) -> None:
    assert message in refused("train", architecture, "--data", data, *options)


def test_all_processes_of_torchrun_need_one_folder(
    refused: Refused, architecture: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "--out is needed under torchrun" in refused("train", architecture, "--data", data)


def test_a_short_training_is_reported_measured_and_predicts(
    gpnas: Gpnas, refused: Refused, architecture: Path, data: Path, tmp_path: Path
) -> None:
    folder, file, seen = tmp_path / "full", tmp_path / "results.json", tmp_path / "seen"
    out = train(gpnas, architecture, data, folder, 1)
    assert f"training {architecture} on {data} for 1 epochs at 64 px into {folder}" in out
    assert "the architecture has a head for 2 classes; it gets one for the 1 classes of the data" in out
    assert re.search(r"^\[0:\d\d\] epoch 1/1  loss \d+\.\d{3}  AP 0\.\d{3}  AP50 0\.\d{3}$", out, re.MULTILINE)
    assert re.search(r"^best epoch 1 of 1, after 0:\d\d$", out, re.MULTILINE)
    assert f"results: {folder}/best.pt, {folder}/results.csv, {folder}/report.html" in out
    page = (folder / "report.html").read_text()
    assert all(text in page for text in ("AP on val", "Precision over recall at IoU 0.5", "Losses", "bar", "image/jpeg"))
    assert page.count("<figure>") == 8

    code, out, err = gpnas("val", folder / "best.pt", "--data", data, "--device", "cpu", "--save", file)
    assert code == 0 and re.search(r"^  bar                  AP 0\.\d{3}  AP50 0\.\d{3}$", out, re.MULTILINE), err
    assert isinstance(json.loads(file.read_text()), list) and f"detections: {file}" in out
    assert f"--split test: {data} has train, val" in refused("val", folder / "best.pt", "--data", data, "--split", "test")
    other = write_coco(tmp_path / "other")
    for document in (other / "annotations").iterdir():
        document.write_text(document.read_text().replace('"bar"', '"rod"'))
    assert f"best.pt detects bar; {other} has rod" in refused("val", folder / "best.pt", "--data", other)

    code, out, err = gpnas("predict", folder / "best.pt", data / "images", "--score", "0", "--out", seen, "--device", "cpu")
    rows = json.loads((seen / "predictions.json").read_text())
    assert code == 0 and len(rows) == 16, err
    objects = sum(len(row["boxes"]) for row in rows)
    assert f"16 images, {objects} objects: {seen}, {seen}/predictions.json" in out
    assert f"0.png: {len(rows[0]['boxes'])} objects" in out
    assert sorted(path.name for path in seen.glob("*.png")) == sorted(f"{i}.png" for i in range(16))
    assert not list(seen.glob("*.tmp"))


def test_images_that_cannot_be_predicted_on(
    gpnas: Gpnas, refused: Refused, architecture: Path, data: Path, tmp_path: Path
) -> None:
    train(gpnas, architecture, data, tmp_path / "full", 1)
    best, images = tmp_path / "full" / "best.pt", data / "images"
    nested = tmp_path / "nested" / "deep"
    nested.mkdir(parents=True)
    for suffix in ("png", "bmp"):
        cv2.imwrite(str(nested / f"a.{suffix}"), np.zeros((48, 80, 3), np.uint8))
    assert gpnas("predict", best, tmp_path / "nested", "--out", tmp_path / "seen", "--device", "cpu")[0] == 0
    assert sorted(path.name for path in (tmp_path / "seen" / "deep").iterdir()) == ["a.bmp", "a.png"]
    assert gpnas("predict", best, images / "0.png", "--out", tmp_path / "one", "--device", "cpu")[0] == 0
    assert (tmp_path / "one" / "0.png").is_file()
    assert "no image or folder" in refused("predict", best, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused("predict", best, tmp_path / "empty")
    assert "--score 2.0: must lie in [0, 1]" in refused("predict", best, images, "--score", "2")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "has no readable header" in refused("predict", best, tmp_path / "broken.png")
    (nested / "b.png").write_bytes((nested / "a.png").read_bytes()[:-20])
    code, out, err = gpnas("predict", best, tmp_path / "nested", "--out", tmp_path / "some", "--device", "cpu")
    assert code == 1 and err == f"gpnas: the image {nested}/b.png is truncated; it is left out\n"
    assert len(json.loads((tmp_path / "some/predictions.json").read_text())) == 2 and "2 images" in out
    assert "--max-detections 0: must be at least 1" in refused("predict", best, images, "--max-detections", "0")


def test_drawings_replace_no_file_of_the_user_and_are_not_predicted_on_again(
    gpnas: Gpnas, refused: Refused, architecture: Path, data: Path, tmp_path: Path
) -> None:
    train(gpnas, architecture, data, tmp_path / "full", 1)
    best, photos = tmp_path / "full" / "best.pt", tmp_path / "photos"
    photos.mkdir()
    content = (data / "images" / "0.png").read_bytes()
    (photos / "0.png").write_bytes(content)
    told = refused("predict", best, photos, "--out", photos, "--device", "cpu")
    assert told == f"gpnas: --out {photos}: {photos}/0.png is there already and would be replaced; give another folder\n"
    for _ in range(2):  # the second call finds the drawing of the first one below the folder
        code, out, err = gpnas("predict", best, photos, "--out", photos / "seen", "--score", "0", "--device", "cpu")
        assert code == 0 and out.splitlines()[-1].startswith("1 images, "), err
    assert (photos / "0.png").read_bytes() == content != (photos / "seen" / "0.png").read_bytes()
    assert "holds only drawings" in refused("predict", best, photos / "seen", "--device", "cpu")
    told = refused("predict", architecture, photos, "--device", "cpu")
    assert told == f"gpnas: {architecture} has no weights, so it finds nothing; give a checkpoint of `gpnas train`\n"


@pytest.mark.slow
def test_a_trained_detector_is_measured_as_coco_does_and_finds_its_objects(
    gpnas: Gpnas, architecture: Path, data: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / "full", tmp_path / "results.json"
    train(gpnas, architecture, data, folder, 40)
    code, out, _ = gpnas("val", folder / "best.pt", "--data", data, "--save", file)
    truth = COCO(str(data / "annotations" / "instances_val.json"))
    judge = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert code == 0 and f"val: AP {judge.stats[0]:.3f}  AP50 {judge.stats[1]:.3f}" in out and judge.stats[1] > 0.3
    code, out, _ = gpnas("predict", folder / "best.pt", data / "images", "--score", "0.1", "--out", tmp_path / "seen")
    rows: list[dict[str, Any]] = json.loads((tmp_path / "seen" / "predictions.json").read_text())
    hits = [row for row in rows if row["boxes"]]
    assert code == 0 and hits
    assert all(box["class"] == "bar" and box["score"] >= 0.1 for row in hits for box in row["boxes"])
    drawn = cv2.imread(str(tmp_path / "seen" / Path(hits[0]["file"]).name))
    assert drawn.shape == (64, 64, 3) and (drawn.std(axis=2) > 20).any()  # colours on a grey image


def test_a_recipe_is_kept_and_can_be_given_again(gpnas: Gpnas, architecture: Path, data: Path, tmp_path: Path) -> None:
    train(gpnas, architecture, data, tmp_path / "full", 1, "--recipe", "full", "--lr", "0.02")
    kept = yaml.safe_load((tmp_path / "full/recipe.yaml").read_text())
    assert (kept["lr"], kept["optimizer"], kept["augmentation"]["mixup"]) == (0.02, "sgd", 0.15)
    (tmp_path / "my.yaml").write_text("lr: 0.02\npreset: full\n")
    for name, recipe in (("again", tmp_path / "full/recipe.yaml"), ("mine", tmp_path / "my.yaml")):
        train(gpnas, architecture, data, tmp_path / name, 1, "--recipe", recipe)
        assert (tmp_path / name / "recipe.yaml").read_text() == (tmp_path / "full/recipe.yaml").read_text()
    train(gpnas, architecture, data, tmp_path / "short", 1, "--optimizer", "sgd")
    assert yaml.safe_load((tmp_path / "short/recipe.yaml").read_text())["optimizer"] == "sgd"
