"""How the sparsity rate changes over a training: one function a schedule, found by name in `RATES`.

A schedule of one's own is one file here, or anywhere in `$SECATEUR_PLUGINS`:

    @rate("square")
    def square(progress: float, sizes: Sizes) -> float:
        return (1 - progress) ** 2
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.registry import Registry

Sizes = Callable[[], Tensor]
"""Gives the present |scale| of every penalised channel, float [channels]: called only by schedules that look at it."""

Rate = Callable[[float, Sizes], float | Tensor]
"""`(progress, sizes) -> factor`: what multiplies s when `progress` (0 at the start, below 1) of the epochs are done.

The factor is one number for all channels, or float [channels] in the order of `sizes()`. Every process of a training
must come to the same factor: it may depend on its arguments only.
"""

RATES: Registry[Rate] = Registry("schedule of the sparsity rate", "secateur.sparsity.rates")
rate = RATES.register

RELAXED = 0.15  # share of the channels that the local schedule nearly leaves alone
RELAXED_FACTOR = 0.01


def factor_at(schedule: str, progress: float, sizes: Sizes) -> float | Tensor:
    """The factor that a schedule gives, checked.

    Raises:
        UserError: unknown schedule, or one that gives a vector of another length than there are channels.
    """
    factor = RATES[schedule](progress, sizes)
    if isinstance(factor, Tensor) and factor.shape != sizes().shape:
        raise UserError(
            f"The schedule {schedule} gives factors of shape {list(factor.shape)} for {len(sizes())} channels; "
            "it must give one number, or one for each channel."
        )
    return factor


def rise(ramp: float, iteration: int, batches: int) -> float:
    """Share of s in force once `iteration` batches of the training are done: a line from 0 to 1 over `ramp` epochs.

    Args:
        batches: batches of an epoch.
    """
    return 1.0 if ramp == 0 else min(1.0, iteration / (ramp * batches))


@rate("constant")
def constant(progress: float, sizes: Sizes) -> float:
    """s throughout (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017)."""
    return 1.0


@rate("linear")
def linear(progress: float, sizes: Sizes) -> float:
    """A line from s to 0.1 s: strong while the network can still rearrange itself (the YOLOv5 slimming scripts)."""
    return 1 - 0.9 * progress


@rate("cosine")
def cosine(progress: float, sizes: Sizes) -> float:
    """Half a cosine from s to 0.2 s (Zhang et al., "Pruned-YOLO", ICANN 2021)."""
    return 0.8 * (1 + math.cos(math.pi * progress)) / 2 + 0.2


@rate("step")
def step(progress: float, sizes: Sizes) -> float:
    """s for the first half of the epochs, 0.01 s for the second (YOLOv3 channel pruning's global decay)."""
    return 1.0 if progress < 0.5 else 0.01


@rate("local")
def local(progress: float, sizes: Sizes) -> float | Tensor:
    """s for all channels at first; from half of the epochs the 15 % with the largest |scale| get 0.01 s.

    The set is drawn anew at each step, so a channel that grows joins it (YOLOv3 channel pruning's local decay). Of
    equal channels the first ones are taken, hence the same ones in every process.
    """
    if progress < 0.5:
        return 1.0
    values = sizes()
    largest = values.argsort(descending=True, stable=True)[: round(RELAXED * len(values))]
    return torch.ones_like(values).index_fill_(0, largest, RELAXED_FACTOR)
