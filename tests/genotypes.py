"""Hypothesis strategies over the search space: a drawn seed, and the candidate that the space proposes for it."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from gpnas.search.trial import Candidate
from search_spaces.gradient_path import GradientPathSpace

CLASSES = 3

SMALL: dict[str, Sequence[Any]] = {
    "stem.width": (8, 16),
    "backbone.0.width": (16, 24),
    "backbone.1.width": (24, 32),
    "backbone.2.width": (32, 48),
    "backbone.3.width": (48, 64),
    "neck.0.width": (32,),
    "neck.1.width": (24,),
    "neck.2.width": (32,),
    "neck.3.width": (48,),
    "head.width": (16,),
    "repeats": (1, 2),
}
"""The union space with small widths: every family, unit, fusion, downsampling and PGI, but quick to run."""


@functools.cache
def space(small: bool = True) -> GradientPathSpace:
    """The union space for 3 classes, narrowed to small widths or whole. Made on first use: importing nni takes a second."""
    return GradientPathSpace(CLASSES, SMALL if small else None)


def genotypes(small: bool = True) -> st.SearchStrategy[Candidate]:
    """Candidates sampled from the union space; small ones unless `small` is False."""
    seeds = st.integers(0, 2**32 - 1)
    return seeds.map(lambda seed: space(small).propose([], random.Random(seed)))
