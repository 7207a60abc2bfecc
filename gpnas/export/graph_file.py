"""A graph as JSON, for programs that read networks: every operation with its inputs, and the outputs.

    {"format": 1, "operations": [{"kind": "image", "inputs": [], "channels": 3, "name": "image"}, ...],
     "outputs": [{"op": 41, "name": "head8.output", "branch": "main", "stride": 8, "weight": 1.0}, ...]}

An operation has the fields of `gpnas.graph.graph.Op`, without those that keep their defaults. `inputs` and `op` count
operations from 0. `read_graph` rebuilds the graph.
"""

from __future__ import annotations

import json
from typing import Any

from gpnas.errors import InputError
from gpnas.graph.graph import Branch, Graph, Op, Output

FORMAT = 1


def graph_json(graph: Graph) -> str:
    """One operation a line."""
    operations = ",\n  ".join(json.dumps(_row(op)) for op in graph.ops)
    outputs = ",\n  ".join(json.dumps(out._asdict()) for out in graph.outputs)
    return f'{{"format": {FORMAT},\n "operations": [\n  {operations}],\n "outputs": [\n  {outputs}]}}\n'


def _row(op: Op) -> dict[str, Any]:
    changed = {key: value for key, value in op._asdict().items() if value != op._field_defaults.get(key)}
    return {"kind": op.kind, "inputs": op.inputs, "channels": op.channels, "name": op.name} | changed


def read_graph(text: str, where: str) -> Graph:
    """The graph that `graph_json` wrote. Raises InputError, which begins with `where`, for other text."""
    try:
        document = json.loads(text)
        version = document.get("format")
        if version != FORMAT:
            raise InputError(f"{where}: graph format {version}, not {FORMAT}; it was written by another program or version")
        ops = tuple(Op(**{key: _tuple(value) for key, value in row.items()}) for row in document["operations"])
        outputs = tuple(Output(**{**row, "branch": Branch(row["branch"])}) for row in document["outputs"])
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: is no graph that `gpnas export --format graph` wrote ({error})") from None
    return Graph(ops, outputs)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
