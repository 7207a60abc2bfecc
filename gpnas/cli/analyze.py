"""`gpnas analyze`: the cost and the gradient paths of a network.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.cli.options import Trial, parse_input_size, prepare_file
from gpnas.cli.sources import candidate_of, with_trial
from gpnas.errors import GraphError, InputError

if TYPE_CHECKING:
    from gpnas.graph.graph import Graph
    from gpnas.graph.trace import Traced


def analyze(
    source: Annotated[
        str,
        typer.Argument(
            help="a catalogue name, a YAML, a run (its best, or --trial), or module:callable that returns a torch module"
        ),
    ],
    trial: Trial = None,
    size: Annotated[str, typer.Option("--input", help="channels x height x width")] = "3x640x640",
    outputs: Annotated[
        str | None, typer.Option(help="module:callable: outputs with the main loss, separated by commas (default: all)")
    ] = None,
    auxiliary: Annotated[
        str | None, typer.Option(help="module:callable: outputs with an auxiliary loss, separated by commas")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="add a row for each layer")] = False,
    timeline: Annotated[Path | None, typer.Option(help="file for a drawing (SVG) of the gradient timeline")] = None,
) -> None:
    """Print the cost of a network and the figures of its gradient paths."""
    from gpnas.paths.analysis import analyse, layer_rows

    channels, height, width = parse_input_size(size)
    source = with_trial(source, trial)
    prepare_file(timeline, "--timeline")
    traced: Traced | None = None
    if ":" in source and not Path(source).exists():
        traced = _traced(source, (channels, height, width), outputs, auxiliary)
        graph = traced.graph
    elif outputs or auxiliary:
        raise InputError(f"--outputs, --auxiliary: only for module:callable; {source} says itself which outputs carry a loss")
    else:
        graph = candidate_of(source).graph
    if channels != graph.ops[0].channels:
        raise InputError(f"--input {size}: {source} reads {graph.ops[0].channels} channels, not {channels}")
    try:
        result = analyse(graph, source, height, width)
    except GraphError as error:
        raise InputError(f"--input {size}: {error}; try {_fitting_size(graph, height, width)}") from None
    if traced is not None:
        result["left_out"] = dict(traced.left_out)
    if layers:
        result["layer_rows"] = layer_rows(graph)
    if timeline is not None:
        from gpnas.files import write_text
        from gpnas.report.timeline import timeline_svg

        write_text(timeline, timeline_svg(graph, f"{source}: gradient timeline"))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_analysis(result)


def _fitting_size(graph: Graph, height: int, width: int) -> str:
    """The nearest size that the strides of a network's outputs divide."""
    step = max(32, *(out.stride for out in graph.outputs))
    sides = (max(step, round(side / step) * step) for side in (height, width))
    return "x".join(map(str, (graph.ops[0].channels, *sides)))


def _traced(source: str, size: tuple[int, int, int], outputs: str | None, auxiliary: str | None) -> Traced:
    """The trace of the torch module that `module:callable` is or returns; the current folder is searched for the module."""
    import importlib

    import torch

    from gpnas.graph.trace import trace_module

    module, _, name = source.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        named: Any = importlib.import_module(module)
        for part in name.split("."):
            named = getattr(named, part)
    except Exception as error:  # whatever the user's module raises when it is imported
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{source}: cannot be imported ({what}); give module:callable, as seen from this folder") from None
    if not callable(named):
        raise InputError(f"{source}: is {type(named).__name__}; give a torch.nn.Module, or a callable that returns one")
    try:
        model = named if isinstance(named, torch.nn.Module) else named()
    except Exception as error:  # whatever the user's callable raises
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{source}: failed when it was called without arguments ({what})") from None
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{source}: returned {type(model).__name__}; it must return a torch.nn.Module")
    chosen = outputs.split(",") if outputs else None
    others = auxiliary.split(",") if auxiliary else ()
    return trace_module(model, (torch.zeros(1, *size),), outputs=chosen, auxiliary=others)


def _print_analysis(result: dict[str, Any]) -> None:
    from gpnas.paths.profile import left_out_text
    from gpnas.report.tables import figures_table, layers_table, open_console, stages_table

    plain = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
    for name, value in (plain | {f"train {key}": value for key, value in result["train"].items()}).items():
        typer.echo(f"{name:26} {value}")
    if result.get("left_out"):
        typer.echo(f"{'left out':26} {left_out_text(result['left_out'])}")
    console = open_console()
    columns = {"all losses": {"live_params": result["live_params"], **result["gradient_paths"]}, **result.get("branches", {})}
    console.print(figures_table(columns))
    console.print(stages_table(result["stages"]))
    if "layer_rows" in result:
        console.print(layers_table(result["layer_rows"]))
