"""How the sparsity rate changes over a training: one function a schedule, found by name in `RATES`.

A schedule of one's own is one file here, or anywhere in `$SECATEUR_PLUGINS`:

    @RATES.register("square")
    def square(progress: float, sizes: Sizes) -> float:
        return (1 - progress) ** 2
"""

from __future__ import annotations

from collections.abc import Callable

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
