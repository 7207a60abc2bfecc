"""`gpnas.profile`: what it counts, and what it does not need."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import gpnas
from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch
from gpnas.paths.gradient_paths import gradient_paths
from tests.graph.traced_models import Joined, conv

ROOT = Path(__file__).parents[2]

VARIED: dict[str, tuple[nn.Module, Sequence[int]]] = {
    "flattened": (
        nn.Sequential(conv(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 15, 8), nn.Linear(8, 2)),
        (3, 6, 10),
    ),
    "rectangular": (nn.Sequential(nn.Conv2d(3, 4, (1, 7), (1, 2), (0, 3)), nn.Conv2d(4, 4, (3, 1))), (3, 9, 14)),
    "dilated": (nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2, padding=2), nn.Conv2d(4, 2, 3, stride=2)), (3, 12, 15)),
    "transposed": (
        nn.Sequential(conv(3, 4), nn.ConvTranspose2d(4, 6, (3, 2), (2, 3), (1, 0), output_padding=(1, 2)), conv(6, 2, 3)),
        (3, 6, 10),
    ),
    "grouped": (nn.Sequential(conv(3, 8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1, groups=2)), (3, 6, 10)),
    "features": (nn.Sequential(nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 2)), (6,)),
    "one axis of pixels": (nn.Sequential(nn.Conv1d(3, 4, 3, 2), nn.InstanceNorm1d(4), nn.Conv1d(4, 2, 1)), (3, 19)),
    "odd sizes": (
        nn.Sequential(conv(3, 4), nn.MaxPool2d(2, ceil_mode=True), nn.Upsample(size=(7, 6)), conv(4, 2, 3)),
        (3, 9, 11),
    ),
}


@pytest.mark.parametrize(("model", "size"), VARIED.values(), ids=VARIED)
def test_cost_is_what_torch_counts(model: nn.Module, size: Sequence[int]) -> None:
    image = torch.zeros(1, *size)
    with FlopCounterMode(display=False) as counter:
        model.eval()(image)
    profile = gpnas.profile(model, image)
    assert profile.flops == counter.get_total_flops()
    assert profile.params == sum(p.numel() for p in model.parameters())
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    assert profile.layers == sum(isinstance(m, kinds) for m in model.modules())


def test_a_profile_holds_cost_figures_and_graph() -> None:
    profile = gpnas.profile(nn.Sequential(conv(3, 4), conv(4, 2)), (torch.zeros(1, 3, 6, 10),))
    assert (profile.params, profile.macs) == (3 * 4 + 4 + 4 * 2 + 2, 60 * (3 * 4 + 4 * 2))
    assert (profile.flops, profile.layers, profile.live_params) == (2 * profile.macs, 2, 26)
    assert profile.figures == gradient_paths(profile.graph).figures()
    assert profile.figures["shortest_mean"] == 1.5
    lines = [line.split() for line in str(profile).splitlines()]
    assert lines[:4] == [["params", "26"], ["macs", "1200"], ["flops", "2400"], ["layers", "2"]]
    assert ["shortest_mean", "1.5"] in lines
    assert {len(line) - len(line.split()[-1]) for line in str(profile).splitlines()} == {27}  # values stand in one column


def test_a_profile_names_the_parameters_that_it_leaves_out() -> None:
    model = Joined(lambda m, x: m.used(x), used=conv(3, 4), spare=nn.Linear(4, 7))
    profile = gpnas.profile(model, torch.zeros(1, 3, 6, 10))
    assert profile.left_out == {"spare.bias": 7, "spare.weight": 28}
    assert profile.params + sum(profile.left_out.values()) == sum(p.numel() for p in model.parameters())
    told = "35 parameters that the outputs do not use: spare.bias, spare.weight"
    assert str(profile).splitlines()[-1] == f"left out                   {told}"


def test_outputs_may_be_named_and_marked_as_auxiliary() -> None:
    def forward(m: Joined, x: Tensor) -> dict[str, Tensor]:
        y = m.stem(x)
        return {"boxes": m.boxes(y), "masks": m.masks(y), "early": m.early(y)}

    heads = {"boxes": conv(4, 2), "masks": conv(4, 2), "early": conv(4, 2)}
    profile = gpnas.profile(
        Joined(forward, stem=conv(3, 4), **heads), torch.zeros(1, 3, 6, 10), outputs=["boxes"], auxiliary=["early"]
    )
    assert [(out.name, out.branch) for out in profile.graph.outputs] == [("boxes", Branch.MAIN), ("early", Branch.AUXILIARY)]
    assert profile.figures["live_layers"] == 3
    assert profile.params == cost(profile.graph, 6, 10).params


OPTIONAL = ("nni", "wandb", "pycocotools", "typer", "rich", "pydantic", "cv2", "sklearn", "moocore", "scipy")


def test_a_profile_imports_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    known = gpnas.profile
    for name in [name for name in sys.modules if name.partition(".")[0] == "gpnas"]:
        monkeypatch.delitem(sys.modules, name)
    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    profile = importlib.import_module("gpnas.paths.profile").profile
    assert profile is not known
    assert profile(conv(3, 4), torch.zeros(1, 3, 6, 10)).macs == 720


PROFILED = f"""
import sys
for name in {OPTIONAL}:
    sys.modules[name] = None  # importing it fails
import gpnas
assert "torch" not in sys.modules
import torch
print(gpnas.profile(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 6, 10)).macs)
"""


@pytest.mark.slow  # a new interpreter imports torch.export
def test_a_profile_in_a_new_interpreter_needs_torch_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PROFILED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "720\n"), done.stderr
