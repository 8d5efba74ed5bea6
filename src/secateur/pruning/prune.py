"""Pruning of any network: trace, score, allocate, cut, repair, in rounds until the budgets are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from torch import nn

from secateur.machine import return_memory
from secateur.pruning.allocation import allocate, costs_of, scores_per_saving
from secateur.pruning.budget import Budget
from secateur.pruning.costs import COSTS
from secateur.pruning.depth.selection import without_removed_blocks
from secateur.pruning.evidence import Evidence
from secateur.pruning.graph import ChannelGraph, Floats, ImageSize, trace
from secateur.pruning.importance import divides_by_saving, needs_gradients, score
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Repair, Shorter, absorb_offsets
from secateur.pruning.rounds import Kept, Rounds, Sources, number_of_rounds
from secateur.pruning.settings import Guards, RepairSettings, RoundSettings, ScoreSettings
from secateur.pruning.statistics import Statistics, collect
from secateur.pruning.surgery import cut

Network = TypeVar("Network", bound=nn.Module)
SCORING, CORRECTING = 0, 1_000_000
"""Numbers of the draws of images: those that score a network are not those that its norms are corrected on."""


@dataclass(frozen=True)
class PruneSettings:
    """What is to be reached, and how.

    Attributes:
        budgets: all are met; the first one decides what a unit saves.
        image_size: px at which costs are counted; None: what was traced.
        seed: of the criterion `random`.
    """

    budgets: tuple[Budget, ...]
    score: ScoreSettings = field(default_factory=ScoreSettings)
    rounds: RoundSettings = field(default_factory=RoundSettings)
    guards: Guards = field(default_factory=Guards)
    repair: RepairSettings = field(default_factory=RepairSettings)
    image_size: ImageSize = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Pruned(Generic[Network]):
    """What a pruning gives.

    Attributes:
        network: the smaller network, cut and repaired.
        plan: what stayed of the whole one.
        graph: of the whole network without the blocks that the plan removes.
    """

    network: Network
    plan: Plan
    graph: ChannelGraph


def prune(
    network: Network, evidence: Evidence[Network] | None, settings: PruneSettings, *, has_loss: bool = True
) -> Pruned[Network]:
    """A smaller network that meets the budgets; the whole one is left as it was.

    In rounds, each removes a little by scores of the present network, which is repaired against the whole one and
    scored again (see `pruning.rounds`). A criterion that reads weights alone decides everything by one look, unless a
    number of rounds is asked for.

    Args:
        network: any module that `torch.export` can follow.
        evidence: None: no images; then the criterion has to read weights alone, and constants of removed channels are
            moved into the layers that read them.
        has_loss: whether the evidence has a loss.

    Raises:
        UserError: nothing can be pruned, a budget is out of reach, or a criterion lacks what it needs.
    """
    example = evidence.example() if evidence is not None else ()
    graph = trace(network, *example)
    reference = costs_of(graph, settings.budgets, settings.image_size)
    repair = Repair(network, evidence, settings.repair, has_loss=has_loss)
    plan, _ = planned(network, graph, evidence, settings, reference, repair)
    shorter = without_removed_blocks(network, plan)
    rest = graph if shorter is network else trace(shorter, *example)
    return Pruned(cut_and_repaired(shorter, rest, plan, repair), plan, rest)


def planned(
    network: Network,
    graph: ChannelGraph,
    evidence: Evidence[Network] | None,
    settings: PruneSettings,
    reference: Mapping[str, float],
    repair: Repair[Network],
    kept: Kept = Kept(),  # noqa: B008 (frozen)
) -> tuple[Plan, Floats]:
    """What stays, and the order in which the units go, [units], first lowest.

    Args:
        graph: of the network, with the latency table that a budget in milliseconds reads.
        reference: costs that shares speak of, by name.
        repair: of cuts of this network.

    Raises:
        UserError: as `prune`.
    """
    many = number_of_rounds(settings.rounds, settings.budgets, reference) > 1
    if many and looks_again(settings):
        course = Rounds(
            network,
            _sources(network, graph, evidence, settings, repair),
            settings.budgets,
            settings.score,
            settings.guards,
            settings.rounds,
            reference,
            settings.image_size,
            settings.seed,
        )
        return course.plan(kept.state, kept.save)
    statistics = gathered(network, graph, evidence, settings.score, settings.score.statistics_images, SCORING)
    scores = score(settings.score.criterion, graph, statistics, tie=settings.score.tie, seed=settings.seed)
    plan = allocate(
        graph,
        scores,
        settings.budgets,
        settings.guards,
        image_size=settings.image_size,
        criterion=settings.score.criterion,
        per_saving=divides_by_saving(settings.score.criterion, settings.score.per_saving),
        reference=reference,
    )
    return plan, ranked(scores, graph, settings.score, settings.budgets, settings.image_size)


def ranked(
    scores: Floats, graph: ChannelGraph, settings: ScoreSettings, budgets: Sequence[Budget], image_size: ImageSize
) -> Floats:
    """The order in which units go by one look, [units], first lowest: by loss for what they save, where that counts."""
    if not divides_by_saving(settings.criterion, settings.per_saving):
        return scores
    return scores_per_saving(scores, COSTS[budgets[0].cost].of(graph, image_size))


def looks_again(settings: PruneSettings) -> bool:
    """Whether the network is scored again in between; weights alone tell nothing new, so `auto` then looks once."""
    if settings.rounds.rounds == "auto":
        return needs_gradients(settings.score.criterion)
    return settings.rounds.rounds != "1"


def gathered(
    network: Network,
    graph: ChannelGraph,
    evidence: Evidence[Network] | None,
    settings: ScoreSettings,
    limit: int,
    draw: int,
    blocks: Sequence[str] = (),
) -> Statistics:
    """Statistics for the criterion: gradients on images where it needs them.

    Raises:
        UserError: it needs gradients and there is no evidence, or the evidence has no loss.
    """
    if evidence is None or not needs_gradients(settings.criterion):
        return collect(network, graph)
    batches, loss = evidence.scored(network, limit, draw)
    return collect(network, graph, batches, loss, limit=limit, blocks=blocks)


def cut_and_repaired(network: Network, graph: ChannelGraph, plan: Plan, repair: Repair[Network]) -> Network:
    """What a plan leaves of a network without the removed blocks, repaired where there are images.

    Without images, the constants of the removed channels are moved into the layers that read them.
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
    """What rounds ask for: half as many images as one look reads, others in every round."""
    repaired = -(-settings.repair.correction_images // 2)
    limit = -(-settings.score.statistics_images // 2)
    example = evidence.example() if evidence is not None else ()

    def gather(network: Network, graph: ChannelGraph, blocks: Sequence[str], number: int) -> Statistics:
        return_memory()
        return gathered(network, graph, evidence, settings.score, limit, SCORING + number, blocks)

    def repair_round(network: Network, plan: Plan, shorter: Shorter, number: int) -> None:
        repair.repair_(network, plan, shorter, repaired, CORRECTING + number)

    def traced(part: Network) -> ChannelGraph:
        return graph if part is network else replace(trace(part, *example), timing=graph.timing)

    return Sources(traced, gather, repair_round)
