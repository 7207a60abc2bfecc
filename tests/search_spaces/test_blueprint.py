"""Blueprints: what they read, how wide they are, and errors that name the block."""

from __future__ import annotations

import re

import pytest

from gpnas.errors import GenotypeError
from search_spaces.blueprint import build_blueprint, is_blueprint, level_channels, read_blueprint, scaled_width

TINY = """
schema: 1
name: tiny
blocks:
- {name: stem, block: conv, width: 16, kernel: 3, stride: 2}
- {name: p2, block: strided, width: 16}
- {name: p3, block: csp, width: 16, depth: 1, unit: residual, split_ratio: 0.5, hidden_ratio: 1.0, fusion: csp}
- {name: routes, block: route, widths: [8, 16]}
- {block: fuse, from: [routes.1, p2]}
- {block: detect, from: p3, classes: 3, box_width: 16, class_width: 16}
"""


def test_outputs_of_a_route_are_named_by_their_number() -> None:
    graph = build_blueprint(read_blueprint(TINY))
    routes = [op for op in graph.ops if op.kind == "slice" and op.name.startswith("routes")]
    assert [(op.start, op.channels) for op in routes] == [(0, 8), (8, 16)]
    assert [out.stride for out in graph.outputs] == [4]
    assert [level_channels(read_blueprint(TINY), name) for name in ("image", "p2", "routes.0", "routes.1")] == [3, 16, 8, 16]


def test_a_block_reads_the_one_before_it_unless_it_names_others() -> None:
    text = """
schema: 1
name: chain
blocks:
- {name: a, block: conv, width: 8}
- {name: b, block: conv, width: 12, from: image}
- {name: c, block: conv, width: 20}
- {block: concat, from: [c, a]}
- {block: classifier, classes: 5}
"""
    ops = build_blueprint(read_blueprint(text)).ops
    assert [(op.kind, op.inputs, op.channels) for op in ops] == [
        ("image", (), 3),
        ("conv", (0,), 8),
        ("conv", (0,), 12),
        ("conv", (2,), 20),
        ("concat", (3, 1), 28),
        ("global_avg_pool", (4,), 28),
        ("linear", (5,), 5),
    ]


def test_only_activation_multiple_and_blocks_change_the_hash() -> None:
    tiny = read_blueprint(TINY)
    assert read_blueprint(TINY.replace("name: tiny", "name: other\nsource: a paper\npublished: {ap: 50.1}")).hash == tiny.hash
    assert read_blueprint(tiny.to_yaml({"run": "runs/3"})).hash == tiny.hash
    others = [
        TINY.replace("name: tiny", "name: tiny\nactivation: relu"),
        TINY.replace("name: tiny", "name: tiny\nwidth_multiple: 2"),
        TINY.replace("depth: 1", "depth: 2"),
    ]
    assert len({read_blueprint(text).hash for text in others} | {tiny.hash}) == 4


def test_what_a_search_writes_beside_a_blueprint_is_read_again() -> None:
    again = read_blueprint(read_blueprint(TINY).to_yaml({"run": "runs/3", "ap": 0.25}))
    assert again.found == {"run": "runs/3", "ap": 0.25}
    assert "found" not in again.to_json() and '"name":"tiny"' in again.to_json()


def test_a_multiple_changes_every_width_and_nothing_else() -> None:
    """By hand: half of 16 is 8; a quarter of the detect block's 16 is 4, which is less than one step of 8."""
    half = build_blueprint(read_blueprint(TINY.replace("name: tiny", "name: tiny\nwidth_multiple: 0.5")))
    layers = {op.name: op.channels for op in half.ops if op.weighted}
    assert layers == {
        "stem.conv": 8,
        "p2.conv": 8,
        "p3.enter": 4,
        "p3.conv": 4,
        "p3.conv1": 4,
        "p3.transition": 4,
        "p3.cross": 4,
        "p3.transition1": 8,
        "routes.conv": 16,
        **{f"detect5.head4.{name}": 8 for name in ("box", "box1", "class", "class1")},
        "detect5.head4.box_prediction": 64,
        "detect5.head4.class_prediction": 3,
    }


@pytest.mark.parametrize(
    ("step", "entry", "hidden", "inner"),
    [("", 40, 32, 16), (", channel_step: 2", 36, 28, 14), (", channel_step: 1", 36, 27, 14), (", channel_step: 8", 32, 24, 16)],
)
def test_a_stage_may_round_its_shares_by_hand(step: str, entry: int, hidden: int, inner: int) -> None:
    """36 channels: the entry layer is twice half of 36, rounded; a block has 0.75 of the entry, its units half of that."""
    stage = "block: gelan, width: 36, depth: 1, repeats: 1, unit: plain, split_ratio: 1.0, hidden_ratio: 0.75"
    csp = TINY[TINY.index("block: csp") : TINY.index("}", TINY.index("block: csp"))]
    graph = build_blueprint(read_blueprint(TINY.replace(csp, stage + step)))
    layers = {op.name: op.channels for op in graph.ops if op.weighted and op.name.startswith("p3.")}
    assert (layers["p3.enter"], layers["p3.block0.transition"], layers["p3.block0.enter"]) == (entry, hidden, inner)


