"""Are the parameters and MACs of public networks counted exactly? Each network is traced without weights, and compared.

    python benchmarks/public_networks.py [--names FILE] [--rows FILE] [--only NAME ...] [--stale] [--summary]

A name is `timm/MODEL` or `torchvision/MODEL`. The two packages are not dependencies of gpnas: put them on PYTHONPATH, as with
`pip install --no-deps --target SITE timm torchvision safetensors huggingface_hub`. Each network becomes one row of a JSON-lines
file, and rows that the file holds are not made again; `--only` makes the rows of these networks anew, and `--stale` those that
another commit made. What a row says:

    parameters of the module; parameters that the graph counts; parameters that are left out, by name
    multiply-accumulates (MACs) of the graph, and those that torch.utils.flop_counter counts on the same image
    exact: both agree. different: the MACs differ. refused: no graph, and the line that says why. failed: the network itself
    does not run here. MACs of layers that do not read the image (`blind_macs`), as of tables of positions, are not in a graph.

One thread; one network in memory at a time.
"""

import argparse
import contextlib
import gc
import json
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from resumable import held
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gpnas.errors import GpnasError
from gpnas.graph.cost import cost
from gpnas.graph.trace import trace_module
from gpnas.paths.gradient_paths import gradient_paths

HERE = Path(__file__).parent / "public-networks"
IMGSZ = 256
"""Most pixels of a side of the image, for networks that take any image."""

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

