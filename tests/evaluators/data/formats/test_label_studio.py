"""Label Studio's exports are read with their percents, turned shapes and names of uploads; what is not labelled is counted."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from evaluators.data.clean import clean_records
from evaluators.data.formats.label_studio import find_label_studio, read_label_studio
from evaluators.data.problems import Findings
from evaluators.data.tree import Tree
from gpnas.errors import DataError
from tests.evaluators.data.formats.layouts_cvat_studio_fiftyone import write_label_studio
from tests.evaluators.data.formats.twin import TwinData, assert_same, boxes_read, example, twin_data, write_image


def read(root: Path):
    tree = Tree.of(root)
    return read_label_studio(tree, find_label_studio(tree))


def written(root: Path, tasks: list, image: str = "a.jpg", file: str = "export.json") -> Path:
    """The tasks, beside an image of 200 x 100."""
    write_image(root / image, 200, 100, 1)
    (root / file).write_text(json.dumps(tasks))
    return root


def region(labels=("cat",), kind="rectanglelabels", size=True, more=None, **value) -> dict:
    """A result; a box of 10 % by 40 % unless `value` says otherwise."""
    value = value or {"x": 5, "y": 20, "width": 10, "height": 40, "rotation": 0}
    sizes = {"original_width": 200, "original_height": 100} if size else {}
    return {"id": "r", "type": kind, **sizes, "value": {**value, kind: list(labels)}, **(more or {})}


def task(*results, number=1, image="a.jpg", **annotation) -> dict:
    return {"id": number, "data": {"image": image}, "annotations": [{"result": list(results), **annotation}]}


def only_box(root: Path) -> list[float]:
    (split,) = read(root).splits.values()
    assert len(split) == 1
    return split.xyxy[0].tolist()


@pytest.mark.parametrize("data", [example(), example().without_split()], ids=["named by split", "one project"])
def test_the_export_of_projects(tmp_path, data):
    raw = read(write_label_studio(tmp_path, data))
    assert_same(raw, data)
    assert raw.names == data.used_names
    assert raw.notes == []


@given(data=twin_data())
@settings(max_examples=40)
def test_any_data_set_is_read_as_it_was_written(tmp_path_factory, data: TwinData):
    assert_same(read(write_label_studio(tmp_path_factory.mktemp("studio"), data)), data)


def test_json_min(tmp_path):
    regions = [
        {
            "x": 5,
            "y": 20,
            "width": 10,
            "height": 40,
            "rotation": 0,
            "rectanglelabels": ["cat"],
            "original_width": 200,
            "original_height": 100,
        }
    ]
    empty = {"image": "/data/upload/1/0a1b2c3d-b.jpg", "id": 2, "annotator": 1, "annotation_id": 2}
    tasks = [empty, {"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "label": regions, "annotator": 1, "annotation_id": 1}]
    write_image(tmp_path / "b.jpg", 30, 20, 2)
    assert boxes_read(read(written(tmp_path, tasks))) == {"": {"a.jpg": [("cat", 10, 20, 30, 60)], "b.jpg": []}}


def test_json_min_of_the_shortest_kind(tmp_path):
    regions = [{"x": 5, "y": 20, "width": 10, "height": 40, "rectanglelabels": ["cat"]}]
    assert only_box(written(tmp_path, [{"image": "a.jpg", "label": regions}])) == [10, 20, 30, 60]


def test_an_older_export_has_completions(tmp_path):
    older = {"id": 1, "data": {"image": "a.jpg"}, "completions": [{"result": [], "skipped": True}, {"result": [region()]}]}
    assert only_box(written(tmp_path, [older])) == [10, 20, 30, 60]


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2, "width": 3, "height": 4}}]}],
        {"images": [], "annotations": [], "categories": []},
        [{"data": {"image": "a.jpg"}}],
        [],
        [1],
    ],
    ids=["CreateML", "COCO", "tasks to import", "nothing", "numbers"],
)
def test_other_json_is_not_of_label_studio(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert find_label_studio(Tree.of(tmp_path)) == []


@pytest.mark.parametrize(
    ("address", "image"),
    [
        ("a.jpg", "a.jpg"),
        ("images/a.jpg", "images/a.jpg"),
        ("/data/upload/1/0a1b2c3d-a.jpg", "0a1b2c3d-a.jpg"),
        ("/data/upload/1/0a1b2c3d-a.jpg", "upload/1/0a1b2c3d-a.jpg"),
        ("/data/upload/1/0a1b2c3d-a.jpg", "pictures/a.jpg"),
        ("/data/upload/1/0a1b2c3d-two_dogs.jpg", "two dogs.jpg"),
        ("/data/upload/1/0a1b2c3d-dogs1.jpg", "dogs(1).jpg"),
        ("a.jpg", "0a1b2c3d-a.jpg"),
        ("/data/local-files/?d=folder/a.jpg", "folder/a.jpg"),
        ("/data/local-files/?d=folder%2Ftwo%20dogs.jpg", "folder/two dogs.jpg"),
        ("/data/local-files/?d=folder/two+dogs.jpg", "two dogs.jpg"),
        ("/data/local-files/?d=folder/a+b.jpg", "a+b.jpg"),
        ("/data/local-files/?d=folder%5Ca.jpg", "folder/a.jpg"),
        ("https://example.com/x/a%C3%A9.jpg?token=1", "aé.jpg"),
        ("s3://bucket/folder/a.jpg", "folder/a.jpg"),
        ("C:\\pictures\\a.jpg", "a.jpg"),
        ("100%25.jpg", "100%25.jpg"),
        ("http://[broken/a.jpg", "a.jpg"),
    ],
)
def test_the_image_is_found_by_its_address(tmp_path, address, image):
    raw = read(written(tmp_path, [task(region(), image=address)], image))
    assert [found.path for found in raw.splits[""].images] == [tmp_path / image]


def test_the_name_of_another_image_is_not_taken_for_it(tmp_path):
    raw = read(written(tmp_path, [task(region(), image="/data/upload/1/0a1b2c3d-1.jpg")], "cat_1.jpg"))
    found = Findings()
    clean_records(raw, found)
    assert [kind.name for kind in found.counts] == ["MISSING"]


def test_two_uploads_of_the_same_name_are_refused(tmp_path):
    write_image(tmp_path / "0a1b2c3d-a.jpg", 20, 10, 1)
    with pytest.raises(
        DataError,
        match=r"export\.json, task 1 has the image a\.jpg, which may be .*0a1b2c3d-a\.jpg or .*ffffffff-a\.jpg; remove one",
    ):
        read(written(tmp_path, [task(region())], "ffffffff-a.jpg"))


def test_the_key_of_the_image_may_be_another(tmp_path):
    data = {"text": "a cat", "photo": "/data/upload/1/0a1b2c3d-a.jpg", "number": 3}
    assert only_box(written(tmp_path, [{**task(region()), "data": data}])) == [10, 20, 30, 60]


def test_of_several_keys_image_is_taken(tmp_path):
    assert only_box(written(tmp_path, [{**task(region()), "data": {"thumb": "b.jpg", "image": "a.jpg"}}])) == [10, 20, 30, 60]


def test_several_images_of_a_task_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"task 1 has several images, left, right; rename the key of the labelled one to image"):
        read(written(tmp_path, [{**task(region()), "data": {"left": "a.jpg", "right": "b.jpg"}}]))


def test_a_task_without_an_image_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"export\.json, task 7 has no image among its data \(text\); add it, or remove the task"
    ):
        read(written(tmp_path, [{**task(region(), number=7), "data": {"text": "a cat"}}]))


def test_percents_are_of_the_original_size(tmp_path):
    raw = read(written(tmp_path, [task(region(x=12.5, y=10, width=25, height=33))]))
    assert raw.splits[""].xyxy.tolist() == [[25, 10, 75, 43]]
    assert raw.splits[""].images[0][1:3] == (200, 100)


def test_without_an_original_size_the_header_tells_it(tmp_path):
    assert only_box(written(tmp_path, [task(region(size=False))])) == [10, 20, 30, 60]


def test_a_box_is_turned_clockwise_about_its_top_left_corner(tmp_path):
    # 40 x 30 pixels at (100, 20): turned by 90 degrees it lies to the left of that corner, 30 wide and 40 high.
    assert only_box(written(tmp_path, [task(region(x=50, y=20, width=20, height=30, rotation=90))])) == pytest.approx(
        [70, 20, 100, 60]
    )


def test_the_extent_of_a_box_that_is_turned_by_30_degrees(tmp_path):
    # Corners from (100, 20): +(34.6410, 20), +(34.6410 - 15, 20 + 25.9808), +(-15, 25.9808).
    root = written(tmp_path, [task(region(x=50, y=20, width=20, height=30, rotation=30))])
    assert only_box(root) == pytest.approx([85, 20, 134.6410, 65.9808], abs=1e-4)
    assert read(root).splits[""].areas[0] == 1200


@pytest.mark.parametrize(
    ("result", "xyxy", "area"),
    [
        (region(kind="polygonlabels", points=[[5, 20], [25, 25], [15, 60]]), [10, 20, 50, 60], 750),
        (region(kind="ellipselabels", x=30, y=50, radiusX=15, radiusY=10, rotation=0), [30, 40, 90, 60], 942.4778),
        (region(kind="ellipselabels", x=30, y=50, radiusX=15, radiusY=10, rotation=90), [50, 20, 70, 80], 942.4778),
        (region(kind="labels"), [10, 20, 30, 60], None),
    ],
)
def test_the_extents_of_other_shapes(tmp_path, result, xyxy, area):
    root = written(tmp_path, [task(result)])
    assert only_box(root) == pytest.approx(xyxy)
    if area is not None:
        assert read(root).splits[""].areas[0] == pytest.approx(area, abs=1e-3)


@pytest.mark.parametrize(
    "result",
    [
        region(x=None, y=20, width=10, height=40),
        region(x=5, y="left", width=10, height=40),
        region(kind="polygonlabels", points=[[5, 20], [25]]),
        region(kind="polygonlabels", points=[]),
        region(kind="polygonlabels", points=[[5, 20], [25, None]]),
    ],
)
def test_a_shape_without_numbers_is_counted_when_it_is_cleaned(tmp_path, result):
    found = Findings()
    clean_records(read(written(tmp_path, [task(region(), result)])), found)
    assert [(kind.name, count) for kind, count in found.counts.items()] == [("NOT_FINITE", 1)]


def test_two_labels_of_a_box_are_two_boxes(tmp_path):
    raw = read(written(tmp_path, [task(region(["dog", "cat", "dog"]))]))
    assert len(raw.splits[""]) == 2
    assert boxes_read(raw) == {"": {"a.jpg": [("cat", 10, 20, 30, 60), ("dog", 10, 20, 30, 60)]}}


def test_where_names_file_image_and_box(tmp_path):
    polygon = region(kind="polygonlabels", points=[[5, 20], [25, 25], [15, 60]])
    raw = read(written(tmp_path, [task(region(), polygon, region(["dog"]))]))
    assert [raw.splits[""].where(i) for i in range(3)] == [
        "export.json, image a.jpg, box 1",
        "export.json, image a.jpg, polygon 1",
        "export.json, image a.jpg, box 2",
    ]


def test_results_without_a_box_are_counted(tmp_path):
    others = [
        region(kind="brushlabels", format="rle", rle=[1, 2]),
        region(kind="keypointlabels", x=5, y=20, width=0.5),
        region(kind="keypointlabels", x=6, y=20, width=0.5),
        {"type": "choices", "value": {"choices": ["sunny"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ]
    raw = read(written(tmp_path, [task(region(), *others)]))
    assert len(raw.splits[""]) == 1
    assert raw.notes == ["Results that have no box were left out: 1 brushlabels, 1 choices, 2 keypointlabels, 1 relation."]


def test_brushes_of_json_min_are_counted(tmp_path):
    tasks = [{"image": "a.jpg", "annotation_id": 1, "label": [{"format": "rle", "rle": [1], "brushlabels": ["cat"]}]}]
    assert read(written(tmp_path, tasks)).notes == ["Results that have no box were left out: 1 brushlabels."]


def test_a_box_without_a_label_is_counted_unless_its_labelled_twin_stands_there(tmp_path):
    place = {"x": 5, "y": 20, "width": 10, "height": 40}
    plain = {"id": "r", "type": "rectangle", "value": place}
    alone = {"id": "s", "type": "rectangle", "value": {**place, "x": 50}}
    raw = read(written(tmp_path, [task(plain, region(kind="labels"), alone, region([]))]))
    assert len(raw.splits[""]) == 1
    assert raw.notes == ["Boxes without a label were left out: 1."]


def test_an_image_that_was_turned_in_label_studio_is_refused(tmp_path):
    told = r"export\.json, image a\.jpg was turned by 90 degrees in Label Studio, .*; turn the file instead and label it again"
    with pytest.raises(DataError, match=told):
        read(written(tmp_path, [task(region(more={"image_rotation": 90}))]))


def test_the_first_annotation_that_was_not_cancelled_is_read(tmp_path):
    annotations = [{"result": [], "was_cancelled": True}, {"result": [region()]}, {"result": [region(["dog"])]}]
    raw = read(written(tmp_path, [{**task(number=4), "annotations": annotations}]))
    assert boxes_read(raw) == {"": {"a.jpg": [("cat", 10, 20, 30, 60)]}}
    assert raw.notes == ["Of tasks with more than one annotation the first was read: 1 (export.json, task 4)."]


def test_an_annotation_without_results_says_that_there_is_no_object(tmp_path):
    raw = read(written(tmp_path, [task()]))
    assert boxes_read(raw) == {"": {"a.jpg": []}}
    assert raw.notes == []


def test_tasks_that_are_not_annotated_are_left_out(tmp_path):
    prediction = {"id": 2, "data": {"image": "b.jpg"}, "annotations": [], "predictions": [{"result": [region()]}]}
    skipped = task(region(), number=3, image="c.jpg", was_cancelled=True)
    raw = read(written(tmp_path, [task(region()), prediction, skipped]))
    assert [image.path.name for image in raw.splits[""].images] == ["a.jpg"]
    assert raw.notes == ["Tasks without a submitted annotation were left out: 2 (export.json, task 2, ...)."]


def test_an_export_without_annotated_tasks_is_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=r"export\.json: no task has an annotation \(predictions are none\); submit annotations and export again",
    ):
        read(
            written(
                tmp_path, [{"id": 2, "data": {"image": "a.jpg"}, "annotations": [], "predictions": [{"result": [region()]}]}]
            )
        )


def test_annotations_that_are_numbers_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"task 1 has annotations that are no objects; export it as JSON"):
        read(written(tmp_path, [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [17]}]))


def test_a_task_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"export\.json, task 2 is no object; export it from Label Studio as JSON"):
        read(written(tmp_path, [task(region()), 5]))


def test_the_second_task_of_an_image_is_left_out(tmp_path):
    raw = read(written(tmp_path, [task(region()), task(region(["dog"]), number=2, image="/data/upload/1/0a1b2c3d-a.jpg")]))
    assert boxes_read(raw) == {"": {"a.jpg": [("cat", 10, 20, 30, 60)]}}
    assert raw.notes == ["Tasks whose image another task before has were left out: 1 (export.json, task 2)."]


def test_two_exports_of_an_image_are_refused(tmp_path):
    written(tmp_path, [task(region())], file="new.json")
    with pytest.raises(
        DataError, match=r"old\.json, task 1 has the image .*a\.jpg, which new\.json has too; keep the newer of the two"
    ):
        read(written(tmp_path, [task(region())], file="old.json"))


def test_folders_of_images_tell_the_split(tmp_path):
    write_image(tmp_path / "train" / "b.jpg", 200, 100, 2)
    tasks = [task(region(), image="/data/local-files/?d=val/a.jpg"), task(region(), image="/data/local-files/?d=train/b.jpg")]
    raw = read(written(tmp_path, tasks, "val/a.jpg"))
    assert {split: images.images[0].path.name for split, images in raw.splits.items()} == {"val": "a.jpg", "train": "b.jpg"}
