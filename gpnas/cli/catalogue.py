"""`gpnas catalogue` and `export`: published architectures, and any architecture as YAML.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from gpnas.cli.options import Trial, parse_input_size, parse_limits, parse_pixels, prepare_file
from gpnas.cli.sources import for_classes, is_run, narrowed, read_source, trial_yaml, with_trial
from gpnas.errors import InputError


def export(
    source: Annotated[str, typer.Argument(help="a run, an architecture YAML or a catalogue name")],
    trial: Trial = None,
    to: Annotated[Path | None, typer.Option("--out", help="file to write (default: standard output)")] = None,
    max_flops: Annotated[str | None, typer.Option(help="narrow it to this many FLOPs (2 x MACs) at --imgsz: 10G")] = None,
    max_params: Annotated[str | None, typer.Option(help="narrow it to this many parameters: 3M")] = None,
    imgsz: Annotated[
        int, typer.Option(help="image size for --max-flops, in pixels", parser=parse_pixels, metavar="PIXELS")
    ] = 640,
    classes: Annotated[int | None, typer.Option(help="give it a head for this many classes")] = None,
) -> None:
    """Write an architecture as a YAML that rebuilds it exactly; a published one may be narrowed to limits."""
    from gpnas.files import write_text

    if to is not None and to.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out {to}: export writes YAML; give a name that ends in .yaml")
    source = with_trial(source, trial)
    prepare_file(to, "--out")
    if is_run(Path(source)) and not (max_flops or max_params or classes):
        document = trial_yaml(Path(source), None)
    else:
        architecture = read_source(source)
        if classes is not None:
            architecture = for_classes(architecture, classes, stderr=True)
        if max_flops or max_params:
            architecture = narrowed(architecture, source, parse_limits(max_flops, max_params), imgsz, stderr=True)
        document = architecture.to_yaml(architecture.found)
    if to is None:
        typer.echo(document, nl=False)
    else:
        write_text(to, document)


def catalogue(as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a line")] = False) -> None:
    """List the published architectures: our cost and gradient-path figures beside the published ones."""
    from gpnas.bench.growth import laws
    from gpnas.graph.cost import convolution_weights
    from gpnas.paths.analysis import analyse
    from gpnas.report.tables import catalogue_tables, open_console
    from search_spaces.architecture import build
    from search_spaces.blueprint import catalogue as names
    from search_spaces.blueprint import open_catalogue
    from search_spaces.growth import network

    rows = []
    for name in names():
        entry = open_catalogue(name)
        graph, published = build(entry), entry.published or {}
        _, height, width = parse_input_size(published.get("input", "3x640x640"))
        row = {**analyse(graph, name, height, width), "source": entry.source, "published": entry.published}
        if "counts" in published:
            row["convolution_weights"] = convolution_weights(graph)
        if "growth" in published:
            row["growth"] = laws(partial(network, name))
        rows.append(row)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    else:
        open_console().print(catalogue_tables(rows))
