"""Batch normalisation over several processes against torch's own over the whole batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

import evaluators.training.sync_norm
from evaluators.training.distributed import Group
from evaluators.training.sync_norm import SyncedBatchNorm2d, synchronise_norms
from gpnas.graph.network import BatchNorm
from tests.evaluators.training.short_training import QUICK, trained
from tests.small_detector import small_graph

SHARES = (2, 3)


def inputs() -> tuple[Tensor, Tensor]:
    """Images of 4 channels, far from zero; and weights of a loss of the outputs."""
    generator = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(5, 4, 3, 6, generator=generator) for _ in range(2))
    return 2 * x + torch.tensor([0.0, 30, -5, 1])[:, None, None], weights


def norm() -> nn.BatchNorm2d:
    module = BatchNorm(4)
    module.momentum = 0.3
    nn.init.uniform_(module.weight, 0.5, 1.5, torch.Generator().manual_seed(1))
    nn.init.uniform_(module.bias, -1, 1, torch.Generator().manual_seed(2))
    return module


def results(module: nn.BatchNorm2d, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    (y * weights).sum().backward()
    assert x.grad is not None and module.weight.grad is not None and module.bias.grad is not None
    assert module.running_mean is not None and module.running_var is not None
    named = {"y": y.detach(), "x": x.grad, "weight": module.weight.grad, "bias": module.bias.grad}
    return named | {"mean": module.running_mean, "variance": module.running_var}


def in_process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    module = norm()
    synchronise_norms(module)
    parts = (tensor.split(SHARES)[rank] for tensor in inputs())
    torch.save(results(module, *parts), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_normalise_as_one_does_with_the_whole_batch(tmp_path: Path) -> None:
    """Shares of 2 and 3 images: outputs, gradients and running statistics."""
    spawn(in_process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    whole = results(norm(), *inputs())
    for name in ("y", "x"):
        torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name], rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias"):
        torch.testing.assert_close(first[name] + second[name], whole[name], rtol=1e-4, atol=1e-4)
    for name in ("mean", "variance"):
        torch.testing.assert_close(first[name], whole[name])
        torch.testing.assert_close(second[name], whole[name])


def test_names_and_evaluation_stay_the_same() -> None:
    module, plain = norm(), norm()
    synchronise_norms(module)
    assert type(module) is SyncedBatchNorm2d and list(module.state_dict()) == list(plain.state_dict())
    x, _ = inputs()
    assert torch.equal(module.eval()(x), plain.eval()(x))


class Pretended(Group):
    """A group of which the other process has no images."""

    def wrap(self, network: nn.Module) -> nn.Module:
        return network

    def sum(self, values: Tensor) -> Tensor:
        return values


@pytest.mark.parametrize(("below", "synced"), [(3, True), (2, False)])
def test_a_training_shares_its_statistics_where_a_device_has_few_images(
    below: int, synced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 4 on two devices are 2 images on each."""
    monkeypatch.setattr(evaluators.training.sync_norm, "_summed", lambda values: values)
    recipe = replace(QUICK, epochs=1, sync_norm_below=below)
    network, result = trained(recipe, small_graph(8), group=Pretended(0, 2))
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {SyncedBatchNorm2d if synced else BatchNorm}
    assert not any(isinstance(module, SyncedBatchNorm2d) for module in result.averaged.modules())
    plain, _ = trained(replace(recipe, sync_norm_below=0), small_graph(8), group=Pretended(0, 2))
    for name, value in plain.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-3, atol=1e-4)
