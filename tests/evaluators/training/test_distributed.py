import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evaluators.data.batches import Batch
from evaluators.training.distributed import ALONE, Group, process_group, without_averaging
from evaluators.training.recipe import Recipe
from evaluators.training.step import GradientAccumulator
from evaluators.training.train_detector import TrainedDetector, train_detector
from gpnas.graph.graph import Output
from tests.small_detector import rectangle_data, small_graph


def test_a_process_alone_leads_and_changes_nothing() -> None:
    network, values = nn.Linear(3, 2), torch.tensor([1.5, -2.0])
    assert ALONE.is_leader and ALONE.wrap(network) is network and ALONE.broadcast("value") == "value"
    assert ALONE.sum(values).tolist() == [1.5, -2.0]
    with process_group(torch.device("cpu")) as joined:
        assert joined == (ALONE, torch.device("cpu"))
    with without_averaging(network):
        network(torch.ones(1, 3)).sum().backward()
    assert network.bias.grad is not None and network.bias.grad.tolist() == [1.0, 1.0]


def test_every_process_has_its_share_and_the_first_one_leads() -> None:
    group = [Group(rank, 3) for rank in range(3)]
    assert [process.share.of(8) for process in group] == [slice(0, 2), slice(2, 5), slice(5, 8)]
    assert [process.is_leader for process in group] == [True, False, False]


RECIPE = Recipe(2, 64, batch_size=4, optimizer="sgd", lr=1e-3, device="cpu", precision="fp32")


def train(out: Path) -> TrainedDetector | None:
    return train_detector(
        small_graph(8, auxiliary=0.25), "g", rectangle_data(), RECIPE, out, resume=False, report=lambda row: print(row["epoch"])
    )


@pytest.mark.slow
def test_two_processes_train_as_one_that_cuts_its_batches_into_two_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over gloo: the same weights but for the order of sums, though each process sees only half of the images."""
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", script, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]  # torch 2.8 tells of connections
    assert sorted(printed) == ["1", "2", "None", "TrainedDetector"]  # only the leader reports and has a result

    backward = GradientAccumulator.backward

    def in_two_pieces(gradients: GradientAccumulator, batch: Batch, outputs: Sequence[Output]) -> Tensor:
        gradients.pieces = 2
        return backward(gradients, batch, outputs)

    monkeypatch.setattr(GradientAccumulator, "backward", in_two_pieces)
    train(tmp_path / "one")
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    for key, value in one["model"].items():
        if key.endswith(("weight", "bias")):
            torch.testing.assert_close(two["model"][key], value, rtol=1e-3, atol=1e-5)
    losses = [[row["loss"] for row in content["history"]] for content in (one, two)]
    assert len(losses[0]) == 2 and losses[1] == pytest.approx(losses[0], rel=1e-3)


TRAIN = """
import sys
from pathlib import Path

from tests.evaluators.training.test_distributed import train

print(type(train(Path(sys.argv[1]) / "two")).__name__.replace("NoneType", "None"))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
