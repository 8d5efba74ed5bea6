"""Making a network shallower: the bottlenecks that matter least go, what they added on average is absorbed."""

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
"""Images whose mean stands for what a removed bottleneck added."""


def remove_layers(
    checkpoint: Checkpoint, context: Context, settings: LayerSettings, repair: RepairSettings
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The network without its `settings.layers` least important bottlenecks, and their names.

    What they added on average is absorbed, and batch norms are refreshed, as `repair` says and where there are images.
    A network without bottlenecks to spare comes back as it is.

    Raises:
        UserError: unknown layer score, one without the images that it reads, or a data set of other classes.
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
    """The network without these bottlenecks and without any repair; its plan and history say so.

    Raises:
        UserError: a name is no block of a chain, or what is left would not fit together.
    """
    whole = checkpoint.build()
    removal = removal_of(whole, blocks)
    smaller = remove(whole, removal.blocks)
    plan = Plan.of_removal(trace(whole), trace(smaller), removal, usable_size(checkpoint, 0))
    return _shorter(checkpoint, whole, smaller, plan, {"removed_blocks": list(removal.blocks)})


def _shorter(
    checkpoint: Checkpoint, whole: nn.Module, smaller: nn.Module, plan: Plan, described: dict[str, Any]
) -> Checkpoint:
    """The checkpoint of the network that a removal left."""
    return Checkpoint.of(
        smaller,
        like=checkpoint,
        plan=since_the_first(checkpoint, plan).to_dict(),
        history=(*checkpoint.history, HistoryEntry(verb="prune", settings=described, cost=cost_of(plan))),
        masks=left_of(whole, plan.removal, checkpoint.masks),
        image_size=plan.image_size,
    )


def check_layers(checkpoint: Checkpoint, context: Context, settings: LayerSettings) -> None:
    """Looks up the score, and what it reads.

    Raises:
        UserError: an unknown score, no data set for one that reads images, or no loss for one that reads gradients.
    """
    reads, reader = LAYER_SCORES[settings.layer_score].reads, f"The layer score {settings.layer_score}"
    if reads == "labels":
        check_gradients(checkpoint, context, reader, "choose --layer-score contribution or gamma")
    elif reads == "images":
        context.require_images(reader)


def _evidence(whole: nn.Module, context: Context, settings: LayerSettings) -> tuple[Iterable[Any] | None, Any]:
    """What the layer score reads: nothing, images, or labelled images and the loss."""
    reads, evidence = LAYER_SCORES[settings.layer_score].reads, FamilyEvidence(context, whole)
    if reads == "labels":
        return evidence.scored(whole, settings.layer_images, 0)
    if reads == "images":
        return evidence.unaugmented(settings.layer_images), None
    return None, None
