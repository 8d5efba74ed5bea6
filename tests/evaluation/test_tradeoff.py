"""Dominated points, the knee and the winner at equal milliseconds, on curves at random and on some by hand."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.evaluation.tradeoff import (
    CurvePoint,
    dominated,
    first_to_beat,
    front,
    knee,
    most_accurate_within,
    stretches,
)

CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
MS = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, 12.0]) | st.floats(0.5, 50)
ACCURACY = st.sampled_from([0.0, 0.2, 0.5, 0.9]) | st.floats(0, 1)


@st.composite
def curves(draw: st.DrawFn, least: int = 1) -> list[CurvePoint]:
    values = draw(st.lists(st.tuples(MS, ACCURACY, st.sampled_from("abc")), min_size=least, max_size=9))
    return [CurvePoint(f"p{n}", network, "pruned", ms, value) for n, (ms, value, network) in enumerate(values)]


def point(label: str, ms: float, accuracy: float, kind: str = "pruned", network: str = "n") -> CurvePoint:
    return CurvePoint(label, network, kind, ms, accuracy)


@CALM
@given(curves())
def test_the_front_is_what_no_point_dominates(points: list[CurvePoint]) -> None:
    best, less = front(points), dominated(points)
    by_label = {one.label: one for one in points}
    assert {one.label for one in best}.isdisjoint(less)
    assert len(best) + len(less) == len(points)
    for label, better in less.items():
        assert by_label[better].dominates(by_label[label])
        assert better not in less  # the most accurate of all that dominate is on the front itself
    assert [one.accuracy for one in best] == sorted(one.accuracy for one in best)
    assert not any(one.dominates(one) for one in points)


@CALM
@given(curves())
def test_the_knee_is_on_the_front_and_above_the_line(points: list[CurvePoint]) -> None:
    found = knee(points)
    best = max(points, key=lambda one: (one.accuracy, -one.ms))
    heights = {one.label: one.accuracy * best.ms - one.ms * best.accuracy for one in points}
    if found is None:
        assert max(heights.values()) <= 1e-9
        return
    assert found.label not in dominated(points)
    assert heights[found.label] >= max(heights.values()) - 1e-9
    assert found.ms < best.ms


@CALM
@given(curves(), st.sampled_from([0.25, 2.0, 8.0]), st.sampled_from([0.5, 2.0]))
def test_units_do_not_move_the_knee(points: list[CurvePoint], time: float, scale: float) -> None:
    # Powers of two change no digit, so equal heights stay equal.
    other = [dataclasses.replace(one, ms=one.ms * time, accuracy=one.accuracy * scale) for one in points]
    first, second = knee(points), knee(other)
    assert (first and first.label) == (second and second.label)


@CALM
@given(curves(least=2))
def test_dominated_points_do_not_move_the_knee(points: list[CurvePoint]) -> None:
    less = dominated(points)
    first, second = knee(points), knee([one for one in points if one.label not in less])
    assert (first and first.label) == (second and second.label)


def test_knees_by_hand() -> None:
    dense = point("dense", 10, 0.8, "dense")
    # 88 % of the accuracy in half of the time, then it falls.
    assert knee([dense, point("50", 5, 0.7), point("30", 3, 0.2)]) == point("50", 5, 0.7)
    assert knee([dense]) is None
    assert knee([dense, point("50", 5, 0.3), point("90", 9, 0.6)]) is None  # every cut loses more than it saves
    assert knee([]) is None and knee([point("dead", 3, 0.0)]) is None
    # Further budgets at the ruined end leave it where it is.
    assert knee([dense, point("50", 5, 0.7), point("30", 3, 0.2), point("5", 1, 0.01)]) == point("50", 5, 0.7)


@CALM
@given(curves())
def test_stretches_follow_each_other_and_name_the_best(points: list[CurvePoint]) -> None:
    found = stretches(points)
    assert found[0].start == min(one.ms for one in points) and found[-1].end is None
    assert all(a.end == b.start and a.network != b.network for a, b in pairwise(found))
    for one in points:
        here = next(s for s in found if s.start <= one.ms and (s.end is None or one.ms < s.end))
        own = most_accurate_within(one.ms, [other for other in points if other.network == here.network])
        best = most_accurate_within(one.ms, points)
        assert own is not None and best is not None and own.accuracy == best.accuracy
        assert here.least is None or (here.most is not None and 0 <= here.least <= here.most)


def test_a_larger_network_that_wins_above_a_time() -> None:
    points = [
        point("n", 8, 0.60, "dense", "n"), point("n-50", 5, 0.55, network="n"),
        point("s", 20, 0.70, "dense", "s"), point("s-50", 11, 0.66, network="s"), point("s-30", 7, 0.50, network="s"),
    ]  # fmt: skip
    first, second = stretches(points)
    assert (first.network, first.start, first.end) == ("n", 5, 11)
    assert (second.network, second.start, second.end) == ("s", 11, None)
    assert first.least is not None and round(first.least, 6) == 0.05 and round(first.most or 0, 6) == 0.1
    cuts = [one for one in points if one.network == "s" and one.kind != "dense"]
    assert first_to_beat(points[0], cuts) == points[3]
    assert most_accurate_within(8, cuts) == points[4] and most_accurate_within(6, cuts) is None
    assert first_to_beat(points[2], cuts) is None
