"""What a search is made of: candidates, fidelities, evaluations, and the two interfaces that a search joins.

    space: Space = ...                                    # search_spaces/
    evaluator: Evaluator = ...                            # evaluators/
    child = space.propose([parent], rng)                  # no parent samples, one mutates, two cross
    result = evaluator.evaluate(child, Fidelity(epochs=4, imgsz=160), Path("trials/7"), print)
    result.state, result.metrics["ap"]

Only `Candidate` enters the core and only `Evaluation` comes back: the core never opens a genotype.
"""

from __future__ import annotations

import enum
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gpnas.graph.graph import Graph


class TrialState(enum.StrEnum):
    """Where one evaluation of one candidate stands. The journal keeps it."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    INFEASIBLE = "infeasible"
    FAILED = "failed"

    @property
    def is_finished(self) -> bool:
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


class Cause(enum.StrEnum):
    """Why a trial failed."""

    OOM = "oom"
    NAN = "nan"
    TIMEOUT = "timeout"
    ERROR = "error"
    LOST = "lost"


@dataclass(frozen=True)
class Candidate:
    """An architecture: `genotype` (YAML text) says how to rebuild it, `hash` is the genotype's canonical hash."""

    genotype: str
    hash: str
    graph: Graph


@dataclass(frozen=True, order=True)
class Fidelity:
    """How thoroughly a candidate is trained.

    epochs: in total, those of its lower fidelities included (but not those of a trial from whose weights it starts).
    imgsz: pixels. data_share: share of the training images, in (0, 1].
    """

    epochs: int
    imgsz: int
    data_share: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.imgsz < 32 or self.imgsz % 32:
            raise ValueError(f"imgsz must be a positive multiple of 32, got {self.imgsz}")
        if not 0 < self.data_share <= 1:
            raise ValueError(f"data_share must lie in (0, 1], got {self.data_share}")


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one evaluation. A complete one has a finite `ap` among its metrics; a failed one has a cause.

    metrics: `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` in [0, 1] (COCO definitions); a size that the
    data lack is absent. seconds: wall clock. epochs: epochs trained in this evaluation. message: one line for a person.
    """

    state: TrialState
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    epochs: int = 0
    cause: Cause | None = None
    message: str = ""

    def __post_init__(self) -> None:
        bad = {k: v for k, v in self.metrics.items() if not math.isfinite(v)}
        if bad:
            raise ValueError(f"metrics must be finite, got {bad}; report a failure with cause nan instead")
        if not self.state.is_finished:
            raise ValueError(f"an evaluation is of a finished trial, got state {self.state}")
        if self.state is TrialState.COMPLETE and "ap" not in self.metrics:
            raise ValueError("a complete evaluation needs the metric 'ap'")
        if (self.state is TrialState.FAILED) != (self.cause is not None):
            raise ValueError(f"a failed evaluation, and only it, has a cause: got {self.state} with cause {self.cause}")


def failure(cause: Cause, message: str, seconds: float = 0.0, epochs: int = 0) -> Evaluation:
    """An evaluation that ended without a result."""
    return Evaluation(TrialState.FAILED, {}, seconds, epochs, cause, message)


Report = Callable[[dict[str, Any]], None]
"""Called during an evaluation, after each epoch, with {"epoch": int, "epochs": int, "loss": float, ...}."""


class Space(Protocol):
    """What can be searched.

    propose([], rng) samples, propose([a], rng) mutates a, propose([a, b], rng) crosses two; read(text) rebuilds a candidate
    from its YAML and raises GenotypeError; smallest() is the candidate with the fewest MACs (what an impossible limit names).
    """

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate: ...

    def read(self, text: str) -> Candidate: ...

    def smallest(self) -> Candidate: ...


_PARENTS = {"sample": 0, "smallest": 0, "start": 0, "mutate smallest": 0, "mutate": 1, "cross": 2}
"""Kinds of origin, each with its number of parents."""

_ORIGIN_TEXT = re.compile(rf"({'|'.join(_PARENTS)})((?: \d+)*)(?: warm (\d+))?")


@dataclass(frozen=True)
class Origin:
    """How a trial's candidate was made; `str` gives the text that journals and reports show, such as "mutate 7 warm 3".

    kind: "sample" (drawn from the space), "smallest" (the space's smallest candidate), "mutate smallest" (of it or of its
    mutants), "start" (given by the user), "mutate" (of one trial) or "cross" (of two). parents: ids of those trials. lender: id
    of the trial from whose weights this one starts; None when it starts from scratch.
    """

    kind: str
    parents: tuple[int, ...] = ()
    lender: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in _PARENTS:
            raise ValueError(f"the kind of an origin must be one of {', '.join(_PARENTS)}, got {self.kind!r}")
        if len(self.parents) != _PARENTS[self.kind]:
            raise ValueError(f"an origin of kind {self.kind!r} has {_PARENTS[self.kind]} parents, got {self.parents}")
        if self.lender is not None and not self.parents:
            raise ValueError(f"only a child of trials has a lender, got kind {self.kind!r} with lender {self.lender}")

    def __str__(self) -> str:
        warm = () if self.lender is None else ("warm", self.lender)
        return " ".join(map(str, (self.kind, *self.parents, *warm)))

    @classmethod
    def parse(cls, text: str) -> Origin:
        """The origin that `str` gives as `text`. Raises ValueError."""
        match = _ORIGIN_TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f'not an origin: {text!r}; expected for example "sample", "cross 3 5" or "mutate 7 warm 3"')
        kind, parents, lender = match.groups()
        try:
            return cls(kind, tuple(map(int, parents.split())), None if lender is None else int(lender))
        except ValueError as error:
            raise ValueError(f"not an origin: {text!r}; {error}") from None


LENDER = "lender"
"""The link in a trial's folder to the folder of the trial from whose weights it starts."""

CHECKPOINTS = "checkpoint*.pt"
"""Names, in a trial's folder, of the files from which a higher fidelity continues. A search removes them once the trial cannot
be promoted any more."""


def checkpoint_name(epochs: int) -> str:
    """The name of a trial's checkpoint after `epochs` epochs in total. It matches CHECKPOINTS."""
    return CHECKPOINTS.replace("*", f"-{epochs}")


def checkpoint_epochs(name: str) -> int | None:
    """The epochs of a checkpoint of this name; None for another file."""
    match = re.fullmatch(re.escape(CHECKPOINTS).replace(r"\*", r"-(\d+)"), name)
    return int(match[1]) if match else None


MEMORY_BYTES = "memory_bytes"
"""The metric by which an evaluator reports the peak of the GPU memory that its tensors took, in bytes."""


class Evaluator(Protocol):
    """How good a candidate is. Picklable: it runs in worker processes.

    evaluate(candidate, fidelity, trial_dir, report) trains or looks up `candidate`. `trial_dir` exists and belongs to the
    candidate alone: what a lower fidelity left there (a checkpoint) may be continued. Where a search lets children start from
    a parent's weights, `trial_dir / LENDER` leads to the folder of the trial whose they are, which had this fidelity.
    Expected failures (out of memory, NaN) come back as an Evaluation with a cause; anything raised is recorded by the caller
    with cause error.
    """

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation: ...