FIGURES = ("live_layers", "longest", "longest_shortest", "distinct_combinations", "duplicated_share")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=Path, default=HERE / "names.txt", help="one name on each line")
    parser.add_argument("--rows", type=Path, default=HERE / "rows.jsonl")
    parser.add_argument("--only", nargs="*", default=[], help="make the rows of these networks anew")
    parser.add_argument("--stale", action="store_true", help="make the rows of other commits anew; torch's counts are kept")
    parser.add_argument("--summary", action="store_true", help="print the rows that the file holds, and make none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)  # torch's counter does not see inside of it
    warnings.simplefilter("ignore")
    made_before = {row["name"]: row for row in held(given.rows, ("name", "verdict"))}
    revision = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(revision, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    anew = {*given.only, *(name for name, row in made_before.items() if given.stale and row["commit"] != commit)}
    rows = {name: row for name, row in made_before.items() if name not in anew}
    names = given.names.read_text().split()
    for name in [] if given.summary else [name for name in names if name not in rows]:
        row = compared(name, made_before.get(name, {}), commit)
        rows[name] = row
        with given.rows.open("a") as file:  # of two rows of a network, the last one counts
            file.write(json.dumps(row) + "\n")
        print(line(row), flush=True)
        gc.collect()
    ordered = [rows[name] for name in names if name in rows]
    others = [row for name, row in rows.items() if name not in names]
    given.rows.write_text("".join(json.dumps(row) + "\n" for row in [*ordered, *others]))
    if given.summary:
        print("\n".join(line(row) for row in ordered))
    print(totals(ordered))


def compared(name: str, before: dict[str, Any], commit: str) -> dict[str, Any]:
    """The row of one network. before: its last row; torch's count in it does not depend on gpnas, and is taken over."""
    began = time.monotonic()
    with no_weights():
        model, image = network(name)
    model.eval()
    whole = sum(parameter.numel() for parameter in model.parameters())
    row: dict[str, Any] = {"name": name, "commit": commit, "imgsz": image.shape[-1], "params": whole}
    try:
        same = before.get("imgsz") == image.shape[-1] and before.get("torch_macs")
        row["torch_macs"] = before["torch_macs"] if same else torch_macs(model, image)
        row |= graph_of(model, image)
    except Exception as error:  # a network of others may raise anything
        row |= {"torch_macs": 0, "verdict": "failed", "cause": f"{type(error).__name__}: {error}"}
    if row["verdict"] == "" and row["counted"] + sum(row["left_out"].values()) != whole:
        row |= {"verdict": "different", "cause": "parameters"}
    if row["verdict"] == "":
        row["blind_macs"] = 0 if row["macs"] == row["torch_macs"] else blind_macs(*network(name))
        ratio = (row["macs"] + row["blind_macs"]) / row["torch_macs"]
        row |= {"verdict": "exact"} if ratio == 1 else {"verdict": "different", "cause": f"MACs / torch's MACs {ratio:.4f}"}
    return row | {"seconds": round(time.monotonic() - began, 1)}


@contextlib.contextmanager
def no_weights() -> Iterator[None]:
    """Random numbers, which take most of the time to build a large network, are their mean or lower bound instead.
    Memory as it was would not do: torch's `trunc_normal_` draws until all numbers are in bounds, and would never end."""
    instead = {
        "normal_": lambda tensor, mean=0.0, *_, **__: tensor.fill_(mean),
        "uniform_": lambda tensor, low=0.0, *_, **__: tensor.fill_(low),
        "erfinv_": lambda tensor: tensor,
    }
    drawn = {name: getattr(torch.Tensor, name) for name in instead}
    for name, method in instead.items():
        setattr(torch.Tensor, name, method)
    try:
        yield
    finally:
        for name, method in drawn.items():
            setattr(torch.Tensor, name, method)


def graph_of(model: nn.Module, image: torch.Tensor) -> dict[str, Any]:
    """What gpnas counts, or why it refuses the network. An empty verdict stands for a graph."""
    try:
        traced = trace_module(model, (image,))
    except GpnasError as error:
        return {"verdict": "refused", "cause": str(error)}
    whole = cost(traced.graph, *image.shape[2:], fused=False)
    figures = gradient_paths(traced.graph).figures()
    shown = {key: round(figures[key], 4) for key in FIGURES}
    return {"counted": whole.params, "left_out": dict(traced.left_out), "macs": whole.macs, **shown, "verdict": "", "cause": ""}


def blind_macs(model: nn.Module, image: torch.Tensor) -> int:
    """By torch's counter, the multiply-accumulates of layers that read the same for two images, as tables of positions do. They
    can be computed once; a graph counts their parameters, and not these."""
    model.eval()
    read: dict[str, list[float]] = {}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: read.setdefault(name, []).append(given[0].double().sum().item())
        )
        for name, module in layers.items()
    ]
    for seed in (1, 2):
        with torch.no_grad():
            model(torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)))
    for hook in hooks:
        hook.remove()
    blind = [name for name, sums in read.items() if sums[: len(sums) // 2] == sums[len(sums) // 2 :]]
    counter = FlopCounterMode(display=False)
    with without_gradients(model), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    by_module = counter.get_flop_counts()
    return sum(sum(by_module.get(f"{type(model).__name__}.{name}", {}).values()) for name in blind) // 2


@contextlib.contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """torch's counter fails under no_grad at some networks, so the parameters are frozen instead."""
    model.requires_grad_(False)
    yield
    model.requires_grad_(True)


def torch_macs(model: nn.Module, image: torch.Tensor) -> int:
    """Multiply-accumulates by torch's counter, which knows convolutions and products of matrices."""
    counter = FlopCounterMode(display=False)
    with without_gradients(model), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    return counter.get_total_flops() // 2


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network without trained weights, and an image of (1, 3, height, width)."""
    package, _, model_name = name.partition("/")
    if package == "torchvision":
        import_torchvision()
        from torchvision.models import get_model

        fixed = any(word in model_name for word in ("vit", "swin"))
        return get_model(model_name, weights=None), torch.zeros(1, 3, *([224 if fixed else 128] * 2))
    import_torchvision()
    import timm

    model = timm.create_model(model_name, pretrained=False)
    cfg = model.default_cfg
    sizes = cfg["input_size"][1:] if cfg.get("fixed_input_size") else [min(size, IMGSZ) for size in cfg["input_size"][1:]]
    return model, torch.zeros(1, 3, *sizes)


def import_torchvision() -> None:
    """torchvision's Python files work without its operators in C++, which no CPU wheel of this torch has, once these exist."""
    if not hasattr(torch.ops.torchvision, "nms"):
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")


def line(row: dict[str, Any]) -> str:
    left_out = sum(row.get("left_out", {}).values())
    cells = (
        f"{row['name']:40} {row['imgsz']:4} {row['params']:11} {row.get('counted', 0):11} {left_out:8} "
        f"{row.get('macs', 0):12} {row['torch_macs']:12} {row['seconds']:5} s  {row['verdict']}"
    )
    return f"{cells}: {row['cause'][:200]}" if row["cause"] else cells


def totals(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["verdict"] for row in rows)
    return f"{len(rows)} networks: " + ", ".join(f"{number} {verdict}" for verdict, number in counts.most_common())


if __name__ == "__main__":
    main()
