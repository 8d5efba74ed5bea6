"""Cutting channels: score them, decide what stays, show the cliff around the decision, cut, repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from secateur.compression.evaluation import evaluator, val_settings
from secateur.compression.latency_table import traced
from secateur.compression.repair import reestimate_norms_, repair_of
from secateur.compression.rounds import kept_in
from secateur.compression.search import search_plan
from secateur.compression.settings import ChannelSettings
from secateur.families.context import Context
from secateur.families.evidence import FamilyEvidence, check_gradients
from secateur.families.family import family_of
from secateur.files import read_json, write_json
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.pruning.allocation import allocate, costs_of
from secateur.pruning.budget import Budget
from secateur.pruning.cliff import Cliff, cliff
from secateur.pruning.costs import COSTS
from secateur.pruning.depth import candidates, left_of, remove
from secateur.pruning.depth.selection import without_removed_blocks
from secateur.pruning.graph import ChannelGraph, Floats, trace
from secateur.pruning.importance import CRITERIA, needs_gradients, score
from secateur.pruning.plan import Plan
from secateur.pruning.prune import SCORING, PruneSettings, cut_and_repaired, gathered, planned, ranked
from secateur.pruning.repair import Repair
from secateur.pruning.settings import RepairSettings, ScoreSettings
from secateur.pruning.surgery import cut, cut_masks
from secateur.report.run_folder_plots import draw_cliff

CLIFF_CORRECTION = 64
"""Most images on which a rung of the cliff curve is corrected: every rung pays for them."""


@dataclass(frozen=True)
class Decision:
    """A plan with the graph of the network that it was made for, without the blocks that it removes."""

    plan: Plan
    graph: ChannelGraph

    @staticmethod
    def of(plan: Plan, network: nn.Module) -> Decision:
        """A plan for a network."""
        return Decision(plan, trace(without_removed_blocks(network, plan)))

    @staticmethod
    def load(file: Path, checkpoint: Checkpoint) -> Decision:
        """Reads a saved plan for the checkpoint that it was made for."""
        return Decision.of(Plan.from_dict(read_json(file)), checkpoint.build())

    def save(self, folder: Path, curve: Cliff | None) -> None:
        """Writes plan.json, and cliff.json with its plot."""
        if curve is not None:
            write_json(folder / "cliff.json", curve.to_dict())
            draw_cliff(folder, curve)
        write_json(folder / "plan.json", self.plan.to_dict())


def check_channels(checkpoint: Checkpoint, context: Context, settings: ChannelSettings) -> None:
    """Looks for what would stop a cut after hours: names, ranges, excluded layers, a budget out of reach.

    Raises:
        UserError: as the cut itself would raise it.
    """
    settings.check()
    context.known_to(checkpoint)
    check_criterion(checkpoint, context, settings.score)
    # A later cut starts from a smaller network, of which only a bound is known yet.
    first = context.rounds == 1 and not context.name_suffix
    if first or settings.guards.exclude:
        graph = traced_for(checkpoint, checkpoint.build(), context, settings)
        order = np.arange(float(graph.units))  # any scores show whether guards and budgets are possible
        size = context.image_size
        allocate(graph, order, settings.budgets, settings.guards, image_size=size, strict=first)
    if not first:
        _check_later_cut(checkpoint, context, settings)


def check_criterion(subject: Checkpoint | nn.Module, context: Context, settings: ScoreSettings) -> None:
    """Looks for the criterion, and for what it reads.

    Raises:
        UserError: an unknown name (the sentence lists the known ones), or gradients without a loss or images.
    """
    CRITERIA[settings.criterion]
    if needs_gradients(settings.criterion):
        check_gradients(subject, context, f"The criterion {settings.criterion}", "choose --criterion l2, l1 or gamma")


def _check_later_cut(checkpoint: Checkpoint, context: Context, settings: ChannelSettings) -> None:
    """Refuses a budget that this cut cannot meet, whatever the steps before it take away.

    The network that it starts from is not there yet. The least that can be left of it is known: no bottleneck that may
    go, and of every layer the smallest share of the smallest share, once for each cut.

    Raises:
        UserError: the budget lies under that.
    """
    # What removals count is relative to the network at hand; milliseconds are not measured for a bound.
    budgets = [budget for budget in settings.budgets if budget.cost != "ms" and not COSTS[budget.cost].removes]
    if not budgets:
        return
    network = checkpoint.build()
    reference = costs_of(trace(network), budgets, context.image_size)
    cuts = int(context.name_suffix.removeprefix("-") or 1)
    graph = trace(remove(network, [block.name for block in candidates(network, any_layer=True)]))
    allocate(
        graph,
        np.arange(float(graph.units)),
        [budget.at_round(context.round, context.rounds, reference) for budget in budgets],
        replace(settings.guards, min_share=settings.guards.min_share**cuts),
        image_size=context.image_size,
        reference=reference,
    )


def decide(
    checkpoint: Checkpoint,
    context: Context,
    settings: ChannelSettings,
    folder: Path | None = None,
    repair: Repair[nn.Module] | None = None,
) -> tuple[Decision, Cliff | None]:
    """Scores the channels, allocates the budgets (in rounds, or at one look) and measures the cliff curve.

    Budgets are shares of the context's dense detector, approached by equal factors over the rounds of a repetition.

    Args:
        folder: where rounds and a search keep what they have done, so that they resume after a kill.
        repair: of cuts of this network, where it is at hand (`repair_for`).

    Raises:
        UserError: bad options, a budget out of reach, a criterion without what it needs, or a data set whose classes
            the checkpoint does not know.
    """
    settings.check()
    context = context.known_to(checkpoint)
    repair = repair or repair_for(checkpoint, context, settings.repair)
    whole = repair.whole
    check_criterion(whole, context, settings.score)
    graph = traced_for(checkpoint, whole, context, settings)
    reference = dense_costs(checkpoint, graph, context, settings.budgets)
    budgets = [budget.at_round(context.round, context.rounds, reference) for budget in settings.budgets]
    if settings.search.search:
        scores = score_channels(whole, graph, context, settings.score)
        plan = search_plan(whole, context, settings, graph, scores, budgets, reference, folder)
        order = ranked(scores, graph, settings.score, budgets, context.image_size)
    else:
        wanted = PruneSettings(
            tuple(budgets), settings.score, settings.rounds, settings.guards, settings.repair, context.image_size,
            context.seed,
        )  # fmt: skip
        evidence = FamilyEvidence.of(context, whole)
        with kept_in(folder) as kept:
            plan, order = planned(whole, graph, evidence, wanted, reference, repair, kept)
    decision = Decision(plan, graph) if not plan.removed_blocks else Decision.of(plan, whole)
    return decision, cliff_around(whole, context, settings, graph, order, plan, repair)


def traced_for(checkpoint: Checkpoint, network: nn.Module, context: Context, settings: ChannelSettings) -> ChannelGraph:
    """The graph of the checkpoint's network; with a budget in milliseconds it carries the latency table of the dense
    network, which holds for all that is cut from it.

    Raises:
        UserError: there is no table for it, see `latency_table`.
    """
    dense = checkpoint if context.dense is None else context.dense
    return traced(network, dense.build(), context.image_size, settings)


def repair_for(checkpoint: Checkpoint, context: Context, settings: RepairSettings) -> Repair[nn.Module]:
    """The repair of cuts of a checkpoint's network; what it measures serves the decision and the cut."""
    context = context.known_to(checkpoint)
    return repair_of(checkpoint.build().to(context.device), context, settings, checkpoint.masks)


