"""CONTRIBUTING.md: its example of a new block works as it stands there, and its names exist."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from gpnas.errors import GenotypeError, GraphError
from gpnas.graph.graph import GraphBuilder
from gpnas.graph.network import Network
from search_spaces import families, genotype, pieces
from search_spaces.blueprint import build_blueprint, read_blueprint

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_example_of_a_new_piece_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    function, line = (dedent(part) for part in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    document = dedent(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[0])
    names: dict[str, Any] = {"GraphBuilder": GraphBuilder, "GraphError": GraphError}
    exec(function, names)
    for name, piece in eval("{" + line + "}", names).items():
        monkeypatch.setitem(pieces.PIECES, name, piece)
    graph = build_blueprint(read_blueprint(document))
    assert [op.kernel for op in graph.ops if op.weighted and op.name.startswith("p3r")] == [1, 3, 3, 3, 1]
    assert [out.stride for out in graph.outputs] == [8, 16, 32]
    with torch.no_grad():
        assert [tuple(out.shape) for out in Network(graph).eval()(torch.zeros(1, 3, 64, 32))] == [
            (1, 144, 8, 4),
            (1, 144, 4, 2),
            (1, 144, 2, 1),
        ]
    with pytest.raises(GenotypeError, match="unknown key 'scale'"):
        read_blueprint(document.replace("block: res2, width: 64", "block: res2, width: 64, scale: 2"))
    with pytest.raises(GenotypeError, match=r"blocks\[3\] \(p3r\): res2: scales must divide the width, got 5 and 64"):
        build_blueprint(read_blueprint(document.replace("block: res2, width: 64", "block: res2, width: 64, scales: 5")))


def test_the_files_and_names_of_the_text_exist() -> None:
    paths = re.findall(r"`((?:gpnas|search_spaces|evaluators|tests|docs|benchmarks)/[\w./-]*)`", TEXT)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for module, name in ((families, "UNITS"), (families, "FAMILIES"), (genotype, "Unit"), (genotype, "FAMILY_FIELDS")):
        assert f"`{name}`" in TEXT and hasattr(module, name)


def test_the_targets_of_make_that_the_text_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make ([\w-]+)`", TEXT))
    assert targets >= {"quick", "lint", "test", "check"}
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
