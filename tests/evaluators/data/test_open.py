"""Records from a COCO folder and from a data.yaml, the image bank, and every refusal by its message."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluators.data.bank import GREY, as_images, load_bank
from evaluators.data.images import read_image
from evaluators.data.open import open_data
from evaluators.data.records import DetectionData, Record, digest, subset
from gpnas.errors import DataError

BCCD = Path("/work/shared/data/bccd")
WIDTH, HEIGHT = 60, 40


def picture(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Smooth colours, different in each corner."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], axis=-1).astype(np.uint8)


def write(path: Path, rgb: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))
    return path


def annotation(key: int, image: int, bbox: list[float], category: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0} | more


def coco_content(first: int) -> dict[str, Any]:
    """Two images, `first` with two boxes, the next with none."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (first, first + 1)],
        "annotations": [annotation(1, first, [10, 5, 20, 30]), annotation(2, first, [0, 0, 8, 4], 3, area=20.5)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write_coco(root: Path, **splits: dict[str, Any] | None) -> Path:
    contents = {"train": coco_content(1), "val": coco_content(5)} | splits
    (root / "annotations").mkdir(parents=True)
    for split, content in contents.items():
        if content is None:
            continue
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            write(root / "images" / image["file_name"], picture())
    return root


def write_yaml(root: Path, text: str = "train: images/train\nval: images/val\nnames: [cat, dog]\n") -> Path:
    for split in ("train", "val"):
        write(root / "images" / split / "a.png", picture())
        write(root / "images" / split / "b.jpg", picture())
        (root / "labels" / split).mkdir(parents=True)
        # Of 60x40 pixels: centre (30, 20), 15 wide and 10 high.
        (root / "labels" / split / "a.txt").write_text("1 0.5 0.5 0.25 0.25\n\n")
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def refusal(spec: object) -> str:
    """The message with which open_data refuses: one line."""
    with pytest.raises(DataError) as refused:
        open_data(str(spec))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_coco_folder_becomes_records_with_classes_in_the_order_of_their_category_ids(tmp_path: Path) -> None:
    data = open_data(str(write_coco(tmp_path)))
    assert data.names == ("dog", "cat")
    assert data.category_ids == (3, 7)
    assert sorted(data.splits) == ["train", "val"]
    first, second = data.splits["train"]
    assert (first.image_id, first.width, first.height) == (1, WIDTH, HEIGHT)
    assert first.boxes.tolist() == [[10, 5, 30, 35], [0, 0, 8, 4]]
    assert first.classes.tolist() == [1, 0]
    assert first.areas.tolist() == [600, 20.5]
    assert not first.crowd.any()
    assert second.boxes.shape == (0, 4)
    assert second.classes.shape == (0,)


@pytest.mark.parametrize("folder", ["images/val2017", "images/val", "val2017", "valid", "images", "."])
def test_images_are_found_wherever_coco_folders_keep_them(tmp_path: Path, folder: str) -> None:
    write_coco(tmp_path)
    (tmp_path / "annotations/instances_val.json").rename(tmp_path / "annotations/instances_val2017.json")
    for name in ("5.png", "6.png"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).rename(tmp_path / folder / name)
    records = open_data(str(tmp_path)).splits["val"]
    assert [record.path for record in records] == [tmp_path / folder / "5.png", tmp_path / folder / "6.png"]


def test_the_folder_of_the_split_comes_before_the_common_one(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write(tmp_path / "images/val/5.png", picture())
    assert open_data(str(tmp_path)).splits["val"][0].path == tmp_path / "images/val/5.png"


def test_a_crowd_is_kept_in_its_record_but_not_in_the_bank(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"][0]["iscrowd"] = 1
    record = open_data(str(write_coco(tmp_path, train=content))).splits["train"][0]
    assert record.crowd.tolist() == [True, False]
    bank = load_bank([record], WIDTH)
    assert bank.classes.tolist() == [[0]]
    assert bank.boxes.tolist() == [[[0, 0, 8, 4]]]


def test_an_overhang_of_a_pixel_is_clipped(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"][0]["bbox"] = [-1, -0.5, 62, 41.5]
    assert open_data(str(write_coco(tmp_path, train=content))).splits["train"][0].boxes[0].tolist() == [0, 0, 60, 40]


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"][0].update(bbox=[41.5, 5, 20, 30]), ["annotation 1", "[41.5, 5, 61.5, 35]", "60x40"]),
        (lambda c: c["annotations"][0].update(bbox=[-2, 5, 20, 30]), ["annotation 1", "outside", "60x40"]),
        (lambda c: c["annotations"][0].update(bbox=[60.5, 5, 0.4, 30]), ["annotation 1", "outside", "60x40"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 0, 4]), ["annotation 2", "width 0", "remove"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, -2]), ["annotation 2", "height -2", "remove"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4]), ["annotation 2", "[3, 3, 4]", "four numbers"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, "5"]), ["annotation 2", "four numbers"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, float("nan")]), ["annotation 2", "four numbers"]),
        (lambda c: c["annotations"][1].pop("bbox"), ["annotation 2", "bbox None", "four numbers"]),
        (lambda c: c["annotations"][1].update(image_id=99), ["annotation 2", "image 99", "not among the images"]),
        (lambda c: c["annotations"][1].update(category_id=4), ["annotation 2", "category_id 4", "unknown", "3, 7"]),
        (lambda c: c["annotations"][1].pop("category_id"), ["annotation 2", "category_id None", "give an integer"]),
        (lambda c: c["images"][1].update(id=1), ["image 1", "twice"]),
        (lambda c: c["images"][1].update(width=0), ["image 2", "width 0", "at least 1"]),
        (lambda c: c["images"][1].pop("file_name"), ["image 2", "file_name"]),
        (lambda c: c["images"][1].update(file_name="gone.png"), ["image 2", "gone.png", "looked in", "restore"]),
        (lambda c: c.pop("images"), ["instances_train.json", "no list 'images'"]),
        (lambda c: c.update(annotations=[3]), ["instances_train.json", "no list 'annotations'"]),
        (lambda c: c.update(categories=[]), ["instances_train.json", "no categories"]),
        (lambda c: c["categories"][1].update(id=7), ["category id 7", "repeated"]),
        (lambda c: c["categories"][1].update(name="cat"), ["category id 3", "'cat'", "repeated"]),
        (lambda c: c["categories"][1].update(name="cow"), ["category 3", "'dog'", "'cow'", "make them agree"]),
        (lambda c: c.update(images=[], annotations=[]), ["split 'train' has no images"]),
        (lambda c: c.update(annotations=[]), ["no image of the split 'train' has a box", "labels"]),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], ["no image of the split 'train' has a box"]),
    ],
)
def test_a_coco_file_that_is_wrong_is_refused_by_name(tmp_path: Path, change: Change, said: list[str]) -> None:
    root = write_coco(tmp_path)
    file = root / "annotations/instances_train.json"
    content = coco_content(1)
    change(content)
    file.write_text(json.dumps(content))
    message = refusal(root)
    assert all(word in message for word in said), message