def dense_costs(
    checkpoint: Checkpoint, graph: ChannelGraph, context: Context, budgets: Sequence[Budget]
) -> dict[str, float]:
    """What the network costs that shares speak of, by the name of the cost: the context's dense one, or this one."""
    dense = context.dense
    if dense is None or dense is checkpoint:
        return costs_of(graph, budgets, context.image_size)
    return costs_of(replace(trace(dense.build()), timing=graph.timing), budgets, context.image_size)


def cliff_around(
    whole: nn.Module,
    context: Context,
    settings: ChannelSettings,
    graph: ChannelGraph,
    scores: Floats,
    plan: Plan,
    repair: Repair[nn.Module],
) -> Cliff | None:
    """The cliff curve with the chosen plan in it; None where it is switched off or there is no data set."""
    if not settings.cliff.cliff or context.data is None or not context.data.labelled:
        return None
    split = family_of(whole).split(context.data, "val")
    limit = min(settings.cliff.cliff_images, len(split)) or None
    measure = evaluator(split, val_settings(context, workers=0, single_cls=context.data.one_class), limit)

    def corrected(smaller: nn.Module, rung: Plan) -> nn.Module:
        shorter = None if rung.removed_blocks else (whole, graph)
        repair(smaller, rung, shorter, min(settings.repair.correction_images, CLIFF_CORRECTION))
        return smaller

    return cliff(
        measure,
        whole,
        graph,
        scores,
        settings.guards,
        chosen=plan,
        image_size=context.image_size,
        corrected=corrected if repair.possible else None,
    )


