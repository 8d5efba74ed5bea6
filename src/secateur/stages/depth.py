"""The verb that makes a detector shallower: bottlenecks that contribute least are removed, and it is repaired."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from secateur.detector.checkpoint import Checkpoint, Stage
from secateur.detector.model import Detector
from secateur.evaluation.validate import check_image_size
from secateur.pruning.depth import removal_of, remove, select
from secateur.pruning.graph import trace
from secateur.pruning.layer_scores import LAYER_SCORES
from secateur.pruning.plan import Plan
from secateur.pruning.settings import PruneSettings
from secateur.stages.pruning import Work, labelled, pixels, refresh_norms_, since_the_first

LOG = logging.getLogger("secateur")
ABSORB_IMAGES = 16  # images whose mean stands for what a removed bottleneck added


def remove_layers(checkpoint: Checkpoint, work: Work, settings: PruneSettings) -> tuple[Checkpoint, tuple[str, ...]]:
    """The detector without its `settings.layers` least important bottlenecks, and their names.

    What they added on average is absorbed, and batch norms are refreshed, as the settings say. A detector without
    bottlenecks to spare comes back as it is.

    Raises:
        UserError: unknown layer score.
    """
    detector = checkpoint.detector()
    image_size = check_image_size(work.image_size, int(max(detector.strides)))
    choice = select(detector, settings, *evidence(detector, work, settings))
    for note in choice.notes:
        LOG.info("%s", note)
    if not choice.blocks:
        return checkpoint, ()
    LOG.info("Removed: %s (scores by %s)", ", ".join(choice.blocks), settings.layer_score)
    removal = removal_of(detector, choice.blocks)
    images = torch.cat(list(plain_images(work, ABSORB_IMAGES))) if settings.absorb else None
    smaller = remove(detector, choice.blocks, images)
    refresh_norms_(smaller, work, settings)
    plan = Plan.of_removal(
        trace(detector), trace(smaller), removal, image_size, criterion=settings.layer_score, notes=choice.notes
    )
    described = {"removed_blocks": list(choice.blocks), "layer_score": settings.layer_score}
    cost = {
        "parameters": plan.after.parameters,
        "flops": plan.after.flops,
        "dense_parameters": plan.before.parameters,
        "dense_flops": plan.before.flops,
        "image_size": image_size,
    }
    result = Checkpoint.of(
        smaller,
        like=checkpoint,
        plan=since_the_first(checkpoint, plan).to_dict(),
        history=(*checkpoint.history, Stage(verb="prune", settings=described, cost=cost)),
        masks=removal.tensors(checkpoint.masks),
    )
    return result, choice.blocks


def evidence(detector: Detector, work: Work, settings: PruneSettings) -> tuple[Iterable[Any] | None, Any]:
    """What the layer score reads: nothing, images, or labelled images and the loss."""
    reads = LAYER_SCORES[settings.layer_score].reads
    if reads == "labels":
        return labelled(detector, work, settings)
    return (plain_images(work, settings.statistics_images) if reads == "images" else None), None


def plain_images(work: Work, limit: int) -> Iterable[Tensor]:
    """Letterboxed training images [B, 3, H, W] in 0..1, `limit` of them at most (rounded up to whole batches)."""
    batches = work.images(limit)
    size = min(work.batch_size, limit)
    return (pixels(batch) for batch in islice(batches.epoch(0), -(-limit // size)))