def test_broken_json_is_refused_by_file(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "annotations/instances_val.json").write_text('{"images": [')
    message = refusal(root)
    assert "instances_val.json is not valid JSON" in message
    assert "export it again" in message


def test_an_image_file_that_is_gone_is_refused_when_the_data_are_opened(tmp_path: Path) -> None:
    (write_coco(tmp_path) / "images/2.png").unlink()
    assert "missing file 2.png" in refusal(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_refused_with_the_file_to_add(tmp_path: Path, split: str) -> None:
    message = refusal(write_coco(tmp_path, **{split: None}))
    assert f"has no {split} split" in message
    assert f"instances_{split}.json" in message


def test_a_folder_may_have_braces_in_its_name(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "{cells}", val=None)
    assert f"add the file {root}/annotations/instances_val.json" in refusal(root)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    shutil.copy(root / "annotations/instances_val.json", root / "annotations/instances_val2017.json")
    assert "annotations/instances_val.json and annotations/instances_val2017.json; keep one" in refusal(root)


def test_what_is_not_there_is_refused_with_what_could_be_given(tmp_path: Path) -> None:
    assert "no data at 'digit' (did you mean 'digits'?)" in refusal("digit")
    message = refusal(tmp_path / "nowhere")
    assert "nowhere" in message
    assert "give 'digits', a COCO folder, or the path of a data.yaml" in message
    (tmp_path / "notes.md").write_text("")
    assert "neither a folder nor a .yaml" in refusal(tmp_path / "notes.md")


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    assert "has no annotations" in refusal(tmp_path)
    assert f"give {write_yaml(tmp_path)} itself" in refusal(tmp_path)


def test_a_data_yaml_becomes_records(tmp_path: Path) -> None:
    data = open_data(str(write_yaml(tmp_path)))
    assert data.names == ("cat", "dog")
    assert data.category_ids == (0, 1)
    first, second = data.splits["train"]
    assert first.boxes.tolist() == [[22.5, 15, 37.5, 25]]
    assert first.classes.tolist() == [1]
    assert (first.width, first.height) == (WIDTH, HEIGHT)
    assert len(second.boxes) == 0
    ids = [record.image_id for split in data.splits.values() for record in split]
    assert ids == [1, 2, 3, 4]


def test_a_data_yaml_may_have_a_path_a_mapping_of_names_lists_of_images_and_keys_of_others(tmp_path: Path) -> None:
    write_yaml(tmp_path / "set")
    (tmp_path / "set/train.txt").write_text("./images/train/a.png\nimages/train/b.jpg\n")
    file = tmp_path / "other.yaml"
    file.write_text(
        "path: set\ntrain: train.txt\nval: [images/val, images/train]\ntest:\nnc: 2\ndownload: https://example.org/x.zip\n"
        "names:\n  0: cat\n  1: dog\n"
    )
    data = open_data(str(file))
    assert [len(split) for split in data.splits.values()] == [2, 4]
    assert data.names == ("cat", "dog")
    assert data.splits["train"][0].boxes.tolist() == [[22.5, 15, 37.5, 25]]


def test_a_label_file_lies_beside_its_image_where_no_folder_is_called_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / split / "a.png", picture())
        (tmp_path / split / "a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "data.yaml").write_text("train: train\nval: val\nnames: [cat]")
    assert open_data(str(tmp_path / "data.yaml")).splits["val"][0].boxes.tolist() == [[0, 0, 60, 40]]


def test_a_polygon_line_counts_as_its_box(tmp_path: Path) -> None:
    file = write_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text("1 0.5 0.25 0.75 0.5 0.25 0.75\n")
    box = open_data(str(file)).splits["val"][1].boxes
    assert box.tolist() == [[15, 10, 45, 30]]


def test_a_roboflow_data_yaml_with_paths_as_from_a_folder_beside_it(tmp_path: Path) -> None:
    file = write_yaml(tmp_path, "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n")
    assert [len(split) for split in open_data(str(file)).splits.values()] == [2, 2]


def test_a_roboflow_category_above_all_others_stays_when_it_has_boxes_and_ids_are_checked(tmp_path: Path) -> None:
    for split, first in (("train", 1), ("valid", 5)):
        content = coco_content(first)
        content["categories"] = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "cat"}]
        for key in (first, first + 1):
            write(tmp_path / split / f"{key}.png", picture())
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    assert open_data(str(tmp_path)).names == ("dog", "cat")
    content["annotations"][0]["category_id"] = [1]
    (tmp_path / "valid/_annotations.coco.json").write_text(json.dumps(content))
    assert "category_id [1]" in refusal(tmp_path)


