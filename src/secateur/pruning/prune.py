"""Prunes any network: trace, score, allocate, cut and repair, in rounds until the budgets are met."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from torch import nn

from secateur.errors import UserError
from secateur.machine import return_memory
from secateur.pruning.allocation import allocate, costs_of, scores_per_saving
from secateur.pruning.cliff import Cliff, cliff
from secateur.pruning.costs import COSTS
from secateur.pruning.depth.selection import without_removed_blocks
from secateur.pruning.evidence import Evidence, KnowsPlaces
from secateur.pruning.graph import ChannelGraph, Floats, Tables, trace
from secateur.pruning.importance import divides_by_saving, needs_gradients, score
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Repair, Shorter, absorb_offsets
from secateur.pruning.rounds import Rounds, Sources, kept_in, number_of_rounds
from secateur.pruning.search import Fitness, Measure, searched
from secateur.pruning.settings import PruneSettings, ScoreSettings
from secateur.pruning.statistics import Statistics, collect
from secateur.pruning.surgery import cut

Network = TypeVar("Network", bound=nn.Module)
SCORING, CORRECTING = 0, 1_000_000
"""Offsets of the image draws: scoring and correction use different images."""
CLIFF_CORRECTION = 64
"""Maximum number of images for the correction at each point of the cliff curve, which repeats it for every point."""


@dataclass(frozen=True)
class Kept:
    """Storage and callbacks with which the same call can be resumed after a kill.

    Attributes:
        folder: folder for the state of the rounds or of the search; None: nothing is stored.
        plan: a plan decided before the kill; if given, it is used as it is.
        decided: called with the plan and the cliff curve before the cut.
        scored: called with the graph of the whole network, the removal order of its units, float64 [units], and the
            plan.
        after: numbers of rounds whose states are stored as well, so that runs with other budgets can continue from
            them.
    """

    folder: Path | None = None
    plan: Plan | None = None
    decided: Callable[[Plan, Cliff | None], None] = lambda plan, curve: None
    scored: Callable[[ChannelGraph, Floats, Plan], None] = lambda graph, order, plan: None
    after: Collection[int] = ()


@dataclass(frozen=True, eq=False)
class Pruned(Generic[Network]):
    """The result of pruning.

    Attributes:
        network: the smaller network, cut and repaired.
        plan: what was kept.
        graph: graph of the whole network without the blocks that the plan removes.
    """

    network: Network
    plan: Plan
    graph: ChannelGraph


def prune(
    network: Network,
    evidence: Evidence[Network] | None,
    settings: PruneSettings,
    *,
    masked: Iterable[str] = (),
    dense: nn.Module | None = None,
    tables: Tables = Tables(),  # noqa: B008 (frozen)
    measure: Measure[Network] | None = None,
    kept: Kept = Kept(),
) -> Pruned[Network]:
    """Returns a smaller network that meets the budgets; the given network is not changed.

    Each round removes a few channels by scores of the current network, repairs it against the whole network, and scores
    again (see `pruning.rounds`). A criterion that reads only weights decides in one pass, unless a number of rounds is
    set.

    Args:
        network: any module that `torch.export` supports, on the device to use.
        evidence: images and loss; None: the criterion must read only weights, and constants of removed channels are
            moved into the layers that read them.
        masked: names of tensors with single weights that must stay zero.
        dense: network that budget shares refer to; None: `network`.
        tables: tables for budgets in milliseconds or on file size.
        measure: evaluates networks, for the search and the cliff curve; None: no cliff curve.

    Raises:
        UserError: no channel is prunable, a budget cannot be reached, a criterion lacks its inputs, or a stored state
            is damaged.
    """
    example = evidence.example() if evidence is not None else ()
    graph = trace(network, *example).with_tables(tables)
    repair = Repair(network, evidence, settings.repair, masked)
    plan = kept.plan
    if plan is None:
        whole = graph if dense is None else trace(dense, *example).with_tables(tables)
        reference = costs_of(whole, settings.budgets, settings.image_size)
        budgets = tuple(budget.at_round(*settings.repetition, reference) for budget in settings.budgets)
        settings = replace(settings, budgets=budgets)
        plan, order = decide(network, graph, evidence, settings, reference, repair, measure, kept)
        kept.scored(graph, order, plan)
        kept.decided(plan, cliff_around(network, graph, order, plan, settings, repair, measure))
    shorter = without_removed_blocks(network, plan)
    rest = graph if shorter is network else trace(shorter, *example)
    return Pruned(cut_and_repaired(shorter, rest, plan, repair), plan, rest)


def decide(
    network: Network,
    graph: ChannelGraph,
    evidence: Evidence[Network] | None,
    settings: PruneSettings,
    reference: Mapping[str, float],
    repair: Repair[Network],
    measure: Measure[Network] | None,
    kept: Kept,
) -> tuple[Plan, Floats]:
    """Decides what to keep, in rounds, in one pass or by search.

    Args:
        reference: cost by name that budget shares refer to.

    Returns:
        The plan, and the order in which units are removed: float64 [units], lowest first.
    """
    if in_rounds(settings, reference):
        course = Rounds(network, _sources(network, graph, evidence, settings, repair), settings, reference)
        with kept_in(kept.folder, kept.after) as (state, save):
            return course.plan(state, save)
    budgets, size, criterion = settings.budgets, settings.image_size, settings.score.criterion
    scores = scored(network, graph, evidence, settings.score, settings.seed)
    per_saving = divides_by_saving(criterion, settings.score.per_saving)
    order = scores_per_saving(scores, COSTS[budgets[0].cost].of(graph, size)) if per_saving else scores
    if settings.search.search:
        assert measure is not None, "a search needs `measure`"
        evaluate = measure("train", settings.search.search_images)
        fitness = Fitness(network, graph, evidence, settings.repair, evaluate)
        return searched(fitness, scores, settings, reference, kept.folder), order
    plan = allocate(
        graph,
        scores,
        budgets,
        settings.guards,
        image_size=size,
        criterion=criterion,
        per_saving=per_saving,
        reference=reference,
    )
    return plan, order


def in_rounds(settings: PruneSettings, reference: Mapping[str, float]) -> bool:
    """Whether the network is scored repeatedly; `auto` scores once if the criterion reads only weights, which do not
    change."""
    if settings.search.search or (settings.rounds.rounds == "auto" and not needs_gradients(settings.score.criterion)):
        return False
    return number_of_rounds(settings.rounds, settings.budgets, reference) > 1


def scored(
    network: Network,
    graph: ChannelGraph,
    evidence: Evidence[Network] | None,
    settings: ScoreSettings,
    seed: int = 0,
) -> Floats:
    """Importance of every unit of the network, float64 [units], in one pass.

    Raises:
        UserError: see `gathered`, or the criterion is unknown.
    """
    statistics = gathered(network, graph, evidence, settings, settings.statistics_images, SCORING)
    return score(settings.criterion, graph, statistics, tie=settings.tie, seed=seed)


def cliff_around(
    network: Network,
    graph: ChannelGraph,
    order: Floats,
    plan: Plan,
    settings: PruneSettings,
    repair: Repair[Network],
    measure: Measure[Network] | None,
) -> Cliff | None:
    """The cliff curve including the chosen plan; None if it is disabled or there is no `measure`.

    Args:
        order: removal order of the units, float64 [units].
    """
    if measure is None or not settings.cliff.cliff:
        return None

    def corrected(smaller: Network, rung: Plan) -> Network:
        shorter = None if rung.removed_blocks else (network, graph)
        repair(smaller, rung, shorter, min(settings.repair.correction_images, CLIFF_CORRECTION))
        return smaller

    return cliff(
        measure("val", settings.cliff.cliff_images),
        network,
        graph,
        order,
        settings.guards,
        chosen=plan,
        image_size=settings.image_size,
        corrected=corrected if repair.possible else None,
    )


def gathered(
    network: Network,
    graph: ChannelGraph,
    evidence: Evidence[Network] | None,
    settings: ScoreSettings,
    limit: int,
    draw: int,
    blocks: Sequence[str] = (),
) -> Statistics:
    """Statistics for the criterion, with gradients on images if it needs them.

    Raises:
        UserError: the criterion needs gradients, and there is no evidence or it has no loss.
    """
    if evidence is None or not needs_gradients(settings.criterion):
        return collect(network, graph)
    batches, loss = evidence.scored(network, limit, draw)
    places = None
    if settings.protected is not None:
        if not isinstance(evidence, KnowsPlaces):
            raise UserError("This evidence has no object positions. Do not set protect.")
        places = partial(evidence.places, sides=settings.protected)
    return collect(network, graph, batches, loss, limit=limit, blocks=blocks, places=places)


def cut_and_repaired(network: Network, graph: ChannelGraph, plan: Plan, repair: Repair[Network]) -> Network:
    """Cuts a network, without the removed blocks, and repairs it if there are images.

    Without images, constants of removed channels are moved into the layers that read them.
    """
    if not repair.possible and repair.settings.absorb:
        network = absorb_offsets(network, graph, plan)
    smaller = cut(network, graph, plan)
    repair(smaller, plan, (network, graph))
    return smaller


def _sources(
    network: Network,
    graph: ChannelGraph,
    evidence: Evidence[Network] | None,
    settings: PruneSettings,
    repair: Repair[Network],
) -> Sources[Network]:
    """The sources of the rounds: half as many images as for a single pass, and different ones in every round."""
    repaired = -(-settings.repair.correction_images // 2)
    limit = -(-settings.score.statistics_images // 2)
    example = evidence.example() if evidence is not None else ()

    def gather(network: Network, graph: ChannelGraph, blocks: Sequence[str], number: int) -> Statistics:
        return_memory()
        return gathered(network, graph, evidence, settings.score, limit, SCORING + number, blocks)

    def repair_round(network: Network, plan: Plan, shorter: Shorter, number: int) -> None:
        repair.repair_(network, plan, shorter, repaired, CORRECTING + number)

    def traced(part: Network) -> ChannelGraph:
        return graph if part is network else trace(part, *example).with_tables(graph.tables)

    return Sources(traced, gather, repair_round)
