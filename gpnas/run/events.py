"""What happens in the loop of a search, for those who watch it: displays, tables and W&B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpnas.search.controller import Suggestion
from gpnas.search.trial import Evaluation


@dataclass(frozen=True)
class Started:
    """An evaluation was handed to a worker."""

    suggestion: Suggestion


@dataclass(frozen=True)
class Progressed:
    """An evaluation goes on. data: what the evaluator reported last: epoch, epochs, loss and more."""

    suggestion: Suggestion
    data: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """An evaluation ended, well or not, and is in the journal."""

    suggestion: Suggestion
    evaluation: Evaluation


@dataclass(frozen=True)
class Confirming:
    """The search begins to confirm these trials with `seeds` fresh seeds each, or goes on with it in a new session.

    trials: ids, the slowest first. It may happen again with other trials: late results may change the leaders.
    """

    trials: tuple[int, ...]
    seeds: int


@dataclass(frozen=True)
class Waiting:
    """All messages of the workers were handled; the loop decides next what else may start.

    left: seconds until the search ends, as far as can be told; None before anything ended.
    """

    left: float | None = None


@dataclass(frozen=True)
class Noted:
    """Something that the user should know, in one line: a plan that changed, or a confirmation that cannot be paid for."""

    text: str


Event = Started | Progressed | Finished | Confirming | Waiting | Noted
