"""The cliff curve: accuracy at a ladder of pruning ratios, before any repair and after it, and where it falls off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import nn

from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.depth.selection import carve
from secateur.pruning.graph import ChannelGraph, Floats, ImageSize, trace
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards

EDGE = 0.8  # share of the unpruned accuracy under which a cut is no longer on the plateau
RUNGS = tuple(Budget("percent", step / 10) for step in range(1, 10))
Network = TypeVar("Network", bound=nn.Module)


class Accuracy(Protocol):
    """What an evaluation has to tell."""

    @property
    def mAP50(self) -> float: ...  # noqa: N802

    @property
    def mAP50_95(self) -> float: ...  # noqa: N802


@dataclass(frozen=True)
class Point:
    """One rung: `ratio` is the share of units that is really removed, `corrected` the mAP50 after the correction."""

    ratio: float
    mAP50: float  # noqa: N815
    mAP50_95: float  # noqa: N815
    parameters: int
    flops: int
    chosen: bool = False
    corrected: float | None = None


@dataclass(frozen=True)
class Cliff:
    """The curve, sorted by ratio, and the ratio of its knee (None for a network that detects nothing)."""

    points: tuple[Point, ...]
    knee: float | None

    @property
    def warning(self) -> str | None:
        """One sentence when the chosen plan lies past the knee."""
        chosen = next((point for point in self.points if point.chosen), None)
        if chosen is None or self.knee is None or chosen.ratio <= self.knee + 0.005:
            return None
        before = max(self.points, key=lambda point: point.ratio == self.knee)
        if chosen.corrected is not None and chosen.corrected >= EDGE * self.points[0].mAP50:
            return None
        return (
            f"The chosen plan removes {chosen.ratio:.0%} of units, past the knee at {self.knee:.0%}: without repair "
            f"and fine-tuning mAP50 is {chosen.mAP50:.3f} there against {before.mAP50:.3f} at the knee; "
            "a milder budget or (longer) sparse training is safer."
        )

    def table(self) -> str:
        """Text: one line a point, the chosen one and the knee marked."""
        both = any(point.corrected is not None for point in self.points)
        after = f" {'corrected':>9}" if both else ""
        lines = [f"{'removed':>8} {'mAP50':>7} {'change':>7} {'mAP50-95':>9}{after} {'params (M)':>11} {'GFLOPs':>8}"]
        first = self.points[0].mAP50 if self.points else 0.0
        for point in self.points:
            marks = ["<- chosen"] * point.chosen + ["<- knee"] * (point.ratio == self.knee)
            value = "-" if point.corrected is None else f"{point.corrected:.3f}"
            cells = [f"{point.ratio:>8.1%} {point.mAP50:>7.3f} {point.mAP50 - first:>+7.3f} {point.mAP50_95:>9.3f}"]
            cells += [f"{value:>9}"] * both
            cells += [f"{point.parameters / 1e6:>11.3f} {point.flops / 1e9:>8.3g}", *marks]
            lines.append(" ".join(cells))
        return "\n".join(lines + ([self.warning] if self.warning else []))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"points": [asdict(point) for point in self.points], "knee": self.knee, "warning": self.warning}


def cliff(
    evaluate: Callable[[Network], Accuracy],
    network: Network,
    graph: ChannelGraph,
    scores: Floats,
    guards: Guards = Guards(),  # noqa: B008 (frozen)
    *,
    budgets: Sequence[Budget] = RUNGS,
    chosen: Plan | None = None,
    image_size: ImageSize = None,
    corrected: Callable[[Network, Plan], Network] | None = None,
) -> Cliff:
    """Evaluates the whole network, the one of each budget (clamped where the guards end), and that of the chosen plan.

    What is evaluated is the cut network: it computes exactly what the masked one computes, and faster.

    Args:
        evaluate: accuracy of a network.
        scores: as of `allocate`; where the chosen plan divided them by what units save, those
            (`allocation.scores_per_saving`), so that the curve follows the same order.
        budgets: one rung each.
        corrected: makes good what a plan broke in the network that it left; each rung is then measured twice.
    """
    plans = [Plan.everything(graph, image_size)]
    plans += [allocate(graph, scores, rung, guards, image_size=image_size, strict=False) for rung in budgets]
    points: dict[float, Point] = {}
    for plan in [*plans, *([chosen] if chosen else [])]:
        ratio = plan.removed_share
        if ratio in points and plan is not chosen:
            continue
        smaller = carve(network, plan, lambda part: graph if part is network else trace(part))
        metrics = evaluate(smaller)
        after = evaluate(corrected(smaller, plan)).mAP50 if corrected is not None and ratio else None
        price = plan.after
        points[ratio] = Point(
            ratio, metrics.mAP50, metrics.mAP50_95, price.parameters, price.flops, plan is chosen, after
        )
    ordered = tuple(points[ratio] for ratio in sorted(points))
    return Cliff(ordered, knee_of(ordered))


def knee_of(points: Sequence[Point]) -> float | None:
    """Ratio of the point that lies highest above the straight line from the first point down to zero at the last ratio.

    The construction of "Kneedle" (https://doi.org/10.1109/ICDCSW.2011.20), with the accuracy measured against the
    unpruned network: a curve that stays flat has its knee at its end, one that falls at once at its beginning. Points
    below EDGE of that accuracy are over the edge whatever their height.
    """
    ratios = np.array([point.ratio for point in points])
    values = np.array([point.mAP50 for point in points])
    if not len(points) or values[0] <= 0:
        return None
    span = max(float(ratios[-1] - ratios[0]), 1e-9)
    height = values / values[0] + (ratios - ratios[0]) / span
    return float(ratios[int(np.argmax(np.where(values >= EDGE * values[0], height, -1.0)))])
