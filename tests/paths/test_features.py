"""Features of a candidate by hand."""

from __future__ import annotations

import math

import pytest

from gpnas.graph.graph import Branch, GraphBuilder
from gpnas.paths.features import CONTROLS, FEATURES, features
from gpnas.paths.gradient_paths import FIGURES


def test_features_of_a_network_with_an_auxiliary_head() -> None:
    b = GraphBuilder(3, act="")
    stem = b.conv(b.image, 4)  # 12 weights and, in training, 8 parameters of its normalisation
    b.output(b.conv(stem, 2, norm=False), "main", stride=1)  # 8 weights
    b.output(b.conv(stem, 5, norm=False), "early", stride=1, branch=Branch.AUXILIARY)  # 20 weights
    known = features(b.build(), 5, 7)
    assert tuple(known) == FEATURES == ("score", "capacity", "detector_score", *FIGURES, *CONTROLS)
    # The auxiliary head is not deployed: it has no capacity, but its gradient counts at the stem.
    capacity = math.sqrt(12 + 4) + math.sqrt(8)
    assert known["capacity"] == pytest.approx(capacity)
    assert known["score"] == pytest.approx(math.log(capacity) + 0.02 * math.log(3))
    # FLOPs of the inference form, without the auxiliary head; the gradient of the loss takes two steps to the stem.
    assert known["longest_shortest"] == 2
    assert known["detector_score"] == pytest.approx(math.log(2 * 35 * (12 + 8)) - 2 * math.log(2))
    assert (known["parameters"], known["flops"], known["layers"]) == (12 + 8 + 8 + 20, 2 * 35 * (12 + 8 + 20), 3)
    assert (known["live_layers"], known["live_params"]) == (3, 16 + 8 + 20)
    assert known["auxiliary_only"] == 2  # the head's own, and the one that it sends to the stem