@pytest.mark.parametrize("project", ["pets", "cat"])
def test_a_roboflow_coco_folder(tmp_path: Path, project: str) -> None:
    root = {"id": 0, "name": project, "supercategory": "none"}
    for split, first in (("train", 1), ("valid", 5)):
        content = coco_content(first)
        others = [category | {"supercategory": project} for category in content["categories"]]
        write(tmp_path / split / f"{first}.png", picture())
        write(tmp_path / split / f"{first + 1}.png", picture())
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content | {"categories": [root, *others]}))
    data = open_data(str(tmp_path))
    assert data.names == ("dog", "cat") and data.category_ids == (3, 7)
    assert [record.path for record in data.splits["val"]] == [tmp_path / "valid/5.png", tmp_path / "valid/6.png"]
    (tmp_path / "away").mkdir()
    (tmp_path / "valid").rename(tmp_path / "away/valid")
    assert f"add the file {tmp_path}/val/_annotations.coco.json" in refusal(tmp_path)
    (tmp_path / "away/valid").rename(tmp_path / "valid")
    again = tmp_path / "val"
    (tmp_path / "valid").rename(again)
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid/_annotations.coco.json").write_text((again / "_annotations.coco.json").read_text())
    assert "two files for the val split, val/_annotations.coco.json and valid/_annotations.coco.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: images/train\nnames: [cat, dog]", ["no val split", "'val'"]),
        ("val: images/val\nnames: [cat, dog]", ["no train split"]),
        ("train: images/train\nval: images/vla\nnames: [cat, dog]", ["val is", "images/vla", "correct"]),
        ("train: images/train\nval: labels\nnames: [cat, dog]", ["split 'val' has no images"]),
        ("path: nowhere\ntrain: images/train\nval: images/val\nnames: [cat, dog]", ["nowhere/images/train", "'path'"]),
        ("train: images/train\nval: images/val", ["names None", "list of class names"]),
        ("train: images/train\nval: images/val\nnames: {1: cat, 2: dog}", ["names {1: 'cat', 2: 'dog'}"]),
        ("train: images/train\nval: images/val\nnames: [cat, cat]", ["'cat' twice"]),
        ("train: images/train\nval: images/val\nnames: [cat, dog]\nnc: 3", ["nc 3 but 2 names"]),
        ("train: images/train\nval: images/val\nnames: [cat]", ["a.txt, line 1,", "class 1", "0 to 0"]),
        ("train: [images/train", ["not valid YAML"]),
        ("- train", ["no keys"]),
    ],
)
def test_a_data_yaml_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, said: list[str]) -> None:
    message = refusal(write_yaml(tmp_path, text))
    assert all(word in message for word in said), message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.1 0.1", ["class 2", "0 to 1"]),
        ("-1 0.5 0.5 0.1 0.1", ["class -1"]),
        ("0.5 0.5 0.5 0.1 0.1", ["class 0.5"]),
        ("0 0.5 0.5 0.1", ["'0 0.5 0.5 0.1'", "class cx cy w h"]),
        ("cat 0.5 0.5 0.1 0.1", ["class cx cy w h"]),
        ("0 0.5 0.5 0.1 0.1 0.2", ["class cx cy w h", "polygon"]),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3", ["polygon"]),
        ("0 0.5 0.5 nan 0.1 0.2 0.2", ["not finite"]),
        ("0 0.5 0.5 0.9 0.5 0.7 0.5", ["height 0", "remove"]),
        ("0 0.5 0.5 0 0.1", ["width 0", "remove"]),
        ("0 0.5 0.5 0.1 -0.1", ["height -4", "remove"]),
        ("0 0.5 0.5 nan 0.1", ["not finite"]),
        ("0 0.9 0.5 0.3 0.1", ["outside its image of 60x40"]),
        ("0 30 20 15 10", ["outside its image of 60x40"]),
    ],
)
def test_a_label_line_that_is_wrong_is_refused_by_file_and_line(tmp_path: Path, line: str, said: list[str]) -> None:
    file = write_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    message = refusal(file)
    assert all(word in message for word in [f"{tmp_path}/labels/val/b.txt, line 2,", *said]), message


