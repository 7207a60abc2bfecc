"""A graph as JSON."""

from __future__ import annotations

import json

import pytest

from gpnas.errors import InputError
from gpnas.export.graph_file import graph_json, read_graph
from search_spaces.architecture import build
from search_spaces.blueprint import open_catalogue
from tests.small_detector import small_graph


@pytest.mark.parametrize("name", ["yolov9-t", "prn", "darknet53"])
def test_a_graph_that_was_written_is_read_as_the_same_graph(name: str) -> None:
    graph = build(open_catalogue(name))
    assert read_graph(graph_json(graph), name) == graph


def test_operations_have_the_fields_that_they_use() -> None:
    graph = small_graph(width=24, auxiliary=0.25)
    document = json.loads(graph_json(graph))
    assert document["operations"][0] == {"kind": "image", "inputs": [], "channels": 3, "name": "image"}
    first = document["operations"][1]
    assert (first["kind"], first["inputs"], first["channels"], first["stride"], first["act"]) == ("conv", [0], 12, 2, "silu")
    assert "groups" not in first and len(document["operations"]) == len(graph.ops)
    assert [(out["branch"], out["stride"], out["weight"]) for out in document["outputs"]] == [
        ("main", 8, 1.0),
        ("main", 16, 1.0),
        ("auxiliary", 8, 0.25),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", r"^g\.json: is no graph that `gpnas export --format graph` wrote \(Expecting value"),
        ("[]", r"^g\.json: is no graph that"),
        ('{"format": 2}', r"^g\.json: graph format 2, not 1; it was written by another program or version$"),
        ('{"format": 1, "operations": [{"kind": "image", "wide": 3}], "outputs": []}', r"^g\.json: is no graph .*wide"),
    ],
)
def test_other_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_graph(text, "g.json")
