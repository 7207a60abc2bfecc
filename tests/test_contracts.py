"""The contract suites, run on every implementation."""

import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluators.data.open import DataSource
from evaluators.proxy import ProxyEvaluator
from evaluators.tabular import Curve, TabularEvaluator
from gpnas.graph.graph import Branch
from gpnas.search.trial import Candidate, Evaluator, Fidelity, Space
from search_spaces.blueprint import open_catalogue, read_blueprint
from search_spaces.gradient_path import GradientPathSpace
from search_spaces.joined import Joined
from search_spaces.neighbourhood import Neighbourhood
from search_spaces.tabular import TabularSpace
from search_spaces.yolobench import YoloBenchSpace
from tests.contracts import EvaluatorContract, SpaceContract
from tests.grid import GridEvaluator, GridSpace, grid_candidate

NARROW = {"depth": (1,), "repeats": (1,), "stem.width": (8,), "width": (16,), "pgi.kind": ("none", "deep_supervision")}

FOUR_LEVELS = """
schema: 1
name: four-levels
blocks:
- {block: conv, width: 16, kernel: 3, stride: 2}
- {name: p2, block: csp, width: 16, depth: 1, unit: plain, split_ratio: 0.5, hidden_ratio: 0.5, fusion: csp}
- {block: conv, width: 16, kernel: 3, stride: 2}
- {name: p3, block: aconv, width: 24}
- {name: p4, block: conv, width: 32, kernel: 3, stride: 2}
- {name: p5, block: max_pool, width: 40}
- {name: p6, block: adown, width: 48}
- {block: detect, from: [p3, p4, p5, p6], classes: 2, box_width: 16, class_width: 16}
"""


@pytest.fixture(scope="module")
def narrow_space() -> GradientPathSpace:
    return GradientPathSpace(1, NARROW)


class TestGridSpace(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return GridSpace()


class TestGradientPathSpace(SpaceContract):
    @pytest.fixture
    def space(self, narrow_space: GradientPathSpace) -> Space:
        return narrow_space


class TestGradientPathSpaceOnLevels2To5(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return GradientPathSpace(1, NARROW, levels="2-5")


class TestGradientPathSpaceOnLevels3To6(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return GradientPathSpace(1, NARROW, levels="3-6")


class TestNeighbourhood(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return Neighbourhood(open_catalogue("yolov9-t"), 3)


class TestNeighbourhoodOfFourLevels(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return Neighbourhood(read_blueprint(FOUR_LEVELS), 3)

    def test_all_predict_on_the_levels_of_the_start(self, space: Space) -> None:
        rng = random.Random(0)
        parent = space.propose([], rng)
        for proposed in (parent, space.propose([parent], rng), space.smallest(), *(space.propose([], rng) for _ in range(9))):
            assert [out.stride for out in proposed.graph.outputs if out.branch is Branch.MAIN] == [8, 16, 32, 64]


class TestSpaceWithBaselines(SpaceContract):
    @pytest.fixture
    def space(self, narrow_space: GradientPathSpace) -> Space:
        return Joined(narrow_space, [Neighbourhood(open_catalogue(name), 1) for name in ("gelan-t", "yolov9-t")])


class TestNeighbourhoodWithBaselines(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return Joined(Neighbourhood(open_catalogue("yolov9-t"), 3), [Neighbourhood(open_catalogue("gelan-t"), 3)])


class TestTabularSpace(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        candidates = [grid_candidate(width, depth) for width in (4, 8, 32) for depth in (1, 3, 4, 9)]
        return TabularSpace(candidates, [json.loads(candidate.genotype) for candidate in candidates])


class TestYoloBenchSpace(SpaceContract):
    @pytest.fixture
    def space(self) -> Space:
        return YoloBenchSpace(classes=3)


class TestTabularEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, candidate: Candidate) -> Evaluator:
        return TabularEvaluator({candidate.hash: Curve((0.1, 0.2, 0.4), 6.0)})

    @pytest.fixture
    def candidate(self) -> Candidate:
        return grid_candidate(8, 2)

    @pytest.fixture
    def fidelities(self) -> list[Fidelity]:
        return [Fidelity(1, 32), Fidelity(3, 32)]


class TestGridEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, tmp_path: Path) -> Evaluator:
        return GridEvaluator(str(tmp_path / "log"))

    @pytest.fixture
    def candidate(self) -> Candidate:
        return GridSpace().propose([], random.Random(0))

    @pytest.fixture
    def fidelities(self) -> list[Fidelity]:
        return [Fidelity(1, 32), Fidelity(3, 32)]


class TestProxyEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
        return ProxyEvaluator(DataSource(str(yolo_folder(tmp_path_factory.mktemp("data")))))

    @pytest.fixture
    def candidate(self, narrow_space: GradientPathSpace) -> Candidate:
        return narrow_space.propose([], random.Random(0))

    @pytest.fixture
    def fidelities(self) -> list[Fidelity]:
        return [Fidelity(1, 32), Fidelity(2, 64)]


def yolo_folder(folder: Path) -> Path:
    """A data set of four images in YOLO format, each with one bright box of 32 x 24 pixels; returns its data.yaml."""
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i in range(4):
            picture = np.full((64, 64, 3), 60, np.uint8)
            picture[20:44, 8 * i : 8 * i + 32] = 230
            cv2.imwrite(str(folder / "images" / split / f"{i}.png"), picture)
            (folder / "labels" / split / f"{i}.txt").write_text(f"0 {(8 * i + 16) / 64} 0.5 0.5 0.375\n")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [box]\n")
    return folder / "data.yaml"
