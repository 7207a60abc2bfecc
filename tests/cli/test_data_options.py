"""What commands do with data that have no splits, damaged images or broken boxes: --split, --val, --strict."""

from __future__ import annotations

import csv
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluators.data import memory, streamed
from evaluators.data.open import open_data
from evaluators.data.records import splits_table
from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco
from tests.cli.untrained import Untrained, search, trials

COMMON = ("--epochs", "1", "--imgsz", "64", "--batch", "4", "--device", "cpu")


def add_test_split(root: Path) -> Path:
    """A test split of the images of val, copied under other names; returns the first of them."""
    document = json.loads((root / "annotations/instances_val.json").read_text())
    for image in document["images"]:
        path = root / "images" / image["file_name"]
        image["file_name"] = f"test{image['file_name']}"
        # Bytes after the end of a PNG make it another file with the same picture.
        (root / "images" / image["file_name"]).write_bytes(path.read_bytes() + b"test")
    (root / "annotations/instances_test.json").write_text(json.dumps(document))
    first: str = document["images"][0]["file_name"]
    return root / "images" / first


def without_val(root: Path) -> Path:
    (root / "annotations/instances_train.json").rename(root / "annotations/instances_default.json")
    (root / "annotations/instances_val.json").unlink()
    return root


def ap_of(out: str, split: str) -> str:
    match = re.search(rf"^{split}: (AP .*)$", out, re.MULTILINE)
    assert match, out
    return match[1]