def test_a_label_file_that_is_no_text_and_a_listed_image_that_is_gone_are_refused(tmp_path: Path) -> None:
    file = write_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_bytes(b"\xff\xfe\x00")
    assert "labels/val/b.txt as text" in refusal(file)
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/z.png\n")
    file.write_text("train: list.txt\nval: images/val\nnames: [cat, dog]")
    assert "lists the missing image" in refusal(file)


def test_a_train_split_without_labels_is_refused(tmp_path: Path) -> None:
    file = write_yaml(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    assert "no image of the split 'train' has a box" in refusal(file)


def jpeg_with_exif(rgb: NDArray[np.uint8], orientation: int) -> bytes:
    """A JPEG with an orientation tag, and a false end marker in the same segment, as a thumbnail would have."""
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\x00\x00" + tiff + b"\xff\xd9"
    plain = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def palette_png(indices: NDArray[np.uint8], colours: list[tuple[int, int, int]]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = b"".join(b"\x00" + row.tobytes() for row in indices)
    palette = bytes(v for colour in colours for v in colour)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def test_exif_turns_the_image_and_its_size_alike(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg_with_exif(picture(), orientation=6))  # show it turned by 90 degrees clockwise
    image = read_image(path)
    assert image.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(image.astype(int) - np.rot90(picture(), -1)).max() < 12  # JPEG is not exact
    turned = Record(1, HEIGHT, WIDTH, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path)
    assert load_bank([turned], 60).sizes.tolist() == [[60, 40]]
    unturned = Record(1, WIDTH, HEIGHT, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path)
    with pytest.raises(DataError, match=r"turned\.jpg is 40x60 pixels \(its EXIF turns it\) .* says 60x40"):
        load_bank([unturned], 60)


def test_grey_palette_alpha_and_16_bit_images_become_rgb_bytes(tmp_path: Path) -> None:
    rgb = picture()
    grey = rgb[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([rgb[..., ::-1], grey]))
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    colours = [(250, 10, 20), (0, 200, 90)]
    chosen = (grey > 100).astype(np.uint8)
    (tmp_path / "palette.png").write_bytes(palette_png(chosen, colours))
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=-1))
    assert np.array_equal(read_image(tmp_path / "alpha.png"), rgb)
    assert np.array_equal(read_image(tmp_path / "deep.png"), rgb)
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.array(colours, dtype=np.uint8)[chosen])


