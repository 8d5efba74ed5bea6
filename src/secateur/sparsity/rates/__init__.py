"""Schedules of the sparsity rate over a training, one function each, registered by name in `RATES`.

To add a schedule, add a file here, or anywhere in `$SECATEUR_PLUGINS`:

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
"""Returns the current |scale| of every penalised channel, float [channels]; only called by schedules that use it."""

Rate = Callable[[float, Sizes], float | Tensor]
"""`(progress, sizes) -> factor`: factor of s when the share `progress` (0 at the start, below 1) of the epochs is done.

The factor is one number for all channels, or float [channels] in the order of `sizes()`. It must be the same in every
process of a training, so it may depend only on the arguments."""

RATES: Registry[Rate] = Registry("schedule of the sparsity rate", "secateur.sparsity.rates")
rate = RATES.register

RELAXED = 0.15  # share of the channels that the local schedule penalises only weakly
RELAXED_FACTOR = 0.01


def factor_at(schedule: str, progress: float, sizes: Sizes) -> float | Tensor:
    """The checked factor of a schedule: a scalar, or float [channels].

    Raises:
        UserError: the schedule is unknown, or returns a vector with a wrong number of channels.
    """
    factor = RATES[schedule](progress, sizes)
    if isinstance(factor, Tensor) and factor.shape != sizes().shape:
        raise UserError(
            f"The schedule {schedule} returns factors of the shape {list(factor.shape)} for {len(sizes())} channels. "
            "It must return one number, or one per channel."
        )
    return factor


def rise(ramp: float, iteration: int, batches: int) -> float:
    """Share of s after `iteration` batches of the training: rises linearly from 0 to 1 over `ramp` epochs.

    Args:
        batches: batches per epoch.
    """
    return 1.0 if ramp == 0 else min(1.0, iteration / (ramp * batches))


@rate("constant")
def constant(progress: float, sizes: Sizes) -> float:
    """s in all epochs (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017)."""
    return 1.0


@rate("linear")
def linear(progress: float, sizes: Sizes) -> float:
    """Linear from s to 0.1 s: strongest at the start, when the network can still adapt (the YOLOv5 slimming
    scripts)."""
    return 1 - 0.9 * progress


@rate("cosine")
def cosine(progress: float, sizes: Sizes) -> float:
    """Half a cosine from s to 0.2 s (Zhang et al., "Pruned-YOLO", ICANN 2021)."""
    return 0.8 * (1 + math.cos(math.pi * progress)) / 2 + 0.2


@rate("step")
def step(progress: float, sizes: Sizes) -> float:
    """s for the first half of the epochs, 0.01 s for the second (global decay of YOLOv3 channel pruning)."""
    return 1.0 if progress < 0.5 else 0.01


@rate("local")
def local(progress: float, sizes: Sizes) -> float | Tensor:
    """s for all channels at first; in the second half of the epochs, 0.01 s for the 15 % with the largest |scale|:
    float [channels].

    The set is determined at each step, so a channel that grows can join it (local decay of YOLOv3 channel pruning). On
    a tie, the first channels are chosen, so all processes choose the same.
    """
    if progress < 0.5:
        return 1.0
    values = sizes()
    largest = values.argsort(descending=True, stable=True)[: round(RELAXED * len(values))]
    return torch.ones_like(values).index_fill_(0, largest, RELAXED_FACTOR)