def test_broken_boxes_are_told_and_the_ap_is_that_of_the_cleaned_data(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    """One box in a hundred has no height, one has no numbers; both sets train to the same weights."""

    def repeated(document: dict[str, Any], broken: bool) -> None:
        [first, *others] = document["annotations"]
        boxes = [[*first["bbox"][:2], 20 + i % 10, 10 + i // 10] for i in range(98)]
        if broken:
            boxes[40:40] = [[5, 5, 8, 0]]
            boxes.append([5, 5, 8, float("nan")])
        document["annotations"] = [first | {"id": 100 + i, "bbox": box} for i, box in enumerate(boxes)] + others

    said, results = [], []
    for name, broken in (("clean", False), ("dirty", True)):
        data = write_coco(tmp_path / name, functools.partial(repeated, broken=broken))
        code, out, err = gpnas("train", architecture, "--data", data, *COMMON, "--out", tmp_path / f"{name}-run")
        assert code == 0, err
        said.append([line for line in out.splitlines() if line.startswith("data: ")])
        rows = (tmp_path / f"{name}-run/results.csv").read_text().splitlines()
        results.append(
            [
                [
                    value
                    for key, value in zip(rows[0].split(","), row.split(","), strict=True)
                    if key not in ("seconds", "waiting")
                ]
                for row in rows
            ]
        )
    assert said[0] == [] and len(said[1]) == 2
    assert said[1][0].startswith("data: 1 of 107 boxes has no width or no height and was left out: ")
    assert said[1][1].startswith("data: 1 of 107 boxes is no four numbers and was left out: ")
    assert results[0] == results[1]


def test_a_damaged_test_picture_is_told_before_the_training(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data")
    damaged = add_test_split(data)
    damaged.write_bytes(damaged.read_bytes()[:-60])
    code, out, err = gpnas("train", architecture, "--data", data, *COMMON, "--out", tmp_path / "run")
    assert code == 0, err
    lines = out.splitlines()
    told = lines.index(f"data: 1 of 4 images cannot be read and was left out: {damaged} is truncated")
    assert told < next(i for i, line in enumerate(lines) if "epoch 1/1" in line)
    assert ap_of(out, "test") and (tmp_path / "run/report.html").read_text().count("<figure>") == 3
    code, out, err = gpnas("val", tmp_path / "run/best.pt", "--data", data, "--split", "test", "--device", "cpu")
    assert code == 0 and f"{damaged} is truncated" in out, err
    code, _, err = gpnas("train", architecture, "--data", data, *COMMON, "--strict", "--out", tmp_path / "strict")
    assert code == 2 and "--strict accepts none" in err and not (tmp_path / "strict/last.pt").exists()


def test_too_many_damaged_pictures_are_refused(refused: Refused, architecture: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data", images=8)
    for i in range(4):
        path = data / f"images/{i}.png"
        path.write_bytes(path.read_bytes()[:-60])
    message = refused("train", architecture, "--data", data, *COMMON, "--out", tmp_path / "run")
    assert "4 of 8 images cannot be read" in message and "0.png is truncated" in message
    message = refused("search", "--data", data, "--imgsz", "64", "--budget", "1trials", "--out", tmp_path / "search")
    assert "4 of 8 images cannot be read" in message and not (tmp_path / "search").exists()


def test_a_training_keeps_how_its_data_were_divided(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    data, run = without_val(write_coco(tmp_path / "data", images=12)), tmp_path / "run"
    code, out, err = gpnas("train", architecture, "--data", data, "--split", "50/50", *COMMON, "--out", run)
    assert code == 0, err
    assert "data: divided 50/50 as --split says: 6 train, 6 val images, by class" in out
    rows = (run / "splits.csv").read_text().splitlines()
    assert rows[0] == "split,image" and [row.split(",")[0] for row in rows[1:]] == ["train"] * 6 + ["val"] * 6
    code, measured, err = gpnas("val", run / "best.pt", "--data", data, "--device", "cpu")
    assert code == 0 and ap_of(measured, "val") == ap_of(out, "val"), err
    code, measured, err = gpnas("val", run / "best.pt", "--data", data, "--split", "all", "--device", "cpu")
    assert code == 0 and ap_of(measured, "all"), err


def test_another_folder_may_be_val(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    data, other = without_val(write_coco(tmp_path / "data", images=6)), write_coco(tmp_path / "other", images=7)
    code, out, err = gpnas("train", architecture, "--data", data, "--val", other, *COMMON, "--out", tmp_path / "run")
    assert code == 0, err
    assert f"data: val is {other}, 14 images" in out
    assert "6 of 20 images are in two splits" in out  # both folders hold the same pictures
    rows = (tmp_path / "run/splits.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["train"] * 6 + ["val"] * 14


def test_images_beyond_memory_are_streamed_and_the_training_is_the_same(
    gpnas: Gpnas, architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 4 training images take 4 x 64 x 64 x 3 = 49,152 bytes, of which half of the free memory holds all but one byte."""
    data, rows = write_coco(tmp_path / "data"), []
    for name, free in (("held", 98_304), ("streamed", 98_303)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        monkeypatch.setattr(streamed, "free_bytes", lambda device, free=free: free)
        code, out, err = gpnas("train", architecture, "--data", data, *COMMON, "--out", tmp_path / name)
        assert code == 0, err
        assert ("they are decoded from their files in every epoch" in out) == (name == "streamed")
        [row] = csv.DictReader((tmp_path / name / "results.csv").read_text().splitlines())
        rows.append({key: value for key, value in row.items() if key not in ("seconds", "waiting")})
    assert rows[0] == rows[1] and "ap" in rows[0]


def test_a_search_divides_its_data_the_same_when_it_is_resumed(
    gpnas: Gpnas,
    evaluators: list[Untrained],
    tmp_path: Path,
) -> None:
    data, run = without_val(write_coco(tmp_path / "my data", images=12)), tmp_path / "run"
    code, out, err = search(gpnas, run, "--budget", "2trials", "--data", data, "--split", "60/40")
    assert code == 0, err
    assert "data: divided 60/40 as --split says: 7 train, 5 val images, by class" in out
    assert out.splitlines()[-1].endswith(f"--data '{data}' --split 60/40")
    assert evaluators[0].options["data"].split == "60/40"
    first = (run / "splits.csv").read_text()
    code, out, err = gpnas("resume", run, "--budget", "3trials")
    assert code == 0 and len(trials(gpnas, run)["trials"]) == 3, err
    assert splits_table(open_data(evaluators[1].options["data"])) == first


def test_a_training_is_not_resumed_on_other_images(gpnas: Gpnas, refused: Refused, architecture: Path, tmp_path: Path) -> None:
    data, run = without_val(write_coco(tmp_path / "data", images=12)), tmp_path / "run"
    assert gpnas("train", architecture, "--data", data, "--split", "50/50", *COMMON, "--out", run)[0] == 0
    table = (run / "splits.csv").read_text()
    for options in ((), ("--split", "60/40")):
        message = refused("train", architecture, "--data", data, *options, *COMMON, "--out", run, "--resume")
        assert "was trained on other images, or on others of these; give --split 50/50, as before" in message
    assert (run / "splits.csv").read_text() == table
    assert gpnas("train", architecture, "--data", data, "--split", "50/50", *COMMON, "--out", run, "--resume")[0] == 0


def test_a_checkpoint_is_measured_on_the_val_split_of_its_training(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    """Data with a test split and no val split keep their test images; --val is taken again; other data are as they are."""
    data = write_coco(tmp_path / "data", images=10)
    (data / "annotations/instances_val.json").rename(data / "annotations/instances_test.json")
    other = without_val(write_coco(tmp_path / "other", images=5))
    for name, options in (("kept", ()), ("other", ("--val", other))):
        run = tmp_path / name
        assert gpnas("train", architecture, "--data", data, *options, *COMMON, "--out", run)[0] == 0
        trained = [row.split(",")[0] for row in (run / "splits.csv").read_text().splitlines()[1:]]
        for split in ("val", "test"):
            saved = tmp_path / f"{name}-{split}.json"
            code, _, err = gpnas("val", run / "best.pt", "--data", data, "--split", split, "--device", "cpu", "--save", saved)
            assert code == 0, err
            images = {row["image_id"] for row in json.loads(saved.read_text())}
            assert len(images) == trained.count(split)
    code, out, err = gpnas("val", tmp_path / "kept/best.pt", "--data", write_coco(tmp_path / "new"), "--device", "cpu")
    assert code == 0 and "divided" not in out, err


def test_a_home_folder_in_a_path_is_understood_by_the_workers_too(
    gpnas: Gpnas, evaluators: list[Untrained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_coco(tmp_path / "home/data")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert search(gpnas, tmp_path / "run", "--budget", "1trials", "--data", "~/data")[0] == 0
    assert evaluators[0].options["data"].path == str(data)