SINGLE_CHANNELS = [
    ("residual, depth: 1, hidden_ratio: 0.5", [9, 18]),
    ("masked_residual, depth: 1, hidden_ratio: 0.5, mask_ratio: 0.5", [9, 18]),
    ("csp, depth: 1, unit: plain, split_ratio: 0.5, hidden_ratio: 0.5, fusion: csp", [9, 5, 9, 9, 9, 18]),
    ("csp, depth: 1, unit: plain, split_ratio: 1.0, hidden_ratio: 0.5, fusion: last", [17, 9, 17, 17, 1]),
    ("csp, depth: 1, unit: dense, split_ratio: 0.5, hidden_ratio: 1.0, fusion: csp", [9, 10, 5, 9, 9, 9, 18]),
    ("elan, depth: 1, repeats: 1, split_ratio: 0.5, hidden_ratio: 0.5", [10, 5, 18]),
    ("osa, depth: 1, repeats: 1, hidden_ratio: 0.5", [9, 18]),
    ("dense, depth: 1, hidden_ratio: 0.5", [10, 5, 18]),
]


@pytest.mark.parametrize(("stage", "expected"), SINGLE_CHANNELS, ids=[row[0] for row in SINGLE_CHANNELS])
def test_every_share_of_a_stage_of_18_channels_is_rounded_to_single_channels_by_hand(stage: str, expected: list[int]) -> None:
    """Halves are rounded up: 4.5 to 5, 8.5 to 9. CSP without a last transition leaves one channel to the other path."""
    text = f"""
schema: 1
name: single
blocks:
- {{block: conv, width: 18}}
- {{name: s, block: {stage}, width: 18, channel_step: 1}}
- {{block: classifier, classes: 2}}
"""
    ops = [op for op in build_blueprint(read_blueprint(text)).ops if op.name.startswith("s.")]
    assert [op.channels for op in ops if op.weighted] == expected
    assert [op.kept for op in ops if op.kind == "masked_add"] == [9] * stage.startswith("masked")


@pytest.mark.parametrize(
    ("width", "multiple", "expected"),
    [(8, 0.5, 8), (16, 0.5, 8), (24, 0.5, 16), (100, 0.5, 48), (256, 0.5, 128), (40, 1.25, 48), (64, 0.01, 8), (20, 1.0, 24)],
)
def test_a_scaled_width_is_rounded_to_steps_of_8_by_hand(width: int, multiple: float, expected: int) -> None:
    assert scaled_width(width, multiple) == expected


def test_a_document_with_blocks_is_a_blueprint() -> None:
    assert is_blueprint({"blocks": []})
    assert not is_blueprint({"stem": {}}) and not is_blueprint("blocks") and not is_blueprint(["blocks"])


WRONG = [
    ("width: 16, kernel: 3, stride: 2}", "width: 16, kernle: 3}", "blocks[0]: unknown key 'kernle'; remove it"),
    ("block: strided", "block: stridded", "blocks[1]: no block is called 'stridded'; there are plain, residual"),
    ("from: p3", "from: p9", "blocks[5]: from names 'p9', but no earlier block has this name"),
    ("routes.1", "routes.2", "blocks[4]: from names 'routes.2', but routes has 2 outputs, counted from 0"),
    ("routes.1", "routes.x", "blocks[4]: from names 'routes.x', but routes has 2 outputs, counted from 0"),
    ("block: strided, width: 16", "block: strided", "blocks[1]: missing key 'width'"),
    ("split_ratio: 0.5", "split_ratio: 2.5", "blocks[2]: split_ratio must lie in (0, 2], got 2.5"),
    ("split_ratio: 0.5", "split_ratio: 0.5, channel_step: 0", "blocks[2]: channel_step must lie in [1, 64], got 0"),
    (
        "{name: p2, block: strided, width: 16}",
        "{name: p2, block: plain, width: 16, depth: 1, channel_step: 2}",
        "blocks[1]: channel_step has no effect in family plain; remove it",
    ),
    ("{name: p2", "{name: stem", "blocks[1] (stem): name 'stem' is taken"),
    ("{name: p2", "{name: p.2", "blocks[1] (p.2): name 'p.2' is taken or has a dot"),
    ("routes.1, p2", "routes.0, p2", "blocks[4]: fuse4"),
    ("from: p3", "from: [p3, p2], unit: plain", "blocks[5]: unknown key 'unit'"),
    ("{name: p2, block: strided", "{name: p2, from: [stem, image], block: strided", "strided reads one tensor, got 2"),
    ("schema: 1", "schema: 2", "tiny.yaml: schema must lie in [1, 1], got 2"),
    ("name: tiny", "name: tiny\nwidth_multiple: 0", "tiny.yaml: width_multiple must lie in (0, 8], got 0"),
    ("name: tiny", "name: tiny\nwidth_multiple: 9", "tiny.yaml: width_multiple must lie in (0, 8], got 9"),
    ("name: tiny", "name: tiny\ncolour: red", "tiny.yaml: unknown key 'colour'"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), WRONG, ids=[row[2] for row in WRONG])
def test_what_does_not_fit_is_one_line_that_names_it(right: str, wrong: str, message: str) -> None:
    assert right in TINY
    with pytest.raises(GenotypeError, match=re.escape(message)) as error:
        build_blueprint(read_blueprint(TINY.replace(right, wrong), "tiny.yaml"))
    assert "\n" not in str(error.value)


def test_a_blueprint_without_a_loss_is_an_error_that_names_it() -> None:
    with pytest.raises(GenotypeError, match="tiny: "):
        build_blueprint(read_blueprint(TINY[: TINY.index("- {block: detect")]))
