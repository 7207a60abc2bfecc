"""The space of gradient-path detectors: every choice and its values, stated with nni.mutable, and proposals from it.

    space = GradientPathSpace(classes=3)                  # the union space "gradient-path", on levels 3-5
    a, b = space.propose([], rng), space.propose([], rng)
    child = space.propose([a, b], rng)

A point is a flat dict {label: value} over all labels of the `MutableDict`; see `choices`. One constraint holds between labels:
the widths of the backbone do not shrink with depth. NNI's own `random()` ignores constraints. Points are therefore drawn here,
from the caller's generator, and checked against NNI's statement of the space.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpnas.errors import GenotypeError, InputError
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate, deployed_macs
from search_spaces.choice_values import SPACES, Values, narrow, read_space_file, union_values
from search_spaces.choices import Point, active_labels, backbone_labels, choices_of, genotype_of
from search_spaces.genotype import Genotype, Levels, read_genotype

if TYPE_CHECKING:
    from nni.mutable import MutableDict

ATTEMPTS = 1000
"""Draws for one proposal before the space counts as empty."""

CROSSINGS = 100
"""Crossings to try before one of the parents is mutated instead: parents that hardly differ have no new child."""


def open_space(spec: str, classes: int, levels: Levels = "3-5") -> GradientPathSpace:
    """A ready space by name, or one from a YAML file: `base: NAME` and `values: {label: [value, ...]}` that narrow it.

    A label may be given in full (backbone.0.width) or by its end (family). Raises GenotypeError that names the key.
    """
    if spec in SPACES:
        return GradientPathSpace(classes, SPACES[spec], levels=levels)
    if not Path(spec).is_file():
        raise GenotypeError(f"--space {spec}: no such space or file; ready spaces are {', '.join(SPACES)}")
    return GradientPathSpace(classes, read_space_file(Path(spec)), where=spec, levels=levels)


class GradientPathSpace:
    """Detectors for `classes` classes over the union space, narrowed by `narrowed` (gpnas.search.trial.Space).

    levels: on which all of them predict. mutable: NNI's statement of the space. values: by label.
    """

    def __init__(
        self,
        classes: int,
        narrowed: Mapping[str, Sequence[Any]] | None = None,
        where: str = "space",
        levels: Levels = "3-5",
    ) -> None:
        self.classes, self.levels = classes, levels
        self._rising = _rising_widths(levels)
        self.mutable = _declare(narrow(union_values(levels), narrowed or {}, where, levels), self._rising)
        domain = self.mutable.simplify()
        self.values: dict[str, list[Any]] = {
            label: list(choice.values) for label, choice in domain.items() if hasattr(choice, "values")
        }
        self._widths = {label for label in self.values if label.endswith(".width")}

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: sampled without parents, mutated from one, crossed from two.

        Raises GenotypeError when no valid one is drawn in ATTEMPTS draws.
        """
        points = [self._point(read_genotype(parent.genotype), rng) for parent in parents]
        hashes = {parent.hash for parent in parents}
        for attempt in range(ATTEMPTS):
            if not points:
                point = self._sample(rng)
            elif len(points) == 1 or attempt > CROSSINGS:
                point = self._mutate(points[0], rng)
            else:
                point = self._cross(points, rng)
            child = self._built(self._with_rising_widths(point))
            # In a space of one point, the only child is the parent itself.
            if child is not None and (child.hash not in hashes or attempt > ATTEMPTS // 2):
                return child
        raise GenotypeError(f"no valid architecture in {ATTEMPTS} draws: the space is narrowed too far; allow more values")

    def read(self, text: str) -> Candidate:
        """The candidate of a genotype's YAML. Raises GenotypeError."""
        return candidate(read_genotype(text))

    def smallest(self) -> Candidate:
        """A candidate that no change of a single choice makes cheaper in MACs."""
        point = self._with_rising_widths({label: _cheapest(label, values) for label, values in self.values.items()})
        smallest = self._built(point)
        if smallest is None:  # the least of everything may leave no channels for a path
            rng = random.Random(0)
            smallest = self.propose([], rng)
            point = self._point(read_genotype(smallest.genotype), rng)
        while True:
            before = deployed_macs(smallest)
            for label, values in self.values.items():
                for value in values:
                    changed = point | {label: value}
                    other = self._built(changed) if value != point[label] else None
                    if other is not None and deployed_macs(other) < deployed_macs(smallest):
                        point, smallest = changed, other
            if deployed_macs(smallest) == before:
                return smallest

    def _built(self, point: Point) -> Candidate | None:
        """The candidate at `point`; None outside of the space, and where the choices fit no channels."""
        if not self.mutable.contains(point):
            return None
        try:
            return candidate(genotype_of(point, self.classes, self.levels))
        except GenotypeError:
            return None

    def _with_rising_widths(self, point: Point) -> Point:
        """`point` with backbone stages widened, where it takes that for each to be as wide as the one before it."""
        point = dict(point)
        for before, after in self._rising:
            if point[after] < point[before]:
                point[after] = min((w for w in self.values[after] if w >= point[before]), default=point[after])
        return point

    def _sample(self, rng: random.Random) -> Point:
        # One size for the whole candidate: independent widths would mostly be medium, and costs would cluster.
        size = rng.random()
        point = {}
        for label, values in self.values.items():
            if label in self._widths:
                values = values[: 1 + round(size * (len(values) - 1))][-3:]
            point[label] = values[int(rng.random() * len(values))]  # `rng.choice` takes three times as long, for 80 labels
        return point

    def _mutate(self, point: Point, rng: random.Random) -> Point:
        """One to three of the choices that have an effect, drawn again."""
        active = sorted(active_labels(point, self.levels) & {label for label, values in self.values.items() if len(values) > 1})
        point = dict(point)
        for label in rng.sample(active, min(len(active), rng.choice((1, 1, 2, 3)))):
            values = self.values[label]
            if label.endswith(".width") and point[label] in values:
                position = values.index(point[label])  # a step, not a jump: the cost should change gently
                values = values[max(0, position - 1) : position + 2]
            point[label] = rng.choice([value for value in values if value != point[label]])
        return point

    def _cross(self, points: Sequence[Point], rng: random.Random) -> Point:
        """Whole stages from either parent, because the choices of a stage act together."""
        donors: dict[str, Point] = {}
        child = {}
        for label in self.values:
            part = label.rsplit(".", 1)[0]
            donor = donors.setdefault(part, rng.choice(points))
            child[label] = donor[label]
        return child

    def _point(self, genotype: Genotype, rng: random.Random) -> Point:
        """All labels of a genotype. Those without effect in it are drawn: a mutation of a family may give them an effect.

        A genotype from outside of the space may have values that the space lacks. They become the nearest number of the space;
        what is no number is drawn. A genotype of other levels gives the stages that the space has too; the rest are drawn.
        """
        point = {label: rng.choice(values) for label, values in self.values.items()}
        choices = {label: value for label, value in choices_of(genotype).items() if label in point}
        return point | {
            label: value if value in self.values[label] else _nearest(value, self.values[label], point[label])
            for label, value in choices.items()
        }


def _rising_widths(levels: Levels) -> list[tuple[str, str]]:
    """The labels of the width of each stage of the backbone and of the next one, which may not be narrower."""
    return list(itertools.pairwise(f"{stage}.width" for stage in backbone_labels(levels)))


def _declare(values: Values, rising: Sequence[tuple[str, str]]) -> MutableDict:
    try:
        # Late: nni.mutable takes seconds to import, and `gpnas show` and `gpnas --help` do without it.
        from nni.mutable import Categorical, ExpressionConstraint, MutableDict
    except ImportError as error:
        raise InputError("a search needs nni, which is not installed; run `pip install 'gpnas[nni]'`") from error

    choices: dict[str, Any] = {label: Categorical(list(options), label=label) for label, options in values.items()}
    for i, (before, after) in enumerate(rising):
        narrower, wider = choices[before], choices[after]
        choices[f"widths.{i}"] = ExpressionConstraint(narrower <= wider, label=f"widths.{i}")
    return MutableDict(choices)


def _nearest(value: Any, values: Sequence[Any], default: Any) -> Any:
    """The number of `values` that is nearest to `value`; `default` when these are no numbers."""
    if isinstance(value, int | float) and all(isinstance(v, int | float) for v in values):
        return min(values, key=lambda v: (abs(v - value), v))
    return default


def _cheapest(label: str, values: Sequence[Any]) -> Any:
    """The value that, by a guess, costs the fewest MACs."""
    if label.endswith(".downsample"):
        return "max_pool" if "max_pool" in values else values[0]
    if all(isinstance(value, int | float) for value in values):
        return max(values) if label.endswith(".mask_ratio") else min(values)
    return values[0]
