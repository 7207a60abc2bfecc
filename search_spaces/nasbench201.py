"""NAS-Bench-201 (arXiv:2001.00326): 15,625 cells in one network, as a space; the accuracy of every cell is published.

A cell has four nodes. An edge applies its operation to an earlier node; a node is the sum of its edges. A cell is written as
six digits, one for each edge in the order 0->1; 0->2, 1->2; 0->3, 1->3, 2->3, or as in NAS-Bench-201, with the source of each
edge: `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`.
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
"""Operations of an edge, by digit."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From node, to node."""

STAGES = (16, 32, 64)
"""Channels of each stage. All stages but the first halve the resolution."""

CELLS = 5
"""Cells in a stage."""

IMAGE_SIZE = 32
"""Height and width, in pixels, of an image of CIFAR-10."""


def cell_code(text: str) -> str:
    """The six digits of a cell that is written in either way. Raises GenotypeError that names the wrong part."""
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
    """The network of a cell: a stem, three stages of five cells, a residual block of stride 2 before the second and the third,
    global pooling, a classifier. code: six digits. Outputs: (batch, classes, 1, 1)."""
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
    """A residual block of stride 2; its shortcut is an average pooling and a 1x1 layer without normalisation."""
    with b.scope("reduction"):
        y = _relu_conv(b, _relu_conv(b, x, width, 3, 2), width, 3)
        return b.add(y, b.conv(b.avg_pool(x, 2, 2), width, act="", norm=False, name="shortcut"))


def all_cells() -> list[str]:
    """The codes of all cells."""
    return ["".join(digits) for digits in itertools.product("01234", repeat=len(EDGES))]


class NasBench201Space:
    """The cells, in the network for `classes` classes (gpnas.search.trial.Space)."""

    def __init__(self, classes: int = 10) -> None:
        self.classes = classes

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A candidate: sampled edge by edge without parents, a parent with another operation on one edge, or a crossing of
        two parents edge by edge, which is mutated when it equals one of them."""
        codes = [self._code(parent.genotype) for parent in parents]
        if not codes:
            return self._candidate("".join(rng.choice("01234") for _ in EDGES))
        child = "".join(rng.choice(edge) for edge in zip(*codes, strict=True))
        if child in codes:
            k = rng.randrange(len(EDGES))
            child = child[:k] + rng.choice([digit for digit in "01234" if digit != child[k]]) + child[k + 1 :]
        return self._candidate(child)

    def read(self, text: str) -> Candidate:
        """The candidate of `cell: '<six digits>'`. Raises GenotypeError."""
        return self._candidate(self._code(text))

    def smallest(self) -> Candidate:
        """The cell of identities: without layers, it has the fewest MACs of all cells through which the image passes."""
        return self._candidate("111111")

    def _candidate(self, code: str) -> Candidate:
        return Candidate(f"cell: '{code}'", f"nb201-{code}", build_cell_network(code, self.classes))

    def _code(self, text: str) -> str:
        key, _, value = text.partition(":")
        if key.strip() != "cell":
            raise GenotypeError(f"a NAS-Bench-201 genotype is `cell: '<six digits>'`, got {text!r:.80}")
        return cell_code(value)
