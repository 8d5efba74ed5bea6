"""Accuracy against latency: dominated networks, the knee of the curve, and the best network at each time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

DENSE = "dense"


@dataclass(frozen=True)
class CurvePoint:
    """One network on a curve of accuracy against latency.

    Attributes:
        label: name, unique among the points of a curve.
        network: name of the dense network that it was made from.
        kind: "dense", "pruned", "healed", "finetuned", "control", "candidate" or "reference".
        ms: milliseconds per image.
        accuracy: the main metric; non-negative, higher is better.
    """

    label: str
    network: str
    kind: str
    ms: float
    accuracy: float

    def dominates(self, other: CurvePoint) -> bool:
        """Whether it is at least as fast and at least as accurate, and better in one of the two."""
        as_good = self.ms <= other.ms and self.accuracy >= other.accuracy
        return as_good and (self.ms < other.ms or self.accuracy > other.accuracy)


@dataclass(frozen=True)
class Stretch:
    """A range of latencies in which one network has the most accurate point that is fast enough.

    Attributes:
        network: name of the network.
        start, end: milliseconds, start included; an end of None is unbounded.
        least, most: smallest and largest advantage in accuracy over the next network within the range; None if no other
            network has a point that is fast enough.
    """

    network: str
    start: float
    end: float | None
    least: float | None
    most: float | None


def dominated(points: Sequence[CurvePoint]) -> dict[str, str]:
    """For the label of each dominated point, the label of the most accurate point that dominates it."""
    found = {}
    for point in points:
        better = [other for other in points if other.dominates(point)]
        if better:
            found[point.label] = max(better, key=lambda other: (other.accuracy, -other.ms)).label
    return found


def front(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The points that are not dominated, fastest first."""
    left = dominated(points)
    return sorted((point for point in points if point.label not in left), key=lambda point: (point.ms, point.label))


def knee(points: Sequence[CurvePoint]) -> CurvePoint | None:
    """The knee: the point of the front whose share of the best accuracy exceeds its share of that point's time by the
    most. None if no share of accuracy exceeds the share of time.

    It is the point farthest above the straight line from the origin to the most accurate point. Beyond the knee, one
    per cent of the time costs more than one per cent of the accuracy. Dominated points and the units of time and
    accuracy do not affect it.
    """
    best = max(points, key=lambda point: (point.accuracy, -point.ms), default=None)
    if best is None or best.accuracy <= 0 or best.ms <= 0:
        return None
    heights = [(point.accuracy / best.accuracy - point.ms / best.ms, point) for point in front(points)]
    height, point = max(heights, key=lambda entry: (entry[0], -entry[1].ms))
    return point if height > 0 else None


def stretches(points: Iterable[CurvePoint]) -> list[Stretch]:
    """The best network at equal milliseconds, from the time of the fastest point on.

    At each time, the most accurate point of each network that is fast enough counts; points are not interpolated. With
    equal accuracies, the previous best network remains.
    """
    points = list(points)
    times = sorted({point.ms for point in points})
    found: list[Stretch] = []
    for time, end in [*pairwise(times), *((last, None) for last in times[-1:])]:
        best: dict[str, float] = {}
        for point in points:
            if point.ms <= time:
                best[point.network] = max(best.get(point.network, 0.0), point.accuracy)
        ahead = found[-1].network if found else ""
        winner = max(best, key=lambda name: (best[name], name == ahead))
        rest = [value for name, value in best.items() if name != winner]
        margin = best[winner] - max(rest) if rest else None
        if winner != ahead:
            found.append(Stretch(winner, time, end, margin, margin))
            continue
        known = [value for value in (found[-1].least, found[-1].most, margin) if value is not None]
        least, most = (min(known), max(known)) if known else (None, None)
        found[-1] = Stretch(winner, found[-1].start, end, least, most)
    return found


def first_to_beat(dense: CurvePoint, points: Iterable[CurvePoint]) -> CurvePoint | None:
    """The fastest point that is more accurate than a dense network; None if there is none."""
    better = [point for point in points if point.accuracy > dense.accuracy]
    return min(better, key=lambda point: (point.ms, -point.accuracy), default=None)


def most_accurate_within(ms: float, points: Iterable[CurvePoint]) -> CurvePoint | None:
    """The most accurate point within a time limit; None if there is none."""
    fast = [point for point in points if point.ms <= ms]
    return max(fast, key=lambda point: (point.accuracy, -point.ms), default=None)
