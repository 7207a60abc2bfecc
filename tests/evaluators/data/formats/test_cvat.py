"""CVAT's XML is read with its classes, subsets and turned shapes; what has no box is counted."""

import weakref
from pathlib import Path

import pytest
from hypothesis import given, settings

from evaluators.data.clean import clean_records
from evaluators.data.formats.cvat import _elements, find_cvat, read_cvat
from evaluators.data.problems import Findings
from evaluators.data.tree import Tree
from gpnas.errors import DataError
from tests.evaluators.data.formats.layouts_cvat_studio_fiftyone import write_cvat
from tests.evaluators.data.formats.twin import TwinData, assert_same, example, twin_data, write_image

LABELS = "<label><name>dog</name></label><label><name>cat</name></label>"


def read(root: Path):
    tree = Tree.of(root)
    return read_cvat(tree, find_cvat(tree))


def written(
    root: Path, images: str, meta: str = f"<task><labels>{LABELS}</labels></task>", file: str = "annotations.xml"
) -> Path:
    """annotations.xml with the given <image> elements, and a.jpg of 200 x 100 in images/."""
    write_image(root / "images" / "a.jpg", 200, 100, 1)
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta>{meta}</meta>{images}</annotations>'
    )
    return root


def one_image(root: Path, shapes: str) -> Path:
    return written(root, f'<image id="0" name="a.jpg" width="200" height="100">{shapes}</image>')


def box(label="cat", x1=10, y1=20, x2=50, y2=40, more="") -> str:
    return f'<box label="{label}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" {more}/>'


def only_box(root: Path) -> list[float]:
    raw = read(root)
    (split,) = raw.splits.values()
    assert len(split) == 1
    return split.xyxy[0].tolist()


@pytest.mark.parametrize("data", [example(), example().without_split()], ids=["project", "task"])
def test_the_export_of_a_project_and_of_a_task(tmp_path, data):
    write_cvat(tmp_path, data)
    raw = read(tmp_path)
    assert_same(raw, data)
    assert raw.names == data.names
    assert raw.notes == []


@given(data=twin_data())
@settings(max_examples=40)
def test_any_data_set_is_read_as_it_was_written(tmp_path_factory, data: TwinData):
    root = tmp_path_factory.mktemp("cvat")
    write_cvat(root, data)
    assert_same(read(root), data)


def test_the_file_alone_names_the_data_set(tmp_path):
    tree = Tree.of(write_cvat(tmp_path, example()))
    assert_same(read_cvat(tree, find_cvat(tree)), example())


def test_other_xml_is_not_of_cvat(tmp_path):
    others = {
        "voc": "<annotation><filename>a.jpg</filename><annotations><version/></annotations></annotation>",
        "other": "<annotations><page/></annotations>",
        "comment": "<!-- <annotations><meta/> --><svg/>",
        "empty": "",
        "json": "{}",
    }
    for name, text in others.items():
        (tmp_path / f"{name}.xml").write_text(text)
    assert find_cvat(Tree.of(tmp_path)) == []


def test_the_image_is_found_in_the_folder_of_its_subset(tmp_path):
    two = "".join(
        f'<image id="{i}" name="a.jpg" subset="{subset}" width="{width}" height="30">{box(x2=width, y2=30)}</image>'
        for i, (subset, width) in enumerate([("Train", 60), ("Validation", 70), ("spare", 80)])
    )
    for subset, width in (("Train", 60), ("Validation", 70), ("spare", 80)):
        write_image(tmp_path / "images" / subset / "a.jpg", width, 30, width)
    raw = read(written(tmp_path, two))
    assert {split: read.images[0].path for split, read in raw.splits.items()} == {
        "train": tmp_path / "images/Train/a.jpg",
        "val": tmp_path / "images/Validation/a.jpg",
        "": tmp_path / "images/spare/a.jpg",
    }


