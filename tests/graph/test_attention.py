"""Attention, mixed tokens, gates and whatever else moves channels between axes: the graph has the gradients of autograd.

The oracle cuts a module at its layers. What a layer returns becomes a leaf of autograd, so the gradient of one input channel of
a consumer shows from which output channels of which layers it comes without passing another layer. Those are the sources.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.graph.trace import trace, trace_module
from gpnas.paths.analysis import layer_rows
from gpnas.paths.flows import offset_at, sources_of
from gpnas.paths.gradient_paths import gradient_paths
from tests.graph.traced_models import Joined, conv

Forward = Callable[[Any, Tensor], Tensor]

Sources = dict[tuple[str, int], set[tuple[str, int]]]
"""For (layer, output channel): the (consumer layer, input channel) pairs that send it a gradient."""


def sources_of_autograd(model: nn.Module, image: Tensor) -> Sources:
    model = copy.deepcopy(model)
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            axis = -1 if isinstance(module, nn.Linear) else 1

            def cut(_: nn.Module, given: Any, made: Tensor, name: str = name, axis: int = axis) -> Tensor:
                inputs[name] = given[0].movedim(axis, 0)
                leaf = made.detach().requires_grad_()
                outputs[name] = leaf.movedim(axis, 0)
                leaves[name] = leaf
                return leaf

            module.register_forward_hook(cut)
    leaves: dict[str, Tensor] = {}
    model(image)
    found: Sources = {(name, c): set() for name, made in outputs.items() for c in range(len(made))}
    for consumer, channels in inputs.items():
        for offset, channel in enumerate(channels):
            if not channel.requires_grad:
                continue
            loss = (channel * torch.randn_like(channel)).sum()
            gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is None:
                    continue
                axis = -1 if isinstance(model.get_submodule(name), nn.Linear) else 1
                reached = gradient.movedim(axis, 0).flatten(1).abs().sum(1) > 0
                for c in reached.nonzero().flatten().tolist():
                    found[name, c].add((consumer, offset))
    return found


def sources_of_graph(graph: Graph) -> Sources:
    found: Sources = {(graph.ops[i].name, c): set() for i in graph.layers for c in range(graph.ops[i].channels)}
    for layer in gradient_paths(graph).layers:
        for start, stop, shift, flow in layer.segments:
            for channel in range(start, stop):
                for source in sources_of(flow, shift):
                    consumer, offset = offset_at(source, channel)
                    if consumer < len(graph.ops):
                        found[graph.ops[layer.op].name, channel].add((graph.ops[consumer].name, offset))
    return found


def tokens(x: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch, pixels, channels)"""
    return x.flatten(2).transpose(1, 2)


def heads(x: Tensor, number: int) -> Tensor:
    """(batch, pixels, channels) -> (batch, heads, pixels, channels / heads)"""
    return x.view(*x.shape[:2], number, -1).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    """The inverse of `heads`."""
    return x.transpose(1, 2).flatten(2)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).mul(0.3).softmax(-1) @ v


def qkv_of(m: Any, y: Tensor, order: tuple[int, ...]) -> Any:
    """Query, key and value in 3 layouts of one layer's channels. order: sizes of (3, heads, channels of a head), permuted."""
    made = m.qkv(tokens(y)).unflatten(2, order)
    return made.movedim(2 + order.index(3), 0).unbind(0)


def self_attention(m: Any, y: Tensor) -> Tensor:
    q, k, v = m.qkv(tokens(y)).view(y.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return m.last(merged(attended(q, k, v)))


def heads_first(m: Any, y: Tensor) -> Tensor:
    q, k, v = (part.transpose(1, 2) for part in qkv_of(m, y, (2, 3, 4)))
    return m.last(merged(F.scaled_dot_product_attention(q, k, v)))


def channels_first(m: Any, y: Tensor) -> Tensor:
    q, k, v = (part.transpose(1, 2) for part in qkv_of(m, y, (2, 4, 3)))
    return m.last(merged(F.scaled_dot_product_attention(q, k, v)))


def heads_in_the_batch(m: Any, y: Tensor) -> Tensor:
    q, k, v = (heads(part, 2).reshape(-1, 12, 4) for part in m.qkv(tokens(y)).chunk(3, -1))
    z = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
    return m.last(merged(z.view(-1, 2, 12, 4)))


def cross_covariance(m: Any, y: Tensor) -> Tensor:
    """XCiT (arXiv:2106.09681): the attention of channels to channels."""
    q, k, v = (heads(part, 2).transpose(2, 3) for part in m.qkv(tokens(y)).chunk(3, -1))
    z = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(2, 3)).softmax(-1) @ v
    return m.last(z.permute(0, 3, 1, 2).flatten(2))


