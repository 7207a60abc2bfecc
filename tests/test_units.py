import pytest

from gpnas.errors import InputError
from gpnas.search.budget import Budget, parse_budget
from gpnas.units import brief, clock, parse_count


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget("seconds", 90)),
        ("30m", Budget("seconds", 1800)),
        ("1.5h", Budget("seconds", 5400)),
        ("1d", Budget("seconds", 86400)),
        ("50trials", Budget("trials", 50)),
        ("1 trial", Budget("trials", 1)),
        ("400epochs", Budget("epochs", 400)),
    ],
)
def test_budgets(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["soon", "", "0s", "-5m", "2", "1.5trials", "10 parsecs"])
def test_what_is_no_budget_is_named(text):
    with pytest.raises(InputError, match="not a budget; write 90s"):
        parse_budget(text)


@pytest.mark.parametrize(("text", "value"), [("10G", 10e9), ("2.5m", 2.5e6), ("800K", 8e5), ("1", 1.0), ("1e9", 1e9)])
def test_counts(text, value):
    assert parse_count(text, "--max-flops") == value


@pytest.mark.parametrize("text", ["", "0", "-1G", "many", "10X", "nan", "inf"])
def test_what_is_no_count_is_named(text):
    with pytest.raises(InputError, match=r"--max-flops .*not a positive number"):
        parse_count(text, "--max-flops")


def test_people_read_these():
    assert [brief(x) for x in (3.984e9, 1_640_000, 512)] == ["3.98G", "1.64M", "512"]
    assert [clock(x) for x in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]
