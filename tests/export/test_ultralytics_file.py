"""Model YAML files of Ultralytics: parameters counted from the text, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from gpnas.errors import InputError
from gpnas.export.ultralytics_file import ultralytics_yaml
from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph, GraphBuilder
from search_spaces.architecture import build
from search_spaces.blueprint import open_catalogue
from search_spaces.pieces import detect, sppf


def convolution(c1: int, c2: int, k: int, s: int = 1, p: int = 0, g: int = 1, *_: object) -> int:
    return c1 // g * c2 * k * k + 2 * c2  # with the scale and shift of its normalisation


def parameters(text: str) -> int:
    """Parameters of the modules of a model YAML, as Ultralytics' documentation describes them."""
    document = yaml.safe_load(text)
    widths: list[int] = []
    total = 0
    for from_, repeats, module, arguments in document["backbone"] + document["head"]:
        assert repeats == 1
        sources = [from_] if isinstance(from_, int) else from_
        inputs = [widths[i] if widths else 3 for i in sources]
        if module == "Conv":
            widths.append(arguments[0])
            total += convolution(inputs[0], *arguments)
        elif module == "Bottleneck":
            c2, shortcut, groups, (k1, k2), share = arguments
            assert shortcut and c2 == inputs[0]
            widths.append(c2)
            total += convolution(c2, int(c2 * share), k1) + convolution(int(c2 * share), c2, k2, g=groups)
        elif module == "Concat":
            widths.append(sum(inputs))
        elif module == "Detect":
            total += detect_parameters(inputs, document["nc"])
        else:
            assert module in ("nn.MaxPool2d", "nn.AvgPool2d", "nn.Upsample")
            widths.append(inputs[0])
    return total


def detect_parameters(levels: list[int], classes: int) -> int:
    box, label = max(16, levels[0] // 4, 64), max(levels[0], min(classes, 100))
    boxes = sum(convolution(c, box, 3) + convolution(box, box, 3) + 64 * (box + 1) for c in levels)
    labels = sum(convolution(c, label, 3) + convolution(label, label, 3) + classes * (label + 1) for c in levels)
    return boxes + labels


def detector(body: Callable[[GraphBuilder, int], int], **head: Any) -> Graph:
    b = GraphBuilder()
    x = b.conv(b.conv(b.image, 16, 3, 2), 32, 3, 2)
    fine = b.conv(body(b, b.conv(x, 48, 3, 2)), 40, 1)
    coarse = sppf(b, b.conv(b.avg_pool(fine, 2, 1), 64, 3, 2), width=64, hidden=32)
    fine = b.conv(b.concat([b.upsample(coarse), fine]), 40, 3)
    detect(b, [fine, coarse], **({"classes": 5, "box_width": 64, "class_width": 40} | head))
    return b.build()


def elan(b: GraphBuilder, x: int) -> int:
    first, second = b.split(b.conv(x, 40), 24)
    return b.concat([first, second, b.conv(second, 16, 3)])


def residual(b: GraphBuilder, x: int) -> int:
    return b.add(b.conv(b.conv(x, 24), 48, 3, groups=4), x)


@pytest.mark.parametrize("body", [elan, residual, lambda b, x: b.max_pool(x, 5)])
def test_the_yaml_has_the_parameters_of_the_network(body: Callable[[GraphBuilder, int], int]) -> None:
    graph = detector(body)
    assert parameters(ultralytics_yaml(graph, "small")) == cost(graph, 64, 64, fused=False).params


def test_the_lines_name_modules_and_what_they_read() -> None:
    lines = ultralytics_yaml(detector(elan), "small").splitlines()
    assert lines[:4] == ["# small, written by gpnas", "nc: 5", "backbone:", "  - [-1, 1, Conv, [16, 3, 2, 1, 1]]"]
    # The layer of 40 channels is two layers, because its parts go different ways.
    assert lines[6:10] == [
        "  - [-1, 1, Conv, [24, 1, 1, 0, 1]]",
        "  - [2, 1, Conv, [16, 1, 1, 0, 1]]",
        "  - [-1, 1, Conv, [16, 3, 1, 1, 1]]",
        "  - [[3, 4, -1], 1, Concat, [1]]",
    ]
    assert lines[-1].endswith(", 1, Detect, [nc]]") and lines[-2] == "head:"
    assert "  - [-1, 1, Bottleneck, [48, True, 4, [1, 3], 0.5]]" in ultralytics_yaml(detector(residual), "small").splitlines()


def wide(b: GraphBuilder, x: int) -> int:
    return b.conv(x, 44, 3)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (lambda: build(open_catalogue("yolov9-t")), r"no module for p3\..*: RepConv \(unit rep_residual\) stands in its GELAN"),
        (lambda: detector(lambda b, x: b.masked_add(b.conv(x, 48), x, 16)), r"for masked_add: a masked or asymmetric residual"),
        (lambda: detector(lambda b, x: b.add(b.conv(x, 48), x)), r"for add: a sum that is not that of a residual unit"),
        (lambda: detector(wide), r"its width 44 is no multiple of 8; export it with --format onnx$"),
        (lambda: detector(elan, box_groups=4), r"for head8\.box1: its head has one group, not 4 \(box_groups\)"),
        (lambda: detector(elan, depth=1), r"for head8\.concat: a head with another depth than 2"),
        (lambda: detector(elan, class_width=48), r"its head has 40 channels and kernel 3 here, not 48 channels and kernel 3"),
        (lambda: detector(elan, reg_max=8), r"its head has 64 channels and kernel 1 here, not 32 channels and kernel 1"),
    ],
)
def test_what_ultralytics_does_not_have_is_named(graph: Callable[[], Graph], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        ultralytics_yaml(graph(), "small")
    assert str(refused.value).startswith("small: Ultralytics has no module for ")
