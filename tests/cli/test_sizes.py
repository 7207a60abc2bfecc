"""What `--levels` and `--proxy-imgsz` become, for data of objects of known sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.data.records import DetectionData, Record
from gpnas.cli.sizes import Sizes, room_within, sizes_for
from gpnas.errors import InputError
from gpnas.search.limits import Limits
from search_spaces.blueprint import open_catalogue
from search_spaces.genotype import read_genotype
from search_spaces.gradient_path import open_space


def data_of(sides: Sequence[float], size: int = 1280) -> DetectionData:
    """A square image of `size` pixels for each side, with a square object of that side; val has one object of 1 pixel."""
    tiny, train = a_record(size, 1), tuple(a_record(size, side) for side in sides)
    return DetectionData("made", ("thing",), {"train": train, "val": (tiny,)}, (1,))


def a_record(size: int, side: float) -> Record:
    box = np.array([[0, 0, side, side]], dtype=np.float32)
    return Record(1, size, size, box, np.zeros(1, dtype=np.int64), path=Path("unread.jpg"))


def sizes(sides: Sequence[float], imgsz: int = 640, levels: str = "auto", proxy: int | None = None, **changes: Any) -> Sizes:
    given = {"start": None, "fits": lambda levels: True} | changes
    return sizes_for(levels, proxy, data_of(sides), imgsz, given["start"], given["fits"])


def test_nothing_is_told_where_all_is_as_usual() -> None:
    assert sizes([100, 200]) == Sizes("3-5", 32, 320, ())
    assert sizes([300], imgsz=192) == Sizes("3-5", 32, 192, ())


def test_small_objects_need_stride_4_and_larger_proxies() -> None:
    """26 of 1280 pixels are 13 at 640. They have 8 at 394 pixels; at 416 they have 8.45."""
    assert sizes([26]) == Sizes(
        "2-5",
        32,
        416,
        (
            "levels: 2-5 (stride 4 too), because half of the smaller objects have under 13 px at 640",
            "proxies: images of up to 416 px, where half of the smaller objects have at least 8 px",
        ),
    )


def test_medium_objects_need_larger_proxies_alone() -> None:
    """40 of 1280 pixels are 20 at 640, and 16 at 512."""
    assert sizes([40]) == Sizes(
        "3-5", 32, 512, ("proxies: images of up to 512 px, where half of the smaller objects have at least 16 px",)
    )


def test_large_objects_in_large_images_need_stride_64() -> None:
    told = "levels: 3-6 (stride 64 too), because a tenth of the objects have over 512 px at 1280"
    assert sizes([600], imgsz=1280) == Sizes("3-6", 64, 320, (told,))
    told = (
        "levels: 3-5, although a tenth of the objects have over 512 px at 1312: 3-6 needs an --imgsz that is a multiple of 64"
    )
    assert sizes([600], imgsz=1312) == Sizes("3-5", 32, 320, (told,))


def test_levels_for_which_the_limits_have_no_room_are_not_taken() -> None:
    asked: list[str] = []

    def fits(levels: str) -> bool:
        asked.append(levels)
        return False

    chosen = sizes([26], fits=fits)
    assert (chosen.levels, chosen.proxy_imgsz, asked) == ("3-5", 416, ["2-5"])  # as if levels 2-5 had been taken
    assert chosen.told == (
        "levels: 3-5, although half of the smaller objects have under 13 px at 640: the limits are under 2 times the smallest "
        "architecture on levels 2-5",
        "proxies: images of up to 416 px, where half of the smaller objects have at least 8 px",
    )


def test_room_within_limits_is_twice_the_smallest_architecture() -> None:
    """At 640 pixels that of the PRN space has 380 MFLOPs with levels 3-5 and 803 with 2-5."""
    fits = room_within("prn", 3, Limits(max_flops=1600e6), 640)
    assert fits("3-5") and not fits("2-5")
    assert room_within("prn", 3, Limits(max_flops=1610e6), 640)("2-5")
    assert not room_within("prn", 3, Limits(max_flops=1610e6, max_params=1e4), 640)("2-5")
    assert room_within("prn", 3, Limits(), 640)("2-5")


def test_what_was_given_is_taken_whatever_the_objects_are() -> None:
    told = ("levels: 3-5, as given", "proxies: images of up to 320 px, as given")
    assert sizes([4], levels="3-5", proxy=320) == Sizes("3-5", 32, 320, told)
    assert sizes([600], levels="2-5", fits=lambda levels: False).levels == "2-5"  # `check_limits` will say why not


def test_a_start_gives_its_levels() -> None:
    blueprint, genotype = open_catalogue("gelan-t"), read_genotype(open_space("csp", 1, "2-5").smallest().genotype)
    assert sizes([300], start=blueprint) == Sizes("3-5", 32, 320, ())
    assert sizes([300], start=genotype) == Sizes("2-5", 32, 320, ("levels: 2-5 (stride 4 too), those of --start",))
    assert sizes([26], start=blueprint).levels == "3-5"  # the objects do not change a start
    assert sizes([26], start=blueprint, levels="3-5").levels == "3-5"
    with pytest.raises(InputError, match="--levels 3-6: a search around an architecture keeps its levels, 2-5; leave out"):
        sizes([26], start=genotype, levels="3-6")