def linear_attention(m: Any, y: Tensor) -> Tensor:
    q, k, v = (heads(part, 2) for part in m.qkv(tokens(y)).chunk(3, -1))
    return m.last(merged(torch.sigmoid(q) @ (torch.sigmoid(k).transpose(2, 3) @ v)))


def class_token(m: Any, y: Tensor) -> Tensor:
    z = torch.cat([m.token.expand(y.shape[0], -1, -1), tokens(y)], 1) + m.position
    q, k, v = (heads(part, 2) for part in m.qkv(z).chunk(3, -1))
    return m.last(merged(attended(q, k, v))[:, 0])


def shifted_windows(m: Any, y: Tensor) -> Tensor:
    """Swin (arXiv:2103.14030): windows of 2 x 2 pixels, shifted by one."""
    z = torch.roll(y.permute(0, 2, 3, 1), (-1, -1), (1, 2))
    n, h, w, c = z.shape
    z = z.view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
    q, k, v = (heads(part, 2) for part in m.qkv(z).chunk(3, -1))
    z = (q @ k.transpose(-2, -1) + m.table[m.index].permute(2, 0, 1)).softmax(-1) @ v
    z = merged(z).view(n, h // 2, w // 2, 2, 2, c).transpose(2, 3).reshape(n, h, w, c)
    return m.last(torch.roll(z, (1, 1), (1, 2)))


def talking_heads(m: Any, y: Tensor) -> Tensor:
    q, k, v = (heads(part, 2) for part in m.qkv(tokens(y)).chunk(3, -1))
    scores = m.talk((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return m.last(merged(scores.softmax(-1) @ v))


def mixed_tokens(m: Any, y: Tensor) -> Tensor:
    """MLP-Mixer (arXiv:2105.01601): a layer over tokens."""
    z = tokens(y)
    z = z + m.across(torch.tanh(m.over(z.transpose(1, 2)))).transpose(1, 2)
    return m.last(z)


def selective_kernels(m: Any, y: Tensor) -> Tensor:
    """SKNet (arXiv:1903.06586): a softmax over branches."""
    z = torch.stack([m.a(y), m.b(y)], 1)
    weights = m.up(torch.tanh(m.down(z.sum(1).mean((2, 3), keepdim=True))))
    weights = weights.view(-1, 2, 8, 1, 1).softmax(1)
    return m.last((z * weights).sum(1).permute(0, 2, 3, 1))


def gate_of_channels(m: Any, y: Tensor) -> Tensor:
    """CBAM (arXiv:1807.06521): a mean over channels and a smooth maximum make a gate over pixels."""
    gate = m.gate(torch.cat([y.mean(1, keepdim=True), y.logsumexp(1, keepdim=True)], 1))
    return m.last((y * torch.sigmoid(gate)).permute(0, 2, 3, 1))


def softmax_of_channels(m: Any, y: Tensor) -> Tensor:
    return m.last((y + y.softmax(1)).permute(0, 2, 3, 1))


def layer_over_channels(m: Any, y: Tensor) -> Tensor:
    """ECA (arXiv:1910.03151): a convolution along channels."""
    gate = torch.sigmoid(m.line(y.mean((2, 3)).unsqueeze(1))).view(-1, 8, 1, 1)
    return m.last((y * gate).permute(0, 2, 3, 1))


def patches_in_channels(m: Any, y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    z = y.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(n, h // 2, w // 2, 4 * c)
    return m.wide(z)


def gate_of_heads(m: Any, y: Tensor) -> Tensor:
    z = tokens(y)
    gates = torch.sigmoid(m.heads(z))
    return m.last((z.unflatten(2, (2, 4)) * gates[..., None]).flatten(2))


def einsums(m: Any, y: Tensor) -> Tensor:
    q, k, v = (heads(part, 2) for part in m.qkv(tokens(y)).chunk(3, -1))
    z = torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1), v)
    return m.last(merged(z))


def unfolded(m: Any, y: Tensor) -> Tensor:
    """VOLO (arXiv:2106.13112): a layer makes the attention of each window."""
    n, c, h, w = y.shape
    attention = m.windows(y.permute(0, 2, 3, 1)).view(n, h * w, 2, 9, 9).permute(0, 2, 1, 3, 4).softmax(-1)
    v = F.unfold(y, 3, padding=1).view(n, 2, c // 2, 9, h * w).permute(0, 1, 4, 3, 2)
    z = (attention @ v).permute(0, 1, 4, 3, 2).reshape(n, c * 9, h * w)
    return m.last(F.fold(z, (h, w), 3, padding=1).permute(0, 2, 3, 1))


def mean_of_rows(m: Any, y: Tensor) -> Tensor:
    return m.last(y.mean(2).transpose(1, 2))


def half_channels(m: Any, y: Tensor) -> Tensor:
    """Two rows of pixels of a channel become a channel of their own."""
    return m.twice(y.view(y.shape[0], 16, 2, -1))


def zeros_as_channels(m: Any, y: Tensor) -> Tensor:
    return m.twice(F.pad(y, (0, 0, 0, 0, 3, 5)))


def channels_as_pixels(m: Any, y: Tensor) -> Tensor:
    return m.one(y.unsqueeze(1).flatten(2))


def relative_positions(m: Any, y: Tensor) -> Tensor:
    """A table of distances that is skewed into one of positions (arXiv:1904.09925)."""
    q, k, v = (heads(part, 2) for part in m.qkv(y.mean(2).transpose(1, 2)).chunk(3, -1))
    n, h, w, _ = q.shape
    distances = F.pad(m.distances(q), (0, 1)).flatten(2)
    skewed = F.pad(distances, (0, w - 1)).view(n, h, w + 1, 2 * w - 1)[:, :, :w, w - 1 :]
    return m.last(merged((q @ k.transpose(2, 3) + skewed).softmax(-1) @ v))


def turned_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Channels 2i and 2i + 1 turned by an angle for each pixel (rotary positions, arXiv:2104.09864)."""
    return x * angles.cos() + torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2) * angles.sin()


def turned_halves(x: Tensor, angles: Tensor) -> Tensor:
    """The same with channels i and i + half."""
    a, b = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()


def rotary(turned: Callable[[Tensor, Tensor], Tensor]) -> Forward:
    """The values are turned too, so that it shows which channels are. The class token is not."""

    def forward(m: Any, y: Tensor) -> Tensor:
        z = torch.cat([m.token.expand(y.shape[0], -1, -1), tokens(y)], 1)
        parts = (heads(part, 2) for part in m.qkv(z).chunk(3, -1))
        q, k, v = (torch.cat([part[:, :, :1], turned(part[:, :, 1:], m.angles)], 2) for part in parts)
        return m.last(merged(F.scaled_dot_product_attention(q, k, v)))

    return forward


def attention(**more: Any) -> dict[str, Any]:
    return {"qkv": nn.Linear(8, 24), "last": nn.Linear(8, 2), **more}


def conv1d(a: int, b: int) -> nn.Conv1d:
    return nn.Conv1d(a, b, 3, padding=1)


def learned(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


ANGLES = 0.3 + torch.arange(12 * 4).view(12, 4) / 7
CASES: dict[str, tuple[Forward, dict[str, Any]]] = {
    "self-attention": (self_attention, attention()),
    "heads before query, key, value": (heads_first, attention()),
    "query, key, value last": (channels_first, attention()),
    "heads in the batch": (heads_in_the_batch, attention()),
    "cross-covariance": (cross_covariance, attention()),
    "linear attention": (linear_attention, attention()),
    "a class token": (class_token, attention(token=learned(1, 1, 8), position=learned(1, 13, 8))),
    "shifted windows": (shifted_windows, attention(table=learned(9, 2), index=torch.arange(16).view(4, 4) % 9)),
    "talking heads": (talking_heads, attention(talk=nn.Linear(2, 2))),
    "mixed tokens": (mixed_tokens, {"over": nn.Linear(12, 5), "across": nn.Linear(5, 12), "last": nn.Linear(8, 2)}),
    "selective kernels": (
        selective_kernels,
        {"a": conv(8, 8), "b": conv(8, 8), "down": conv(8, 3), "up": conv(3, 16), "last": nn.Linear(8, 2)},
    ),
    "a gate of channels": (gate_of_channels, {"gate": conv(2, 1, 3), "last": nn.Linear(8, 2)}),
    "a softmax of channels": (softmax_of_channels, {"last": nn.Linear(8, 2)}),
    "patches in channels": (patches_in_channels, {"wide": nn.Linear(32, 2)}),
    "a gate of heads": (gate_of_heads, {"heads": nn.Linear(8, 2), "last": nn.Linear(8, 2)}),
    "einsums": (einsums, attention()),
    "attention of windows": (unfolded, {"windows": nn.Linear(8, 2 * 81), "last": nn.Linear(8, 2)}),
    "a mean of rows": (mean_of_rows, {"last": nn.Linear(8, 2)}),
    "half channels": (half_channels, {"twice": conv(16, 2)}),
    "zeros as channels": (zeros_as_channels, {"twice": conv(16, 2)}),
    "channels as pixels": (channels_as_pixels, {"one": conv1d(1, 2)}),
    "relative positions": (relative_positions, attention(distances=nn.Linear(4, 11, bias=False))),
    "rotary positions, pairs": (rotary(turned_pairs), attention(token=learned(1, 1, 8), angles=ANGLES)),
    "rotary positions, halves": (rotary(turned_halves), attention(token=learned(1, 1, 8), angles=ANGLES)),
    "a layer along channels": (layer_over_channels, {"line": nn.Conv1d(1, 1, 3, padding=1), "last": nn.Linear(8, 2)}),
}


def model_of(name: str) -> Joined:
    """stem (3 -> 8 channels) and the case."""
    torch.manual_seed(0)
    forward, layers = CASES[name]
    return Joined(lambda m, x: forward(m, torch.tanh(m.stem(x))), stem=conv(3, 8), **layers).double()


NARROW = (
    *("heads in the batch", "a class token", "mixed tokens"),
    *("rotary positions, pairs", "rotary positions, halves"),
)
"""These have an image of 12 pixels, others one of 24."""


def image_of(name: str) -> Tensor:
    return torch.randn(1, 3, 4, 3 if name in NARROW else 6, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_sources_are_those_of_autograd(name: str) -> None:
    model, image = model_of(name), image_of(name)
    graph = trace(model, (image,))
    found, expected = sources_of_graph(graph), sources_of_autograd(model, image)
    assert {key: sorted(value) for key, value in found.items()} == {key: sorted(value) for key, value in expected.items()}


@pytest.mark.parametrize("name", CASES)
def test_parameters_and_macs_are_those_of_torch(name: str) -> None:
    model, image = model_of(name), image_of(name)
    traced = trace_module(model, (image,))
    whole = cost(traced.graph, *image.shape[2:], fused=False)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    assert whole.params == sum(p.numel() for p in model.parameters())
    assert traced.left_out == ()
    assert whole.flops == counter.get_total_flops()


def test_self_attention_by_hand() -> None:
    graph = trace(model_of("self-attention"), (image_of(""),))
    rows = {row["layer"]: row for row in layer_rows(graph)}
    assert {name: row["timestamps"] for name, row in rows.items()} == {"last": [1], "qkv": [2], "stem": [3]}
    # 2 heads of 4 channels. Each channel of query and key is used for all 4 channels of its head in `last`.
    groups = [(group["channels"], [offset for _, offset, _ in group["sources"]]) for group in rows["qkv"]["channel_groups"]]
    assert groups == [
        ([0, 4], [0, 1, 2, 3]),
        ([4, 8], [4, 5, 6, 7]),
        ([8, 12], [0, 1, 2, 3]),
        ([12, 16], [4, 5, 6, 7]),
        ([16, 24], [0]),
    ]
    pixels = 4 * 6
    products = 2 * (8 * pixels * pixels)
    assert cost(graph, 4, 6).macs == pixels * (3 * 8 + 8 * 24 + 8 * 2) + products


def test_what_follows_the_last_layer_is_a_part_of_the_loss() -> None:
    """A softmax over classes, and boxes that are decoded: the gradient of each channel comes from the loss at that channel."""
    softmax = Joined(lambda m, x: m.last(x).softmax(1), last=conv(3, 5))
    decoded = Joined(lambda m, x: m.last(x).view(-1, 2, 3, 24).permute(0, 1, 3, 2)[..., 1:].exp(), last=conv(3, 6))
    for model, channels in ((softmax, 5), (decoded, 6)):
        graph = trace(model, (torch.zeros(1, 3, 4, 6),))
        (row,) = layer_rows(graph)
        assert (row["timestamps"], row["channel_groups"][0]["channels"]) == ([1], [0, channels])
        assert row["channel_groups"][0]["sources"] == [["loss output", 0, [1]]]


def test_a_table_that_is_learned_and_added_to_the_scores_is_counted() -> None:
    graph = trace(model_of("shifted windows"), (image_of(""),))
    assert sum(op.learned for op in graph.ops if op.kind == "gain") == 9 * 2
