"""`gpnas catalogue`: published architectures.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer

from gpnas.cli.options import parse_input_size


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
