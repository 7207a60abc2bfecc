"""Label files become records, with a data.yaml or without; what can be mended is counted, and every refusal names its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.data.open import open_data
from tests.evaluators.data.small_data import (
    HEIGHT,
    WIDTH,
    another,
    picture,
    refusal,
    write_data_yaml,
    write_picture,
)


def test_a_data_yaml_becomes_records(tmp_path: Path) -> None:
    data = open_data(str(write_data_yaml(tmp_path)))
    assert data.names == ("cat", "dog")
    assert data.category_ids == (0, 1)
    first, second = data.splits["train"]
    assert first.boxes.tolist() == [[16.5, 12, 31.5, 32]]
    assert first.classes.tolist() == [1]
    assert first.areas.tolist() == [300] and first.crowd.tolist() == [False]
    assert (first.width, first.height) == (WIDTH, HEIGHT)
    assert len(second.boxes) == 0
    ids = [record.image_id for split in data.splits.values() for record in split]
    assert ids == [1, 2, 3, 4]
    assert open_data(str(tmp_path)).splits["val"][0].boxes.tolist() == [[16.5, 12, 31.5, 32]]


def test_a_yaml_that_describes_no_data_is_left_alone(tmp_path: Path) -> None:
    """A conda environment, and the settings of another program."""
    file = write_data_yaml(tmp_path)
    (tmp_path / "environment.yml").write_text("name: pets\nchannels: [conda-forge]\ndependencies: [python=3.11]\n")
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\n")
    assert open_data(str(tmp_path)).format == "data.yaml"
    file.unlink()
    assert "nothing names its classes; add a file classes.txt" in refusal(tmp_path)
    assert "environment.yml holds no annotations that are known" in refusal(tmp_path / "environment.yml")


def test_two_descriptions_are_refused(tmp_path: Path) -> None:
    write_data_yaml(tmp_path).rename(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text((tmp_path / "a.yaml").read_text())
    assert "two descriptions, a.yaml and b.yaml; give the path of one of them" in refusal(tmp_path)
    assert open_data(str(tmp_path / "b.yaml")).names == ("cat", "dog")


def test_a_data_yaml_may_have_a_path_a_mapping_of_names_lists_of_images_and_keys_of_others(tmp_path: Path) -> None:
    write_data_yaml(tmp_path / "set")
    (tmp_path / "set/train.txt").write_text("./images/train/a.png\nimages/train/b.jpg\n")
    file = tmp_path / "other.yaml"
    file.write_text(
        "path: set\ntrain: train.txt\nval: [images/val, images/train]\ntest:\nnc: 2\ndownload: https://example.org/x.zip\n"
        "names:\n  0: cat\n  1: dog\n"
    )
    data = open_data(str(file))
    assert [len(split) for split in data.splits.values()] == [2, 4]
    assert data.names == ("cat", "dog")
    assert data.splits["train"][0].boxes.tolist() == [[16.5, 12, 31.5, 32]]


def test_a_path_may_be_the_name_of_the_folder_itself(tmp_path: Path) -> None:
    """Ultralytics keeps all data sets in one folder, and `path` starts there."""
    file = write_data_yaml(tmp_path / "pets", "path: pets\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    assert [len(split) for split in open_data(str(file)).splits.values()] == [2, 2]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "labels"),
        ("images/train", "labels/train"),
        ("images/old/images/train", "images/old/labels/train"),
        ("JPEGImages", "labels"),
        ("photos", "photos"),
        ("new/photos", "new/labels"),
    ],
)
def test_label_files_are_found_where_trainers_look_for_them(tmp_path: Path, images: str, labels: str) -> None:
    write_picture(tmp_path / images / "a.png", picture())
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    (tmp_path / labels / "a.txt").write_text("0 0.4 0.55 0.25 0.5")
    (tmp_path / "data.yaml").write_text(f"train: {images}\nval: {images}\nnames: [cat]")
    assert open_data(str(tmp_path / "data.yaml")).splits["val"][0].boxes.tolist() == [[16.5, 12, 31.5, 32]]


def test_a_polygon_line_counts_as_its_box(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text("1 0.5 0.25 0.75 0.5 0.25 0.9\n")
    box = open_data(str(file)).splits["val"][1].boxes
    assert box.tolist() == [[15, 10, 45, 36]]


def test_key_points_follow_the_box(tmp_path: Path) -> None:
    """Three points of two numbers make a line of eleven numbers, which would be a polygon without kpt_shape."""
    file = write_data_yaml(tmp_path, "train: images/train\nval: images/val\nkpt_shape: [3, 2]\nnames: [cat, dog]\n")
    (tmp_path / "labels/val/b.txt").write_text("1 0.5 0.25 0.25 0.5 0.1 0.1 0.9 0.9 0.2 0.3\n")
    assert open_data(str(file)).splits["val"][1].boxes.tolist() == [[22.5, 0, 37.5, 20]]


def test_a_roboflow_data_yaml_with_paths_as_from_a_folder_beside_it(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path, "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n")
    assert [len(split) for split in open_data(str(file)).splits.values()] == [2, 2]


@pytest.mark.parametrize("test", ["''", "[]", ""])
def test_an_empty_test_key_is_no_test_split(tmp_path: Path, test: str) -> None:
    file = write_data_yaml(tmp_path, f"train: images/train\nval: images/val\ntest: {test}\nnames: [cat, dog]\n")
    assert set(open_data(str(file)).splits) == {"train", "val"}


def test_a_test_folder_that_was_not_exported_is_told(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path, "train: images/train\nval: images/val\ntest: ../test/images\nnames: [cat, dog]\n")
    data = open_data(str(file))
    assert set(data.splits) == {"train", "val"}
    assert any("there is no test split" in note and "test/images" in note for note in data.notes)


def test_a_listed_image_that_is_gone_is_told(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path, "train: list.txt\nval: images/val\nnames: [cat, dog]")
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/z.png\n")
    [problem] = open_data(str(file)).problems
    assert str(problem) == f"1 of 4 images has no file and was left out: {tmp_path}/images/train/z.png"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("val: images/val\nnames: [cat, dog]", ["no train split"]),
        ("train: images/train\nval: images/vla\nnames: [cat, dog]", ["val is", "images/vla", "correct"]),
        ("train: images/train\nval: images/val/a.png\nnames: [cat, dog]", ["images/val/a.png, no folder and no .txt list"]),
        ("train: images/train\nval: gone.txt\nnames: [cat, dog]", ["gone.txt, no folder and no .txt list"]),
        ("path: nowhere\ntrain: images/train\nval: images/val\nnames: [cat, dog]", ["nowhere/images/train", "'path'"]),
        ("train: images/train\nval: images/val\nnc: 2", ["names None", "list of class names"]),
        ("train: images/train\nval: images/val\nnames: {1: cat, 2: dog}", ["names {1: 'cat', 2: 'dog'}"]),
        ("train: images/train\nval: images/val\nnames: [cat, cat]", ["'cat' twice"]),
        ("train: images/train\nval: images/val\nnames: [cat, dog]\nnc: 3", ["nc 3 but 2 names"]),
        ("train: images/train\nval: images/val\nnames: [cat]", ["a.txt, line 1: class 1 (2 boxes) out of the range 0 to 0"]),
    ],
)
def test_a_data_yaml_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, said: list[str]) -> None:
    message = refusal(write_data_yaml(tmp_path, text))
    assert all(word in message for word in said), message


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0.5 0.5 0.5 0.1 0.1", "1 of 4 lines is no label and was left out: {}, line 2 '0.5 0.5 0.5 0.1 0.1'"),
        ("0 0.5 0.5 0.1", "1 of 4 lines is no label and was left out: {}, line 2 '0 0.5 0.5 0.1'"),
        ("cat 0.5 0.5 0.1 0.1", "1 of 4 lines is no label"),
        ("nan 0.5 0.5 0.1 0.1", "1 of 4 lines is no label"),
        ("0 0.5 0.5 0.1 0.1 0.2", "1 of 4 lines is no label"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3", "1 of 4 lines is no label"),
        ("0 0.5 0.5 nan 0.1 0.2 0.2", "1 of 4 boxes is no four numbers and was left out: {}, line 2"),
        ("0 0.5 0.5 nan 0.1", "1 of 4 boxes is no four numbers"),
        ("0 0.5 0.5 0.9 0.5 0.7 0.5", "1 of 4 boxes has no width or no height"),
        ("0 0.5 0.5 0 0.1", "1 of 4 boxes has no width or no height"),
        ("0 0.5 0.5 0.1 -0.1", "1 of 4 boxes has its corners reversed"),
        ("0 0.5 0.5 0.5 0.5", "1 of 4 boxes stands there twice and was left out once: {}, line 2 [15, 10, 45, 30]"),
        ("0 0.9 0.5 0.3 0.1", "1 of 4 boxes leaves its image and was cut: {}, line 2 [45, 18, 63, 22]"),
        ("0 30 20 15 10", "1 of 4 boxes lies outside of its image and was left out: {}, line 2 [1350, 600, 2250, 1000]"),
    ],
)
def test_a_line_that_is_wrong_is_mended_and_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    data = open_data(str(file))
    problems = [str(problem) for problem in data.problems]
    assert len(problems) == 1 and problems[0].startswith(told.format("labels/val/b.txt")), problems
    kept = data.splits["val"][1].boxes.tolist()
    assert kept == [[15, 10, 45, 30], *([[45, 18, 60, 22]] if "cut" in told else [])]


@pytest.mark.parametrize("label", ["2", "-1"])
def test_classes_without_a_name_are_refused_all_at_once(tmp_path: Path, label: str) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text(f"{label} 0.5 0.5 0.1 0.1\n{label} 0.5 0.5 0.2 0.1\n3 0.5 0.5 0.1 0.3\n")
    assert f"labels/val/b.txt, line 1: class {label} (2 boxes), 3 (1 boxes) out of the range 0 to 1" in refusal(file)


def test_a_label_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_bytes(b"\xff\xfe\x00")
    assert "labels/val/b.txt as text" in refusal(file)


def test_class_files_must_agree_and_name_something(tmp_path: Path) -> None:
    write_data_yaml(tmp_path).unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert open_data(str(tmp_path)).names == ("cat", "dog")
    (tmp_path / "labels/obj.names").write_text("dog\ncat\n")
    assert "name other classes; keep one of them" in refusal(tmp_path)
    (tmp_path / "labels/obj.names").unlink()
    (tmp_path / "classes.txt").write_text("\n")
    assert "classes.txt is empty" in refusal(tmp_path)


def test_texts_beside_images_that_are_no_labels_are_no_data_set(tmp_path: Path) -> None:
    """A folder of pictures with captions."""
    write_picture(tmp_path / "a.png", picture())
    (tmp_path / "a.txt").write_text("a cat on a sofa")
    assert "holds 1 images, but no annotations that are known" in refusal(tmp_path)


def test_labels_in_an_unusual_folder_are_read(tmp_path: Path) -> None:
    """Half of them in labels/, half elsewhere."""
    write_data_yaml(tmp_path).unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "notes/val").mkdir(parents=True)
    (tmp_path / "labels/val/a.txt").rename(tmp_path / "notes/val/a.txt")
    data = open_data(str(tmp_path))
    assert [len(record.boxes) for split in ("train", "val") for record in data.splits[split]] == [1, 0, 1, 0]


def test_labels_whose_image_is_gone_are_told(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/gone.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "labels/val/empty.txt").write_text("")
    (tmp_path / "labels/val/readme.txt").write_text("made by hand\n")
    [problem] = open_data(str(file)).problems
    assert str(problem) == f"1 of 5 images has no file and was left out: that of {tmp_path}/labels/val/gone.txt"


def test_many_images_without_objects_do_not_hide_the_labels(tmp_path: Path) -> None:
    write_data_yaml(tmp_path).unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for i in range(60):
        write_picture(tmp_path / f"images/train/0{i}.png", another(i))
        (tmp_path / f"labels/train/0{i}.txt").write_text("")
    assert len(open_data(str(tmp_path)).splits["train"]) == 62


def test_hidden_files_beside_images_are_no_images(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "images/train/._a.png").write_bytes(b"of macOS")
    data = open_data(str(file))
    assert len(data.splits["train"]) == 2 and data.problems == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"train: [images/train", "is not valid YAML"),
        (b"names: [caf\xe9]", "is not valid YAML"),
        (b"- train", "holds no keys"),
        (b"train: images/train\nval: images/val\n", "has the names None; give a list"),
    ],
)
def test_the_faults_of_a_data_yaml_are_told(tmp_path: Path, content: bytes, said: str) -> None:
    file = write_data_yaml(tmp_path)
    file.write_bytes(content)
    assert said in refusal(file) and said in refusal(tmp_path)


def test_of_two_data_yaml_the_one_in_the_folder_itself_counts(tmp_path: Path) -> None:
    write_data_yaml(tmp_path)
    write_data_yaml(tmp_path / "copy")
    assert [len(split) for split in open_data(str(tmp_path)).splits.values()] == [2, 2]
    (tmp_path / "data.yaml").rename(tmp_path / "labels/data.yaml")
    assert "two descriptions, copy/data.yaml and labels/data.yaml" in refusal(tmp_path)
