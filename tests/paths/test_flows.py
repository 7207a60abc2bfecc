"""Flows by hand: cutting, pooling, shuffling, and the union of two flows."""

from __future__ import annotations

from typing import Any

import pytest

from gpnas.paths.flows import (
    MAX_PATHS,
    PARTS,
    POOLING_DISCOUNT,
    TIMESTAMPS,
    Flow,
    Segment,
    add_sources,
    cut,
    gathered,
    joined,
    pooled,
    sent_by,
    sources_of,
    united,
    unshuffled,
)

A = sent_by(7, 0b1100, paths=1.0, poolings=0.0, sharpness=1.0)
"""Consumer 7, path lengths 2 and 3."""
B = sent_by(9, 0b10, paths=3.0, poolings=2.0, sharpness=0.5)
"""Consumer 9, path length 1."""


def whole(flow: Any, shift: int = 0) -> list[Segment]:
    """Five channels that all receive `flow`."""
    return [(0, 5, shift, flow)]


def only(segments: list[Segment]) -> Flow:
    ((_, _, _, flow),) = segments
    return Flow._make(flow)


def spans(segments: list[Segment]) -> list[tuple[int, int, int]]:
    return [(start, stop, shift) for start, stop, shift, _ in segments]


def test_positions_are_those_of_the_fields() -> None:
    assert (Flow._fields[TIMESTAMPS], Flow._fields[PARTS]) == ("timestamps", "parts")


def test_a_sent_flow_has_one_source_with_every_timestamp() -> None:
    assert Flow._make(A) == Flow(0b1100, 2, 1, 1.0, 0.0, 1.0, 1 << 7, True, 7)
    assert sources_of(A, 4) == {(7, 4): 0b1100}


def test_means_of_a_union_are_weighted_by_the_number_of_paths() -> None:
    union = only(united(whole(A), whole(B)))
    assert union.paths == 4
    assert union.poolings == (1 * 0.0 + 3 * 2.0) / 4
    assert union.sharpness == (1 * 1.0 + 3 * 0.5) / 4


def test_a_union_of_different_consumers_adds_counts_and_keeps_both_sources() -> None:
    union = only(united(whole(A), whole(B)))
    assert (union.timestamps, union.combinations, union.sources) == (0b1110, 3, 2)
    assert (union.consumers, union.aligned) == (1 << 7 | 1 << 9, True)
    assert sources_of(union, 2) == {(7, 2): 0b1100, (9, 2): 0b10}


def test_a_union_at_another_shift_is_not_aligned() -> None:
    ((_, _, shift, union),) = united(whole(A, shift=1), whole(B, shift=4))
    assert shift == 1
    assert not Flow._make(union).aligned
    assert sources_of(union, shift) == {(7, 1): 0b1100, (9, 4): 0b10}


@pytest.mark.parametrize("position", [0, 1])
def test_a_union_with_a_flow_that_is_not_aligned_is_not_aligned(position: int) -> None:
    parts = [whole(A), whole(Flow._make(B)._replace(aligned=False))]
    assert not only(united(parts[position], parts[1 - position])).aligned


def test_a_source_that_both_flows_have_counts_once() -> None:
    later = sent_by(7, 0b11000, paths=1.0, poolings=0.0, sharpness=1.0)
    same_offset = only(united(whole(A), whole(later)))
    assert (same_offset.combinations, same_offset.sources, same_offset.timestamps) == (3, 1, 0b11100)
    other_offset = only(united(whole(A), whole(later, shift=2)))
    assert (other_offset.combinations, other_offset.sources) == (4, 2)
    assert sources_of(other_offset, 0) == {(7, 0): 0b1100, (7, 2): 0b11000}
    three = only(united(united(whole(A), whole(later, shift=2)), whole(A, shift=2)))
    assert sources_of(three, 3) == {(7, 3): 0b1100, (7, 5): 0b11100}
    assert (three.combinations, three.sources) == (5, 2)


def test_one_consumer_at_three_offsets_keeps_the_timestamps_of_each() -> None:
    """Offsets 4 and 0 lie on both sides of offset 2, at which the first flow is read."""
    first, further, nearer = (sent_by(7, timestamps, 1.0, 0.0, 1.0) for timestamps in (0b10, 0b100, 0b1000))
    ((_, _, shift, flow),) = united(united(whole(first, shift=2), whole(further, shift=4)), whole(nearer, shift=0))
    assert sources_of(flow, shift) == {(7, 2): 0b10, (7, 4): 0b100, (7, 0): 0b1000}


def test_the_number_of_paths_stays_finite() -> None:
    many = [sent_by(k, 0b10, paths=MAX_PATHS, poolings=float(k), sharpness=1.0) for k in (2, 6)]
    union = only(united(whole(many[0]), whole(many[1])))
    assert (union.paths, union.poolings) == (MAX_PATHS, 4.0)


def test_a_pooling_counts_on_every_path_and_discounts_the_sharpness() -> None:
    flow = Flow._make(pooled(B, 0))
    assert (flow.poolings, flow.sharpness) == (3.0, 0.5 * POOLING_DISCOUNT)
    assert flow[:4] == B[:4] and flow.consumers == 1 << 9
    assert flow.aligned and not Flow._make(pooled(B, 2)).aligned
    assert sources_of(pooled(B, 2), 5) == {(9, 7): 0b10}


def test_cut_takes_the_channels_between_two_borders() -> None:
    segments: list[Segment] = [(0, 3, 5, A), (4, 8, 1, B)]
    assert cut(segments, 2, 6) == [(0, 1, 7, A), (2, 4, 3, B)]
    assert cut(segments, 3, 4) == []
    assert cut(segments, 4, 8) == [(0, 4, 5, B)]
    assert cut(segments, 0, 9) == segments


