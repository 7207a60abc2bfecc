"""`gpnas export`: an architecture as text, or a detector as a file that other programs run.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas import __version__
from gpnas.cli.loading import LoadedNetwork, checkpoint_of, open_checkpoint, open_network
from gpnas.cli.options import (
    ImageSize,
    Trial,
    check_imgsz,
    parse_limits,
    prepare_file,
    prepare_folder,
)
from gpnas.cli.sources import for_classes, is_run, narrowed, read_source, searched_imgsz, trial_yaml, with_trial
from gpnas.errors import InputError

if TYPE_CHECKING:
    from gpnas.export.metadata import Metadata
    from gpnas.search.limits import Limits
    from search_spaces.architecture import Architecture

SUFFIXES = {
    "yaml": (".yaml", ".yml"),
    "graph": (".json",),
    "ultralytics": (".yaml", ".yml"),
    "onnx": (".onnx",),
    "openvino": (".xml",),
    "torchscript": (".torchscript", ".ts"),
    "pt2": (".pt2",),
}
"""The formats, and the suffixes of their files; the first one is given to a file that has no name yet."""

TEXTS = ("yaml", "graph", "ultralytics")
"""Formats that describe an architecture. The others hold weights too."""

_TAKES = {"--batch": ("onnx", "openvino", "torchscript", "pt2"), "--dynamic": ("onnx", "openvino", "pt2")} | {
    "--nms": ("onnx", "openvino"),
    "--layout": ("onnx",),
}
"""The formats that an option is for."""


def export(
    source: Annotated[str, typer.Argument(help="a checkpoint, a run, an architecture YAML or a catalogue name")],
    trial: Trial = None,
    format_: Annotated[
        str, typer.Option("--format", help=f"{', '.join(SUFFIXES)} (default: as --out ends, or yaml)", metavar="FORMAT")
    ] = "",
    to: Annotated[Path | None, typer.Option("--out", help="file to write (default: text goes to standard output)")] = None,
    max_flops: Annotated[str | None, typer.Option(help="narrow it to this many FLOPs (2 x MACs) at --imgsz: 10G")] = None,
    max_params: Annotated[str | None, typer.Option(help="narrow it to this many parameters: 3M")] = None,
    imgsz: ImageSize = None,
    classes: Annotated[int | None, typer.Option(help="give an architecture a head for this many classes")] = None,
    batch: Annotated[int, typer.Option(help="images that the file takes at once")] = 1,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="any number of images at once")] = False,
    nms: Annotated[bool, typer.Option("--nms", help="non-maximum suppression as part of the file")] = False,
    layout: Annotated[str, typer.Option(help="plain, triton (a model repository) or deepstream", metavar="LAYOUT")] = "plain",
) -> None:
    """Write an architecture as YAML, or a detector as ONNX, OpenVINO or another format; a published one may be narrowed."""
    format_ = _format(format_, to, layout)
    given = {"--batch": batch != 1, "--dynamic": dynamic, "--nms": nms, "--layout": layout != "plain"}
    for option, is_given in given.items():
        if is_given and format_ not in _TAKES[option]:
            raise InputError(
                f"{option}: is for {', '.join(_TAKES[option])}; --format {format_} has no such choice, leave it out"
            )
    if classes is not None and classes < 1:
        raise InputError(f"--classes {classes}: must be at least 1")
    source = with_trial(source, trial)
    changes = _Changes(parse_limits(max_flops, max_params), imgsz, classes)
    if format_ in TEXTS:
        prepare_file(to, "--out")
        _write_text(source, format_, to, changes)
    else:
        _write_detector(source, format_, to, changes, _Choices(batch, dynamic, nms, _layout(layout, nms)))


@dataclass(frozen=True)
class _Changes:
    """What is asked for of an architecture."""

    limits: Limits
    imgsz: int | None
    classes: int | None

    @property
    def narrows(self) -> bool:
        return self.limits.max_flops is not None or self.limits.max_params is not None


@dataclass(frozen=True)
class _Choices:
    """What is asked for of a file that holds weights."""

    batch: int
    dynamic: bool
    nms: bool
    layout: Any  # gpnas.export.metadata.Layout


def _format(name: str, to: Path | None, layout: str) -> str:
    """The format that `--format` names, or that `--out` ends in. Raises InputError when they do not fit."""
    if name and name not in SUFFIXES:
        raise InputError(f"--format {name}: must be one of {', '.join(SUFFIXES)}")
    suffix = "" if to is None else to.suffix.lower()
    if layout == "triton" and name in ("", "onnx"):
        if suffix:
            raise InputError(f"--out {to}: --layout triton writes a folder; give a name without {suffix}")
        return "onnx"
    if not name:
        name = "yaml" if to is None else next((known for known, ends in SUFFIXES.items() if suffix in ends), "")
        if not name:
            all_ = ", ".join(dict.fromkeys(ends[0] for ends in SUFFIXES.values()))
            raise InputError(f"--out {to}: no format of export ends so; give a name that ends in {all_}")
    if to is not None and suffix not in SUFFIXES[name]:
        raise InputError(f"--out {to}: --format {name} writes {SUFFIXES[name][0]}; give a name that ends so")
    return name


def _layout(name: str, nms: bool) -> Any:
    from gpnas.export.metadata import Layout

    known = next((layout for layout in Layout if layout == name), None)
    if known is None:
        raise InputError(f"--layout {name}: must be one of {', '.join(Layout)}")
    if nms and known is Layout.DEEPSTREAM:
        raise InputError("--nms: DeepStream suppresses by itself (cluster-mode=2); leave it out with --layout deepstream")
    return known


def _write_text(source: str, format_: str, to: Path | None, changes: _Changes) -> None:
    from gpnas.export.graph_file import graph_json
    from gpnas.export.ultralytics_file import ultralytics_yaml
    from gpnas.files import write_text
    from search_spaces.architecture import build

    if format_ == "yaml" and is_run(Path(source)) and not (changes.narrows or changes.classes):
        text = trial_yaml(Path(source), None)
    else:
        architecture = _changed(_architecture(source), source, changes)
        if format_ == "yaml":
            text = architecture.to_yaml(architecture.found)
        elif format_ == "graph":
            text = graph_json(build(architecture))
        else:
            text = ultralytics_yaml(build(architecture), source)
    if to is None:
        typer.echo(text, nl=False)
    else:
        write_text(to, text)


def _architecture(source: str) -> Architecture:
    file = None if is_run(Path(source)) else checkpoint_of(source)
    return read_source(source) if file is None else open_checkpoint(file)[2]


def _changed(architecture: Architecture, source: str, changes: _Changes) -> Architecture:
    """`architecture` with the classes and within the limits that were asked for. What a search measured does not hold for
    another architecture: the section `found` then has its cost and what it was changed from."""
    from gpnas.graph.cost import deployed_cost
    from search_spaces.architecture import build

    before, found = architecture, architecture.found
    imgsz = 640 if changes.imgsz is None else changes.imgsz
    if changes.classes is not None:
        architecture = for_classes(architecture, changes.classes, stderr=True)
    if changes.narrows:
        architecture = narrowed(architecture, source, changes.limits, imgsz, stderr=True)
    if found is None or architecture.hash == before.hash:
        return architecture
    size = searched_imgsz(before)
    cost = deployed_cost(build(architecture), size)
    kept = {key: found[key] for key in ("trial", "hash") if key in found}
    now = {"changed_from": kept, "cost": {"flops": cost.flops, "params": cost.params, "imgsz": size}}
    return architecture.model_copy(update={"found": now})


def _write_detector(source: str, format_: str, to: Path | None, changes: _Changes, choices: _Choices) -> None:
    from evaluators.judge import check_network
    from gpnas.export.metadata import Metadata
    from gpnas.graph.cost import deployed_cost
    from gpnas.graph.graph import Branch

    loaded = _narrowed_network(source, changes)
    graph = loaded.network.graph
    stride = max(out.stride for out in graph.outputs if out.branch is Branch.MAIN)
    imgsz = loaded.imgsz if changes.imgsz is None else changes.imgsz
    check_imgsz(imgsz, stride=stride)
    check_network(graph, len(loaded.names), imgsz)
    about = Metadata(
        names=loaded.names,
        imgsz=imgsz,
        stride=stride,
        source=source,
        weights=loaded.weights,
        is_trained=loaded.is_trained,
        version=__version__,
        batch=choices.batch,
        dynamic=choices.dynamic,
        nms=choices.nms,
        layout=choices.layout,
        split=loaded.split,
        data_digest=loaded.data_digest,
    )
    path = to or _default_path(source, format_, choices)
    prepare_folder(path.parent, "--out")
    files = _write(loaded, format_, path, about)
    cost = deployed_cost(graph, imgsz)
    typer.echo(
        f"{source}: {cost.params / 1e6:.3f}M parameters, {cost.flops / 1e9:.3f}G FLOPs at {imgsz} px, weights: {about.weights}"
    )
    for file in files:
        typer.echo(f"wrote {file} ({file.stat().st_size / 2**20:.2f} MiB)")
    if not about.is_trained:
        typer.echo(
            f"{source} has no weights: those of the file are random, as its metadata say; train it first with `gpnas train`",
            err=True,
        )


def _narrowed_network(source: str, changes: _Changes) -> LoadedNetwork:
    """The network of `source` with its weights; random ones for a narrowed architecture."""
    from evaluators.training.loop import new_network
    from search_spaces.architecture import candidate

    loaded = open_network(source, changes.classes)
    if not changes.narrows:
        return loaded
    if loaded.is_trained:
        raise InputError(f"--max-flops, --max-params: the weights of {source} fit its own widths only; leave the limits out")
    imgsz = loaded.imgsz if changes.imgsz is None else changes.imgsz
    narrow = narrowed(loaded.architecture, source, changes.limits, imgsz, stderr=True)
    network = new_network(candidate(narrow).graph, len(loaded.names), imgsz, seed=0)
    return LoadedNetwork(network, narrow, loaded.names, loaded.imgsz, source, loaded.weights)


def _default_path(source: str, format_: str, choices: _Choices) -> Path:
    """Beside a checkpoint, with its name; for an architecture in the current folder."""
    file = checkpoint_of(source)
    path = Path(Path(source).name if Path(source).is_dir() else Path(source).stem) if file is None else file.with_suffix("")
    if choices.layout == "triton":
        return path
    return path.with_name(path.name + SUFFIXES[format_][0])


def _write(loaded: LoadedNetwork, format_: str, path: Path, about: Metadata) -> list[Path]:
    from gpnas.export import torch_files
    from gpnas.export.metadata import Layout
    from gpnas.export.onnx_file import onnx_model
    from gpnas.export.openvino_file import write_openvino
    from gpnas.export.servers import write_deepstream, write_onnx, write_triton

    network = loaded.network.fused()
    if format_ == "torchscript":
        return torch_files.write_torchscript(network, about, path)
    if format_ == "pt2":
        return torch_files.write_exported_program(network, about, path)
    model = onnx_model(network, about)
    if format_ == "openvino":
        return write_openvino(model, about, path)
    if about.layout is Layout.TRITON:
        return write_triton(model, about, path)
    if about.layout is Layout.DEEPSTREAM:
        return write_deepstream(model, about, path)
    return write_onnx(model, path)