@pytest.mark.parametrize("kind", ["jpg", "exif.jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, kind: str, share: float) -> None:
    path = write(tmp_path / f"cut.{kind}", picture())
    content = jpeg_with_exif(picture(), 1) if kind == "exif.jpg" else path.read_bytes()
    path.write_bytes(content)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"cut\.{kind} is truncated; restore it"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jpg is (not a readable image|truncated)"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"cannot read the image .*y\.jpg"):
        read_image(tmp_path / "y.jpg")


def test_an_image_of_another_size_than_annotated_is_refused_with_both(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    write(root / "images/1.png", picture(30, 60))
    data = open_data(str(root))  # does not decode
    with pytest.raises(DataError, match=r"1\.png is 60x30 pixels but its annotation says 60x40"):
        load_bank(data.splits["train"], 32)


def record(rgb: NDArray[np.uint8], boxes: list[list[float]], image_id: int = 1) -> Record:
    height, width = rgb.shape[:2]
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Record(image_id, width, height, array, np.arange(len(boxes), dtype=np.int64), pixels=rgb)


def test_a_bank_holds_images_top_left_scaled_by_their_long_side() -> None:
    wide = record(picture(40, 60), [[30, 20, 60, 40], [0, 0, 6, 6]], image_id=4)
    high = record(np.full((90, 30, 3), 200, np.uint8), [], image_id=9)
    bank = load_bank([wide, high], 30)
    assert bank.pixels.shape == (2, 30, 30, 3)
    assert bank.pixels.dtype == torch.uint8
    assert bank.sizes.tolist() == [[20, 30], [30, 10]]
    assert bank.scales.tolist() == pytest.approx([0.5, 1 / 3])
    assert bank.image_ids == (4, 9)
    assert bank.boxes.tolist() == [[[15, 10, 30, 20], [0, 0, 3, 3]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    assert bank.classes.tolist() == [[0, 1], [-1, -1]]
    assert (bank.pixels[0, 20:] == GREY).all()
    assert (bank.pixels[1, :, 10:] == GREY).all()
    assert (bank.pixels[1, :, :10] == 200).all()


def test_shrinking_averages_and_an_image_of_the_right_size_is_untouched() -> None:
    # 8x4 at 2 pixels: one row of two 4x4 blocks, whose rims count as much as their middles.
    blocks = np.zeros((4, 8, 3), dtype=np.uint8)
    blocks[0, :4] = 160
    blocks[1:3, 5:7] = 80
    bank = load_bank([record(blocks, [])], 2)
    assert bank.pixels[0, 0, :, 0].tolist() == [160 * 4 / 16, 80 * 4 / 16]
    assert (bank.pixels[0, 1] == GREY).all()
    rgb = picture(40, 60)
    assert np.array_equal(load_bank([record(rgb, [])], 60).pixels[0, :40].numpy(), rgb)


def test_no_scaled_box_stands_out_of_the_rounded_image() -> None:
    # 33x100 at 32 pixels is 10.56 -> 11 and 31x100 is 9.92 -> 10; 45x100 is 14.4 -> 14, below its box.
    records = [record(picture(height, 100), [[0, 0, 100, height]]) for height in (33, 31, 45)]
    bank = load_bank(records, 32)
    assert bank.sizes[:, 0].tolist() == [11, 10, 14]
    assert (bank.boxes[:, 0, 3] <= bank.sizes[:, 0]).all()


def test_images_for_a_network_are_floats_channels_last() -> None:
    pixels = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = as_images(pixels)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images[1, 2, 3, 5] == pixels[1, 3, 5, 2].float() / 255


def test_an_empty_split_and_a_size_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no images to load"):
        load_bank([], 32)
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        load_bank([record(picture(), [])], 0)


@pytest.mark.parametrize("box", [[-1, 0, 5, 5], [0, 0, 61, 5], [0, 0, 5, 41], [5, 0, 5, 5], [0, 6, 5, 5]])
def test_a_record_refuses_a_box_that_is_not_in_its_image(box: list[float]) -> None:
    with pytest.raises(ValueError, match="outside it or has no area"):
        record(picture(), [box])


def test_a_record_has_a_path_or_pixels() -> None:
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="a path or pixels, and not both"):
        Record(1, WIDTH, HEIGHT, *empty)
    with pytest.raises(ValueError, match="must be"):
        Record(1, WIDTH, HEIGHT, *empty, pixels=picture().transpose(1, 0, 2))


def test_subsets_are_deterministic_nested_and_in_order() -> None:
    records = [record(picture(), [], image_id=i) for i in range(40)]
    quarter, half = (tuple(r.image_id for r in subset(records, share, seed=3)) for share in (0.25, 0.5))
    assert len(quarter) == 10
    assert len(half) == 20
    assert set(quarter) < set(half)
    assert list(half) == sorted(half)
    assert quarter == tuple(r.image_id for r in subset(records, 0.25, seed=3))
    assert quarter != tuple(r.image_id for r in subset(records, 0.25, seed=4))
    assert len(subset(records, 0.001, seed=3)) == 1
    assert subset(records, 1, seed=3) == tuple(records)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got 0"):
        subset(records, 0, seed=3)


def test_a_digest_changes_with_the_content_and_not_with_the_place(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "a")
    first = digest(open_data(str(root)))
    assert len(first) == 16
    assert first == digest(open_data(str(shutil.copytree(root, tmp_path / "b"))))
    content = coco_content(1)
    content["annotations"][0]["bbox"] = [10, 5, 20, 31]
    assert first != digest(open_data(str(write_coco(tmp_path / "c", train=content))))
    with (root / "images/1.png").open("ab") as file:
        file.write(b"\x00")
    assert first != digest(open_data(str(root)))


def test_a_digest_sees_pixels_in_memory() -> None:
    def data(rgb: NDArray[np.uint8]) -> DetectionData:
        return DetectionData("x", ("cat",), {"train": (record(rgb, [[0, 0, 5, 5]]),)}, (1,))

    other = picture()
    other[3, 3, 0] ^= 1
    assert digest(data(picture())) == digest(data(picture()))
    assert digest(data(picture())) != digest(data(other))


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no blood cell data at {BCCD}")
def test_the_blood_cells_open_as_their_source_counts_them() -> None:
    data = open_data(str(BCCD))
    assert data.names == ("Platelets", "RBC", "WBC")
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 205, "val": 87, "test": 72}
    classes = np.concatenate([r.classes for records in data.splits.values() for r in records])
    assert np.bincount(classes).tolist() == [361, 4153, 372]
    bank = load_bank(data.splits["test"][:4], 160)
    assert bank.sizes.tolist() == [[120, 160]] * 4
