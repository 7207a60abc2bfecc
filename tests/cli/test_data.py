"""`gpnas data`: what it prints, draws and writes, also of data that a search refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.data.open import open_data
from evaluators.data.problems import Kind
from gpnas.errors import DataError
from tests.cli.conftest import Gpnas, Refused
from tests.evaluators.data.small_data import annotation, coco_content, picture, write_coco, write_data_yaml, write_picture


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images of 60 x 40 pixels in each split; one has a box of 20 x 30 (cat) and one of 8 x 4 (dog)."""
    return write_coco(tmp_path / "pets")


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """All four boxes of train leave their image."""
    content = coco_content(1)
    content["annotations"] = [annotation(i, 1, [50, 5 + i, 30, 20]) for i in range(4)]
    return write_coco(tmp_path / "cut", train=content)


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_images_boxes_and_sides_are_printed(gpnas: Gpnas, coco: Path) -> None:
    code, out, err = gpnas("data", coco, "--imgsz", 640, "--out", "page")
    assert (code, err) == (0, "")
    told = lines(out)
    assert told[:3] == [f"{coco}: COCO, 2 classes", "", "Images and boxes"]
    assert "2 1 2 0 1 2 train" in told and "2 1 2 0 1 2 val" in told
    assert "1 1 cat" in told and "1 1 dog" in told
    assert "261 261 261 261 261 cat" in told  # sqrt(20 * 30) * 640 / 60 = 261.3
    assert "60 60 60 60 60 dog" in told  # sqrt(8 * 4) * 640 / 60 = 60.3
    assert "4 60 x 40" in told
    assert (
        "objects in train, as COCO calls them, at --imgsz 640: small (under 32 pixels) 0%, medium 50%, large (over 96) 50%"
        in told
    )
    assert "no problems were found" in told and told[-1] == "page: page/data.html"


def test_the_page_is_a_file_or_in_a_folder(gpnas: Gpnas, coco: Path, tmp_path: Path) -> None:
    for out, page in (("a/b", "a/b/data.html"), ("c/my.html", "c/my.html")):
        assert lines(gpnas("data", coco, "--out", out)[1])[-1] == f"page: {page}"
        assert (tmp_path / page).read_text().startswith("<!doctype html>")
    gpnas("data", coco)
    assert len(list((tmp_path / "runs").glob("data-*/data.html"))) == 1


def test_json_holds_everything_and_writes_no_page(gpnas: Gpnas, coco: Path, tmp_path: Path) -> None:
    code, out, _ = gpnas("data", coco, "--json", "--imgsz", 96)
    facts = json.loads(out)
    assert code == 0 and not (tmp_path / "runs").exists()
    assert facts["splits"]["train"] == {
        "images": 2,
        "boxes": 2,
        "crowds": 0,
        "empty": 1,
        "median_boxes": 1.0,
        "most_boxes": 2,
    }
    assert [(c["name"], c["boxes"]) for c in facts["classes"]] == [
        ("dog", {"train": 1, "val": 1}),
        ("cat", {"train": 1, "val": 1}),
    ]
    assert (facts["format"], facts["imgsz"], facts["problems"], facts["refusal"], facts["page"]) == ("COCO", 96, [], "", None)
    assert any("fewer than 20 boxes in train" in text for text in facts["advice"])


def test_what_a_search_would_refuse_is_printed_all_the_same(gpnas: Gpnas, cut: Path) -> None:
    code, out, err = gpnas("data", cut, "--out", "page")
    assert code == 1
    assert any(line.startswith("problem: 4 of 6 boxes leave their image and were cut: ") for line in lines(out))
    assert err == (
        f"gpnas: {cut}: a search would refuse these data: 4 of 6 boxes leave their image (up to 5% would be mended); "
        "correct the annotations or the images\n"
    )
    assert "4 of 6 boxes leave their image" in Path("page/data.html").read_text()


def test_data_are_opened_with_their_problems_where_they_may_not_be_refused(cut: Path) -> None:
    with pytest.raises(DataError, match="4 of 6 boxes leave their image"):
        open_data(str(cut))
    (problem,) = open_data(str(cut), may_refuse=False).problems
    assert (problem.kind, problem.count, problem.total) == (Kind.CUT, 4, 6)


