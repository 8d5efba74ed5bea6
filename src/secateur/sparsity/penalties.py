"""Creates the hooks of a sparse training from settings and a checkpoint: which penalties, on which channels, at
which rate."""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.errors import UserError
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.allocation import excluded_spaces
from secateur.pruning.graph import trace
from secateur.sparsity.channels.convolution import ConvPenalty
from secateur.sparsity.channels.gamma import GammaPenalty
from secateur.sparsity.channels.soft_mask import SoftMask
from secateur.sparsity.rates import RATES, factor_at, rise
from secateur.sparsity.settings import SparsifySettings
from secateur.training.hooks import Hook
from secateur.training.optimization.schedules import Schedule
from secateur.training.settings import NOMINAL_BATCH, TrainSettings

LOG = logging.getLogger("secateur")


def penalty_hooks(start: Checkpoint, sparsify: SparsifySettings, settings: TrainSettings, images: int) -> list[Hook]:
    """The hooks of a sparse training, for all prunable channels.

    Args:
        start: the detector to train.
        images: number of training images, from which the length of the training and the automatic rate follow.

    Raises:
        UserError: the schedule is unknown, the detector has no batch norms or no prunable channels, or no automatic
            rate can be determined.
    """
    detector = start.build()
    refuse_without_norms(detector, sparsify)
    graph = trace(detector)
    # Units without a penalty are treated like channels that are not prunable, which use the last entry.
    spared = np.append(excluded_spaces(graph, sparsify.exclude)[graph.space_of], True)
    norms = {name: np.where(spared[units], -1, units) for name, units in graph.norms.items()}
    norms = {name: units for name, units in norms.items() if (units >= 0).any()}
    if not norms and needs_norms(sparsify):
        raise UserError("Option --exclude leaves no channel to penalise. Exclude fewer layers.")
    filters = {
        name: dataclasses.replace(axis, units=np.where(spared[axis.units], -1, axis.units))
        for name, axis in graph.filters.items()
    }
    if sparsify.penalty in ("gamma", "both") and sparsify.rate == 0:
        check_rate(sparsify, settings)
        scales = torch.cat(
            [
                detector.get_parameter(f"{name}.weight").detach()[torch.from_numpy(units >= 0)].abs().float()
                for name, units in norms.items()
            ]
        )
        rate = automatic_rate(scales, sparsify, settings, images)
        LOG.info(
            "Sparsity rate %.3g: without a loss, the penalty would shrink a scale by %.2f times the median scale",
            rate,
            sparsify.reach,
        )
        sparsify = dataclasses.replace(sparsify, rate=rate)
    # The mask is first, so that the logged figures of an epoch match the saved weights.
    hooks: list[Hook] = [SoftMask(sparsify, norms)] if sparsify.soft_mask else []
    if sparsify.penalty in ("gamma", "both"):
        hooks.append(GammaPenalty(sparsify, norms))
    if sparsify.penalty in ("conv", "both"):
        hooks.append(ConvPenalty(sparsify, filters))
    return hooks


def needs_norms(sparsify: SparsifySettings) -> bool:
    """Whether the settings act on scales of batch norms."""
    return sparsify.penalty != "conv" or sparsify.soft_mask


def refuse_without_norms(network: nn.Module, sparsify: SparsifySettings) -> None:
    """Rejects settings that act on scales of batch norms for a network without them, such as a fused checkpoint.

    Raises:
        UserError: there are no batch norms; the message names alternatives.
    """
    if needs_norms(sparsify) and not any(isinstance(module, _BatchNorm) for module in network.modules()):
        option = f"--penalty {sparsify.penalty}" if sparsify.penalty != "conv" else "--soft-mask"
        raise UserError(
            f"{option} acts on the scales of batch norms, but the checkpoint is fused: its batch norms are folded into "
            "the convolutions. Use the checkpoint from before fusing, or --penalty conv without --soft-mask. prune "
            "--criterion l1, l2 or fisher works without batch norms."
        )


def check_penalties(sparsify: SparsifySettings, settings: TrainSettings) -> None:
    """Checks the schedule, and whether a rate can be determined, before a detector is available.

    Raises:
        UserError: the schedule is unknown, or there is no automatic rate for this optimizer.
    """
    RATES[sparsify.schedule]
    check_rate(sparsify, settings)


def check_rate(sparsify: SparsifySettings, settings: TrainSettings) -> None:
    """Checks that an automatic rate can be determined.

    Raises:
        UserError: the penalty is a sub-gradient and the optimizer is not SGD.
    """
    automatic = sparsify.rate == 0 and sparsify.penalty != "conv"
    if automatic and sparsify.mode == "subgradient" and not settings.is_sgd:
        raise UserError(
            f"--rate 0 (automatic) is not available for {settings.optimizer}, which normalises the gradient of the "
            "penalty. Set --rate, or use --mode proximal."
        )


def automatic_rate(scales: Tensor, sparsify: SparsifySettings, settings: TrainSettings, images: int) -> float:
    """The rate at which the penalty, summed over all steps and without the loss, shrinks a scale by `reach` times the
    median.

    With SGD, a constant gradient s moves a scale by lr s / (1 - momentum) per step. So the same s that removes all
    channels in 300 epochs of COCO has no effect in 50 epochs of 200 images, and the rate must follow from the length of
    the training. Adam normalises gradients, so the rate is only valid for `mode="proximal"` there.

    Args:
        scales: |gamma| of the prunable channels, float [channels]; zeros are ignored.
        images: number of training images.

    Raises:
        UserError: all scales are zero, or the schedule is zero throughout.
    """
    alive = scales[scales > 0]
    if len(alive) == 0:
        raise UserError("All scales to penalise are already zero. Set --rate, or use another --penalty.")
    schedule = Schedule.of(settings, math.ceil(images / settings.batch_size))
    momentum = settings.hyp.momentum if sparsify.mode == "subgradient" and settings.is_sgd else 0.0
    travel = 0.0
    for epoch in range(settings.epochs):
        # A schedule may treat channels differently; the median channel represents all.
        factor = factor_at(sparsify.schedule, epoch / settings.epochs, lambda: scales)
        level = float(factor.median()) if isinstance(factor, Tensor) else factor
        for iteration in range(epoch * schedule.batches, (epoch + 1) * schedule.batches):
            # The penalty of a step is scaled by its number of images, so every batch contributes its share of 64.
            share = settings.batch_size / NOMINAL_BATCH * rise(sparsify.ramp, iteration + 1, schedule.batches)
            travel += schedule.learning_rates(iteration, epoch)[1] * level * share
    if travel <= 0:
        raise UserError(
            f"With --schedule {sparsify.schedule} the penalty is always zero. Set --rate, or use another schedule."
        )
    return float(alive.median()) * sparsify.reach * (1 - momentum) / travel
