"""Zero-cost scores from the literature, to compare ours with. Each reads a network with untrained weights.

    network = new_network(graph, classes=10, imgsz=128, seed=0)
    comparators(network, batches, classes=10)["synflow"]

They cost a forward pass, or a few backward passes, on some images. The gradient-path score needs no images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evaluators.data.batches import Batch
from evaluators.detector.loss import network_loss
from gpnas.graph.network import Network

COMPARATORS = ("naswot", "synflow", "gradient_norm", "zico")


def comparators(network: Network, batches: Sequence[Batch], classes: int) -> dict[str, float]:
    """All scores of COMPARATORS. ZiCo reads all batches, at least two; the others read the first."""
    gradients = [loss_gradients(network, batch, classes) for batch in batches]
    return {
        "naswot": naswot(network, batches[0].images),
        "synflow": synflow(network, batches[0].images[:1]),
        "gradient_norm": gradient_norm(gradients[0]),
        "zico": zico(gradients),
    }


def naswot(
    network: Network,
    images: Tensor,  # (batch, 3, height, width)
) -> float:
    """log |det K|, where K counts the units that two images activate alike (Mellor et al., arXiv:2006.04647, section 3).

    A unit is active where the output of its layer's normalisation is positive. Layers of auxiliary branches do not count.
    """
    kernel = torch.zeros(len(images), len(images), device=images.device)

    def add(_: nn.Module, __: object, output: Tensor) -> None:
        active = (output.flatten(1) > 0).float()  # (batch, units)
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    main = Network(network.graph.inference()).to(images.device).train()
    main.load_state_dict(network.state_dict(), strict=False)
    hooks = [main.layer(i).register_forward_hook(add) for i in main.graph.layers]
    try:
        with torch.no_grad():
            main(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.linalg.slogdet(kernel.double()).logabsdet)


def synflow(
    network: Network,
    image: Tensor,  # (1, 3, height, width), read for its shape only
) -> float:
    """Log of the sum of weight * gradient over all weights (Tanaka et al., arXiv:2006.05467, section 4).

    All weights are made positive, and the image is one of ones. Layers of auxiliary branches do not count.
    """
    main = Network(network.graph.inference()).double().to(image.device)
    main.load_state_dict(network.state_dict(), strict=False)
    main.eval()
    with torch.no_grad():
        for parameter in main.parameters():
            parameter.abs_()
    outputs = main(torch.ones_like(image, dtype=torch.float64))
    torch.autograd.backward([output.sum() for output in outputs])
    return math.log(sum(float((p.detach() * p.grad).sum()) for p in main.parameters() if p.grad is not None))


def loss_gradients(network: Network, batch: Batch, classes: int) -> list[Tensor]:
    """Gradients of the detection loss, auxiliary outputs included, by each layer's kernel. Leaves the network unchanged."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    kernels = [p for p in network.parameters() if p.ndim > 1]
    network.train()
    parts = network_loss(network(batch.images), network.graph.outputs, batch.boxes, batch.classes, classes)
    gradients = torch.autograd.grad(parts.total, kernels, allow_unused=True)
    network.load_state_dict(state)  # the forward pass has updated the statistics of normalisation
    return [
        torch.zeros_like(kernel) if gradient is None else gradient for kernel, gradient in zip(kernels, gradients, strict=True)
    ]


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Sum over layers of the Euclidean norm of the kernel's gradient (Abdelfattah et al., arXiv:2101.08134, section 3.1)."""
    return float(sum(gradient.norm() for gradient in gradients))


def zico(
    gradients: Sequence[Sequence[Tensor]],  # by batch, then by layer; at least two batches
) -> float:
    """Sum over layers of log(sum over weights of mean / deviation) (Li et al., arXiv:2301.11300, equation 16).

    Mean and standard deviation are those of the gradient's magnitude over the batches. Weights whose gradient does not vary are
    left out. Raises ValueError for fewer than two batches.
    """
    if len(gradients) < 2:
        raise ValueError(f"ZiCo needs the gradients of at least two batches, got {len(gradients)}")
    total = 0.0
    for layer in zip(*gradients, strict=True):
        magnitudes = torch.stack([gradient.abs().flatten() for gradient in layer])  # (batches, weights)
        mean, deviation = magnitudes.mean(0), magnitudes.std(0, correction=0)
        varies = deviation > 0
        ratio = float((mean[varies] / deviation[varies]).sum())
        total += math.log(ratio) if ratio > 0 else 0.0
    return total
