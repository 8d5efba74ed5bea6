"""Layer pruning of a checkpoint: removes the least important bottlenecks and compensates for their mean
contribution."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from secateur.checkpoints.channels import cost_of, since_the_first
from secateur.families.context import Context
from secateur.families.evaluation import usable_size
from secateur.families.evidence import FamilyEvidence, check_gradients
from secateur.networks.checkpoint import Checkpoint, HistoryEntry
from secateur.pruning.depth import left_of, removal_of, remove, select
from secateur.pruning.graph import trace
from secateur.pruning.layer_scores import LAYER_SCORES
from secateur.pruning.plan import Plan
from secateur.pruning.repair import Repair
from secateur.pruning.settings import LayerSettings, RepairSettings

LOG = logging.getLogger("secateur")
ABSORB_IMAGES = 16
"""Number of images for the mean contribution of removed bottlenecks."""


def remove_layers(
    checkpoint: Checkpoint, context: Context, settings: LayerSettings, repair: RepairSettings
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The network without its `settings.layers` least important bottlenecks, and their names.

    The mean contribution of the removed bottlenecks is compensated for, and batch norms are corrected or re-estimated
    according to `repair`, if there are images. A network without removable bottlenecks is returned unchanged.

    Raises:
        UserError: the layer score is unknown or needs images that are missing, or the data set has other classes.
    """
    context = context.known_to(checkpoint)
    whole = checkpoint.build().to(context.device)
    choice = select(whole, settings, *_evidence(whole, context, settings))
    for note in choice.notes:
        LOG.info("%s", note)
    if not choice.blocks:
        return checkpoint, ()
    LOG.info("Removed: %s (scores by %s)", ", ".join(choice.blocks), settings.layer_score)
    removal = removal_of(whole, choice.blocks)
    evidence = FamilyEvidence.of(context, whole)
    repairing = Repair(whole, evidence, repair, checkpoint.masks)
    shown = evidence.unaugmented(ABSORB_IMAGES) if evidence and repair.absorb and not repairing.possible else None
    smaller = remove(whole, choice.blocks, None if shown is None else torch.cat(list(shown)))
    plan = Plan.of_removal(
        trace(whole),
        trace(smaller),
        removal,
        context.image_size,
        criterion=settings.layer_score,
        notes=choice.notes,
    )
    repairing(smaller, plan)
    described = {"removed_blocks": list(choice.blocks), "layer_score": settings.layer_score}
    return _shorter(checkpoint, whole, smaller, plan, described), choice.blocks


def without_blocks(checkpoint: Checkpoint, blocks: Iterable[str]) -> Checkpoint:
    """The network without these bottlenecks, without any repair; recorded in its plan and history.

    Raises:
        UserError: a name is not a block of a chain, or the remaining blocks do not fit together.
    """
    whole = checkpoint.build()
    removal = removal_of(whole, blocks)
    smaller = remove(whole, removal.blocks)
    plan = Plan.of_removal(trace(whole), trace(smaller), removal, usable_size(checkpoint, 0))
    return _shorter(checkpoint, whole, smaller, plan, {"removed_blocks": list(removal.blocks)})


def _shorter(
    checkpoint: Checkpoint, whole: nn.Module, smaller: nn.Module, plan: Plan, described: dict[str, Any]
) -> Checkpoint:
    """The checkpoint of the network after a removal."""
    return Checkpoint.of(
        smaller,
        like=checkpoint,
        plan=since_the_first(checkpoint, plan).to_dict(),
        history=(*checkpoint.history, HistoryEntry(verb="prune", settings=described, cost=cost_of(plan))),
        masks=left_of(whole, plan.removal, checkpoint.masks),
        image_size=plan.image_size,
    )


def check_layers(checkpoint: Checkpoint, context: Context, settings: LayerSettings) -> None:
    """Checks the score, and whether its inputs are available.

    Raises:
        UserError: the score is unknown, it needs images and there is no data set, or it needs gradients and there is no
            loss.
    """
    reads, reader = LAYER_SCORES[settings.layer_score].reads, f"The layer score {settings.layer_score}"
    if reads == "labels":
        check_gradients(checkpoint, context, reader, "use --layer-score contribution or gamma")
    elif reads == "images":
        context.require_images(reader)


def _evidence(whole: nn.Module, context: Context, settings: LayerSettings) -> tuple[Iterable[Any] | None, Any]:
    """The inputs of the layer score: nothing, images, or labelled images and the loss."""
    reads, evidence = LAYER_SCORES[settings.layer_score].reads, FamilyEvidence(context, whole)
    if reads == "labels":
        return evidence.scored(whole, settings.layer_images, 0)
    if reads == "images":
        return evidence.unaugmented(settings.layer_images), None
    return None, None
