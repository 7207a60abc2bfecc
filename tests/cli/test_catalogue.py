"""`gpnas catalogue`."""

from __future__ import annotations

import json

import pytest

from search_spaces.blueprint import catalogue
from tests.cli.conftest import Gpnas

SHOWN = ("resnext50-csp", "sparse-densenet", "vovnet-99-elan", "yolov9-t")
"""A classifier with published convolution weights, two families with published growth and a detector."""


def test_the_catalogue_is_listed_beside_the_published_figures(gpnas: Gpnas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.blueprint.catalogue", lambda: SHOWN)
    code, out, _ = gpnas("catalogue")
    words = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert code == 0 and words["yolov9-t"][1:3] == ["2.00M", "2.0M"]
    assert words["resnext50-csp"][1:3] == ["20.50M", "20.50M"]
    assert "N log N (N log N)" in out and "vovnet-99-elan: nearest" in out
    code, out, _ = gpnas("catalogue", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0 and tuple(rows) == SHOWN
    assert rows["yolov9-t"]["params"] == 2_001_824 and rows["yolov9-t"]["published"]["params"] == "2.0M"
    assert rows["sparse-densenet"]["growth"] == {
        "parameters": "N log N",
        "shortest_path": "log N",
        "aggregated_features": "log N",
    }
    assert [name for name in SHOWN if "convolution_weights" in rows[name]] == ["resnext50-csp"]


@pytest.mark.slow
def test_every_entry_of_the_catalogue_is_listed(gpnas: Gpnas) -> None:
    code, out, _ = gpnas("catalogue")
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["yolov9-c"])
    assert code == 0 and row[1:10] == ["25.29M", "25.3M", "-0.04", "%", "102.14G", "102.1G", "+0.04", "%", "53.0"]
    assert all(name in out for name in catalogue())
