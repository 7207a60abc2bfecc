"""What a search is made of: candidates, fidelities, evaluations, trials, and the two interfaces that a search joins.

    space: Space = ...                                    # search_spaces/
    evaluator: Evaluator = ...                            # evaluators/
    child = space.propose([parent], rng)                  # [] samples, [a] mutates a, [a, b] crosses a and b
    result = evaluator.evaluate(child, Fidelity(epochs=4, imgsz=160), Path("trials/7"), print)
    result.state, result.metrics["ap"]

A space makes candidates and an evaluator gives evaluations. `gpnas` itself never opens a genotype.
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

from gpnas.graph.cost import Cost
from gpnas.graph.graph import Graph


class TrialState(enum.StrEnum):
    """The state of one evaluation of one trial, as the journal stores it."""

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
    """An architecture. genotype: YAML text from which its space rebuilds it. hash: the canonical hash of the genotype."""

    genotype: str
    hash: str
    graph: Graph


@dataclass(frozen=True, order=True)
class Fidelity:
    """How thoroughly a candidate is trained.

    epochs: in total, those of its lower fidelities included (but not those of a trial from whose weights it starts).
    imgsz: pixels. data_share: share of the training images, in (0, 1]. seed: number of the repetition. Trainings of a candidate
    with other seeds start from other weights and see the images in another order.
    """

    epochs: int
    imgsz: int
    data_share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        if self.imgsz < 32 or self.imgsz % 32:
            raise ValueError(f"imgsz must be a positive multiple of 32, got {self.imgsz}")
        if not 0 < self.data_share <= 1:
            raise ValueError(f"data_share must lie in (0, 1], got {self.data_share}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class Evaluation:
    """The outcome of one evaluation. A complete one has the metric `ap`; a failed one has a cause.

    metrics: `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` in [0, 1], as COCO defines them, without the sizes that
    the data lack; all are finite. seconds: wall clock. epochs: trained in this evaluation. message: one line for a person.
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
            raise ValueError(f"an evaluation has ended, its state cannot be {self.state}")
        if self.state is TrialState.COMPLETE and "ap" not in self.metrics:
            raise ValueError("a complete evaluation needs the metric 'ap'")
        if (self.state is TrialState.FAILED) != (self.cause is not None):
            raise ValueError(f"failed evaluations have a cause, others have none; got {self.state} with cause {self.cause}")


def failure(cause: Cause, message: str, seconds: float = 0.0, epochs: int = 0) -> Evaluation:
    """An evaluation that ended without a result."""
    return Evaluation(TrialState.FAILED, {}, seconds, epochs, cause, message)


_PARENTS = {
    "sample": 0,
    "smallest": 0,
    "start": 0,
    "baseline": 0,
    "mutate smallest": 0,
    "mutate sample": 0,
    "mutate": 1,
    "cross": 2,
}
"""Kinds of origin, each with its number of parents."""

_ORIGIN_TEXT = re.compile(rf"({'|'.join(_PARENTS)})((?: \d+)*)(?: warm (\d+))?")
_BASELINE_TEXT = re.compile(r"baseline (\S+)")


@dataclass(frozen=True)
class Origin:
    """How a trial's candidate was made; `str` gives the text that journals and reports show, such as "mutate 7 warm 3".

    kind: "sample" (drawn from the space), "smallest" (the space's smallest candidate), "mutate smallest" (of it or of its
    mutants), "mutate sample" (of candidates near the limits or of their mutants), "start" (given by the user), "baseline" (a
    known architecture, for comparison), "mutate" (of one trial) or "cross" (of two; where a space cannot mix them, a mutation
    of the first). parents: ids of those trials. lender: id of the trial from whose weights this one starts; None when it
    starts from scratch. name: of a baseline, without spaces.
    """

    kind: str
    parents: tuple[int, ...] = ()
    lender: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _PARENTS:
            raise ValueError(f"the kind of an origin must be one of {', '.join(_PARENTS)}, got {self.kind!r}")
        if len(self.parents) != _PARENTS[self.kind]:
            raise ValueError(f"an origin of kind {self.kind!r} has {_PARENTS[self.kind]} parents, got {self.parents}")
        if self.lender is not None and not self.parents:
            raise ValueError(f"only a child of trials has a lender, got kind {self.kind!r} with lender {self.lender}")
        if self.kind != "baseline" and self.name:
            raise ValueError(f"only a baseline has a name, got kind {self.kind!r} with name {self.name!r}")
        if self.kind == "baseline" and not _BASELINE_TEXT.fullmatch(str(self)):
            raise ValueError(f"a baseline has a name without spaces, got {self.name!r}")

    @property
    def is_known(self) -> bool:
        """Whether the architecture was there before the search: a baseline or the start. What a search finds is compared
        with it."""
        return self.kind in ("baseline", "start")

    def __str__(self) -> str:
        warm = () if self.lender is None else ("warm", self.lender)
        return " ".join(map(str, (self.kind, *((self.name,) if self.name else ()), *self.parents, *warm)))

    @classmethod
    def parse(cls, text: str) -> Origin:
        """The origin that `str` gives as `text`. Raises ValueError."""
        if baseline := _BASELINE_TEXT.fullmatch(text):
            return cls("baseline", name=baseline[1])
        match = _ORIGIN_TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f'not an origin: {text!r}; expected for example "sample", "cross 3 5" or "mutate 7 warm 3"')
        kind, parents, lender = match.groups()
        try:
            return cls(kind, tuple(map(int, parents.split())), None if lender is None else int(lender))
        except ValueError as error:
            raise ValueError(f"not an origin: {text!r}; {error}") from None


