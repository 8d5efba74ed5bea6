"""Allocation: from scores to a plan, by bisection for the global threshold that meets the budgets and the guards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.errors import UserError
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS, Cost
from secateur.pruning.graph import Bools, ChannelGraph, Floats, Ids, ImageSize, Space
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards

PRICES = 60
"""Bisection steps in the search for the price per unit of saved cost."""
TOLERANCE = 0.01
"""A budget is met if the resulting cost differs from the target by at most this share of the target."""


def allocate(
    graph: ChannelGraph,
    scores: Floats,
    budgets: Budget | Sequence[Budget],
    guards: Guards = Guards(),  # noqa: B008 (frozen)
    *,
    image_size: ImageSize = None,
    criterion: str = "",
    per_saving: bool = False,
    reference: Mapping[str, float] | None = None,
    strict: bool = True,
    floors: Ids | None = None,
    worth: Worth | None = None,
) -> Plan:
    """Keeps the units with the highest scores such that all budgets are met.

    The lowest global threshold that meets the budget is used. Then spaces are widened again, highest-scoring units
    first, as long as the budget allows it. Among units whose scores equal the threshold, later ones are kept. Several
    budgets are allocated separately, and the plan keeps the units that every allocation keeps.

    Args:
        scores: float [units], finite; higher is more important.
        image_size: image size in pixels at which the cost is computed; None: the traced size.
        criterion: name of the criterion that computed the scores; recorded in the plan.
        per_saving: divide the scores, which must not be negative, by the cost that removing the unit saves.
        reference: cost by name that budget shares refer to; None: the cost of this network. Pruning in rounds passes
            the costs of the network that the run started from (`costs_of`).
        strict: raise an error if a budget cannot be reached; otherwise plan the closest reachable network and add a
            note.
        floors: int [spaces], minimum units to keep in each space, in addition to the guards.
        worth: loss and saving of every unit. Widths are then rounded such that the total loss is smallest, and the
            scores only decide which units of a space are removed first.

    Raises:
        UserError: no unit can be pruned, the scores are unusable, or, with `strict`, a budget is below the reachable
            minimum.
    """
    scores = np.asarray(scores, dtype=np.float64)
    budgets = [budgets] if isinstance(budgets, Budget) else list(budgets)
    if graph.units == 0:
        raise UserError(graph.frozen.sentence)
    if scores.shape != (graph.units,) or not np.isfinite(scores).all():
        raise UserError(
            f"Pruning needs {graph.units} finite scores. Check the checkpoint and its statistics for NaN and infinity."
        )
    if not budgets:
        raise UserError(f"No budget is set. Set at least one of: {', '.join(COSTS)}.")
    plans = []
    for budget in budgets:
        cost = COSTS[budget.cost].of(graph, image_size)
        order = scores_per_saving(scores, cost) if per_saving else scores
        widths = Widths(graph, order, budget, guards, image_size, reference, floors)
        plans.append(_allocated(widths, criterion, strict, worth))
    return _joint(graph, plans)


def scores_per_saving(scores: Floats, cost: Cost) -> Floats:
    """Scores divided by what removing only that unit saves, relative to the mean saving.

    Args:
        scores: float [units], not negative.

    Returns:
        float64 [units].
    """
    savings = cost.savings()
    relative: Floats = np.maximum(savings / max(float(savings.mean()), 1e-30), 1e-12)
    return np.divide(scores, relative)


def costs_of(graph: ChannelGraph, budgets: Iterable[Budget], image_size: ImageSize = None) -> dict[str, float]:
    """Cost of the whole network for every cost that the budgets limit, by name; the `reference` of a run."""
    names = dict.fromkeys(budget.cost for budget in budgets)
    return {name: COSTS[name].of(graph, image_size).price(graph.everything()) for name in names}


@dataclass(frozen=True)
class Worth:
    """Estimated loss and cost saving of removing each unit: float64 [units] each, not negative."""

    losses: Floats
    savings: Floats


def _allocated(widths: Widths, criterion: str, strict: bool, worth: Worth | None) -> Plan:
    """The plan for one budget."""
    graph, budget, size = widths.graph, widths.budget, widths.image_size
    everything = graph.everything()
    if widths.measure(everything) <= widths.target:
        note = f"The network is already within the budget ({budget}); nothing is removed."
        return Plan.of(graph, everything, size, budget=budget, criterion=criterion, notes=[note])
    threshold = widths.bisect()
    counts = widths.grow(widths.counts(threshold))
    if worth is not None:
        # Prices only reach corner points of the trade-off; a small network may have none close to its budget.
        cheapest = widths.grow(widths.cheapest(worth))
        if widths.misses(cheapest) <= max(TOLERANCE, widths.misses(counts)):
            counts = cheapest
    keep = widths.keep(counts)
    notes = widths.notes(threshold, counts)
    reached = widths.measure(keep)
    if widths.misses(counts) > TOLERANCE or (widths.kind.strict and reached > widths.target):
        sentence = f"the closest reachable value is {widths.describe(reached)}"
        if reached > widths.target and strict:
            raise UserError(f"The budget {budget} cannot be reached: {sentence} (with {widths.guards}).")
        notes.append(f"The budget {budget} is not met within 1 %: {sentence}.")
    return Plan.of(graph, keep, size, budget=budget, criterion=criterion, notes=notes)


def _joint(graph: ChannelGraph, plans: Sequence[Plan]) -> Plan:
    """One plan that meets all budgets: it keeps the units that every plan keeps.

    All plans remove the units of a space in the same order, but each of them also spends the rest that rounding leaves
    of its own budget. So no plan is necessarily a subset of the others. Each space keeps the smallest count of all
    plans, which satisfies the rounding rule because every one of the counts does.
    """
    smallest = min(plans, key=lambda plan: plan.units_kept)
    common = np.logical_and.reduce([plan.keep(graph) for plan in plans])
    if int(common.sum()) == smallest.units_kept:
        return smallest
    notes = tuple(dict.fromkeys(note for plan in plans for note in plan.notes))
    return Plan.of(
        graph, common, smallest.image_size, budget=smallest.budget, criterion=smallest.criterion, notes=notes
    )


class Widths:
    """Allowed widths of every space under the guards, their cost, and the widths that a global threshold selects.

    Attributes:
        target: highest allowed cost of the network.
        allowed: for each space the sorted int64 counts [n] of units that it may keep.
        rounded: int64, the nearest allowed count for each count 0..n of each space, spaces concatenated.
        offsets: int64 [spaces], start of each space in `rounded`.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        scores: Floats,
        budget: Budget,
        guards: Guards,
        image_size: ImageSize,
        reference: Mapping[str, float] | None = None,
        floors: Ids | None = None,
    ) -> None:
        guards = guards.for_block(graph.timing.block if graph.timing else 0)
        self.graph, self.budget, self.guards, self.image_size = graph, budget, guards, image_size
        self.kind = COSTS[budget.cost]
        self.cost = self.kind.of(graph, image_size)
        excluded = excluded_spaces(graph, guards.exclude)
        least = floors if floors is not None else np.ones(len(graph.spaces), dtype=np.int64)
        self.allowed = [
            _allowed(space, guards, bool(out), int(floor))
            for space, out, floor in zip(graph.spaces, excluded, least, strict=True)
        ]
        sizes = [len(space.units) for space in graph.spaces]
        self.rounded = np.concatenate([_rounding(a, n) for a, n in zip(self.allowed, sizes, strict=True)])
        self.offsets = np.cumsum([0] + [n + 1 for n in sizes[:-1]])
        order = np.argsort(scores, kind="stable")
        self.rank = np.empty(graph.units, dtype=np.int64)
        self.rank[order] = np.arange(graph.units)
        # Rank of each unit within its space, best first: a count of c keeps the units with ranks below c.
        self.best_first = [space.units[np.argsort(-self.rank[space.units])] for space in graph.spaces]
        self.place = np.empty(graph.units, dtype=np.int64)
        for units in self.best_first:
            self.place[units] = np.arange(len(units))
        self.dense = (reference or {}).get(budget.cost, self.measure(graph.everything()))
        self.target = self._target(excluded[graph.space_of])

    def _target(self, excluded: Bools) -> float:
        if not self.budget.share:
            return self.budget.amount
        if self.kind.removes:
            # A share of the units that can be removed at all; only whole units are removed.
            return self.dense - round(self.budget.amount * (self.dense - self.measure(excluded)))
        return self.budget.amount * self.dense

    def measure(self, keep: Bools) -> float:
        """Cost, in the unit of the budget, of the network that keeps the units `keep`: bool [units]."""
        return self.cost.price(keep)

    def misses(self, counts: Ids) -> float:
        """Distance of the cost of `counts` [spaces] from the target, as a share of the target."""
        return abs(self.measure(self.keep(counts)) - self.target) / max(self.target, 1e-30)

    def wanted(self, threshold: int) -> Ids:
        """Units per space whose rank is at or above the threshold: int64 [spaces]."""
        return np.bincount(self.graph.space_of[self.rank >= threshold], minlength=len(self.graph.spaces))

    def counts(self, threshold: int) -> Ids:
        """Units to keep per space for a threshold, after guards and rounding: int64 [spaces]."""
        return self.nearest(self.wanted(threshold))

    def nearest(self, wanted: Ids) -> Ids:
        """The allowed counts [spaces] that are nearest to the wanted counts [spaces]."""
        counts: Ids = self.rounded[self.offsets + wanted]
        return counts

    def keep(self, counts: Ids) -> Bools:
        """Mask, bool [units], that keeps the best units of every space, `counts` [spaces] of them."""
        mask: Bools = self.place < counts[self.graph.space_of]
        return mask

    def bisect(self) -> int:
        """Lowest threshold whose cost meets the target, or the highest threshold if none does. The cost falls with
        the threshold."""
        low, high = 0, self.graph.units
        while low < high:
            middle = (low + high) // 2
            if self.measure(self.keep(self.counts(middle))) <= self.target:
                high = middle
            else:
                low = middle + 1
        return high

    def cheapest(self, worth: Worth) -> Ids:
        """Counts, int64 [spaces], that meet the target with the smallest total loss.

        At a price p per unit of saved cost, each space keeps the allowed count that minimises (loss of removed units) -
        p * (saving of removed units). Bisection finds the lowest price that meets the target.
        """
        choices = []
        for allowed, units in zip(self.allowed, self.best_first, strict=True):
            lost = np.append(np.cumsum(worth.losses[units][::-1])[::-1], 0.0)[allowed]
            saved = np.append(np.cumsum(worth.savings[units][::-1])[::-1], 0.0)[allowed]
            choices.append((allowed, lost, saved))

        def counts(price: float) -> Ids:
            best = [allowed[int(np.argmin(lost - price * saved))] for allowed, lost, saved in choices]
            return np.array(best, dtype=np.int64)

        ratios = worth.losses / np.maximum(worth.savings, 1e-30)
        low, high = 0.0, 10 * float(ratios.max(initial=0.0)) + 1e-30
        for _ in range(PRICES):
            middle = (low + high) / 2
            if self.measure(self.keep(counts(middle))) <= self.target:
                high = middle
            else:
                low = middle
        return counts(high)

    def grow(self, counts: Ids) -> Ids:
        """Spends the budget that rounding left: raises counts [spaces] to the next allowed count, best units first."""
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
        """Notes that name the layers which the threshold would have emptied; `counts` [spaces] are the counts after
        clamping."""
        emptied = np.flatnonzero(self.wanted(threshold) == 0)
        return [
            f"Clamped: {', '.join(self.graph.spaces[index].layers)} would lose all channels; "
            f"{counts[index]} of {len(self.graph.spaces[index].units)} units are kept."
            for index in emptied.tolist()
        ]

    def describe(self, value: float) -> str:
        """The cost as text."""
        if self.kind.removes:
            return f"{1 - value / self.dense:.4g} of the {self.kind.unit} removed"
        number = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        return f"{number} {self.kind.unit} ({value / self.dense:.4g} of the dense model)"


