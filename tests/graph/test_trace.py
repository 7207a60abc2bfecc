"""Traced networks that gpnas did not build, checked by hand or by autograd (those it built: test_traced_spaces.py)."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from gpnas.errors import TraceError
from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.graph.trace import trace
from gpnas.paths.analysis import lengths
from gpnas.paths.gradient_paths import gradient_paths
from tests.graph.traced_models import Joined, conv, small


def layer(channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


class Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(layer(width, width // 2, 1), layer(width // 2, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Masked(nn.Module):
    """PRN as one would write it in torch: the identity times a mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = layer(width, width)
        self.register_buffer("mask", (torch.arange(width) < width // 2).float()[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x * self.mask


class DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


class SqueezeExcitation(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class ShuffleUnit(nn.Module):
    """Half of the channels through a layer, then the halves interleaved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = layer(width // 2, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.body(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ConvNext(nn.Module):
    """Channels last, with a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        return x + (self.gain * self.down(nn.functional.gelu(self.up(y)))).permute(0, 3, 1, 2)


def times(graph: Graph) -> dict[str, list[int]]:
    return {graph.ops[layer.op].name: lengths(layer.timestamps) for layer in gradient_paths(graph).layers}


def test_a_residual_network_has_a_timestamp_more_for_every_block_that_it_skips() -> None:
    graph = trace(nn.Sequential(layer(3, 8), Bottleneck(8), Bottleneck(8), conv(8, 2)), (small(),))
    assert [op.name for op in graph.ops if op.weighted] == ["0.0", "1.body.0.0", "1.body.1.0", "2.body.0.0", "2.body.1.0", "3"]
    assert all(op.norm and op.act == "relu" for op in graph.ops if op.weighted and op.name != "3")
    assert times(graph) == {
        "3": [1],
        "2.body.1.0": [2],
        "2.body.0.0": [3],
        "1.body.1.0": [2, 4],
        "1.body.0.0": [3, 5],
        "0.0": [2, 4, 6],
    }


def test_a_mask_in_a_buffer_parts_the_channels_of_the_layer_before_it() -> None:
    graph = trace(nn.Sequential(layer(3, 8), Masked(8), conv(8, 2)), (small(),))
    stem = gradient_paths(graph).layers[0]
    assert [(g.start, g.stop, [lengths(s.timestamps) for s in g.sources]) for g in stem.groups] == [
        (0, 4, [[3], [2]]),
        (4, 8, [[3]]),
    ]


def test_a_dense_network_gives_each_layer_its_own_sources() -> None:
    graph = trace(nn.Sequential(conv(3, 4), DenseLayer(4, 2), DenseLayer(6, 2), conv(8, 2)), (small(),))
    assert times(graph) == {"3": [1], "2.conv": [2], "1.conv": [2, 3], "0": [2, 3, 4]}
    assert [layer.sources for layer in gradient_paths(graph).layers] == [3, 2, 1, 1]
    norms = [op for op in graph.ops if op.kind == "norm"]
    assert [op.channels for op in norms] == [4, 6]  # before their layers, where nothing can fold them


def test_a_gate_and_what_it_gates_share_their_source() -> None:
    graph = trace(nn.Sequential(conv(3, 8), SqueezeExcitation(8), conv(8, 2)), (small(),))
    assert times(graph) == {"2": [1], "1.up": [2], "1.down": [3], "0": [2, 4]}
    assert gradient_paths(graph).layers[0].poolings_per_path == 0.5


def test_shuffled_channels_go_where_they_are_carried() -> None:
    graph = trace(nn.Sequential(conv(3, 4), ShuffleUnit(4), conv(4, 2)), (small(),))
    stem, body, _ = gradient_paths(graph).layers
    # (a0, a1, y0, y1) is interleaved to (a0, y0, a1, y1)
    assert [(g.start, [s.offset for s in g.sources]) for g in body.groups] == [(0, [1]), (1, [3])]
    assert [(g.start, g.stop) for g in stem.groups] == [(0, 1), (1, 2), (2, 4)]


def test_a_layer_called_twice_is_two_operations_of_one_weight() -> None:
    model = Joined(lambda m, x: m.head(m.body(m.body(m.stem(x)))), stem=conv(3, 4), body=conv(4, 4, 3), head=conv(4, 2))
    graph = trace(model, (small(),))
    assert times(graph) == {"head": [1], "body.1": [2], "body": [3], "stem": [4]}
    assert cost(graph, 6, 10).params == sum(p.numel() for p in model.parameters())


def test_no_gradient_passes_detach_or_no_grad() -> None:
    def forward(m: Joined, x: Tensor) -> Tensor:
        y = m.stem(x)
        with torch.no_grad():
            z = m.quiet(y)
        return m.head(m.side(y.detach()) + z)

    graph = trace(Joined(forward, stem=conv(3, 4), quiet=conv(4, 4), side=conv(4, 4), head=conv(4, 2)), (small(),))
    assert times(graph) == {"head": [1], "side": [2]}


def test_outputs_are_named_by_their_place_and_may_be_chosen() -> None:
    def forward(m: Joined, x: Tensor) -> dict[str, object]:
        y = m.stem(x)
        return {"boxes": m.boxes(y), "early": [m.early(y), 3]}

    model = Joined(forward, stem=conv(3, 4), boxes=conv(4, 2), early=nn.Sequential(conv(4, 4), conv(4, 2)))
    both = trace(model, (small(),))
    assert [out.name for out in both.outputs] == ["boxes", "early.0"]
    graph = trace(model, (small(),), auxiliary=["early.0"])
    assert [(out.name, out.branch) for out in graph.outputs] == [("boxes", "main"), ("early.0", "auxiliary")]
    assert gradient_paths(graph).auxiliary_only == 1 + 1 + 1  # its two layers, and the stem by way of them
    assert len(trace(model, (small(),), outputs=["boxes"]).outputs) == 1
    with pytest.raises(TraceError, match=r"no output is called 'masks'.*boxes, early.0"):
        trace(model, (small(),), outputs=["masks"])


def test_predictions_that_are_reshaped_carry_the_loss_of_what_they_are_made_from() -> None:
    def forward(m: Joined, x: Tensor) -> Tensor:
        y = m.stem(x)
        n, _, h, w = y.shape
        a, b = (head(y).view(n, 3, 5, h, w).permute(0, 1, 3, 4, 2).reshape(n, -1, 5) for head in (m.a, m.b))
        return torch.cat([a.sigmoid() * 2, b], 1)

    graph = trace(Joined(forward, stem=conv(3, 4), a=conv(4, 15), b=conv(4, 15)), (small(),))
    assert times(graph) == {"a": [1], "b": [1], "stem": [2]}


class Sorted(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.out = conv(3, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.query(x).sort(1).values)


def test_an_unknown_operation_that_a_layer_depends_on_is_named_with_its_place() -> None:
    with pytest.raises(TraceError, match=r"^sort at neck \(File .*test_trace.py.*the layer at neck.out"):
        trace(Joined(lambda m, x: m.neck(x), neck=Sorted(4)), (small(),))


def test_more_than_one_input_is_refused() -> None:
    with pytest.raises(TraceError, match="one image, got 2 inputs"):
        trace(conv(3, 4), (small(), small()))


def test_tracing_changes_neither_weights_nor_buffers_nor_mode() -> None:
    model = nn.Sequential(layer(3, 8), conv(8, 2)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trace(model, (torch.randn(2, 3, 8, 8),))
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Random(nn.Module):
    """Layers that are joined at random. Every activation is smooth, so no gradient is zero by chance."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.width = 6
        self.stem = conv(3, self.width)
        self.layers = nn.ModuleList(conv(self.width, self.width) for _ in range(5))
        self.moves = [self.rng.choice(("plain", "add", "half", "detach", "mask", "swap")) for _ in self.layers]
        self.register_buffer("mask", torch.tensor([1.0, 1, 0, 0, 1, 0])[None, :, None, None])
        self.shown = self.rng.randint(1, self.width - 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.stem(x))
        early = x
        for module, move in zip(self.layers, self.moves, strict=True):
            y = torch.tanh(module(x.detach() if move == "detach" else x))
            if move == "add":
                y = y + x
            elif move == "half":
                y = torch.cat([y[:, :3], x[:, 3:]], 1)
            elif move == "mask":
                y = y * self.mask + x
            elif move == "swap":
                a, b = y.split([2, 4], 1)
                y = torch.cat([b, a], 1)
            early, x = x, y
        return x[:, : self.shown], early[:, self.shown :]


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 40))])
def test_autograd_has_a_zero_gradient_exactly_where_none_arrives(seed: int) -> None:
    torch.manual_seed(seed)
    model = Random(seed).double()
    image = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    graph = trace(model, (image,))
    for k, name in enumerate(("0", "1")):
        chosen = trace(model, (image,), outputs=[name])
        reached = {chosen.ops[layer.op].name: layer.groups for layer in gradient_paths(chosen).layers}
        model.zero_grad()
        model(image)[k].square().sum().backward()
        for path in (op.name for op in graph.ops if op.weighted):
            weight = model.get_submodule(path).weight.grad
            nonzero = [False] * model.width if weight is None else (weight.abs().flatten(1).sum(1) != 0).tolist()
            expected = [any(g.start <= c < g.stop for g in reached.get(path, ())) for c in range(model.width)]
            assert nonzero == expected, (path, model.moves)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y) if y.sum() > 0 else y


def test_a_branch_on_values_is_one_sentence_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        TraceError, match=r"^Branching: the layers that run depend on the values of the image, [^;]*; fix the branch$"
    ):
        trace(Branching(), (torch.zeros(1, 3, 9, 9),))
    assert capfd.readouterr() == ("", "")