def test_readers_of_neighbouring_channels_stand_side_by_side() -> None:
    left: list[Segment] = [(0, 2, 3, A)]
    assert united(left, [(2, 5, 3, A)]) == united([(2, 5, 3, A)], left) == [(0, 5, 3, A)]
    assert spans(united(left, [(2, 5, 4, A)])) == [(0, 2, 3), (2, 5, 4)]
    assert spans(united(left, [(3, 5, 3, A)])) == [(0, 2, 3), (3, 5, 3)]
    assert spans(united(left, [(2, 5, 3, B)])) == [(0, 2, 3), (2, 5, 3)]
    assert united([(0, 1, 0, B), (1, 2, 3, A)], [(2, 5, 3, A), (5, 6, 0, B)]) == [(0, 1, 0, B), (1, 5, 3, A), (5, 6, 0, B)]


def test_readers_of_overlapping_channels_are_cut_at_each_others_borders() -> None:
    result = united([(0, 6, 0, A)], [(2, 4, 1, B), (7, 9, 0, B)])
    assert spans(result) == [(0, 2, 0), (2, 4, 0), (4, 6, 0), (7, 9, 0)]
    assert [flow is A for *_, flow in result] == [True, False, True, False]
    assert result[3][3] is B
    assert sources_of(result[1][3], 0) == {(7, 0): 0b1100, (9, 1): 0b10}


def test_overlaps_of_the_same_two_flows_are_one_flow() -> None:
    result = united([(0, 6, 0, A)], [(1, 2, 3, B), (2, 3, 3, B), (4, 5, 3, B), (5, 6, 2, B)])
    assert spans(result) == [(0, 1, 0), (1, 3, 0), (3, 4, 0), (4, 5, 0), (5, 6, 0)]
    assert result[1][3] is result[3][3] is not result[4][3]
    shifted = united([(0, 6, 0, A)], [(1, 2, 3, B), (4, 5, 2, B)])
    assert shifted[1][3] is not shifted[3][3]


def test_equal_neighbours_are_joined_and_their_means_weighted_by_width() -> None:
    through_one = sent_by(7, 0b100, paths=2.0, poolings=1.0, sharpness=0.8)
    through_more = sent_by(7, 0b100, paths=6.0, poolings=5.0, sharpness=0.2)
    ((start, stop, shift, flow),) = joined([(2, 5, 1, through_one), (5, 6, 1, through_more)])
    assert (start, stop, shift) == (2, 6, 1)
    mean = Flow._make(flow)
    assert (mean.paths, mean.poolings) == (0.75 * 2.0 + 0.25 * 6.0, 0.75 * 1.0 + 0.25 * 5.0)
    assert mean.sharpness == pytest.approx(0.75 * 0.8 + 0.25 * 0.2)


@pytest.mark.parametrize(
    "segment",
    [
        (4, 5, 0, A),  # not a neighbour
        (3, 5, 1, A),  # other offsets
        (3, 5, 0, B),
        (3, 5, 0, sent_by(7, 0b1010, 1.0, 0.0, 1.0)),  # other timestamps, as many combinations
        (3, 5, 0, sent_by(8, 0b1100, 1.0, 0.0, 1.0)),  # another consumer
        (3, 5, 0, pooled(A, 2)),  # other offsets within the flow
    ],
)
def test_neighbours_that_differ_are_not_joined(segment: Segment) -> None:
    segments = [(0, 3, 0, A), segment]
    assert joined(segments) == segments


def test_neighbours_with_the_same_sources_in_other_flows_are_joined() -> None:
    assert spans(joined([(0, 3, 2, A), (3, 5, 0, pooled(A, 2))])) == [(0, 5, 2)]


def test_a_shuffle_sends_each_channel_back_to_where_it_was_read() -> None:
    # Six channels of two groups: (0 1 2)(3 4 5) is interleaved to 0 3 1 4 2 5.
    assert unshuffled([(2, 4, 0, A), (5, 6, 7, B)], channels=6, groups=2) == [(1, 2, 1, A), (4, 5, -1, A), (5, 6, 7, B)]


def test_a_channel_that_is_repeated_receives_what_arrives_at_each_copy() -> None:
    ((start, stop, shift, flow),) = gathered([(0, 2, 1, A), (3, 4, 0, B)])
    assert (start, stop) == (0, 1)
    assert sources_of(flow, shift) == {(7, 1): 0b1100, (7, 2): 0b1100, (9, 3): 0b10}
    assert gathered([]) == []


def test_sources_are_added_once_for_each_channel_position() -> None:
    inner = only(united(whole(A), whole(B, shift=1)))
    with_dictionary = only(united(whole(inner), whole(A, shift=3)))
    sources: dict[tuple[int, int], int] = {}
    visited: set[tuple[int, int]] = set()
    for position in (0, 10):
        add_sources(inner, position, sources, visited)
        add_sources(with_dictionary, position, sources, visited)
    assert sources == {
        **{(7, 0): 0b1100, (9, 1): 0b10, (7, 3): 0b1100},
        **{(7, 10): 0b1100, (9, 11): 0b10, (7, 13): 0b1100},
    }
    assert visited == {(id(flow), position) for flow in (inner, with_dictionary) for position in (0, 10)}
    add_sources(sent_by(7, 0b1, 1.0, 0.0, 1.0), 3, sources, visited)
    assert sources[7, 3] == 0b1101
