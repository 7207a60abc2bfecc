"""A small detector whose activations neither vanish nor explode, and what is said about it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gpnas.export.metadata import Metadata
from gpnas.graph.graph import Graph
from gpnas.graph.network import Network
from tests.small_detector import NAMES, small_graph

IMGSZ = 64

ABOUT = Metadata(NAMES, IMGSZ, stride=16, source="small.yaml", weights="random (seed 0)", is_trained=False, version="1.2.3")


def live_network(graph: Graph | None = None, imgsz: int = IMGSZ, seed: int = 0) -> Network:
    """In train form; its normalisations saw four random images."""
    torch.manual_seed(seed)
    network = Network(small_graph(auxiliary=0.5) if graph is None else graph)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, imgsz, imgsz))
    return network.eval()


def random_images(count: int, imgsz: int = IMGSZ) -> Tensor:
    return torch.rand(count, 3, imgsz, imgsz, generator=torch.Generator().manual_seed(7))