@pytest.mark.parametrize(
    ("meta", "name", "file", "split"),
    [
        ("<task><subset>Validation</subset></task>", "a.jpg", "annotations.xml", "val"),
        ("<job><subset>Test</subset></job>", "a.jpg", "annotations.xml", "test"),
        ("<task/>", "train/a.jpg", "annotations.xml", "train"),
        ("<task/>", "a.jpg", "val.xml", "val"),
        ("<task/>", "a.jpg", "test/annotations.xml", "test"),
        ("<task><subset>default</subset></task>", "a.jpg", "annotations.xml", ""),
    ],
)
def test_the_split_is_told_by_subset_folder_or_file(tmp_path, meta, name, file, split):
    image = f'<image id="0" name="{name}" width="200" height="100">{box()}</image>'
    raw = read(written(tmp_path, image, meta, file))
    assert list(raw.splits) == [split]
    assert raw.splits[split].images[0].path == tmp_path / "images/a.jpg"


def test_the_folder_of_the_image_tells_its_split(tmp_path):
    write_image(tmp_path / "images" / "val" / "b.jpg", 200, 100, 2)
    raw = read(written(tmp_path, f'<image name="b.jpg" width="200" height="100">{box()}</image>'))
    assert list(raw.splits) == ["val"]


def test_classes_without_meta_are_the_labels_in_alphabetical_order(tmp_path):
    image = f'<image name="a.jpg" width="200" height="100">{box("pig")}{box("ant", 11)}</image>'
    raw = read(written(tmp_path, image, meta=""))
    assert raw.names == ("ant", "pig")
    assert raw.splits[""].labels.tolist() == [1, 0]


def test_classes_are_the_labels_of_meta_and_not_the_points_of_a_skeleton(tmp_path):
    labels = f"{LABELS}<label><name>nose</name><parent>person</parent></label>"
    image = f'<image name="a.jpg" width="200" height="100">{box("cat")}</image>'
    raw = read(written(tmp_path, image, meta=f"<project><labels>{labels}</labels></project>"))
    assert raw.names == ("dog", "cat")
    assert raw.splits[""].labels.tolist() == [1]


def test_where_names_file_image_and_box(tmp_path):
    polygon = '<polygon label="cat" points="1,2;3,2;3,9"/>'
    raw = read(one_image(tmp_path, box() + polygon + box("dog")))
    assert [raw.splits[""].where(i) for i in range(3)] == [
        "annotations.xml, image a.jpg, box 1",
        "annotations.xml, image a.jpg, polygon 1",
        "annotations.xml, image a.jpg, box 2",
    ]


def test_a_rotated_box_has_the_extent_of_the_turned_rectangle(tmp_path):
    # 40 x 20 about (30, 30); turned by 90 degrees it is 20 x 40.
    assert only_box(one_image(tmp_path, box(more='rotation="90.0"'))) == pytest.approx([20, 10, 40, 50])


def test_the_extent_of_a_box_that_is_turned_by_30_degrees(tmp_path):
    # Half of it: 20 * cos + 10 * sin = 22.3205 wide, 20 * sin + 10 * cos = 18.6603 high.
    root = one_image(tmp_path, box(more='rotation="30"'))
    assert only_box(root) == pytest.approx([7.6795, 11.3397, 52.3205, 48.6603], abs=1e-4)
    assert read(root).splits[""].areas[0] == 800


@pytest.mark.parametrize(
    ("shape", "xyxy", "area"),
    [
        ('<polygon label="cat" points="10.0,20.0;50.0,25.0;30.0,60.0"/>', [10, 20, 50, 60], 750),
        ('<ellipse label="cat" cx="60" cy="50" rx="30" ry="10"/>', [30, 40, 90, 60], 942.4778),
        ('<ellipse label="cat" cx="60" cy="50" rx="30" ry="10" rotation="90"/>', [50, 20, 70, 80], 942.4778),
        ('<mask label="cat" rle="1, 5, 2, 4" left="7" top="8" width="4" height="3"/>', [7, 8, 11, 11], 9),
        (
            '<cuboid label="cat" xtl1="10" ytl1="20" xbl1="11" ybl1="60" xtr1="40" ytr1="22" xbr1="41" ybr1="61" '
            'xtl2="50" ytl2="18" xbl2="50" ybl2="55" xtr2="20" ytr2="15" xbr2="20" ybr2="50"/>',
            [10, 15, 50, 61],
            None,
        ),
    ],
)
def test_the_extents_of_other_shapes(tmp_path, shape, xyxy, area):
    root = one_image(tmp_path, shape)
    assert only_box(root) == pytest.approx(xyxy)
    if area is not None:
        assert read(root).splits[""].areas[0] == pytest.approx(area, abs=1e-3)


