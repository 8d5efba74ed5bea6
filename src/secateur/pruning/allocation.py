"""From scores to a plan: the global threshold that meets the budgets, under guards, found by bisection."""

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
"""Halvings of the range in which the price per saved cost is looked for."""
TOLERANCE = 0.01
"""A budget counts as met when the result is within this share of it."""


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
    """Keeps the units with the highest scores [units] so that all budgets are met.

    Of all global thresholds the lowest is taken whose network is not over the budget; then spaces grow back, best
    units first, while the budget allows. Where equal scores meet the threshold, later units are kept. Several budgets
    are allocated one by one, and what every one of them keeps stays.

    Args:
        image_size: pixels at which the cost is counted; None: what was traced.
        criterion: name of what gave the scores, for the plan.
        per_saving: the scores (not negative) are divided by what the unit saves of the cost.
        reference: by the name of a cost, what shares are shares of; left out, what this network costs. A run that cuts
            in rounds gives the costs of the network that it began with (`costs_of`).
        strict: a budget out of reach is an error; else the closest reachable network is planned, with a note.
        floors: fewest units that each space keeps, [spaces], where the guards alone would allow fewer.
        worth: what every unit loses and saves; widths are then rounded so that the least is lost in all, and the scores
            only say which units of a space go first.

    Raises:
        UserError: no unit can be pruned, or a budget lies under the reachable minimum (`strict`).
    """
    scores = np.asarray(scores, dtype=np.float64)
    budgets = [budgets] if isinstance(budgets, Budget) else list(budgets)
    if graph.units == 0:
        raise UserError(graph.frozen.sentence)
    if scores.shape != (graph.units,) or not np.isfinite(scores).all():
        raise UserError(f"The scores are not {graph.units} finite numbers; the model or its statistics are broken.")
    if not budgets:
        raise UserError(f"No budget is given; say how small the network is to become: {', '.join(COSTS)}.")
    plans = []
    for budget in budgets:
        cost = COSTS[budget.cost].of(graph, image_size)
        order = scores_per_saving(scores, cost) if per_saving else scores
        widths = Widths(graph, order, budget, guards, image_size, reference, floors)
        plans.append(_allocated(widths, criterion, strict, worth))
    return _joint(graph, plans)


def scores_per_saving(scores: Floats, cost: Cost) -> Floats:
    """Scores (not negative) divided by what the unit's removal alone saves, relative to the mean saving: [units]."""
    savings = cost.savings()
    relative: Floats = np.maximum(savings / max(float(savings.mean()), 1e-30), 1e-12)
    return np.divide(scores, relative)


def costs_of(graph: ChannelGraph, budgets: Iterable[Budget], image_size: ImageSize = None) -> dict[str, float]:
    """What the whole network costs, by the names of the costs that the budgets limit: the `reference` of a run."""
    names = dict.fromkeys(budget.cost for budget in budgets)
    return {name: COSTS[name].of(graph, image_size).price(graph.everything()) for name in names}


@dataclass(frozen=True)
class Worth:
    """What the removal of every unit is thought to lose and to save, each [units], not negative."""

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
        # Prices lead to the corners of what is possible; a small network may have none near its budget.
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
    """One plan that meets the budgets of all: what every plan keeps.

    The plans follow one order of scores inside a space, for its units save alike, but each spends what rounding left of
    its own budget, so none needs to lie within the others. In every space the smallest of their counts stays, which is
    as good a multiple as theirs.
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
    """Which kept counts the guards allow a space, what they cost, and the counts of one global threshold.

    Attributes:
        target: the most that the network may cost.
        allowed: for each space the sorted numbers of units that it may keep.
        rounded: the nearest allowed count for every count 0..n of every space, one after the other.
        offsets: where each space begins in `rounded`.
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
        # Place of a unit among the units of its space, best first: a count of c keeps the places below c.
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
            # A share of what may go at all; whole units go.
            return self.dense - round(self.budget.amount * (self.dense - self.measure(excluded)))
        return self.budget.amount * self.dense

    def measure(self, keep: Bools) -> float:
        """The quantity that the budget limits."""
        return self.cost.price(keep)

    def misses(self, counts: Ids) -> float:
        """How far the cost is from the target, as a share of it."""
        return abs(self.measure(self.keep(counts)) - self.target) / max(self.target, 1e-30)

    def wanted(self, threshold: int) -> Ids:
        """Units a space whose rank is not under the threshold."""
        return np.bincount(self.graph.space_of[self.rank >= threshold], minlength=len(self.graph.spaces))

    def counts(self, threshold: int) -> Ids:
        """Kept units a space, after guards and rounding."""
        return self.nearest(self.wanted(threshold))

    def nearest(self, wanted: Ids) -> Ids:
        """The allowed counts [spaces] that are nearest to the wanted ones."""
        counts: Ids = self.rounded[self.offsets + wanted]
        return counts

    def keep(self, counts: Ids) -> Bools:
        """The units [units] bool that stay when every space keeps its best `counts`."""
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

    def cheapest(self, worth: Worth) -> Ids:
        """Counts that lose the least for the target: each space pays for its units at one price per saved cost.

        With the price p a space keeps the allowed count at which (what goes loses) - p x (what goes saves) is lowest;
        the lowest price at which the target is met is found by bisection.
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

    def describe(self, value: float) -> str:
        """A cost in words."""
        if self.kind.removes:
            return f"{1 - value / self.dense:.4g} of the {self.kind.unit} removed"
        number = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        return f"{number} {self.kind.unit} ({value / self.dense:.4g} of the dense model)"


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


def _allowed(space: Space, guards: Guards, excluded: bool, floor: int = 1) -> Ids:
    """Sorted numbers of units that a space may keep, so that the guards hold for each of its layers."""
    total = len(space.units)
    if excluded:
        return np.array([total])
    layers = list(zip(space.widths, space.frozen, strict=True))
    least_channels = max(-(-(guards.min_count - frozen) // width) for width, frozen in layers)
    least = min(max(floor, least_channels, int(np.ceil(guards.min_share * total - 1e-9))), total)
    # Whether a width is a multiple depends on the count modulo `round_to` alone.
    rests = np.arange(guards.round_to)
    first, *others = [(frozen + rests * width) % guards.round_to == 0 for width, frozen in layers]
    fits = first
    for other in others:
        # Frozen channels can make it impossible for two layers at once: then the one that comes first is rounded.
        fits = fits & other if (fits & other).any() else fits
    counts = np.arange(least, total + 1)
    suitable: Ids = counts[fits[counts % guards.round_to] | (counts == total)]
    return suitable


def _rounding(allowed: Ids, total: int) -> Ids:
    """Nearest allowed count for every count 0..total, the higher one when two are equally near."""
    borders = (allowed[:-1] + allowed[1:] + 1) // 2
    nearest: Ids = allowed[np.searchsorted(borders, np.arange(total + 1), side="right")]
    return nearest