def score_channels(network: nn.Module, graph: ChannelGraph, context: Context, settings: ScoreSettings) -> Floats:
    """Importance of every unit, [units], on the context's device."""
    evidence = FamilyEvidence.of(context, network)
    statistics = gathered(network, graph, evidence, settings, settings.statistics_images, SCORING)
    return score(settings.criterion, graph, statistics, tie=settings.tie, seed=context.seed)


def cut_channels(checkpoint: Checkpoint, decision: Decision) -> Checkpoint:
    """The smaller network, without any repair."""
    smaller = cut(without_removed_blocks(checkpoint.build(), decision.plan), decision.graph, decision.plan)
    return _finished(checkpoint, smaller, decision, repaired=False)


def repair(
    checkpoint: Checkpoint,
    decision: Decision,
    context: Context,
    settings: RepairSettings,
    shared: Repair[nn.Module] | None = None,
) -> Checkpoint:
    """The smaller network, repaired against the whole one, or with its norms re-estimated.

    With re-estimation, and where there are no images, the constants of the removed channels are absorbed first.

    Args:
        shared: the repair of cuts of this network, where it is at hand (`repair_for`).

    Raises:
        UserError: the checkpoint does not know the classes of the data set.
    """
    context = context.known_to(checkpoint)
    shared = shared or repair_for(checkpoint, context, settings)
    shorter = without_removed_blocks(shared.whole, decision.plan)
    smaller = cut_and_repaired(shorter, decision.graph, decision.plan, shared)
    if not shared.possible:
        reestimate_norms_(smaller, context, settings)
    return _finished(checkpoint, smaller, decision, repaired=True)


def _finished(checkpoint: Checkpoint, smaller: nn.Module, decision: Decision, *, repaired: bool) -> Checkpoint:
    """The checkpoint of the cut network: this entry in its history, the way from the first network in `plan`."""
    plan = decision.plan
    settings: dict[str, Any] = {"budget": str(plan.budget), "criterion": plan.criterion, "repaired": repaired}
    if plan.removed_blocks:
        settings["removed_blocks"] = list(plan.removed_blocks)
    masks = checkpoint.masks
    if masks and plan.removed_blocks:
        masks = left_of(checkpoint.build(), plan.removal, masks)
    return Checkpoint.of(
        smaller,
        like=checkpoint,
        plan=since_the_first(checkpoint, plan).to_dict(),
        history=(*checkpoint.history, HistoryEntry(verb="prune", settings=settings, cost=cost_of(plan))),
        masks=cut_masks(masks, decision.graph, plan),
        image_size=plan.image_size,
    )


def cost_of(plan: Plan) -> dict[str, Any]:
    """What the history notes of a plan: parameters and FLOPs before and after."""
    return {
        "parameters": plan.after.parameters,
        "flops": plan.after.flops,
        "dense_parameters": plan.before.parameters,
        "dense_flops": plan.before.flops,
        "image_size": plan.image_size,
    }


def since_the_first(checkpoint: Checkpoint, plan: Plan) -> Plan:
    """The plan that leads from the network that was cut first to what `plan` makes of this checkpoint."""
    return plan if checkpoint.plan is None else Plan.from_dict(checkpoint.plan).then(plan)
