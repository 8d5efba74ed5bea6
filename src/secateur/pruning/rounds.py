"""Pruning in rounds: remove a few channels, correct the network, score again, until the budgets are met.

The importance of a channel changes when others are removed, so a ranking by the dense network is only valid for the
first few per cent. Each round therefore removes about 5 % of the current cost by scores of the current network, whose
norms are corrected against the dense network. Widths are rounded in the last rounds. They are chosen for the dense
network, from the loss and saving of every unit when it was last scored, so rounding can restore units that an earlier
round removed. The network is scored again after each of these rounds, so the next round accounts for what rounding
changed.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch import nn

from secateur.errors import StateError, UserError, going_on_from, told
from secateur.files import read_json, write_json
from secateur.machine import return_memory
from secateur.pruning.allocation import Worth, allocate, scores_per_saving
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS, Cost
from secateur.pruning.depth import candidates, removal_of, remove
from secateur.pruning.depth.chains import Chained
from secateur.pruning.graph import ChannelGraph, Floats, Ids, remaining
from secateur.pruning.importance import divides_by_saving, needs_gradients, score
from secateur.pruning.plan import Plan
from secateur.pruning.removal import Removal
from secateur.pruning.repair import Shorter
from secateur.pruning.settings import Guards, PruneSettings, RoundSettings
from secateur.pruning.statistics import Statistics
from secateur.pruning.surgery import cut
from secateur.terminal import bar

Network = TypeVar("Network", bound=nn.Module)
STATE = "rounds.json"
ROUNDED = 3
"""Number of last rounds that round widths."""


@dataclass(frozen=True)
class Sources(Generic[Network]):
    """Functions that the rounds call.

    Attributes:
        trace: returns the graph of a network, with the latency table that a cost needs.
        gather: returns statistics of a network, given its graph, the blocks to score and the number of the round; uses
            other images in every round.
        repair: repairs in place the network that a plan leaves, given the whole network without the removed blocks, its
            graph, and the number of the round.
    """

    trace: Callable[[Network], ChannelGraph]
    gather: Callable[[Network, ChannelGraph, Sequence[str], int], Statistics]
    repair: Callable[[Network, Plan, Shorter, int], None]


@dataclass(frozen=True)
class State:
    """State between two rounds, as plain data.

    Attributes:
        round: number of completed rounds.
        order: float64 [units of the whole network], removal order: the number of rounds a unit survived plus its rank
            in the last one.
        worth: loss and saving of each unit of the whole network when it was last scored.
        plan: what the rounds keep of the whole network.
    """

    round: int
    order: Floats
    worth: Worth
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Data that JSON can hold."""
        return {
            "round": self.round,
            "order": self.order.tolist(),
            "losses": self.worth.losses.tolist(),
            "savings": self.worth.savings.tolist(),
            "plan": self.plan.to_dict(),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> State:
        """Reads the output of `to_dict`.

        Raises:
            StateError: a field is missing or invalid.
        """
        try:
            order, losses, savings = (np.array(data[name], dtype=np.float64) for name in ("order", "losses", "savings"))
            if not order.ndim == 1 or not order.shape == losses.shape == savings.shape:
                raise ValueError("its lists have different lengths")
            return State(int(data["round"]), order, Worth(losses, savings), Plan.from_dict(data["plan"]))
        except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
            raise StateError(
                f"This is not a valid state of pruning rounds ({type(error).__name__}: {told(error)})."
            ) from error


def state_file(folder: Path, number: int = 0) -> Path:
    """File of the current state, or of the state after round `number` (from 1)."""
    return folder / (f"rounds-{number}.json" if number else STATE)


@contextmanager
def kept_in(
    folder: Path | None, after: Collection[int] = ()
) -> Iterator[tuple[State | None, Callable[[State, int], None]]]:
    """Stores the state of the rounds in `rounds.json` of a folder, so that the same call can be resumed after a kill.

    Args:
        folder: None: nothing is stored.
        after: numbers of rounds whose states are also stored in separate files (`state_file`).

    Raises:
        StateError: the file is damaged, or belongs to another network.
    """
    file = state_file(folder) if folder is not None else None
    found = read_json(file) if file is not None and file.is_file() else None
    with going_on_from(file), bar("rounds") as progress:
        begun = State.from_dict(found) if found is not None else None
        task = progress.add_task("", total=None, completed=begun.round if begun is not None else 0)

        def save(state: State, count: int) -> None:
            gc.collect()  # networks and their hooks reference each other
            return_memory()
            if folder is not None and file is not None:
                # The current state is written last: after a kill before that, the round is repeated.
                for place in [state_file(folder, state.round)] * (state.round in after) + [file]:
                    write_json(place, state.to_dict())
            progress.update(task, total=count, completed=state.round, visible=True)

        yield begun, save


def number_of_rounds(settings: RoundSettings, budgets: Sequence[Budget], reference: Mapping[str, float]) -> int:
    """Number of rounds, each removing about `settings.step` of the current cost, or the number that is set."""
    if settings.rounds != "auto":
        return int(settings.rounds)
    smallest = min(max(share_of(budget, reference), 1e-3) for budget in budgets)
    return max(math.ceil(math.log(smallest) / math.log(1 - settings.step) - 1e-9), 1) if smallest < 1 else 1


def share_of(budget: Budget, reference: Mapping[str, float]) -> float:
    """Share of the cost of the dense network that a budget leaves."""
    if not budget.share:
        return budget.amount / reference[budget.cost]
    return 1 - budget.amount if COSTS[budget.cost].removes else budget.amount


def shared_round(settings: RoundSettings, budget: Budget, smaller: Budget, reference: Mapping[str, float]) -> int:
    """The round of a run to `smaller` from whose state a run to `budget` can continue; 0 if there is none.

    It is the last round, before either run rounds widths, after which the run to the smaller budget is not yet below
    the target of the next round of the other run. With rounds of about 5 %, both runs then have had the same number of
    rounds and nearly the same targets; with a fixed number of rounds they share few or none.

    Args:
        budget, smaller: budgets on the same cost.
        reference: cost of the dense network, by name of the cost.
    """
    own, other = (number_of_rounds(settings, [one], reference) for one in (budget, smaller))
    last = min(own - rounded_rounds(own), other - rounded_rounds(other))
    for number in range(last, 0, -1):
        there = share_of(smaller.at_round(number, other, reference), reference)
        if there >= share_of(budget.at_round(number + 1, own, reference), reference):
            return number
    return 0


def rounded_rounds(count: int) -> int:
    """Number of final rounds, out of `count`, that round widths."""
    return min(ROUNDED, (count + 1) // 2)


@dataclass(frozen=True)
class Rounds(Generic[Network]):
    """Pruning rounds for one network.

    Attributes:
        whole: the network; not changed.
        sources: functions that the rounds call.
        settings: the options.
        reference: cost by name that budget shares refer to.
    """

    whole: Network
    sources: Sources[Network]
    settings: PruneSettings
    reference: Mapping[str, float]
    known: dict[tuple[str, ...], tuple[Network, ChannelGraph]] = field(default_factory=dict, init=False, repr=False)

    @property
    def graph(self) -> ChannelGraph:
        """Graph of the whole network."""
        return self.without(())[1]

    def without(self, blocks: tuple[str, ...]) -> tuple[Network, ChannelGraph]:
        """The whole network without these blocks, and its graph; cached, because most rounds remove no block."""
        if blocks not in self.known:
            network = remove(self.whole, blocks) if blocks else self.whole
            self.known[blocks] = network, self.sources.trace(network)
        return self.known[blocks]

    def plan(self, state: State | None = None, save: Callable[[State, int], None] | None = None) -> tuple[Plan, Floats]:
        """Runs the rounds. Returns the plan and the removal order of the units of the whole network, float64 [units],
        lowest first.

        Args:
            state: state to continue from; None: start.
            save: called after every round with the state and the number of rounds.

        Raises:
            StateError: the state belongs to another network.
            UserError: no channel is prunable, or a budget cannot be reached.
        """
        if self.graph.units == 0:
            raise UserError(self.graph.frozen.sentence)
        count = number_of_rounds(self.settings.rounds, self.settings.budgets, self.reference)
        state = state or self.beginning()
        if len(state.order) != self.graph.units:
            raise StateError(
                f"The stored rounds are for {len(state.order)} units, but the network has {self.graph.units}."
            )
        while state.round < count:
            state = self.after(state, count)
            if save is not None:
                save(state, count)
        return state.plan, state.order

    def beginning(self) -> State:
        """The state before the first round."""
        none = np.zeros(self.graph.units)
        return State(0, none, Worth(none, none), Plan.everything(self.graph, self.settings.image_size))

    def after(self, state: State, count: int) -> State:
        """Runs one round: builds, corrects and scores the current network, and removes blocks and channels."""
        targets = [budget.at_round(state.round + 1, count, self.reference) for budget in self.settings.budgets]
        shorter, before = self.without(state.plan.removed_blocks)
        network = cut(shorter, before, state.plan)
        if state.round:
            self.sources.repair(network, state.plan, (shorter, before), state.round)
        now = remaining(before, state.plan.keep(before))
        blocks = self.blocks_of(network, now)
        statistics = self.sources.gather(network, now, blocks, state.round)
        cost = COSTS[targets[0].cost].of(now, self.settings.image_size)
        how = self.settings.score
        losses = score(how.criterion, now, statistics, tie=how.tie, seed=self.settings.seed)
        divided = divides_by_saving(how.criterion, how.per_saving)
        ratios = scores_per_saving(losses, cost) if divided else losses
        units = _first_units(self.graph, now, state.plan)
        order = _written(state.order, units, state.round + _places(ratios))
        worth = Worth(
            _written(state.worth.losses, units, losses),
            _written(state.worth.savings, units, cost.savings() if divided else np.ones(now.units)),
        )
        scored = State(state.round + 1, order, worth, state.plan)
        if count - state.round <= rounded_rounds(count):
            return replace(scored, plan=self.rounded(scored, targets, strict=scored.round == count))
        plan = self.loosely(now, ratios, targets, state.plan)
        gone = _cheap_blocks(blocks, statistics, ratios, plan.keep(now), cost, now)
        if gone:
            left = self.sources.trace(remove(network, gone))
            shortened = Plan.of_removal(now, left, removal_of(network, gone), self.settings.image_size)
            values = ratios[_first_units(now, left, shortened)]
            plan = shortened.then(self.loosely(left, values, targets, state.plan.then(shortened)))
        return replace(scored, plan=state.plan.then(replace(plan, budget=None, notes=())))

    def blocks_of(self, network: Network, now: ChannelGraph) -> list[str]:
        """Bottlenecks that may be removed: those of chains without excluded layers, if the criterion can score
        blocks."""
        wanted = self.settings.rounds.depth and needs_gradients(self.settings.score.criterion)
        if not (wanted and isinstance(network, Chained)):
            return []
        kept = {layer for space in now.spaces if space.matches(self.settings.guards.exclude) for layer in space.layers}
        free = candidates(network)
        return [block.name for block in free if not any(layer.startswith(f"{block.chain}.") for layer in kept)]

    def loosely(self, now: ChannelGraph, ratios: Floats, targets: Sequence[Budget], before: Plan) -> Plan:
        """The plan of one round without rounding widths; the guards refer to the whole network.

        Args:
            now: graph of the current network.
            ratios: float64 [units] of `now`, scores per saving.
            before: the plan that leads to the current network.
        """
        loose = replace(self.settings.guards, min_share=0.0, round_to=1)
        return allocate(
            now,
            ratios,
            targets,
            loose,
            image_size=self.settings.image_size,
            criterion=self.settings.score.criterion,
            reference=self.reference,
            strict=False,
            floors=_floors(self.graph, now, before, self.settings.guards),
        )

    def rounded(self, state: State, budgets: Sequence[Budget], *, strict: bool) -> Plan:
        """The plan for the whole network that meets the budgets with rounded widths and the smallest total loss."""
        gone = state.plan.removed_blocks
        _, shorter = self.without(gone)
        removal = removal_of(self.whole, gone) if gone else Removal()
        before = Plan.of_removal(self.graph, shorter, removal, self.settings.image_size)
        units = _first_units(self.graph, shorter, before)
        plan = allocate(
            shorter,
            state.order[units],
            budgets,
            self.settings.guards,
            image_size=self.settings.image_size,
            criterion=self.settings.score.criterion,
            reference=self.reference,
            strict=strict,
            worth=Worth(state.worth.losses[units], state.worth.savings[units]),
        )
        return before.then(plan) if gone else plan


def _first_units(first: ChannelGraph, later: ChannelGraph, plan: Plan) -> Ids:
    """For each unit of the graph that `plan` leads to, the corresponding unit of the first graph: [units]."""
    units = np.full(later.units, -1, dtype=np.int64)
    for layer in plan.layers:
        name = plan.removal.renamed(layer.name)
        if name is None or layer.name not in first.emitted:
            continue
        now, then = later.emitted[name], first.emitted[layer.name][list(layer.kept)]
        units[now[now >= 0]] = then[now >= 0]
    return units


def _floors(first: ChannelGraph, now: ChannelGraph, plan: Plan, guards: Guards) -> Ids:
    """Minimum number of units that each space of the current graph keeps, from the share of the whole network:
    [spaces]."""
    units = _first_units(first, now, plan)
    sizes = np.array([len(space.units) for space in first.spaces])
    whole = np.array([sizes[first.space_of[units[space.units[0]]]] for space in now.spaces])
    least = np.maximum(np.ceil(guards.min_share * whole - 1e-9).astype(np.int64), 1)
    return np.minimum(least, [len(space.units) for space in now.spaces])


def _written(old: Floats, units: Ids, values: Floats) -> Floats:
    """A copy of the old values in which the values of some units are replaced."""
    new = old.copy()
    new[units] = values
    return new


def _places(ratios: Floats) -> Floats:
    """Rank of each unit by score, scaled to [0, 1)."""
    places = np.empty(len(ratios))
    places[np.argsort(ratios, kind="stable")] = np.arange(len(ratios)) / len(ratios)
    return places


def _cheap_blocks(
    blocks: Sequence[str], statistics: Statistics, ratios: Floats, keep: Any, cost: Cost, graph: ChannelGraph
) -> list[str]:
    """Blocks with a lower loss per saving than the most valuable channel that this round would remove.

    The cheapest are chosen first, up to the saving that the round needs.
    """
    if keep.all() or not blocks:
        return []
    dearest, present = float(ratios[~keep].max()), cost.price(graph.everything())
    left = present - cost.price(keep)
    # As in `scores_per_saving`, savings are relative to the mean saving of a unit.
    mean = max(float(cost.savings().mean()), 1e-30)
    worth = {name: statistics.blocks[name] * mean / max(cost.inside(name), 1e-30) for name in blocks}
    gone = []
    for name in sorted(blocks, key=lambda name: worth[name]):
        saved = cost.inside(name)
        if worth[name] <= dearest and saved <= left:
            gone.append(name)
            left -= saved
    return [name for name in blocks if name in gone]
