"""Budgets as users write them."""

from __future__ import annotations

import pytest

from gpnas.errors import InputError
from gpnas.search.budget import Budget, parse_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget("seconds", 90)),
        ("1s", Budget("seconds", 1)),
        ("30m", Budget("seconds", 1800)),
        ("1.5h", Budget("seconds", 5400)),
        (" 2 H ", Budget("seconds", 7200)),
        ("0.25m", Budget("seconds", 15)),
        ("2d", Budget("seconds", 172_800)),
        ("50trials", Budget("trials", 50)),
        ("1 trial", Budget("trials", 1)),
        ("3.0trials", Budget("trials", 3)),
        ("400epochs", Budget("epochs", 400)),
        ("1epoch", Budget("epochs", 1)),
    ],
)
def test_a_budget_is_parsed(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["soon", "", "0s", "0.9s", "-5m", "2", "1.5trials", "0trials", "0epochs", "10 parsecs", "2h30m"]
)
def test_other_text_is_no_budget_and_is_named(text: str) -> None:
    with pytest.raises(InputError, match=f"^--budget {text}: not a budget; write 90s"):
        parse_budget(text)
