"""From scores to a plan: the global threshold that meets a budget, under guards, found by bisection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from secateur.errors import UserError
from secateur.pruning.graph import Bools, ChannelGraph, Floats, Space
from secateur.pruning.operators import Ids
from secateur.pruning.plan import Budget, LayerPlan, Plan

__all__ = ["Budget", "Guards", "LayerPlan", "Plan", "Widths", "allocate", "normalized", "per_cost"]

TOLERANCE = 0.01
"""A budget counts as met when the result is within this share of it."""


@dataclass(frozen=True)
class Guards:
    """What no budget may break.

    Attributes:
        min_share: least share of its units that every space keeps, in [0, 1].
        min_count: least number of channels that every layer keeps.
        round_to: kept channels of every layer are a multiple of this (a layer that keeps all keeps its number).
        exclude: patterns (`*`, `?`) of layers or of modules around them that stay whole, e.g. "model.0", "model.*.cv3".
    """

    min_share: float = 0.1
    min_count: int = 1
    round_to: int = 1
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.min_share <= 1:
            raise UserError(f"The minimum share {self.min_share:g} is not between 0 and 1.")
        if self.min_count < 1 or self.round_to < 1:
            raise UserError("The minimum count and --round-to are whole numbers from 1 up.")


def normalized(graph: ChannelGraph, scores: Floats, by: Literal["none", "mean", "max"]) -> Floats:
    """Scores divided by the mean or maximum of their space, which makes layers comparable.

    Raises:
        UserError: unknown normalisation.
    """
    if by == "none":
        return scores
    if by not in ("mean", "max"):
        raise UserError(f"Unknown normalisation {by!r}; choose none, mean or max.")
    result = scores.astype(np.float64)
    for space in graph.spaces:
        values = np.abs(scores[space.units])
        level = values.mean() if by == "mean" else values.max()
        if level > 0:
            result[space.units] /= level
    return result


def per_cost(
    graph: ChannelGraph, scores: Floats, kind: Literal["params", "flops"], image_size: int | tuple[int, int] = 640
) -> Floats:
    """Scores (not negative) divided by what the unit's removal alone saves, relative to the mean saving."""
    parameters, flops = graph.pricing.marginal(graph.units, image_size)
    saving = flops if kind == "flops" else parameters
    relative: Floats = np.maximum(saving / max(float(saving.mean()), 1e-30), 1e-12)
    return np.divide(scores, relative)


