"""FiftyOne's two exports are read with their classes, tags and fields; images that are not labelled are counted."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from evaluators.data.clean import clean_records
from evaluators.data.formats.fiftyone import find_fiftyone, read_fiftyone
from evaluators.data.problems import Findings
from evaluators.data.tree import Tree
from gpnas.errors import DataError
from tests.evaluators.data.formats.layouts_cvat_studio_fiftyone import write_fiftyone, write_fiftyone_detections
from tests.evaluators.data.formats.twin import TwinData, assert_same, boxes_read, example, twin_data, write_image

QUARTER = [0.25, 0.1, 0.5, 0.3]  # of 200 x 100 pixels: 50, 10, 150, 40


def read(root: Path):
    tree = Tree.of(root)
    return read_fiftyone(tree, find_fiftyone(tree))


def labels(root: Path, of_a, classes=("dog", "cat"), image: str = "data/a.jpg") -> Path:
    """labels.json with the labels of a.jpg, an image of 200 x 100."""
    write_image(root / image, 200, 100, 1)
    listed = None if classes is None else list(classes)
    (root / "labels.json").write_text(json.dumps({"classes": listed, "labels": {"a": of_a}}))
    return root


def detection(label="cat", bounding_box=None, **more) -> dict:
    return {"_cls": "Detection", "label": label, "bounding_box": bounding_box or QUARTER, **more}


def field(*detections) -> dict:
    return {"_cls": "Detections", "detections": list(detections)}


def samples(root: Path, *entries: dict, metadata: dict | None = None, image: str = "data/a.jpg") -> Path:
    """samples.json; a sample without a filepath is data/a.jpg, an image of 200 x 100."""
    write_image(root / image, 200, 100, 1)
    (root / "samples.json").write_text(json.dumps({"samples": [{"filepath": "data/a.jpg", **entry} for entry in entries]}))
    if metadata is not None:
        (root / "metadata.json").write_text(json.dumps(metadata))
    return root


@pytest.mark.parametrize("write", [write_fiftyone_detections, write_fiftyone])
@pytest.mark.parametrize("data", [example(), example().without_split()], ids=["splits", "no split"])
def test_the_exports(tmp_path, write, data):
    raw = read(write(tmp_path, data))
    assert_same(raw, data)
    assert raw.names == data.names
    assert raw.notes == []


@pytest.mark.parametrize("write", [write_fiftyone_detections, write_fiftyone])
@given(data=twin_data())
@settings(max_examples=25)
def test_any_data_set_is_read_as_it_was_written(tmp_path_factory, write, data: TwinData):
    assert_same(read(write(tmp_path_factory.mktemp("fiftyone"), data)), data)


@pytest.mark.parametrize(
    "content",
    [
        {"images": [], "annotations": [], "categories": []},
        {"classes": "a", "labels": {}},
        {"classes": [], "labels": []},
        {"samples": [{"name": "a.jpg"}]},
        {"samples": {"filepath": 1}},
        [{"classes": [], "labels": {}}],
        [],
    ],
)
def test_other_json_is_not_of_fiftyone(tmp_path, content):
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert find_fiftyone(Tree.of(tmp_path)) == []


@pytest.mark.parametrize("label", ["cat", 1])
def test_a_label_is_a_name_or_an_index_into_the_classes(tmp_path, label):
    raw = read(labels(tmp_path, [{"label": label, "bounding_box": QUARTER}]))
    assert raw.names == ("dog", "cat")
    assert boxes_read(raw) == {"": {"a.jpg": [("cat", 50, 10, 150, 40)]}}


def test_without_classes_the_labels_are_the_classes_in_alphabetical_order(tmp_path):
    raw = read(labels(tmp_path, [detection("pig"), detection("ant")], classes=None))
    assert raw.names == ("ant", "pig")
    assert raw.splits[""].labels.tolist() == [1, 0]


def test_where_names_file_image_and_box(tmp_path):
    raw = read(labels(tmp_path, [detection(), detection("dog")]))
    assert raw.splits[""].where(1) == "labels.json, image a, box 2"


def test_a_null_is_no_label_and_an_empty_list_is_no_object(tmp_path):
    labels(tmp_path, [])
    content = {"classes": None, "labels": {"a": [], "b": None, "c": None}}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    raw = read(tmp_path)
    assert boxes_read(raw) == {"": {"a.jpg": []}}
    assert raw.notes == ["Images without labels were left out: 2 (labels.json, image b, ...)."]


@pytest.mark.parametrize("image", ["data/a.jpg", "images/a.jpg", "a.jpg"])
def test_images_lie_in_data_or_anywhere_beside(tmp_path, image):
    raw = read(labels(tmp_path, [detection()], image=image))
    assert raw.splits[""].images[0].path == tmp_path / image


def test_stems_may_have_folders(tmp_path):
    labels(tmp_path, [])
    for folder, width in (("x", 40), ("y", 60)):
        write_image(tmp_path / "data" / folder / "a.b.jpg", width, 20, width)
    content = {"classes": None, "labels": {"y/a.b": [detection()], "a": []}}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert [image.path for image in read(tmp_path).splits[""].images] == [tmp_path / "data/y/a.b.jpg", tmp_path / "data/a.jpg"]


def test_two_images_of_a_stem_are_refused(tmp_path):
    write_image(tmp_path / "data" / "a.png", 200, 100, 1)
    with pytest.raises(DataError, match=r"labels\.json has the image a, which may be .*a\.jpg or .*a\.png; remove one of them"):
        read(labels(tmp_path, [detection()]))


def test_a_missing_image_is_counted(tmp_path):
    labels(tmp_path, [detection()]).joinpath("data/a.jpg").unlink()
    found = Findings()
    clean_records(read(tmp_path), found)
    assert [kind.name for kind in found.counts] == ["MISSING"]


def test_all_unknown_labels_are_told_at_once(tmp_path):
    told = r"labels\.json: .*not among the classes \(dog, cat\): 'bee' \(1\), 'cow' \(2\); add or rename them"
    with pytest.raises(DataError, match=told):
        read(labels(tmp_path, [detection("cow"), detection("bee"), detection("cow"), detection()]))


@pytest.mark.parametrize("label", [2, -1])
def test_an_index_beyond_the_classes_is_refused(tmp_path, label):
    with pytest.raises(
        DataError, match=rf"labels\.json, image a, box 1 has the label {label}, but there are 2 classes; add the class"
    ):
        read(labels(tmp_path, [detection(label)]))


@pytest.mark.parametrize("label", [None, ""])
def test_a_box_without_a_label_is_refused(tmp_path, label):
    with pytest.raises(DataError, match=r"image a, box 2 has no label; add it or remove the box"):
        read(labels(tmp_path, [detection(), detection(label)]))


@pytest.mark.parametrize("bounding_box", [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3, None], "0.1", [0.1, 0.2, 0.3, "x"]])
def test_a_box_without_numbers_is_counted_when_it_is_cleaned(tmp_path, bounding_box):
    found = Findings()
    clean_records(read(labels(tmp_path, [detection(), detection(bounding_box=bounding_box)])), found)
    assert [(kind.name, count) for kind, count in found.counts.items()] == [("NOT_FINITE", 1)]


@pytest.mark.parametrize(
    "more",
    [{"iscrowd": True}, {"attributes": {"iscrowd": 1}}, {"attributes": {"iscrowd": {"_cls": "NumericAttribute", "value": 1}}}],
)
def test_a_crowd_of_coco_stays_a_crowd(tmp_path, more):
    single = detection("dog", attributes={"iscrowd": {"_cls": "NumericAttribute", "value": 0}})
    raw = read(labels(tmp_path, [detection(**more), single]))
    assert raw.splits[""].crowds.tolist() == [True, False]


@pytest.mark.parametrize("of_a", [{"label": "cat"}, "cat", ["cat"]])
def test_labels_that_are_no_detections_are_refused(tmp_path, of_a):
    with pytest.raises(
        DataError, match=r"labels\.json, image a has labels that are no list of detections; export it as detections"
    ):
        read(labels(tmp_path, of_a))


def test_data_without_any_labels_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.json: no image has labels; export the field that holds them"):
        read(labels(tmp_path, None))


@pytest.mark.parametrize(
    ("tags", "path", "split"),
    [
        (["train"], "data/a.jpg", "train"),
        (["reviewed", "validation"], "data/a.jpg", "val"),
        (["val2017"], "data/a.jpg", "val"),
        (["needs validation", "test-me-again"], "data/a.jpg", ""),
        ([], "data/test/a.jpg", "test"),
        (["train"], "data/test/a.jpg", "train"),
        (None, "data/a.jpg", ""),
    ],
)
def test_the_split_is_told_by_tags_or_folders(tmp_path, tags, path, split):
    raw = read(samples(tmp_path, {"filepath": path, "tags": tags, "ground_truth": field(detection())}, image=path))
    assert list(raw.splits) == [split]
    assert raw.splits[split].images[0].path == tmp_path / path


def test_the_file_tells_the_split(tmp_path):
    labels(tmp_path, [detection()]).joinpath("labels.json").rename(tmp_path / "val.json")
    samples(tmp_path, {"filepath": "data/b.jpg", "ground_truth": field()}, image="data/b.jpg")
    (tmp_path / "samples.json").rename(tmp_path / "train.json")
    assert boxes_read(read(tmp_path)) == {"train": {"b.jpg": []}, "val": {"a.jpg": [("cat", 50, 10, 150, 40)]}}


def test_tags_of_two_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"samples\.json, image data/a\.jpg has tags of several splits, train, val; leave one"):
        read(samples(tmp_path, {"tags": ["train", "val"], "ground_truth": field(detection())}))


@pytest.mark.parametrize(
    ("fields", "read_label"),
    [
        ({"predictions": "dog", "ground_truth": "cat"}, "cat"),
        ({"predictions": "dog", "detections": "cat"}, "cat"),
        ({"detections": "dog", "ground_truth": "cat"}, "cat"),
        ({"boxes": "cat"}, "cat"),
    ],
)
def test_the_field_with_the_labels(tmp_path, fields, read_label):
    raw = read(samples(tmp_path, {name: field(detection(label)) for name, label in fields.items()}))
    assert raw.names == (read_label,)


def test_several_other_fields_are_refused(tmp_path):
    told = r"samples\.json: the samples have several fields of Detections, mine, yours; export one, or call it ground_truth"
    with pytest.raises(DataError, match=told):
        read(samples(tmp_path, {"mine": field(detection())}, {"yours": field(detection())}))


def test_samples_without_detections_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"samples\.json: no sample has a field of Detections; export the field with the boxes"):
        read(samples(tmp_path, {"ground_truth": {"_cls": "Classification", "label": "cat"}}))


def test_samples_whose_field_is_null_are_not_labelled(tmp_path):
    raw = read(samples(tmp_path, {"ground_truth": field()}, {"filepath": "data/b.jpg", "ground_truth": None}))
    assert boxes_read(raw) == {"": {"a.jpg": []}}
    assert raw.notes == ["Images without labels were left out: 1 (samples.json, image data/b.jpg)."]


@pytest.mark.parametrize(
    "metadata",
    [
        {"classes": {"ground_truth": ["pig", "cat"]}, "default_classes": ["x"]},
        {"classes": {}, "default_classes": ["pig", "cat"]},
    ],
)
def test_the_classes_are_those_of_the_field_or_the_default(tmp_path, metadata):
    raw = read(samples(tmp_path, {"ground_truth": field(detection())}, metadata=metadata))
    assert raw.names == ("pig", "cat")
    assert raw.splits[""].labels.tolist() == [1]


def test_labels_that_metadata_does_not_list_are_refused(tmp_path):
    metadata = {"classes": {"ground_truth": ["pig"]}}
    with pytest.raises(DataError, match=r"samples\.json: .*not among the classes \(pig\): 'cat' \(1\); add or rename them"):
        read(samples(tmp_path, {"ground_truth": field(detection())}, metadata=metadata))


@pytest.mark.parametrize("metadata", [None, {"classes": None}, [], {"default_classes": []}])
def test_without_listed_classes_the_labels_are_the_classes(tmp_path, metadata):
    raw = read(samples(tmp_path, {"ground_truth": field(detection("pig"), detection("ant"))}, metadata=metadata))
    assert raw.names == ("ant", "pig")


def test_an_absolute_path_of_another_machine_is_found_by_its_name(tmp_path):
    raw = read(samples(tmp_path, {"filepath": "/home/ann/fiftyone/a.jpg", "ground_truth": field(detection())}))
    assert raw.splits[""].images[0].path == tmp_path / "data/a.jpg"


def test_a_sample_without_a_filepath_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"samples\.json, sample 2 has no filepath; export it again"):
        read(samples(tmp_path, {"ground_truth": field()}, {"filepath": None}))
