"""Sparsity schedules: how many weights are zero when, one function a schedule.

A schedule maps (present sparsity at the start, target, progress through the window in 0..1) to the sparsity wanted now.
It gives the target at progress 1; the pruning itself never goes above the target, nor back. All but `cubic` are
those of Intel Neural Compressor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from secateur.registry import Registry

SparsitySchedule = Callable[[float, float, float], float]

SPARSITY_SCHEDULES: Registry[SparsitySchedule] = Registry("pruning schedule", "secateur.sparsity.schedules")
sparsity_schedule = SPARSITY_SCHEDULES.register


@sparsity_schedule("oneshot")
def oneshot(start: float, target: float, progress: float) -> float:
    """Everything at once, at the start of the window."""
    return target


@sparsity_schedule("linear")
def linear(start: float, target: float, progress: float) -> float:
    """Every pruning takes the same number of weights."""
    return start + (target - start) * progress


@sparsity_schedule("cosine")
def cosine(start: float, target: float, progress: float) -> float:
    """A quarter of a cosine: slow at first, then nearly linear."""
    return start + (target - start) * (1 - math.cos(math.pi / 2 * progress))


@sparsity_schedule("exp")
def exp(start: float, target: float, progress: float) -> float:
    """Every pruning takes the same share of the weights that are left: fast at first, gentle when few are left."""
    return 1 - (1 - start) * ((1 - target) / (1 - start)) ** progress


@sparsity_schedule("cube")
def cube(start: float, target: float, progress: float) -> float:
    """The third power of the progress: slow at first, fast at the end. Not Zhu and Gupta's `cubic`."""
    return start + (target - start) * progress**3


@sparsity_schedule("cubic")
def cubic(start: float, target: float, progress: float) -> float:
    """Fast while weights are redundant, ever slower towards the target (Zhu and Gupta 2017, "To prune, or not to
    prune")."""
    return target + (start - target) * (1 - progress) ** 3
