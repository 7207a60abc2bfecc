"""What a trace makes of each ATen operation, worked out by hand. The image has 3 channels and 6 x 10 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpnas.errors import TraceError
from gpnas.graph.cost import cost
from gpnas.graph.trace import trace
from tests.graph.traced_models import Joined, Row, conv, read, rows, small, traced


def alone(layer: nn.Module, image: Tensor | None = None) -> Row:
    (row,) = read(lambda m, x: m.layer(x), image=image, layer=layer)
    return row


@pytest.mark.parametrize(
    ("layer", "fields"),
    [
        (nn.Conv2d(3, 4, 3), {"kernel": 3, "bias": True}),
        (nn.Conv2d(3, 6, 3, 2, 1, groups=3, bias=False), {"kernel": 3, "stride": 2, "padding": 1, "groups": 3}),
        (nn.Conv2d(3, 4, (1, 5), (2, 1), (0, 2)), {"stride": 2, "bias": True, "window": (5, 1, 2)}),
        (nn.Conv2d(3, 4, 1, (1, 2)), {"bias": True, "window": (1, 2, 0)}),
        (nn.Conv2d(3, 4, 1, padding=(0, 1)), {"bias": True, "window": (1, 1, 1)}),
        (nn.Conv2d(3, 4, 3, dilation=2), {"kernel": 3, "dilation": 2, "bias": True}),
        (nn.Conv2d(3, 4, 3, padding="same", dilation=2), {"kernel": 3, "padding": 2, "dilation": 2, "bias": True}),
        (nn.Conv2d(3, 4, (5, 3), padding="same"), {"kernel": 5, "padding": 2, "bias": True, "window": (3, 1, 1)}),
        (nn.Conv2d(3, 4, 3, padding="valid"), {"kernel": 3, "bias": True}),
    ],
)
def test_a_convolution_has_its_window_along_the_width_when_it_differs(layer: nn.Conv2d, fields: dict[str, Any]) -> None:
    assert alone(layer) == ("conv", (0,), layer.out_channels, fields)


def test_a_convolution_along_one_axis_of_pixels_has_a_window_of_one_column() -> None:
    fields = {"kernel": 3, "stride": 2, "padding": 4, "dilation": 5, "bias": True, "window": (1, 1, 0)}
    assert alone(nn.Conv1d(3, 4, 3, 2, 4, 5), torch.zeros(2, 3, 19)) == ("conv", (0,), 4, fields)
    fields = {"kernel": 5, "padding": 2, "window": (1, 1, 0)}
    assert alone(nn.Conv1d(3, 4, 5, padding="same", bias=False), torch.zeros(2, 3, 19)) == ("conv", (0,), 4, fields)


def test_a_transposed_convolution_has_the_same_fields_and_an_output_padding() -> None:
    layer = nn.ConvTranspose2d(3, 4, (3, 2), (2, 3), (1, 0), output_padding=(1, 2))
    fields = {"kernel": 3, "stride": 2, "padding": 1, "bias": True, "window": (2, 3, 0), "output_padding": (1, 2)}
    assert alone(layer) == ("conv_transpose", (0,), 4, fields)
    grouped = nn.ConvTranspose2d(3, 6, 2, groups=3, dilation=2, bias=False)
    assert alone(grouped) == ("conv_transpose", (0,), 6, {"kernel": 2, "groups": 3, "dilation": 2})


def test_torch_convolution_is_a_convolution_or_a_transposed_one() -> None:
    weight, transposed = nn.Parameter(torch.zeros(4, 3, 3, 1)), nn.Parameter(torch.zeros(3, 5, 2, 2))
    made = read(
        lambda m, x: torch.convolution(x, m.weight, None, [2, 1], [1, 0], [1, 1], False, [0, 0], 1),
        lambda m, x: torch.convolution(x, m.transposed, None, [3, 3], [0, 0], [1, 1], True, [2, 2], 1),
        weight=weight,
        transposed=transposed,
    )
    assert made == [
        ("conv", (0,), 4, {"kernel": 3, "stride": 2, "padding": 1, "window": (1, 1, 0)}),
        ("conv_transpose", (0,), 5, {"kernel": 2, "stride": 3, "output_padding": (2, 2)}),
    ]


def test_a_linear_layer_is_a_layer_of_one_pixel_or_a_convolution() -> None:
    assert alone(nn.Linear(3, 7), torch.zeros(2, 3)) == ("linear", (0,), 7, {"bias": True})
    flattened = read(lambda m, x: m.layer(x.flatten(1)), layer=nn.Linear(180, 7, bias=False))
    assert flattened == [("conv", (0,), 7, {"kernel": 6, "window": (10, 1, 0)})]
    pooled = read(lambda m, x: m.layer(x.mean((2, 3), keepdim=True).flatten(1)), layer=nn.Linear(3, 7))
    assert pooled == [("global_avg_pool", (0,), 3, {}), ("linear", (1,), 7, {"bias": True})]
    along_last_axis = read(lambda m, x: m.second(m.first(x.permute(0, 2, 3, 1))), first=nn.Linear(3, 7), second=nn.Linear(7, 2))
    assert along_last_axis == [("conv", (0,), 7, {"bias": True}), ("conv", (1,), 2, {"bias": True})]


def test_weights_that_two_layers_share_are_tied_to_the_first() -> None:
    made = read(lambda m, x: m.layer(m.layer(x)), layer=nn.Conv2d(3, 3, 1))
    assert made == [("conv", (0,), 3, {"bias": True}), ("conv", (1,), 3, {"bias": True, "tied": True})]


def test_a_batch_normalisation_is_part_of_the_layer_that_only_it_reads() -> None:
    layer: dict[str, Any] = {"layer": nn.Conv2d(3, 4, 1, bias=False), "norm": nn.BatchNorm2d(4)}
    assert read(lambda m, x: m.norm(m.layer(x)), **layer) == [("conv", (0,), 4, {"norm": True})]
    twice = read(lambda m, x: m.second(m.norm(m.layer(x))), second=nn.BatchNorm2d(4), **layer)
    assert twice == [("conv", (0,), 4, {"norm": True}), ("norm", (1,), 4, {"learned": 8})]
    after_activation = read(lambda m, x: m.norm(m.layer(x).relu()), **layer)
    assert after_activation == [("conv", (0,), 4, {"act": "relu"}), ("norm", (1,), 4, {"learned": 8})]

    def with_two_readers(m: Any, x: Tensor) -> Tensor:
        y = m.layer(x)
        return torch.cat([y, m.norm(y)], 1)

    conv_row, norm_row, concat_row = read(with_two_readers, **layer)
    assert (conv_row[3], norm_row[3], concat_row) == ({}, {"learned": 8}, ("concat", (1, 2), 8, {}))
    assert read(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(3)) == [("norm", (0,), 3, {"learned": 6})]
    transposed = read(lambda m, x: m.norm(m.layer(x)), layer=nn.ConvTranspose2d(3, 4, 1, bias=False), norm=nn.BatchNorm2d(4))
    assert transposed == [("conv_transpose", (0,), 4, {"norm": True})]


def test_a_batch_normalisation_of_a_flattened_map_is_not_part_of_the_layer_before() -> None:
    model = Joined(lambda m, x: m.norm(m.layer(x).flatten(1)), layer=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm1d(240))
    graph = trace(model, (small(),))
    assert rows(graph) == [("conv", (0,), 4, {"bias": True}), ("norm", (1,), 4, {"learned": 480})]
    assert cost(graph, 6, 10).params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("norm", "learned"),
    [
        (nn.BatchNorm2d(3, affine=False), 0),
        (nn.GroupNorm(3, 3), 6),
        (nn.InstanceNorm2d(3), 0),
        (nn.InstanceNorm2d(3, affine=True), 6),
        (nn.LayerNorm([3, 6, 10]), 360),
        (nn.PReLU(3), 3),
        (nn.PReLU(), 1),
    ],
)
def test_learned_parameters_outside_of_layers_are_those_of_the_module(norm: nn.Module, learned: int) -> None:
    kind, inputs, channels, fields = alone(norm)
    assert (kind, inputs, channels) == ("act" if isinstance(norm, nn.PReLU) else "norm", (0,), 3)
    assert fields.get("learned", 0) == learned == sum(p.numel() for p in norm.parameters())


def test_an_activation_that_graphs_have_is_part_of_the_layer_that_only_it_reads() -> None:
    def with_layer(act: Callable[[Tensor], Tensor], layer: type[nn.Module] = nn.Conv2d) -> list[Row]:
        return read(lambda m, x: act(m.layer(x)), layer=layer(3, 4, 1, bias=False))

    assert with_layer(F.relu) == [("conv", (0,), 4, {"act": "relu"})]
    assert with_layer(lambda y: F.leaky_relu(y, 0.1)) == [("conv", (0,), 4, {"act": "leaky_relu"})]
    assert with_layer(lambda y: F.leaky_relu(y, 0.2))[1] == ("act", (1,), 4, {"act": "leaky_relu"})
    assert with_layer(F.leaky_relu)[1] == ("act", (1,), 4, {"act": "leaky_relu"})
    assert with_layer(F.gelu)[1] == ("act", (1,), 4, {"act": "gelu"})
    assert with_layer(lambda y: F.relu(F.silu(y))) == [("conv", (0,), 4, {"act": "silu"}), ("act", (1,), 4, {"act": "relu"})]
    assert with_layer(F.relu, nn.ConvTranspose2d)[1] == ("act", (1,), 4, {"act": "relu"})
    assert with_layer(lambda y: y + F.relu(y))[:2] == [("conv", (0,), 4, {}), ("act", (1,), 4, {"act": "relu"})]
    assert read(lambda m, x: F.relu(m.layer(x)), image=torch.zeros(2, 3), layer=nn.Linear(3, 4, bias=False)) == [
        ("linear", (0,), 4, {"act": "relu"})
    ]


def test_poolings() -> None:
    made = read(
        lambda m, x: F.max_pool2d(x, 3, 2, 1),
        lambda m, x: F.max_pool2d(x, (2, 3)),
        lambda m, x: F.max_pool2d(x, 4, 4, ceil_mode=True),  # 6 x 10 -> 2 x 3
        lambda m, x: F.avg_pool2d(x, 2),
        lambda m, x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0)),
        lambda m, x: F.avg_pool2d(x, 4, 4, ceil_mode=True, count_include_pad=False),
    )
    assert made == [
        ("max_pool", (0,), 3, {"kernel": 3, "stride": 2, "padding": 1}),
        ("max_pool", (0,), 3, {"kernel": 2, "stride": 2, "window": (3, 3, 0)}),
        ("max_pool", (0,), 3, {"kernel": 4, "stride": 4}),
        ("fit", (3,), 3, {"size": (2, 3)}),
        ("avg_pool", (0,), 3, {"kernel": 2, "stride": 2}),
        ("avg_pool", (0,), 3, {"kernel": 3, "padding": 1, "window": (2, 2, 0)}),
        ("avg_pool", (0,), 3, {"kernel": 4, "stride": 4}),
        ("fit", (7,), 3, {"size": (2, 3)}),
    ]


def test_poolings_to_a_given_size() -> None:
    made = read(
        lambda m, x: F.adaptive_avg_pool2d(x, 1),
        lambda m, x: F.adaptive_avg_pool2d(x, (3, 5)),
        lambda m, x: F.adaptive_max_pool2d(x, (2, 5)),
        lambda m, x: F.adaptive_max_pool2d(x, 1),
        lambda m, x: F.adaptive_avg_pool2d(x, (6, 10)).relu(),
        lambda m, x: x.amax((2, 3)),
        lambda m, x: x.amax((-1, -2), keepdim=True),
        lambda m, x: x.mean((2, 3)),
        lambda m, x: x.mean((-2, -1), keepdim=True),
    )
    assert made == [
        ("global_avg_pool", (0,), 3, {}),
        ("avg_pool", (0,), 3, {"kernel": 2, "stride": 2}),
        ("max_pool", (0,), 3, {"kernel": 3, "stride": 3, "window": (2, 2, 0)}),
        ("max_pool", (0,), 3, {"kernel": 6, "stride": 6, "window": (10, 10, 0)}),
        ("act", (0,), 3, {"act": "relu"}),
        ("max_pool", (0,), 3, {"kernel": 6, "stride": 6, "window": (10, 10, 0)}),
        ("max_pool", (0,), 3, {"kernel": 6, "stride": 6, "window": (10, 10, 0)}),
        ("global_avg_pool", (0,), 3, {}),
        ("global_avg_pool", (0,), 3, {}),
    ]


def test_a_mean_over_the_pixels_of_a_channels_last_tensor() -> None:
    made = read(
        lambda m, x: m.last(m.layer(x.permute(0, 2, 3, 1)).mean((1, 2))),
        lambda m, x: m.last(m.layer(x.permute(0, 2, 3, 1)).mean((1, 2), keepdim=True)),
        layer=nn.Linear(3, 4),
        last=nn.Linear(4, 2),
    )
    assert [row[:3] for row in made[:3]] == [("conv", (0,), 4), ("global_avg_pool", (1,), 4), ("linear", (2,), 2)]
    assert [row[:3] for row in made[3:]] == [("conv", (0,), 4), ("global_avg_pool", (4,), 4), ("conv", (5,), 2)]


def test_resampling_is_an_upsampling_by_whole_factors_and_else_a_fit() -> None:
    made = read(
        lambda m, x: F.interpolate(x, scale_factor=3),
        lambda m, x: F.interpolate(x, size=(12, 20), mode="bilinear"),
        lambda m, x: F.interpolate(x, size=(7, 10)),
        lambda m, x: F.interpolate(x, size=(12, 30)),
        lambda m, x: F.interpolate(x, size=(3, 5)),
        lambda m, x: F.interpolate(x, size=(6, 10)).relu(),
        lambda m, x: F.pad(x, (1, 2, 3, 0)),
    )
    assert made == [
        ("upsample", (0,), 3, {"scale": 3}),
        ("upsample", (0,), 3, {"scale": 2}),
        ("fit", (0,), 3, {"size": (7, 10)}),
        ("fit", (0,), 3, {"size": (12, 30)}),
        ("fit", (0,), 3, {"size": (3, 5)}),
        ("act", (0,), 3, {"act": "relu"}),
        ("fit", (0,), 3, {"size": (9, 13)}),
    ]


def test_concatenation_along_channels_or_pixels() -> None:
    made = read(
        lambda m, x: torch.cat([x.abs(), x], 1),
        lambda m, x: torch.cat([x, x], -1),
        lambda m, x: torch.cat([x.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)], 3),
        lambda m, x: torch.cat([x], 1).relu(),
    )
    assert made == [
        ("act", (0,), 3, {"act": "abs"}),
        ("concat", (1, 0), 6, {}),
        ("stack", (0, 0), 3, {}),
        ("concat", (0, 0), 6, {}),
        ("act", (0,), 3, {"act": "relu"}),
    ]


def test_parts_of_the_channels_are_slices_and_parts_of_the_pixels_a_fit() -> None:
    made = read(
        lambda m, x: torch.cat(x.split([1, 2], 1), 1),
        lambda m, x: torch.cat(x.split(2, 1), 1),
        lambda m, x: torch.cat(x.chunk(2, -3), 1),
        lambda m, x: x[:, -2:],
        lambda m, x: x.narrow(1, 1, 2),
        lambda m, x: x[:, :, 1:4, 2:],
        lambda m, x: x[:, :, ::2],
        lambda m, x: x[:1].relu(),
        lambda m, x: x.permute(0, 2, 3, 1)[..., 1:].relu(),
    )
    assert made == [
        *[("slice", (0,), 1, {}), ("slice", (0,), 2, {"start": 1}), ("concat", (1, 2), 3, {})],
        *[("slice", (0,), 2, {}), ("slice", (0,), 1, {"start": 2}), ("concat", (4, 5), 3, {})],
        *[("slice", (0,), 2, {}), ("slice", (0,), 1, {"start": 2}), ("concat", (7, 8), 3, {})],
        ("slice", (0,), 2, {"start": 1}),
        ("slice", (0,), 2, {"start": 1}),
        *[("fit", (0,), 3, {"size": (3, 10)}), ("fit", (12,), 3, {"size": (3, 8)})],
        ("fit", (0,), 3, {"size": (3, 10)}),
        ("act", (0,), 3, {"act": "relu"}),
        *[("slice", (0,), 2, {"start": 1}), ("act", (16,), 2, {"act": "relu"})],
    ]


def test_reshapes_that_keep_channels_add_no_operation_and_a_shuffle_adds_one() -> None:
    def shuffle(m: Any, x: Tensor) -> Tensor:
        y = m.layer(x)
        return y.view(2, 2, 3, 6, 10).transpose(1, 2).reshape(2, 6, 6, 10)

    def regrouped(m: Any, x: Tensor) -> Tensor:
        return m.layer(x).view(2, 2, 3, 6, 10).view(2, 6, 60).relu()

    def turned_twice(m: Any, x: Tensor) -> Tensor:
        return m.layer(x).view(2, 3, 2, 6, 10).permute(0, 2, 1, 3, 4).transpose(2, 1).reshape(2, 6, 6, 10).relu()

    conv_row = ("conv", (0,), 6, {"bias": True})
    relu_row = ("conv", (0,), 6, {"bias": True, "act": "relu"})
    assert read(shuffle, layer=conv(3, 6)) == [conv_row, ("shuffle", (1,), 6, {"groups": 2})]
    assert read(regrouped, layer=conv(3, 6)) == [relu_row]
    assert read(turned_twice, layer=conv(3, 6)) == [relu_row]


def test_axes_may_be_moved_added_and_removed() -> None:
    made = read(
        lambda m, x: m.layer(x.transpose(1, 3)).transpose(-1, 1).contiguous().clone().relu(),
        lambda m, x: m.layer(x.flatten(2).transpose(1, 2)),
        lambda m, x: m.layer(x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)),
        lambda m, x: m.up(x.mean((2, 3)).unsqueeze(-1).unsqueeze(2)),
        layer=nn.Linear(3, 4, bias=False),
        up=nn.Conv2d(3, 5, 1, bias=False),
    )
    tied = {"tied": True}
    assert made == [
        ("conv", (0,), 4, {"act": "relu"}),
        ("conv", (0,), 4, tied),
        *[("global_avg_pool", (0,), 3, {}), ("linear", (3,), 4, tied)],
        *[("global_avg_pool", (0,), 3, {}), ("conv", (5,), 5, {})],
    ]


def test_two_tensors_are_added_joined_or_broadcast() -> None:
    made = read(
        lambda m, x: x + x.abs(),
        lambda m, x: x * x,
        lambda m, x: x - x[:, :1],
        lambda m, x: torch.maximum(x[:, 1:2], x),
        lambda m, x: x * x.mean((2, 3), keepdim=True),
        lambda m, x: x + x[:, :, :1],
        lambda m, x: x.permute(0, 2, 3, 1) / x.permute(0, 2, 3, 1),
    )
    assert made == [
        *[("act", (0,), 3, {"act": "abs"}), ("add", (0, 1), 3, {})],
        ("join", (0, 0), 3, {}),
        *[("slice", (0,), 1, {}), ("join", (0, 4), 3, {})],
        *[("slice", (0,), 1, {"start": 1}), ("join", (6, 0), 3, {})],
        *[("global_avg_pool", (0,), 3, {}), ("broadcast", (0, 8), 3, {})],
        *[("fit", (0,), 3, {"size": (1, 10)}), ("broadcast", (0, 10), 3, {})],
        ("broadcast", (0, 0), 3, {}),
    ]


def test_constants_change_nothing_unless_they_are_learned() -> None:
    made = read(
        lambda m, x: ((2 - x) * 3 / 4 + m.buffer).relu(),
        lambda m, x: m.gain * x,
        lambda m, x: x + (m.gain * 2 + m.shift),
        gain=nn.Parameter(torch.ones(3, 1, 1)),
        shift=nn.Parameter(torch.ones(6, 1)),
        buffer=torch.zeros(10),
    )
    assert made == [
        ("act", (0,), 3, {"act": "relu"}),
        ("gain", (0,), 3, {"learned": 3}),
        ("gain", (0,), 3, {"learned": 6}),  # the gain is counted where it is first used
    ]


def mask(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None]


def test_zeros_of_a_buffer_stop_the_gradient_of_their_channels() -> None:
    made = read(
        lambda m, x: x * m.mask,
        lambda m, x: m.closed * x,
        lambda m, x: (x * m.open).relu(),
        lambda m, x: x * m.zero,
        lambda m, x: (x * m.pixels).relu(),
        mask=mask(0, 2, -1),
        closed=mask(0, 0, 0),
        open=mask(1, 1, 0.5),
        zero=torch.tensor(0.0),
        pixels=torch.eye(6, 10),
    )
    assert made == [
        *[("slice", (0,), 1, {}), ("stop_gradient", (1,), 1, {}), ("slice", (0,), 2, {"start": 1}), ("concat", (2, 3), 3, {})],
        ("stop_gradient", (0,), 3, {}),
        ("act", (0,), 3, {"act": "relu"}),
        ("stop_gradient", (0,), 3, {}),
        ("act", (0,), 3, {"act": "relu"}),
    ]
    features = read(lambda m, x: (x * m.mask).relu(), image=torch.zeros(2, 3), mask=torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    assert features == [("act", (0,), 3, {"act": "relu"})]  # each channel is open for one of the two images


@pytest.mark.parametrize(
    ("forward", "operation"),
    [
        (lambda m, x: F.max_pool2d(x, 2, 1, dilation=2), "max_pool2d"),
        (lambda m, x: torch.cat([x, x]), "cat"),
        (lambda m, x: x.flip(1), "flip"),
        (lambda m, x: x.roll(1), "roll"),  # all elements, across channels
        (lambda m, x: x.roll((1, 1), (1, 2)), "roll"),
        (lambda m, x: x[:, ::2], "slice"),
        (lambda m, x: torch.cat([x.flatten(1), x.flatten(1)], 1), "cat"),
        (lambda m, x: x.view(2, 20, 9), "view"),
        (lambda m, x: x * m.pixel_mask, "mul"),
        (lambda m, x: x[:, :1] + torch.zeros(3, 1, 1), "add"),
        (lambda m, x: x * x.mean((2, 3)).sum(), "sum"),
    ],
)
def test_a_layer_cannot_read_what_a_graph_cannot_describe(forward: Callable[[Any, Tensor], Tensor], operation: str) -> None:
    blocked = torch.ones(3, 6, 10)
    blocked[1] = 0  # a whole channel, in a mask over pixels
    with pytest.raises(TraceError, match=rf"^{operation} at the model's forward .*the layer at layer .* reads its result$"):
        traced(lambda m, x: m.layer(forward(m, x)), layer=Anything(), pixel_mask=blocked)


class Anything(nn.Module):
    """A layer that accepts every shape."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x.reshape(-1, 1, 1, 1), self.weight)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("layer", "image", "macs"),
    [
        (nn.Conv2d(3, 4, 3, dilation=(2, 1)), small(), (2 * 8) * (9 * 12)),
        (nn.Conv2d(3, 4, (3, 2), padding="same"), small(), (6 * 10) * (6 * 12)),
        (nn.Conv2d(6, 4, 3, dilation=(2, 1), groups=2), torch.zeros(2, 6, 6, 10), (2 * 8) * (9 * 3 * 4)),
        (nn.ConvTranspose2d(3, 4, 3, dilation=(1, 2)), small(), (6 * 10) * (9 * 12)),
        (nn.Conv3d(3, 4, (1, 2, 3)), torch.zeros(2, 3, 4, 5, 6), (4 * 4 * 4) * (6 * 12)),
        (nn.ConvTranspose1d(3, 4, 2), torch.zeros(2, 3, 5), 5 * (2 * 12)),
        (nn.ConvTranspose3d(3, 4, 2, stride=2), torch.zeros(2, 3, 2, 3, 4), (2 * 3 * 4) * (8 * 12)),
        (nn.Linear(10, 4), small(), (3 * 6) * (10 * 4)),  # along the width, where channels are like pixels
    ],
)
def test_layers_whose_windows_are_laid_out_in_a_column(layer: nn.Module, image: Tensor, macs: int) -> None:
    """macs: output pixels (input pixels of a transposed convolution) x weights, by hand."""
    graph = traced(lambda m, x: m.layer(x), image, layer=layer)
    size = [*image.shape[2:4], 1][:2]
    assert cost(graph, *size).macs == macs
    assert cost(graph, *size).params == sum(p.numel() for p in layer.parameters())


def test_weights_that_are_computed_from_the_image_are_an_error() -> None:
    with pytest.raises(TraceError, match=r"^conv at the model's forward .*its weights are computed from the image"):
        traced(lambda m, x: F.conv2d(x, x[:, :, :1, :1]))
