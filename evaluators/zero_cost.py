"""Scores of untrained networks from the literature, to compare ours with: each reads a network with fresh weights.

    network = new_network(graph, classes=10, imgsz=128, seed=0)
    comparators(network, batches, classes=10)["synflow"]

They cost a forward pass or a few backward ones on some images; the gradient-path score costs none.
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
    """All of COMPARATORS; NASWOT and the gradient norm on the first batch. At least two batches are needed."""
    gradients = [loss_gradients(network, batch, classes) for batch in batches]
    return {
        "naswot": naswot(network, batches[0].images),
        "synflow": synflow(network, batches[0].images[:1]),
        "gradient_norm": gradient_norm(gradients[0]),
        "zico": zico(gradients),
    }


def naswot(network: Network, images: Tensor) -> float:
    """Log-determinant of the kernel of equal activation signs of two images (Mellor et al., arXiv:2006.04647, section 3).

    images: (batch, 3, height, width). Signs of what normalisation hands to the activations; of the main branch alone.
    """
    kernel = torch.zeros(len(images), len(images), device=images.device)

    def add(_: nn.Module, __: object, out: Tensor) -> None:
        signs = (out.flatten(1) > 0).float()
        kernel.add_(signs @ signs.T + (1 - signs) @ (1 - signs).T)

    alone = Network(network.graph.inference()).to(images.device).train()
    alone.load_state_dict(network.state_dict(), strict=False)
    hooks = [alone.layer(i).register_forward_hook(add) for i in alone.graph.layers]
    try:
        with torch.no_grad():
            alone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.linalg.slogdet(kernel.double()).logabsdet)


def synflow(network: Network, image: Tensor) -> float:
    """Log of the sum over weights of weight x gradient, with all weights positive and an image of ones (Tanaka et al.,
    arXiv:2006.05467, section 4), of the main branch alone. image: (1, 3, height, width), for its shape."""
    alone = Network(network.graph.inference()).double().to(image.device)
    alone.load_state_dict(network.state_dict(), strict=False)
    alone.eval()
    with torch.no_grad():
        for parameter in alone.parameters():
            parameter.abs_()
    outputs = alone(torch.ones_like(image, dtype=torch.float64))
    torch.autograd.backward([out.sum() for out in outputs])
    return math.log(sum(float((p.detach() * p.grad).sum()) for p in alone.parameters() if p.grad is not None))


def loss_gradients(network: Network, batch: Batch, classes: int) -> list[Tensor]:
    """Gradients of the detection loss, auxiliary outputs included, of each layer's kernel; the network is left as it was."""
    state = {key: value.clone() for key, value in network.state_dict().items()}
    kernels = [p for p in network.parameters() if p.ndim > 1]
    network.train()
    parts = network_loss(network(batch.images), network.graph.outputs, batch.boxes, batch.classes, classes)
    found = torch.autograd.grad(parts.total, kernels, allow_unused=True)
    network.load_state_dict(state)  # normalisation has moved its statistics
    return [torch.zeros_like(kernel) if of is None else of for kernel, of in zip(kernels, found, strict=True)]


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Sum over layers of the Euclidean norm of the kernel's gradient (Abdelfattah et al., arXiv:2101.08134, section 3.1)."""
    return float(sum(of.norm() for of in gradients))


def zico(gradients: Sequence[Sequence[Tensor]]) -> float:
    """Sum over layers of the log of the sum, over a kernel's weights, of mean / deviation of the gradient's magnitude over
    batches (Li et al., arXiv:2301.11300, equation 16). gradients: by batch, then by layer; two batches at least."""
    if len(gradients) < 2:
        raise ValueError(f"ZiCo needs the gradients of two batches at least, got {len(gradients)}")
    total = 0.0
    for of_layer in zip(*gradients, strict=True):
        magnitudes = torch.stack([of.abs().flatten() for of in of_layer])  # (batches, weights)
        mean, deviation = magnitudes.mean(0), magnitudes.std(0, correction=0)
        moving = deviation > 0
        ratio = float((mean[moving] / deviation[moving]).sum())
        total += math.log(ratio) if ratio > 0 else 0.0
    return total