def excluded_spaces(graph: ChannelGraph, patterns: tuple[str, ...]) -> Bools:
    """Which spaces match one of the patterns: bool [spaces].

    Raises:
        UserError: a pattern matches no space.
    """
    for pattern in patterns:
        if not any(space.matches((pattern,)) for space in graph.spaces):
            names = ", ".join(sorted(space.layers[0] for space in graph.spaces)[:3])
            raise UserError(f"--exclude {pattern} matches no prunable layer. Layer names look like this: {names}.")
    return np.array([space.matches(patterns) for space in graph.spaces], dtype=bool)


def _allowed(space: Space, guards: Guards, excluded: bool, floor: int = 1) -> Ids:
    """Sorted unit counts that a space may keep such that the guards hold for each of its layers."""
    total = len(space.units)
    if excluded:
        return np.array([total])
    layers = list(zip(space.widths, space.frozen, strict=True))
    least_channels = max(-(-(guards.min_count - frozen) // width) for width, frozen in layers)
    least = min(max(floor, least_channels, int(np.ceil(guards.min_share * total - 1e-9))), total)
    # Whether a width is a multiple of `round_to` depends only on the count modulo `round_to`.
    rests = np.arange(guards.round_to)
    first, *others = [(frozen + rests * width) % guards.round_to == 0 for width, frozen in layers]
    fits = first
    for other in others:
        # With frozen channels, two layers can be impossible to round at once. Then only the first one is rounded.
        fits = fits & other if (fits & other).any() else fits
    counts = np.arange(least, total + 1)
    suitable: Ids = counts[fits[counts % guards.round_to] | (counts == total)]
    return suitable


def _rounding(allowed: Ids, total: int) -> Ids:
    """Nearest allowed count for every count 0..total; the higher one on a tie."""
    borders = (allowed[:-1] + allowed[1:] + 1) // 2
    nearest: Ids = allowed[np.searchsorted(borders, np.arange(total + 1), side="right")]
    return nearest