def test_shapes_without_a_box_are_counted(tmp_path):
    shapes = (
        '<polyline label="cat" points="1,2;3,4"/><points label="cat" points="1,2"/><points label="cat" points="1,3"/>'
        '<tag label="cat"/><skeleton label="cat"><points label="nose" points="1,2"/></skeleton>'
    )
    raw = read(one_image(tmp_path, shapes + box()))
    assert raw.notes == ["What has no box was left out: 2 <points>, 1 <polyline>, 1 <skeleton>, 1 <tag>."]
    assert len(raw.splits[""]) == 1


@pytest.mark.parametrize(
    "shape",
    [
        box(x1="left"),
        box(y2="nan"),
        '<box label="cat"/>',
        '<polygon label="cat" points="1;2"/>',
        '<polygon label="cat" points="1,a"/>',
    ],
)
def test_a_shape_without_numbers_is_counted_when_it_is_cleaned(tmp_path, shape):
    raw = read(one_image(tmp_path, box() + shape))
    found = Findings()
    clean_records(raw, found)
    assert [(kind.name, count) for kind, count in found.counts.items()] == [("NOT_FINITE", 1)]


def test_a_turned_box_with_reversed_corners_is_counted_as_reversed(tmp_path):
    found = Findings()
    clean_records(read(one_image(tmp_path, box(x1=15, x2=10, more='rotation="45"'))), found)
    assert [kind.name for kind in found.counts] == ["REVERSED"]


def test_all_unknown_labels_are_told_at_once(tmp_path):
    root = one_image(tmp_path, box("cow") + box("bee") + box("cow", 12) + box())
    told = r"annotations\.xml: .*: 'bee' \(1\), 'cow' \(2\); add them to <meta>, or rename them to one of dog, cat"
    with pytest.raises(DataError, match=told):
        read(root)


def test_a_shape_without_a_label_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'' \(1\)"):
        read(one_image(tmp_path, '<box xtl="1" ytl="2" xbr="9" ybr="5"/>'))


@pytest.mark.parametrize(
    "declaration", ['<!DOCTYPE a [<!ENTITY b "cc">]>', "<!-- x --><!DOCTYPE annotations>", '<!DOCTYPE a SYSTEM "a.dtd">']
)
def test_declarations_are_refused(tmp_path, declaration):
    (tmp_path / "annotations.xml").write_text(f'<?xml version="1.0"?>{declaration}<annotations><meta>&b;</meta></annotations>')
    with pytest.raises(DataError, match=r"annotations\.xml has a <!DOCTYPE, .*; export it again, or remove the declaration"):
        read(tmp_path)


def test_broken_xml_is_refused(tmp_path):
    one_image(tmp_path, box())
    path = tmp_path / "annotations.xml"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"annotations\.xml is not valid XML \(.*\); export it again"):
        read(tmp_path)


def test_an_image_that_stands_there_twice_is_refused(tmp_path):
    image = f'<image name="a.jpg" width="200" height="100">{box()}</image>'
    with pytest.raises(
        DataError, match=r"annotations\.xml names the image a\.jpg a second time \(as .*a\.jpg\); export each image once"
    ):
        read(written(tmp_path, image + image))


def test_an_image_without_a_name_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"<image> without a name \(id 5\); export it as CVAT for images"):
        read(written(tmp_path, '<image id="5"/>'))


def test_an_element_is_forgotten_when_the_next_one_comes(tmp_path):
    image = f'<image name="a.jpg">{box()}</image>'
    elements = _elements(written(tmp_path, image + image) / "annotations.xml", "annotations.xml")
    first = weakref.ref(next(elements))
    assert first() is not None
    next(elements)
    next(elements)
    assert first() is None


def test_a_file_without_images_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"annotations\.xml has no <image> and no <track>; export it as CVAT for images, with images"
    ):
        read(written(tmp_path, ""))


def test_an_image_that_is_missing_is_counted(tmp_path):
    raw = read(written(tmp_path, f'<image name="b.jpg" width="200" height="100">{box()}</image>'))
    assert raw.splits[""].images[0].path == tmp_path / "images/b.jpg"
    found = Findings()
    clean_records(raw, found)
    assert [kind.name for kind in found.counts] == ["MISSING"]


