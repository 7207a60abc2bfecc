"""NAS-Bench-201 (arXiv:2001.00326): 15,625 cells in one network, each with a published accuracy; a space with known truth.

A cell has four nodes; node j is the sum of what its edges make of the nodes before it. It is written as six digits, one an
edge, in the order 0->1; 0->2, 1->2; 0->3, 1->3, 2->3, or as NAS-Bench-201 does: `|nor_conv_3x3~0|+|none~0|...|+|...|`.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence

from gpnas.errors import GenotypeError
from gpnas.graph.graph import Graph, GraphBuilder
from gpnas.search.trial import Candidate

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""By digit."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
STAGES = (16, 32, 64)
"""Channels; each stage but the first halves the resolution."""
CELLS = 5
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet16_120": 120}
IMAGE = {"cifar10": 32, "cifar100": 32, "imagenet16_120": 16}
"""Height and width, in pixels."""


def cell_code(text: str) -> str:
    """Six digits from either way of writing a cell. Raises GenotypeError that names the part."""
    text = text.strip().strip("\"'")
    if "|" not in text:
        if len(text) != len(EDGES) or not set(text) <= set("01234"):
            raise GenotypeError(f"a cell is six digits from 0 to 4 (none, skip, 1x1, 3x3, pool), got {text!r}")
        return text
    digits = {}
    for j, node in enumerate(text.split("+"), start=1):
        for part in node.strip("|").split("|"):
            name, _, source = part.partition("~")
            if name not in OPERATIONS or not source.isdecimal() or (int(source), j) not in EDGES:
                raise GenotypeError(f"cell {text!r}: {part!r} is no edge; operations are {', '.join(OPERATIONS)}")
            digits[int(source), j] = str(OPERATIONS.index(name))
    if set(digits) != set(EDGES):
        raise GenotypeError(f"cell {text!r}: has {len(digits)} of the 6 edges")
    return "".join(digits[edge] for edge in EDGES)


def build_cell_network(code: str, classes: int = 10) -> Graph:
    """Stem, three stages of five cells with residual blocks of stride 2 between, global pooling, classifier."""
    b = GraphBuilder(act="relu")
    x = b.conv(b.image, STAGES[0], 3, act="", name="stem")
    for stage, width in enumerate(STAGES):
        with b.scope(f"stage{stage}"):
            if stage:
                x = _reduction(b, x, width)
            for k in range(CELLS):
                with b.scope(f"cell{k}"):
                    x = _cell(b, x, code)
    y = b.linear(b.global_avg_pool(b.act(b.norm(x), "relu")), classes, name="classifier")
    b.output(y, "classes", stride=1)
    return b.build()


def _cell(b: GraphBuilder, x: int, code: str) -> int:
    nodes = [x]
    for j in range(1, 4):
        parts = [_edge(b, nodes[i], digit) for (i, to), digit in zip(EDGES, code, strict=True) if to == j and digit != "0"]
        nodes.append(functools.reduce(b.add, parts) if parts else b.zero(x))
    return nodes[3]


def _edge(b: GraphBuilder, x: int, digit: str) -> int:
    if digit == "1":
        return x
    if digit == "4":
        return b.avg_pool(x, 3, 1, 1)
    return _relu_conv(b, x, b.channels(x), 1 if digit == "2" else 3)


def _relu_conv(b: GraphBuilder, x: int, width: int, kernel: int, stride: int = 1) -> int:
    return b.conv(b.act(x, "relu"), width, kernel, stride, act="")


def _reduction(b: GraphBuilder, x: int, width: int) -> int:
    """A residual block of stride 2 whose shortcut is a pooling and a 1x1 layer without normalisation."""
    with b.scope("reduction"):
        y = _relu_conv(b, _relu_conv(b, x, width, 3, 2), width, 3)
        return b.add(y, b.conv(b.avg_pool(x, 2, 2), width, act="", norm=False, name="shortcut"))


def all_cells() -> list[str]:
    return ["".join(digits) for digits in itertools.product("01234", repeat=len(EDGES))]


class NasBench201Space:
    """The cells, in the network for `classes` classes, as a space: sampled edge by edge, mutated by one edge, crossed."""

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: sampled without parents, mutated from one, crossed from two."""
        codes = [self._code(parent.genotype) for parent in parents]
        if not codes:
            return self._candidate("".join(rng.choice("01234") for _ in EDGES))
        child = "".join(rng.choice(edge) for edge in zip(*codes, strict=True))
        if child in codes:
            k = rng.randrange(len(EDGES))
            child = child[:k] + rng.choice([digit for digit in "01234" if digit != child[k]]) + child[k + 1 :]
        return self._candidate(child)

    def read(self, text: str) -> Candidate:
        return self._candidate(self._code(text))

    def smallest(self) -> Candidate:
        return self._candidate("111111")

    def _candidate(self, code: str) -> Candidate:
        return Candidate(f"cell: '{code}'", f"nb201-{code}", build_cell_network(code, self.classes))

    def _code(self, text: str) -> str:
        key, _, value = text.partition(":")
        if key.strip() != "cell":
            raise GenotypeError(f"a NAS-Bench-201 genotype is `cell: '<six digits>'`, got {text!r:.80}")
        return cell_code(value)