def allocate(
    graph: ChannelGraph,
    scores: Floats,
    budget: Budget,
    guards: Guards = Guards(),
    *,
    image_size: int = 640,
    criterion: str = "",
    strict: bool = True,
) -> Plan:
    """Keeps the units with the highest scores [units] so that the budget is met.

    Of all global thresholds the lowest is taken whose network is not over the budget; then spaces grow back, best
    units first, while the budget allows. Where equal scores meet the threshold, later units are kept.

    Raises:
        UserError: no unit can be pruned, or the budget lies under the reachable minimum (`strict`; else the minimum
            itself is returned with a note).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if graph.units == 0:
        raise UserError("This network has no channels that can be pruned.")
    if scores.shape != (graph.units,) or not np.isfinite(scores).all():
        raise UserError(f"The scores are not {graph.units} finite numbers; the model or its statistics are broken.")
    search = Widths(graph, scores, budget, guards, image_size)
    if search.measure(search.everything()) <= search.target:
        note = f"The network is already within the budget ({budget}); nothing is removed."
        return Plan.of(graph, search.everything(), image_size, budget=budget, criterion=criterion, notes=[note])
    threshold = search.bisect()
    counts = search.grow(search.counts(threshold))
    keep = search.keep(counts)
    notes = search.notes(threshold, counts)
    reached = search.measure(keep)
    if abs(reached - search.target) > TOLERANCE * search.target:
        sentence = f"the closest reachable value is {search.describe(reached)}"
        if reached > search.target and strict:
            raise UserError(
                f"The budget {budget} cannot be reached: {sentence} (with minimum share {guards.min_share:g}, minimum "
                f"count {guards.min_count}, rounding to {guards.round_to}"
                f"{', some layers excluded' if guards.exclude else ''})."
            )
        notes.append(f"The budget {budget} is not met within 1 %: {sentence}.")
    return Plan.of(graph, keep, image_size, budget=budget, criterion=criterion, notes=notes)


class Widths:
    """Which kept counts the guards allow a space, what they cost, and the counts of one global threshold."""

    def __init__(self, graph: ChannelGraph, scores: Floats, budget: Budget, guards: Guards, image_size: int) -> None:
        self.graph, self.budget, self.image_size = graph, budget, image_size
        excluded = excluded_spaces(graph, guards.exclude)
        self.allowed = [_allowed(space, guards, bool(out)) for space, out in zip(graph.spaces, excluded, strict=True)]
        sizes = [len(space.units) for space in graph.spaces]
        self.rounded = np.concatenate([_rounding(a, n) for a, n in zip(self.allowed, sizes, strict=True)])
        self.offsets = np.cumsum([0] + [n + 1 for n in sizes[:-1]])
        order = np.argsort(scores, kind="stable")
        self.rank = np.empty(graph.units, dtype=np.int64)
        self.rank[order] = np.arange(graph.units)
        # Place of a unit among the units of its space, best first: a count of c keeps the places below c.
        self.best_first = [space.units[np.argsort(-self.rank[space.units])] for space in graph.spaces]
        self.place = np.empty(graph.units, dtype=np.int64)
        for units in self.best_first:
            self.place[units] = np.arange(len(units))
        self.target = self._target(int(excluded[graph.space_of].sum()))

    def _target(self, excluded: int) -> float:
        amount, dense = self.budget.amount, float(self.measure(self.everything()))
        if self.budget.kind == "percent":
            return dense - round(amount * (dense - excluded))
        return amount * dense if amount < 1 else amount

    def everything(self) -> Bools:
        return np.ones(self.graph.units, dtype=bool)

    def measure(self, keep: Bools) -> int:
        """The quantity that the budget limits."""
        if self.budget.kind == "percent":
            return int(keep.sum())
        price = self.graph.price(keep, self.image_size)
        return price.parameters if self.budget.kind == "params" else price.flops

    def wanted(self, threshold: int) -> Ids:
        """Units a space whose rank is not under the threshold."""
        return np.bincount(self.graph.space_of[self.rank >= threshold], minlength=len(self.graph.spaces))

    def counts(self, threshold: int) -> Ids:
        """Kept units a space, after guards and rounding."""
        counts: Ids = self.rounded[self.offsets + self.wanted(threshold)]
        return counts

    def keep(self, counts: Ids) -> Bools:
        mask: Bools = self.place < counts[self.graph.space_of]
        return mask

    def bisect(self) -> int:
        """Lowest threshold whose cost is within the target, or the highest of all; cost falls as it rises."""
        low, high = 0, self.graph.units
        while low < high:
            middle = (low + high) // 2
            if self.measure(self.keep(self.counts(middle))) <= self.target:
                high = middle
            else:
                low = middle + 1
        return high

    def grow(self, counts: Ids) -> Ids:
        """Spends what rounding left of the budget: gives spaces their next allowed count, best units first."""
        counts = counts.copy()
        while (reached := self.measure(self.keep(counts))) < (1 - TOLERANCE / 2) * self.target:
            steps = []
            for index, allowed in enumerate(self.allowed):
                if counts[index] < allowed[-1]:
                    steps.append((-int(self.rank[self.best_first[index][counts[index]]]), index))
            for _, index in sorted(steps):
                trial = counts.copy()
                trial[index] = self.allowed[index][np.searchsorted(self.allowed[index], counts[index], side="right")]
                if self.measure(self.keep(trial)) <= self.target:
                    counts = trial
            if self.measure(self.keep(counts)) == reached:
                break
        return counts

    def notes(self, threshold: int, counts: Ids) -> list[str]:
        """Names the layers that the threshold alone would have emptied."""
        emptied = np.flatnonzero(self.wanted(threshold) == 0)
        return [
            f"Clamped: {', '.join(self.graph.spaces[index].layers)} would be emptied; "
            f"{counts[index]} of {len(self.graph.spaces[index].units)} units stay."
            for index in emptied.tolist()
        ]

    def describe(self, value: int) -> str:
        dense = self.measure(self.everything())
        if self.budget.kind == "percent":
            return f"{1 - value / dense:.4g} of the units removed"
        what = "parameters" if self.budget.kind == "params" else "FLOPs"
        return f"{value:,} {what} ({value / dense:.4g} of the dense model)"


def excluded_spaces(graph: ChannelGraph, patterns: tuple[str, ...]) -> Bools:
    """Which spaces a pattern holds whole, [spaces] bool.

    Raises:
        UserError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(space.matches((pattern,)) for space in graph.spaces):
            names = ", ".join(sorted(space.layers[0] for space in graph.spaces)[:3])
            raise UserError(f"--exclude {pattern} matches no prunable layer; names look like {names}.")
    return np.array([space.matches(patterns) for space in graph.spaces], dtype=bool)


def _allowed(space: Space, guards: Guards, excluded: bool) -> Ids:
    """Sorted numbers of units that a space may keep."""
    total = len(space.units)
    if excluded:
        return np.array([total])
    least_channels = -(-(guards.min_count - space.frozen) // space.width)
    least = min(max(1, least_channels, int(np.ceil(guards.min_share * total - 1e-9))), total)
    counts = np.arange(least, total + 1)
    channels = space.frozen + counts * space.width
    suitable: Ids = counts[(channels % guards.round_to == 0) | (counts == total)]
    return suitable


def _rounding(allowed: Ids, total: int) -> Ids:
    """Nearest allowed count for every count 0..total, the higher one when two are equally near."""
    borders = (allowed[:-1] + allowed[1:] + 1) // 2
    nearest: Ids = allowed[np.searchsorted(borders, np.arange(total + 1), side="right")]
    return nearest