DETECTOR_SCORE = "detector_score"
"""Name of the feature that ranks detectors before training (gpnas.paths.score.detector_score). Other candidates lack it."""


@dataclass(frozen=True)
class Trial:
    """A candidate that a search trains. Trials are numbered from 0.

    cost: of its fused inference form on one image of the run's size. features: by name, as of `gpnas.paths.features`.
    """

    id: int
    candidate: Candidate
    origin: Origin
    features: Mapping[str, float]
    cost: Cost

    @property
    def score(self) -> float:
        """The figure before training by which reports rank: the detector score, in a space without it the score."""
        return self.features.get(DETECTOR_SCORE, self.features["score"])

    @property
    def lender(self) -> int | None:
        """Id of the trial from whose weights it starts; None when it starts from scratch."""
        return self.origin.lender


Report = Callable[[dict[str, Any]], None]
"""Called during an evaluation, after each epoch, with {"epoch": int, "epochs": int, "loss": float, ...}."""


class Space(Protocol):
    """The candidates that can be searched.

    propose([], rng) samples one, propose([a], rng) mutates a, propose([a, b], rng) crosses a and b. read(genotype) rebuilds a
    candidate and raises GenotypeError. smallest() is the candidate with the fewest MACs, which the message about an impossible
    limit names.
    """

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate: ...

    def read(self, text: str) -> Candidate: ...

    def smallest(self) -> Candidate: ...


FIRST_FRESH = 10
"""The search explores with seeds below it. The last phase, which confirms the leaders, uses seeds from it on, so that no seed
which made a trial a leader counts in its confirmed AP."""


def seed_folder(trial_dir: Path, seed: int) -> Path:
    """The folder of a trial's evaluations with `seed`: that of the trial itself for seed 0."""
    return trial_dir / f"seed-{seed}" if seed else trial_dir


LENDER = "lender"
"""Name of the link, in a trial's folder, to the folder of the trial from whose weights it starts."""

CHECKPOINTS = "checkpoint*.pt"
"""Pattern of the files, in a trial's folder, from which a higher fidelity continues. A search removes them when the trial
cannot be promoted any more."""


def checkpoint_name(epochs: int) -> str:
    """The name of a trial's checkpoint after `epochs` epochs in total. It matches CHECKPOINTS."""
    return CHECKPOINTS.replace("*", f"-{epochs}")


def checkpoint_epochs(name: str) -> int | None:
    """The epochs of a checkpoint of this name; None for another file."""
    match = re.fullmatch(re.escape(CHECKPOINTS).replace(r"\*", r"-(\d+)"), name)
    return int(match[1]) if match else None


MEMORY_BYTES = "memory_bytes"
"""Name of the metric by which an evaluator reports the most GPU memory that its process reserved, in bytes."""


class Evaluator(Protocol):
    """How good a candidate is. An evaluator can be pickled: it runs in worker processes.

    evaluate(candidate, fidelity, trial_dir, report) trains `candidate` or looks it up. The folder `trial_dir` exists and
    belongs to this candidate and to the fidelity's seed (`seed_folder`); an evaluation may continue from the checkpoint that a
    lower fidelity left there. When the trial starts from weights of another, `trial_dir / LENDER` links to the folder of that
    trial, which completed this fidelity. Expected failures (out of memory, NaN) are returned as an Evaluation with a cause. The
    caller records any exception with the cause "error".
    """

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation: ...
