"""Everything that is told of a data set, as one object for JSON: the terminal and the page are views of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evaluators.data.damaged import Readable
from evaluators.data.problems import MOST_MENDED, Problem
from evaluators.data.records import DetectionData
from evaluators.data.summary import advice, summarize


def data_facts(found: DetectionData, readable: Readable, imgsz: int, strict: bool) -> dict[str, Any]:
    """The facts of a data set. readable: `found` without its damaged images, which are in no number.

    "refusal" says why a search would refuse the data (with `strict`: why one with --strict would), and is empty if none would.
    """
    summary = summarize(readable.data, imgsz)
    by_split = [("", problem) for problem in found.problems]
    by_split += [(split, problem) for split, problems in readable.problems.items() for problem in problems]
    return {
        "source": found.source,
        "format": found.format,
        "shares": found.shares,
        **asdict(summary),
        "problems": [_problem(split, problem) for split, problem in by_split],
        "problems_text": [_in_split(split, str(problem)) for split, problem in by_split],
        "notes": list(found.notes),
        "advice": advice(summary),
        "refusal": _refusal(by_split, strict),
    }


def _problem(split: str, problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind.name.lower(),
        "split": split,
        "count": problem.count,
        "total": problem.total,
        "examples": list(problem.examples),
    }


def _refusal(by_split: list[tuple[str, Problem]], strict: bool) -> str:
    bad = [_in_split(split, problem.fact) for split, problem in by_split if strict or problem.is_too_much]
    if not bad:
        return ""
    why = "--strict accepts no problem" if strict else f"up to {MOST_MENDED:.0%} would be mended"
    return f"{'; '.join(bad)} ({why}); correct the annotations or the images"


def _in_split(split: str, text: str) -> str:
    return f"{split}: {text}" if split else text