TRACKS = """
<track id="0" label="cat" source="manual">
  <box frame="0" outside="0" occluded="0" keyframe="1" xtl="10" ytl="20" xbr="50" ybr="40" z_order="0"/>
  <box frame="1" outside="0" occluded="0" keyframe="0" xtl="12" ytl="21" xbr="52" ybr="41" z_order="0"/>
  <box frame="2" outside="1" occluded="0" keyframe="1" xtl="12" ytl="21" xbr="52" ybr="41" z_order="0"/>
</track>
<track id="1" label="dog" source="manual">
  <polygon frame="1" outside="0" keyframe="1" points="1,2;30,2;30,40"/>
  <points frame="1" outside="0" keyframe="1" points="1,2"/>
</track>
"""
SIZE = "<original_size><width>200</width><height>100</height></original_size>"
VIDEO = f"<task><mode>interpolation</mode><labels>{LABELS}</labels>{SIZE}</task>"


def video(root: Path, tracks: str = TRACKS, frames: int = 3, meta: str = VIDEO, suffix: str = ".PNG") -> Path:
    for frame in range(frames):
        write_image(root / "images" / f"frame_{frame:06d}{suffix.lower()}", 200, 100, frame).rename(
            root / "images" / f"frame_{frame:06d}{suffix}"
        )
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version><meta>{meta}</meta>{tracks}</annotations>")
    return root


@pytest.mark.parametrize("suffix", [".PNG", ".png", ".jpg"])
def test_a_video_is_read_frame_by_frame(tmp_path, suffix):
    raw = read(video(tmp_path, suffix=suffix))
    split = raw.splits[""]
    assert [image.path.name for image in split.images] == [f"frame_{i:06d}{suffix}" for i in range(3)]
    assert (split.images[0].width, split.images[0].height) == (200, 100)
    assert split.image_of_box.tolist() == [0, 1, 1]
    assert split.labels.tolist() == [1, 1, 0]
    assert split.xyxy.tolist() == [[10, 20, 50, 40], [12, 21, 52, 41], [1, 2, 30, 40]]
    assert split.where(2) == "annotations.xml, track 2, polygon of frame 1"
    assert raw.notes == ["What has no box was left out: 1 <points>."]


def test_only_the_frames_in_images_are_read(tmp_path):
    video(tmp_path)
    write_image(tmp_path / "images" / "cover.png", 200, 100, 8)
    write_image(tmp_path / "old" / "frame_000000.png", 200, 100, 9)
    names = [image.path.relative_to(tmp_path).as_posix() for image in read(tmp_path).splits[""].images]
    assert names == [f"images/frame_{i:06d}.PNG" for i in range(3)]


def test_the_subset_of_a_video_is_its_split(tmp_path):
    raw = read(video(tmp_path, meta=VIDEO.replace("<mode>", "<subset>Train</subset><mode>")))
    assert list(raw.splits) == ["train"]


def test_a_video_without_objects_has_frames_without_boxes(tmp_path):
    raw = read(video(tmp_path, tracks="", frames=2))
    assert len(raw.splits[""].images) == 2
    assert len(raw.splits[""]) == 0


def test_a_video_without_its_frames_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"annotations.xml has tracks of a video, .*; export it as CVAT for images, with images"
    ):
        read(video(tmp_path, frames=0))


def test_a_video_that_lacks_a_frame_with_an_object_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"annotations.xml, track 1, has a box on frame 1, whose image does not lie there; export it as"
    ):
        read(video(tmp_path, frames=1))


def test_two_images_of_a_frame_are_refused(tmp_path):
    video(tmp_path)
    write_image(tmp_path / "images" / "frame_000001.jpg", 200, 100, 1)
    with pytest.raises(DataError, match=r"two images of frame 1, one of them .*frame_000001\.jpg; remove one"):
        read(tmp_path)


def test_the_tracks_of_a_project_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"tracks of a project, .*; export it as CVAT for images, with images"):
        read(video(tmp_path, meta=f"<project><labels>{LABELS}</labels></project>"))
