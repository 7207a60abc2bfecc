"""Writes in place: the graph has the gradients of autograd, or the write is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpnas.errors import TraceError
from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch, Graph
from gpnas.graph.trace import trace
from gpnas.paths.analysis import layer_rows, lengths
from gpnas.paths.gradient_paths import gradient_paths
from tests.graph.traced_models import Joined, assert_gradients_of_autograd, conv, small

Write = Callable[[Any, Tensor], Tensor]
"""Given the module and a tensor of 8 channels, writes into it. Returns a tensor of 8 channels."""


def written(write: Write, **more: Any) -> Joined:
    """stem (3 -> 8), the write with the layer `part` (4 -> 4), mix (8 -> 2)."""
    return Joined(
        lambda m, x: m.mix(torch.tanh(write(m, torch.tanh(m.stem(x)).clone()))),
        **{"stem": conv(3, 8), "part": conv(4, 4), "mix": conv(8, 2)},
        **more,
    )


def readers(graph: Graph, layer: str) -> list[tuple[int, int, list[str]]]:
    """For each channel group of a layer: its first and last channel, and the layers and losses that send it gradients."""
    row = next(row for row in layer_rows(graph) if row["layer"] == layer)
    return [(*group["channels"], [name for name, _, _ in group["sources"]]) for group in row["channel_groups"]]


def test_a_part_that_is_convolved_and_written_back() -> None:
    """The partial convolution of FasterNet (arXiv:2303.03667)."""

    def partial(m: Any, y: Tensor) -> Tensor:
        y[:, :4] = m.part(y[:, :4].clone())
        return y

    model = written(partial)
    graph = trace(model, (small(),))
    assert cost(graph, 6, 10).params == (3 * 8 + 8) + (4 * 4 + 4) + (8 * 2 + 2)
    assert cost(graph, 6, 10).macs == 60 * (3 * 8 + 4 * 4 + 8 * 2)
    assert {row["layer"]: (row["loss"], row["timestamps"]) for row in layer_rows(graph)} == {
        "mix": ("main", [1]),
        "part": ("main", [2]),
        "stem": ("main", [2, 3]),
    }
    assert readers(graph, "stem") == [(0, 4, ["part"]), (4, 8, ["mix"])]


def test_a_layer_whose_result_is_overwritten_gets_no_gradient() -> None:
    def overwritten(m: Any, y: Tensor) -> Tensor:
        y[:, 2:6] = m.part(y[:, :4].clone())
        y[:, 2:6] = 0.5
        return y

    graph = trace(written(overwritten), (small(),))
    assert [(row["layer"], row["loss"]) for row in layer_rows(graph)] == [("stem", "main"), ("part", "none"), ("mix", "main")]
    assert readers(graph, "stem") == [(0, 2, ["mix"]), (6, 8, ["mix"])]


def sliced(m: Any, y: Tensor) -> Tensor:
    y[:, 4:] = m.part(y[:, :4].clone())
    return y


def added(m: Any, y: Tensor) -> Tensor:
    y[:, 2:6] += m.part(y[:, :4].clone())
    return y


def copied(m: Any, y: Tensor) -> Tensor:
    y[:, 2:6].copy_(m.part(y[:, :4].clone()))
    return y


def scattered(m: Any, y: Tensor) -> Tensor:
    return torch.slice_scatter(y, m.part(y[:, :4]), 1, 2, 6)


def scattered_into_zeros(m: Any, y: Tensor) -> Tensor:
    return torch.slice_scatter(torch.zeros_like(y), m.part(y[:, :4]), 1, 0, 4)


def of_a_view_of_a_view(m: Any, y: Tensor) -> Tensor:
    y[:, 1:][:, :6].narrow(1, 1, 4).copy_(m.part(y[:, 4:].clone()))
    return y


def permuted(m: Any, y: Tensor) -> Tensor:
    y.permute(0, 2, 3, 1)[..., 4:] = m.part(y[:, :4].clone()).permute(0, 2, 3, 1)
    return y


def through_groups(m: Any, y: Tensor) -> Tensor:
    y.view(2, 2, 4, 6, 10)[:, 1] = m.part(y[:, :4].clone())
    return y


def read_through_older_views(m: Any, y: Tensor) -> Tensor:
    part, flat = y[:, 2:6], y.flatten(2)
    y[:, 4:] = m.part(y[:, :4].clone())
    return torch.cat([part, flat[:, :4].view(2, 4, 6, 10)], 1)


def into_zeros(m: Any, y: Tensor) -> Tensor:
    out = torch.zeros(2, 8, 6, 10, dtype=y.dtype)
    out[:, :4] = m.part(y[:, 4:])
    out[:, 6:] += y[:, :2]
    return out


def into_empty(m: Any, y: Tensor) -> Tensor:
    out = torch.empty_like(y)
    out[:, :4], out[:, 4:] = m.part(y[:, 4:]), y[:, :4]
    return out


def into_chunks(m: Any, y: Tensor) -> Tensor:
    out = torch.zeros_like(y)
    a, _ = out.chunk(2, 1)  # autograd forbids to write what needs a gradient into chunks
    a.copy_(m.part(y[:, 4:]).detach())
    return y + out


def whole(m: Any, y: Tensor) -> Tensor:
    return y.copy_(torch.cat([m.part(y[:, 4:].clone()), y[:, :4]], 1))


def in_order(m: Any, y: Tensor) -> Tensor:
    y[:, :4] = y[:, 4:].clone()
    y[:, 4:] = m.part(y[:, :4].clone()).detach()
    return y


def emptied(m: Any, y: Tensor) -> Tensor:
    y[:, :3].zero_()
    y[:, 5:].mul_(0.5).add_(m.part(y[:, 4:].clone())[:, 1:])
    return y


def nothing(m: Any, y: Tensor) -> Tensor:
    y[:, 8:] = m.part(y[:, :4].clone())[:, :0]
    return y


def out_of_no_grad(m: Any, y: Tensor) -> Tensor:
    with torch.no_grad():
        z = y.clone()
        z[:, :4] = m.part(z[:, 4:])
    return y + z


def through_a_dropout(m: Any, y: Tensor) -> Tensor:
    F.dropout(y, 0.5, training=False)[:, :4] = m.part(y[:, 4:].clone())
    return y


def into_a_buffer(m: Any, y: Tensor) -> Tensor:
    m.kept[:, :4] = m.part(y[:, 4:]).detach()
    return y + m.kept


FOLLOWED: list[Write] = [
    *(sliced, added, copied, scattered, scattered_into_zeros, into_chunks, of_a_view_of_a_view, permuted, through_groups),
    *(read_through_older_views, into_zeros, into_empty, whole, in_order, emptied, nothing, out_of_no_grad, through_a_dropout),
    into_a_buffer,
]


@pytest.mark.parametrize("write", FOLLOWED, ids=lambda write: write.__name__)
def test_a_write_of_whole_channels_has_the_gradients_of_autograd(write: Write) -> None:
    torch.manual_seed(1)
    model = written(write, kept=torch.zeros(2, 8, 6, 10)).double()
    image = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    graph = trace(model, (image,))
    assert_gradients_of_autograd(model, graph, image)


def test_a_write_into_features_and_into_channels_last() -> None:
    def features(m: Any, x: Tensor) -> Tensor:
        y = m.up(x).clone()
        y[:, :4] = m.part(y[:, 4:].clone())
        return m.head(y)

    def last(m: Any, x: Tensor) -> Tensor:
        y = m.up(x.permute(0, 2, 3, 1)).clone()
        y[..., :4] = m.part(y[..., 4:].clone())
        return m.head(y)

    for forward, image in ((features, torch.randn(2, 3)), (last, torch.randn(2, 3, 6, 10))):
        model = Joined(forward, up=nn.Linear(3, 8), part=nn.Linear(4, 4), head=nn.Linear(8, 2)).double()
        graph = trace(model, (image.double(),))
        assert_gradients_of_autograd(model, graph, image.double())
        assert readers(graph, "up") == [(4, 8, ["part", "head"])]


def test_a_block_that_works_in_place_is_the_same_graph() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.act(m.stem(x))
        z = m.norm(m.body(y))
        z = z.add_(y) if m.act.inplace else z + y
        return m.head(m.act(z))

    def model(inplace: bool) -> Joined:
        layers: dict[str, Any] = {"stem": conv(3, 8), "body": conv(8, 8), "norm": nn.BatchNorm2d(8), "head": conv(8, 2)}
        return Joined(forward, act=nn.ReLU(inplace), **layers)

    graph = trace(model(inplace=True), (small(),))
    assert graph.hash == trace(model(inplace=False), (small(),)).hash
    assert [(op.kind, op.norm, op.act) for op in graph.ops[1:]] == [
        ("conv", False, "relu"),
        ("conv", True, ""),
        ("add", False, ""),
        ("act", False, "relu"),
        ("conv", False, ""),
    ]


def test_a_write_into_the_image() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x[:, :1] = m.gray(x)
        return m.head(x)

    graph = trace(Joined(forward, gray=conv(3, 1), head=conv(3, 2)), (small(),))
    assert readers(graph, "gray") == [(0, 1, ["head"])]


def test_learned_values_that_are_written_are_counted() -> None:
    def write(m: Any, y: Tensor) -> Tensor:
        y[:, :4] = m.part(y[:, 4:].clone())
        y[:, 6:] = m.token
        return y

    model = written(write, token=nn.Parameter(torch.ones(2, 1, 1)))
    graph = trace(model, (small(),))
    assert cost(graph, 6, 10).params == sum(p.numel() for p in model.parameters()) == 70 + 2
    assert readers(graph, "stem") == [(4, 6, ["part", "mix"]), (6, 8, ["part"])]


def rows_of_pixels(m: Any, y: Tensor) -> Tensor:
    y[:, :, :3] = y[:, :, 3:].clone()
    return y


def every_second_channel(m: Any, y: Tensor) -> Tensor:
    y[:, ::2] = m.part(y[:, 4:])
    return y


def one_image(m: Any, y: Tensor) -> Tensor:
    y[:1] = y[1:].clone()
    return y


def listed_channels(m: Any, y: Tensor) -> Tensor:
    y[:, [0, 1, 2, 3]] = m.part(y[:, 4:])
    return y


def temporal_shift(m: Any, y: Tensor) -> Tensor:
    """TSM (arXiv:1811.08383), over a batch that holds 2 frames."""
    frames = y.view(1, 2, 8, 6, 10)
    out = torch.zeros_like(frames)
    out[:, :-1, :2], out[:, 1:, 2:4], out[:, :, 4:] = frames[:, 1:, :2], frames[:, :-1, 2:4], frames[:, :, 4:]
    return out.view(2, 8, 6, 10)


def behind_detach(m: Any, y: Tensor) -> Tensor:
    y.detach()[:, :4] = m.part(y[:, 4:]).detach()
    return y


def under_no_grad(m: Any, y: Tensor) -> Tensor:
    with torch.no_grad():
        y[:, :4] = m.part(y[:, 4:])
    return y


def indexed(m: Any, y: Tensor) -> Tensor:
    y[:, :4].index_add_(1, torch.tensor([0, 1]), y[:, 4:6].clone())
    return y


def repeated_over_pixels(m: Any, y: Tensor) -> Tensor:
    y[:, :4].copy_(m.part(y[:, 4:].mean((2, 3), keepdim=True)))
    return y


def together(m: Any, y: Tensor) -> Tensor:
    torch._foreach_mul_([y[:, :4], y[:, 4:]], 2.0)
    return y


def part_of_pixels(m: Any, y: Tensor) -> Tensor:
    y[:, 4:, 1:3, 2:] = m.part(y[:, :4, 2:4, :8].clone())
    return y


def zeros_in_a_row(m: Any, y: Tensor) -> Tensor:
    y[:, 2:5, 0] = 0
    return y


@pytest.mark.parametrize(
    ("write", "stem"),
    [
        (rows_of_pixels, [(0, 8, ["mix"])]),
        (one_image, [(0, 8, ["mix"])]),
        (temporal_shift, [(0, 8, ["mix"])]),
        (part_of_pixels, [(0, 4, ["part", "mix"]), (4, 8, ["mix"])]),
        (zeros_in_a_row, [(0, 8, ["mix"])]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_write_into_some_of_the_pixels_of_a_range_of_channels(write: Write, stem: list[tuple[int, int, list[str]]]) -> None:
    """Channels [0, 2) of the temporal shift are those of the next frame, and are no other channels."""
    torch.manual_seed(0)
    model, image = written(write).double(), torch.randn(2, 3, 6, 10, dtype=torch.float64)
    graph = trace(model, (image,))
    assert readers(graph, "stem") == stem
    assert_gradients_of_autograd(model, graph, image)
    used = write is part_of_pixels
    assert cost(graph, 6, 10).params + (0 if used else 4 * 4 + 4) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (every_second_channel, "copy_ at .*which writes a part of a tensor that is no range of channels"),
        (listed_channels, "index_put at "),
        (behind_detach, "copy_ at .*, a write that autograd does not see"),
        (under_no_grad, "copy_ at .*, a write under no_grad or autocast into a tensor from outside of it"),
        (indexed, "index_add at "),
        (repeated_over_pixels, "copy at "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_any_other_write_before_a_layer_is_refused_by_name(write: Write, words: str) -> None:
    with pytest.raises(TraceError, match=rf"^{words}.*: the analysis cannot follow this operation, and the layer at mix "):
        trace(written(write), (small(),))


def test_several_writes_at_once_are_refused() -> None:
    with pytest.raises(TraceError, match=r"^_foreach_mul_ at .*: changes several tensors in place; write them one by one$"):
        trace(written(together), (small(),))


def test_several_writes_into_buffers_are_no_part_of_the_graph() -> None:
    def write(m: Any, y: Tensor) -> Tensor:
        torch._foreach_add_([m.seen, m.steps], 1)
        return y

    graph = trace(written(write, seen=torch.zeros(3), steps=torch.zeros(())), (small(),))
    assert [op.kind for op in graph.ops] == ["image", "conv", "act", "act", "conv"]


def test_a_write_that_autograd_forbids_is_refused() -> None:
    def write(m: Any, y: Tensor) -> Tensor:
        y.split(4, 1)[0].add_(1)
        return y

    with pytest.raises(TraceError, match=r"Output 0 of Split(Backward0)? is a view and is being modified inplace"):
        trace(written(write), (small(),))


def test_predictions_that_are_decoded_in_place_carry_the_loss_of_what_they_are_made_from() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.head(torch.tanh(m.stem(x))).view(2, 3, 4, 6, 10).permute(0, 1, 3, 4, 2).contiguous()
        y[..., :2] = y[..., :2].sigmoid() * 2
        return y.view(2, -1, 4)

    graph = trace(Joined(forward, stem=conv(3, 4), head=conv(4, 12)), (small(),))
    assert {graph.ops[layer.op].name: lengths(layer.timestamps) for layer in gradient_paths(graph, Branch.MAIN).layers} == {
        "stem": [2],
        "head": [1],
    }
