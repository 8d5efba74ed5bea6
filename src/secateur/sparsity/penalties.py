"""Which penalties a sparse training has, on which channels, and how strong: hooks from settings and a checkpoint."""

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
    """The hooks of a sparse training, on all channels that can be pruned and on no others.

    Args:
        start: the detector to be trained.
        images: training images, from which the length of the training and so the automatic rate follow.

    Raises:
        UserError: an unknown schedule, a detector without batch norms or channels to prune, no automatic rate.
    """
    detector = start.build()
    refuse_without_norms(detector, sparsify)
    graph = trace(detector)
    # Units without penalty count like channels that cannot be pruned; the last entry stands for those.
    spared = np.append(excluded_spaces(graph, sparsify.exclude)[graph.space_of], True)
    norms = {name: np.where(spared[units], -1, units) for name, units in graph.norms.items()}
    norms = {name: units for name, units in norms.items() if (units >= 0).any()}
    if not norms and needs_norms(sparsify):
        raise UserError("Option --exclude leaves no channel whose batch norm scale may shrink; exclude fewer layers.")
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
        LOG.info("Sparsity rate %.3g: the penalty by itself would move a scale by %.2f medians", rate, sparsify.reach)
        sparsify = dataclasses.replace(sparsify, rate=rate)
    # The mask comes first, so that an epoch's figures are those of what is saved.
    hooks: list[Hook] = [SoftMask(sparsify, norms)] if sparsify.soft_mask else []
    if sparsify.penalty in ("gamma", "both"):
        hooks.append(GammaPenalty(sparsify, norms))
    if sparsify.penalty in ("conv", "both"):
        hooks.append(ConvPenalty(sparsify, filters))
    return hooks


def needs_norms(sparsify: SparsifySettings) -> bool:
    """Whether what is asked for acts on the scales of batch norms."""
    return sparsify.penalty != "conv" or sparsify.soft_mask


def refuse_without_norms(network: nn.Module, sparsify: SparsifySettings) -> None:
    """Refuses what acts on the scales of batch norms where there are none, as in a fused checkpoint.

    Raises:
        UserError: it says what can be used instead.
    """
    if needs_norms(sparsify) and not any(isinstance(module, _BatchNorm) for module in network.modules()):
        option = f"--penalty {sparsify.penalty}" if sparsify.penalty != "conv" else "--soft-mask"
        raise UserError(
            f"{option} acts on the scales of batch norms, but the checkpoint is fused: its batch norms are folded into "
            "the convolutions. Use the checkpoint from before that, or --penalty conv without --soft-mask; prune "
            "--criterion l1, l2 or fisher works without batch norms."
        )


def check_penalties(sparsify: SparsifySettings, settings: TrainSettings) -> None:
    """Looks up the schedule, and whether a rate can be found, before there is a detector to look at.

    Raises:
        UserError: an unknown schedule, or no automatic rate for this optimizer.
    """
    RATES[sparsify.schedule]
    check_rate(sparsify, settings)


def check_rate(sparsify: SparsifySettings, settings: TrainSettings) -> None:
    """Refuses an automatic rate where none can be found.

    Raises:
        UserError: the optimizer is not SGD and the penalty a sub-gradient.
    """
    automatic = sparsify.rate == 0 and sparsify.penalty != "conv"
    if automatic and sparsify.mode == "subgradient" and not settings.is_sgd:
        raise UserError(
            f"--rate 0 cannot find a rate for {settings.optimizer}, which normalises the pull of the penalty away; "
            "give --rate, or --mode proximal."
        )


def automatic_rate(scales: Tensor, sparsify: SparsifySettings, settings: TrainSettings, images: int) -> float:
    """The rate whose pull alone, summed over all steps, moves a scale by `reach` times the median of `scales`.

    With SGD a constant pull s moves a scale by lr s / (1 - momentum) a step, so the same s that empties a network in
    300 epochs of COCO does nothing in 50 epochs of 200 images: the rate has to follow from the length of the training.
    Adam normalises the pull away, so there the figure holds for `mode="proximal"` only.

    Args:
        scales: |gamma| of the channels that can be pruned, float [channels]; zeros do not count.
        images: training images.

    Raises:
        UserError: all scales are zero, or the schedule lets no penalty through.
    """
    alive = scales[scales > 0]
    if len(alive) == 0:
        raise UserError("All scales that could be penalised are zero already; give --rate, or another --penalty.")
    schedule = Schedule.of(settings, math.ceil(images / settings.batch_size))
    momentum = settings.hyp.momentum if sparsify.mode == "subgradient" and settings.is_sgd else 0.0
    travel = 0.0
    for epoch in range(settings.epochs):
        # A schedule may treat channels differently; the median channel stands for all.
        factor = factor_at(sparsify.schedule, epoch / settings.epochs, lambda: scales)
        level = float(factor.median()) if isinstance(factor, Tensor) else factor
        for iteration in range(epoch * schedule.batches, (epoch + 1) * schedule.batches):
            # The penalty of a step is scaled with its images, so every batch contributes its share of 64.
            share = settings.batch_size / NOMINAL_BATCH * rise(sparsify.ramp, iteration + 1, schedule.batches)
            travel += schedule.learning_rates(iteration, epoch)[1] * level * share
    if travel <= 0:
        raise UserError(f"With --schedule {sparsify.schedule} no penalty acts; give --rate, or another schedule.")
    return float(alive.median()) * sparsify.reach * (1 - momentum) / travel
