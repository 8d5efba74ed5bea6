"""Schedules of the share of zeros, one function each.

A schedule maps (sparsity at the start, target, progress through the window in 0..1) to the sparsity at that point. It
returns the target at progress 1. The pruning itself never exceeds the target and never decreases. All schedules except
`cubic` are those of Intel Neural Compressor.
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
    """Everything at the start of the window."""
    return target


@sparsity_schedule("linear")
def linear(start: float, target: float, progress: float) -> float:
    """Every pruning zeroes the same number of weights."""
    return start + (target - start) * progress


@sparsity_schedule("cosine")
def cosine(start: float, target: float, progress: float) -> float:
    """A quarter of a cosine: slow at first, then nearly linear."""
    return start + (target - start) * (1 - math.cos(math.pi / 2 * progress))


@sparsity_schedule("exp")
def exp(start: float, target: float, progress: float) -> float:
    """Every pruning zeroes the same share of the remaining weights: fast at first, slow when few are left."""
    return 1 - (1 - start) * ((1 - target) / (1 - start)) ** progress


@sparsity_schedule("cube")
def cube(start: float, target: float, progress: float) -> float:
    """The third power of the progress: slow at first, fast at the end. Not the `cubic` of Zhu and Gupta."""
    return start + (target - start) * progress**3


@sparsity_schedule("cubic")
def cubic(start: float, target: float, progress: float) -> float:
    """Fast while many weights are redundant, slower towards the target (Zhu and Gupta 2017, "To prune, or not to
    prune")."""
    return target + (start - target) * (1 - progress) ** 3