def test_strict_makes_one_problem_a_refusal(gpnas: Gpnas, tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"].append(annotation(3, 2, [55, 5, 20, 30]))
    root = write_coco(tmp_path / "one", train=content)
    assert gpnas("data", root, "--json")[0] == 0
    code, _, err = gpnas("data", root, "--json", "--strict")
    assert code == 1 and "1 of 5 boxes leaves its image (--strict accepts no problem)" in err


def test_data_that_cannot_be_mended_are_one_line(refused: Refused, tmp_path: Path) -> None:
    assert "no data at 'nowhere'" in refused("data", "nowhere")
    content = coco_content(1)
    content["annotations"] = [annotation(i, 1, [70, 5 + i, 30, 20]) for i in range(4)]
    outside = write_coco(tmp_path / "outside", train=content)
    # No box is left in train; the reason is told, not the consequence.
    assert "4 of 6 boxes lie outside of their image" in refused("data", outside)


def test_damaged_images_are_found_by_decoding_them(gpnas: Gpnas, coco: Path) -> None:
    file = coco / "images/2.png"
    file.write_bytes(file.read_bytes()[:-30])
    _, out, _ = gpnas("data", coco, "--out", "page")
    assert f"problem: train: 1 of 2 images cannot be read and was left out: {file} is truncated" in lines(out)
    assert "1 0 2 0 2 2 train" in lines(out)  # without the damaged image
    assert "no problems were found" in gpnas("data", coco, "--quick", "--out", "page")[1]


def test_a_long_wait_is_announced(gpnas: Gpnas, coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for many, told in ((4, "decoding 4 images to find damaged ones; --quick leaves this out\n"), (5, "")):
        monkeypatch.setattr("gpnas.cli.data.MANY_IMAGES", many)
        assert gpnas("data", coco, "--json")[2] == told


def test_too_many_damaged_images_are_a_refusal(gpnas: Gpnas, tmp_path: Path) -> None:
    content = coco_content(1)
    content["images"] += [{"id": i, "file_name": f"{i}.png", "width": 60, "height": 40} for i in range(11, 15)]
    root = write_coco(tmp_path / "pets", train=content)
    for i in range(11, 15):
        (root / f"images/{i}.png").write_bytes(b"no image")
    code, _, err = gpnas("data", root, "--json")
    assert code == 1 and "train: 4 of 6 images cannot be read (up to 5% would be mended)" in err


def test_data_without_a_split_are_divided_as_split_says(gpnas: Gpnas, coco: Path) -> None:
    _, out, _ = gpnas("data", coco, "--json", "--split", "50/50")
    facts = json.loads(out)
    assert facts["shares"] == "50/50" and facts["splits"].keys() == {"train", "val"}
    assert sum(split["images"] for split in facts["splits"].values()) == 4


@pytest.mark.parametrize("format_", ["coco", "yolo", "voc"])
def test_to_writes_the_data_in_another_format(gpnas: Gpnas, tmp_path: Path, format_: str) -> None:
    source = write_data_yaml(tmp_path / "source")
    for name, value in (("train/b.jpg", 0), ("val/a.png", 90), ("val/b.jpg", 180)):
        write_picture(tmp_path / "source/images" / name, picture() // 2 + value // 4)  # no two images are alike
    code, out, _ = gpnas("data", source, "--to", format_, "new/there", "--out", "page")
    assert code == 0
    assert lines(out)[-1].startswith(f"wrote 4 images and 2 boxes as {format_} into new/there")
    written, old = open_data("new/there"), open_data(str(source))
    for split in ("train", "val"):
        boxes, others = ([r.boxes.round(2).tolist() for r in d.splits[split] if len(r.boxes)] for d in (written, old))
        assert boxes == others != []
    assert set(written.names) <= set(old.names)


def test_to_refuses_a_folder_before_it_reads_anything(refused: Refused, coco: Path) -> None:
    assert "--to coco pets: is not empty; give a new folder" in refused("data", "nowhere", "--to", "coco", "pets")
    assert "--to kitti: must be one of coco, yolo, voc" in refused("data", coco, "--to", "kitti", "new")
    assert "lies inside of the data pets" in refused("data", "pets", "--to", "yolo", "pets/new")
    assert "--to" in refused("data", coco, "--to", "coco")


def test_imgsz_is_checked(refused: Refused, coco: Path) -> None:
    assert "--imgsz 100: must be a positive multiple of 32; try 96" in refused("data", coco, "--imgsz", 100)
