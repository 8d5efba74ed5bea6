"""Accuracy against time: which networks are dominated, where the knee of the curve is, and which network wins where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

DENSE = "dense"


@dataclass(frozen=True)
class CurvePoint:
    """One network in a curve of accuracy against time.

    Attributes:
        label: its name, unique among the points of a curve.
        network: name of the dense network that it was made from.
        kind: "dense", "pruned", "healed", "finetuned", "control", "candidate" or "reference".
        ms: milliseconds for one image.
        accuracy: the figure that counts, not negative, higher is better.
    """

    label: str
    network: str
    kind: str
    ms: float
    accuracy: float

    def dominates(self, other: CurvePoint) -> bool:
        """Whether it is at least as fast and at least as accurate, and better in one of both."""
        as_good = self.ms <= other.ms and self.accuracy >= other.accuracy
        return as_good and (self.ms < other.ms or self.accuracy > other.accuracy)


@dataclass(frozen=True)
class Stretch:
    """A range of time in which one network has the most accurate point that is fast enough.

    Attributes:
        network: its name.
        start, end: milliseconds, the first one included; None is without end.
        least, most: by how much its accuracy exceeds that of the next network within the stretch; None where no other
            network has a point that is fast enough.
    """

    network: str
    start: float
    end: float | None
    least: float | None
    most: float | None


def dominated(points: Sequence[CurvePoint]) -> dict[str, str]:
    """For the label of each dominated point the label of the most accurate point that dominates it."""
    found = {}
    for point in points:
        better = [other for other in points if other.dominates(point)]
        if better:
            found[point.label] = max(better, key=lambda other: (other.accuracy, -other.ms)).label
    return found


def front(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The points that no other one dominates, the fastest first."""
    left = dominated(points)
    return sorted((point for point in points if point.label not in left), key=lambda point: (point.ms, point.label))


def knee(points: Sequence[CurvePoint]) -> CurvePoint | None:
    """The point of the front whose accuracy, as a share of the best one's, exceeds its time as a share of that one's by
    the most; None where no point has a larger share of the accuracy than of the time.

    It is the point that is highest above the straight line from the most accurate point down to nothing in no time.
    Beyond it, a per cent of the time costs more than a per cent of the accuracy. Neither further points that are
    dominated nor other units of time or accuracy change it.
    """
    best = max(points, key=lambda point: (point.accuracy, -point.ms), default=None)
    if best is None or best.accuracy <= 0 or best.ms <= 0:
        return None
    heights = [(point.accuracy / best.accuracy - point.ms / best.ms, point) for point in front(points)]
    height, point = max(heights, key=lambda entry: (entry[0], -entry[1].ms))
    return point if height > 0 else None


def stretches(points: Iterable[CurvePoint]) -> list[Stretch]:
    """Which network wins at equal milliseconds, over all times from that of the fastest point on.

    At a time counts the most accurate point of each network that takes no longer: points are not interpolated. Where
    two networks are equal, the one that was ahead before stays it.
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
    """The fastest of the points that is more accurate than a dense network; None where none is."""
    better = [point for point in points if point.accuracy > dense.accuracy]
    return min(better, key=lambda point: (point.ms, -point.accuracy), default=None)


def most_accurate_within(ms: float, points: Iterable[CurvePoint]) -> CurvePoint | None:
    """The most accurate of the points that take no longer; None where all do."""
    fast = [point for point in points if point.ms <= ms]
    return max(fast, key=lambda point: (point.accuracy, -point.ms), default=None)
