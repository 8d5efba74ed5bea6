"""Prunes a checkpoint: prunes its network with the images of a context, and returns a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from secateur.deploy.exporting import about
from secateur.deploy.file_size import size_table
from secateur.deploy.speed.latency_table import latency_table
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evaluation import evaluator, val_settings
from secateur.families.evidence import FamilyEvidence, check_gradients
from secateur.families.family import family_of
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.pruning import prune as pruning
from secateur.pruning.allocation import allocate, costs_of
from secateur.pruning.costs import COSTS
from secateur.pruning.depth import candidates, left_of, remove
from secateur.pruning.depth.selection import without_removed_blocks
from secateur.pruning.graph import ChannelGraph, Tables, trace
from secateur.pruning.importance import CRITERIA, needs_gradients
from secateur.pruning.options import ChannelSettings
from secateur.pruning.plan import Plan
from secateur.pruning.prune import Kept, Pruned
from secateur.pruning.repair import Repair
from secateur.pruning.settings import PruneSettings, RepairSettings, ScoreSettings
from secateur.pruning.surgery import cut, cut_masks
from secateur.scores import Scores


def prune(
    checkpoint: Checkpoint,
    context: Context,
    settings: ChannelSettings,
    kept: Kept = Kept(),  # noqa: B008 (frozen)
) -> tuple[Checkpoint, Pruned[nn.Module]]:
    """The smaller checkpoint, and the result of pruning its network with `pruning.prune.prune`.

    Budget shares refer to the dense detector of the context, and are approached by equal factors over the rounds of a
    repetition.

    Raises:
        UserError: options are invalid, a budget cannot be reached, a criterion lacks its inputs, or the checkpoint does
            not have the classes of the data set.
    """
    settings.check()
    context = context.known_to(checkpoint)
    whole = checkpoint.build().to(context.device)
    check_criterion(whole, context, settings.score)
    labelled = context.data is not None and context.data.labelled
    dense = context.dense
    pruned = pruning.prune(
        whole,
        FamilyEvidence.of(context, whole),
        PruneSettings(
            tuple(settings.budgets),
            settings.score,
            settings.rounds,
            settings.guards,
            settings.repair,
            context.image_size,
            context.seed,
            (context.round, context.rounds),
            settings.search,
            replace(settings.cliff, cliff=settings.cliff.cliff and labelled),
        ),
        masked=checkpoint.masks,
        dense=None if dense is None or dense is checkpoint else dense.build(),
        tables=Tables() if kept.plan is not None else tables_of(checkpoint, context, settings),
        measure=partial(_evaluator, whole, context),
        kept=kept,
    )
    return _finished(checkpoint, pruned.network, pruned.graph, pruned.plan, repaired=True), pruned


def _evaluator(whole: nn.Module, context: Context, split: str, images: int) -> Callable[[nn.Module], Scores]:
    """A function that evaluates networks on this number of images (0: all) of a split."""
    data = context.require_data("The search")
    settings = val_settings(context, workers=0, single_cls=data.one_class)
    return evaluator(family_of(whole).split(data, split), settings, images or None)


def tables_of(checkpoint: Checkpoint, context: Context, settings: ChannelSettings) -> Tables:
    """Tables that the budgets need, measured for the dense network; they are valid for all networks cut from it.

    A budget in milliseconds needs a latency table, and a budget on file size the table of its format.

    Raises:
        UserError: a table is missing, see `latency_table` and `size_table`.
    """
    dense = context.dense or checkpoint
    costs = {budget.cost: budget for budget in settings.budgets}
    timing = latency_table(dense.build(), context.image_size, settings.latency) if "ms" in costs else None
    sizing = None
    if "size" in costs:
        sizing = size_table(dense.build(), context.image_size, costs["size"].file, about(dense))
    return Tables(timing, sizing)


def check_channels(checkpoint: Checkpoint, context: Context, settings: ChannelSettings) -> None:
    """Checks for errors that would otherwise occur after hours: names, ranges, excluded layers, unreachable budgets.

    Raises:
        UserError: see `prune`.
    """
    settings.check()
    context.known_to(checkpoint)
    check_criterion(checkpoint, context, settings.score)
    # A later cut starts from a smaller network, for which only a bound is known yet.
    first = context.rounds == 1 and not context.name_suffix
    if first or settings.guards.exclude:
        graph = trace(checkpoint.build()).with_tables(tables_of(checkpoint, context, settings))
        order = np.arange(float(graph.units))  # any scores show whether guards and budgets can be met
        size = context.image_size
        allocate(graph, order, settings.budgets, settings.guards, image_size=size, strict=first)
    if not first:
        _check_later_cut(checkpoint, context, settings)


def check_criterion(subject: Checkpoint | nn.Module, context: Context, settings: ScoreSettings) -> None:
    """Checks the criterion, and whether its inputs are available.

    Raises:
        UserError: the name is unknown, or gradients are needed and there is no loss or no images.
    """
    CRITERIA[settings.criterion]
    if settings.protected is not None and not needs_gradients(settings.criterion):
        raise UserError(
            f"--protect weights gradients, but the criterion {settings.criterion} reads only weights. "
            "Use --criterion fisher or taylor."
        )
    if needs_gradients(settings.criterion):
        check_gradients(subject, context, f"The criterion {settings.criterion}", "use --criterion l2, l1 or gamma")


def _check_later_cut(checkpoint: Checkpoint, context: Context, settings: ChannelSettings) -> None:
    """Rejects a budget that this cut cannot meet for any result of the earlier steps.

    The network at the start of this cut does not exist yet, but its lower bound is known: all removable bottlenecks are
    removed, and every layer has its minimum share of channels, applied once per cut.

    Raises:
        UserError: the budget is below that bound.
    """
    # Removal budgets are relative to the network at the start of the cut; measured costs have no bound.
    measured = ("ms", "size")
    budgets = [budget for budget in settings.budgets if budget.cost not in measured and not COSTS[budget.cost].removes]
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


def cut_channels(checkpoint: Checkpoint, graph: ChannelGraph, plan: Plan) -> Checkpoint:
    """The smaller network, without any repair.

    Args:
        graph: graph of the network without the blocks that the plan removes.
    """
    smaller = cut(without_removed_blocks(checkpoint.build(), plan), graph, plan)
    return _finished(checkpoint, smaller, graph, plan, repaired=False)


def repair(
    checkpoint: Checkpoint, graph: ChannelGraph, plan: Plan, context: Context, settings: RepairSettings
) -> Checkpoint:
    """The smaller network, repaired as in `pruning.prune.prune`.

    Args:
        graph: see `cut_channels`.

    Raises:
        UserError: the checkpoint does not have the classes of the data set.
    """
    context = context.known_to(checkpoint)
    whole = checkpoint.build().to(context.device)
    repairing = Repair(whole, FamilyEvidence.of(context, whole), settings, checkpoint.masks)
    smaller = pruning.cut_and_repaired(without_removed_blocks(whole, plan), graph, plan, repairing)
    return _finished(checkpoint, smaller, graph, plan, repaired=True)


def _finished(
    checkpoint: Checkpoint, smaller: nn.Module, graph: ChannelGraph, plan: Plan, *, repaired: bool
) -> Checkpoint:
    """The checkpoint of the cut network, with a new history entry and a `plan` that starts from the first network."""
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
        masks=cut_masks(masks, graph, plan),
        image_size=plan.image_size,
    )


def cost_of(plan: Plan) -> dict[str, Any]:
    """Costs of a plan for the history: parameters and FLOPs before and after."""
    return {
        "parameters": plan.after.parameters,
        "flops": plan.after.flops,
        "dense_parameters": plan.before.parameters,
        "dense_flops": plan.before.flops,
        "image_size": plan.image_size,
    }


def since_the_first(checkpoint: Checkpoint, plan: Plan) -> Plan:
    """The plan from the network that was cut first to the result of applying `plan` to this checkpoint."""
    return plan if checkpoint.plan is None else Plan.from_dict(checkpoint.plan).then(plan)
