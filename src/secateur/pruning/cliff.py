"""Cliff curve: accuracy over a ladder of pruning ratios, before and after repair, and the ratio where accuracy
collapses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import nn

from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.depth.selection import carve
from secateur.pruning.graph import ChannelGraph, Floats, ImageSize, trace
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards
from secateur.scores import Scores
from secateur.terminal import counted

EDGE = 0.8  # share of the unpruned accuracy below which a cut is past the plateau
RUNGS = tuple(Budget("percent", step / 10) for step in range(1, 10))
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Point:
    """One point of the curve. `ratio` is the share of units actually removed; `corrected` holds the scores after
    correction."""

    ratio: float
    scores: Scores
    parameters: int
    flops: int
    chosen: bool = False
    corrected: Scores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold; names of values are written as identifiers."""
        return {
            "ratio": self.ratio,
            **{name.replace("-", "_"): self.scores.values[name] for name in self.scores.judged_by},
            "parameters": self.parameters,
            "flops": self.flops,
            "chosen": self.chosen,
            "corrected": None if self.corrected is None else self.corrected.coarse_value,
        }


@dataclass(frozen=True)
class Cliff:
    """The curve, sorted by ratio, and the ratio at its knee; None if the unpruned network has no accuracy."""

    points: tuple[Point, ...]
    knee: float | None

    @property
    def warning(self) -> str | None:
        """A warning if the chosen plan is past the knee, otherwise None."""
        chosen = next((point for point in self.points if point.chosen), None)
        if chosen is None or self.knee is None or chosen.ratio <= self.knee + 0.005:
            return None
        before = max(self.points, key=lambda point: point.ratio == self.knee)
        if chosen.corrected is not None and chosen.corrected.share_of(self.points[0].scores) >= EDGE:
            return None
        name, there, knee = chosen.scores.judged_by[0], chosen.scores.coarse_value, before.scores.coarse_value
        return (
            f"The plan removes {chosen.ratio:.0%} of the units, more than at the knee ({self.knee:.0%}): without "
            f"repair and fine-tuning, {name} is {there:.3f}, against {knee:.3f} at the knee. "
            "Set a larger budget, or train longer with a sparsity penalty first."
        )

    def table(self) -> str:
        """The curve as text, one line per point, with the chosen plan and the knee marked."""
        both = any(point.corrected is not None for point in self.points)
        after = f" {'corrected':>9}" if both else ""
        first = self.points[0].scores
        coarse, *others = first.judged_by
        widths = {name: max(7, len(name) + 1) for name in first.judged_by}
        title = f"{'removed':>8} {coarse:>{widths[coarse]}} {'change':>7}"
        title += "".join(f" {name:>{widths[name]}}" for name in others)
        lines = [f"{title}{after} {'params (M)':>11} {'GFLOPs':>8}"]
        for point in self.points:
            marks = ["<- chosen"] * point.chosen + ["<- knee"] * (point.ratio == self.knee)
            value = "-" if point.corrected is None else f"{point.corrected.coarse_value:.3f}"
            mine = point.scores
            cells = [f"{point.ratio:>8.1%} {mine.coarse_value:>{widths[coarse]}.3f}"]
            cells += [f"{mine.coarse_value - first.coarse_value:>+7.3f}"]
            cells += [f"{mine.values[name]:>{widths[name]}.3f}" for name in others]
            cells += [f"{value:>9}"] * both
            cells += [f"{point.parameters / 1e6:>11.3f} {point.flops / 1e9:>8.3g}", *marks]
            lines.append(" ".join(cells))
        return "\n".join(lines + ([self.warning] if self.warning else []))

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {"points": [point.to_dict() for point in self.points], "knee": self.knee, "warning": self.warning}


def cliff(
    evaluate: Callable[[Network], Scores],
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
    """Evaluates the whole network, one network per budget (clamped to the guards) and the chosen plan.

    The cut network is evaluated: it computes exactly what the masked network computes, but faster.

    Args:
        evaluate: returns the scores of a network.
        scores: float [units], as in `allocate`. If the chosen plan divided its scores by savings, pass the divided
            scores (`allocation.scores_per_saving`), so that the curve uses the same order.
        budgets: one point of the curve for each.
        corrected: repairs the network that a plan leaves; each point is then also measured after the repair.
    """
    plans = [Plan.everything(graph, image_size)]
    plans += [allocate(graph, scores, rung, guards, image_size=image_size, strict=False) for rung in budgets]
    points: dict[float, Point] = {}
    wanted = [*plans, *([chosen] if chosen else [])]
    for plan in counted(wanted, "measuring the cliff curve", len(wanted)):
        ratio = plan.removed_share
        if ratio in points and plan is not chosen:
            continue
        smaller = carve(network, plan, lambda part: graph if part is network else trace(part))
        found = evaluate(smaller)
        after = evaluate(corrected(smaller, plan)) if corrected is not None and ratio else None
        points[ratio] = Point(ratio, found, plan.after.parameters, plan.after.flops, plan is chosen, after)
    ordered = tuple(points[ratio] for ratio in sorted(points))
    return Cliff(ordered, knee_of(ordered))


def knee_of(points: Sequence[Point]) -> float | None:
    """Ratio at the knee: the point farthest above the straight line from the first point to zero at the last ratio.

    This is the construction of "Kneedle" (https://doi.org/10.1109/ICDCSW.2011.20), with accuracy relative to the
    unpruned network. The knee of a flat curve is its last point; the knee of a curve that drops at once is its first.
    Points below EDGE of the unpruned accuracy are never the knee.
    """
    ratios = np.array([point.ratio for point in points])
    shares = np.array([point.scores.share_of(points[0].scores) for point in points])
    if not len(points) or np.isnan(shares[0]):
        return None
    span = max(float(ratios[-1] - ratios[0]), 1e-9)
    height = shares + (ratios - ratios[0]) / span
    return float(ratios[int(np.argmax(np.where(shares >= EDGE, height, -1.0)))])
