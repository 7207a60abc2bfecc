"""Problems are counted, told with three examples, and refused when there are too many."""

from __future__ import annotations

import pytest

from evaluators.data.problems import Findings, Kind, Problem, check_problems
from gpnas.errors import DataError


def test_a_problem_reads_as_a_sentence() -> None:
    assert (
        str(Problem(Kind.CUT, 1, 3713, ("a.xml, object 3",))) == "1 of 3713 boxes leaves its image and was cut: a.xml, object 3"
    )
    many = Problem(Kind.MISSING, 4, 9, ("a.jpg", "b.jpg", "c.jpg"))
    assert str(many) == "4 of 9 images have no file and were left out: a.jpg; b.jpg; c.jpg; ..."
    assert str(Problem(Kind.TWO_SPLITS, 1, 1, ("a = b",))) == "1 of 1 image is in two splits: a = b"


def test_findings_count_by_kind_and_keep_the_first_three_examples() -> None:
    found = Findings()
    for i in range(5):
        found.add(Kind.NOT_A_LINE, f"line {i}")
    found.add_all(Kind.CUT, 2, ["first", "second"])
    found.add_all(Kind.CUT, 7, ["third", "fourth"])
    found.add_all(Kind.OUTSIDE, 0, ["never"])
    assert found.problems({"box": 100, "line": 60, "image": 3}) == (
        Problem(Kind.CUT, 9, 100, ("first", "second", "third")),
        Problem(Kind.NOT_A_LINE, 5, 60, ("line 0", "line 1", "line 2")),
    )


@pytest.mark.parametrize(
    ("count", "total", "too_much"), [(3, 3, False), (4, 80, False), (4, 79, True), (50, 1000, False), (51, 1000, True)]
)
def test_more_than_three_and_more_than_a_twentieth_are_too_many(count: int, total: int, too_much: bool) -> None:
    assert Problem(Kind.NO_AREA, count, total, ("x",)).is_too_much is too_much


def test_the_same_image_in_two_splits_is_never_too_much_but_strictness_refuses_it() -> None:
    problem = Problem(Kind.TWO_SPLITS, 100, 100, ("a = b",))
    check_problems("pets", [problem], strict=False)
    with pytest.raises(DataError, match=r"^pets: 100 of 100 images are in two splits: a = b; \.\.\. \(--strict accepts none"):
        check_problems("pets", [problem], strict=True)


def test_all_that_is_too_much_is_told_at_once_and_the_rest_is_not() -> None:
    problems = [
        Problem(Kind.CUT, 60, 100, ("one",)),
        Problem(Kind.NO_AREA, 2, 100, ("two",)),
        Problem(Kind.MISSING, 9, 10, ("three",)),
    ]
    with pytest.raises(DataError) as refused:
        check_problems("pets", problems, strict=False)
    message = str(refused.value)
    assert "60 of 100 boxes leave their image: one; ..." in message and "9 of 10 images have no file: three" in message
    assert "two" not in message and "up to 5% would be mended" in message and "were cut" not in message
