"""What every Space and every Evaluator must do: one suite of tests for each interface of gpnas.search.trial."""

import pickle
import random
from pathlib import Path

from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Branch
from gpnas.search.trial import CHECKPOINTS, MEMORY_BYTES, Candidate, Evaluator, Fidelity, Space, TrialState


class SpaceContract:
    """A subclass has a fixture `space`."""

    def test_the_same_seed_proposes_the_same(self, space: Space) -> None:
        def proposals(seed: int) -> list[str]:
            rng = random.Random(seed)
            a, b = space.propose([], rng), space.propose([], rng)
            return [c.hash for c in (a, b, space.propose([a], rng), space.propose([a, b], rng))]

        assert proposals(1) == proposals(1)
        assert any(proposals(seed) != proposals(1) for seed in range(2, 6))

    def test_a_candidate_rebuilds_from_its_text(self, space: Space) -> None:
        rng = random.Random(0)
        for _ in range(5):
            candidate = space.propose([], rng)
            again = space.read(candidate.genotype)
            assert (again.hash, again.graph.hash) == (candidate.hash, candidate.graph.hash)

    def test_equal_hashes_mean_equal_graphs(self, space: Space) -> None:
        rng = random.Random(0)
        graphs: dict[str, str] = {}
        for _ in range(30):
            candidate = space.propose([], rng)
            assert graphs.setdefault(candidate.hash, candidate.graph.hash) == candidate.graph.hash

    def test_parents_are_left_as_they_are(self, space: Space) -> None:
        rng = random.Random(0)
        parents = [space.propose([], rng), space.propose([], rng)]
        before = [(p.genotype, p.hash, p.graph.hash) for p in parents]
        space.propose(parents[:1], rng)
        space.propose(parents, rng)
        assert [(p.genotype, p.hash, p.graph.hash) for p in parents] == before

    def test_smallest_is_no_larger_than_samples(self, space: Space) -> None:
        rng = random.Random(0)
        least = deployed_cost(space.smallest().graph, 64).macs
        assert all(deployed_cost(space.propose([], rng).graph, 64).macs >= least for _ in range(20))

    def test_candidates_can_be_pickled(self, space: Space) -> None:
        candidate = space.propose([], random.Random(0))
        assert pickle.loads(pickle.dumps(candidate)) == candidate

    def test_every_candidate_has_a_main_output(self, space: Space) -> None:
        rng = random.Random(0)
        for _ in range(10):
            outputs = space.propose([], rng).graph.outputs
            assert any(out.branch == Branch.MAIN for out in outputs)


class EvaluatorContract:
    """A subclass has fixtures `evaluator`, `candidate` and `fidelities` (two, the lower one first)."""

    def test_a_result_has_aps_by_their_names(
        self, evaluator: Evaluator, candidate: Candidate, fidelities: list[Fidelity], tmp_path: Path
    ) -> None:
        result = evaluator.evaluate(candidate, fidelities[0], tmp_path, lambda data: None)
        assert result.state is TrialState.COMPLETE and result.seconds > 0
        aps = {name: value for name, value in result.metrics.items() if name != MEMORY_BYTES}
        assert "ap" in aps and set(aps) <= {"ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"}
        assert all(0 <= ap <= 1 for ap in aps.values()) and aps["ap"] <= aps.get("ap50", 1.0)

    def test_progress_is_reported_up_to_the_last_epoch(
        self, evaluator: Evaluator, candidate: Candidate, fidelities: list[Fidelity], tmp_path: Path
    ) -> None:
        reports: list[dict[str, object]] = []
        evaluator.evaluate(candidate, fidelities[0], tmp_path, reports.append)
        assert reports[-1]["epoch"] == reports[-1]["epochs"] == fidelities[0].epochs

    def test_a_higher_fidelity_continues_a_lower_one(
        self, evaluator: Evaluator, candidate: Candidate, fidelities: list[Fidelity], tmp_path: Path
    ) -> None:
        first, second = (evaluator.evaluate(candidate, f, tmp_path, lambda data: None) for f in fidelities)
        assert first.epochs == fidelities[0].epochs
        assert second.epochs == fidelities[1].epochs - fidelities[0].epochs

    def test_a_higher_fidelity_continues_from_the_checkpoints_alone_and_trains_from_scratch_without_them(
        self, evaluator: Evaluator, candidate: Candidate, fidelities: list[Fidelity], tmp_path: Path
    ) -> None:
        """A search removes the files that match CHECKPOINTS."""
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        second.mkdir()
        low = evaluator.evaluate(candidate, fidelities[0], first, lambda data: None)
        checkpoints = list(first.glob(CHECKPOINTS))
        assert checkpoints
        for path in checkpoints:
            path.rename(second / path.name)
        continued = evaluator.evaluate(candidate, fidelities[1], second, lambda data: None)
        assert continued.epochs == fidelities[1].epochs - low.epochs
        again = evaluator.evaluate(candidate, fidelities[1], first, lambda data: None)
        assert again.state is TrialState.COMPLETE

    def test_the_same_seed_measures_the_same(
        self, evaluator: Evaluator, candidate: Candidate, fidelities: list[Fidelity], tmp_path: Path
    ) -> None:
        results = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            results.append(evaluator.evaluate(candidate, fidelities[0], tmp_path / folder, lambda data: None))
        assert results[0].metrics == results[1].metrics

    def test_it_can_be_pickled(self, evaluator: Evaluator) -> None:
        assert pickle.loads(pickle.dumps(evaluator)) == evaluator
