"""The sparsity schedules of Intel Neural Compressor: oneshot, linear, cosine, exp and cube."""

from __future__ import annotations

import math

from secateur.sparsity.schedules import SPARSITY_SCHEDULES


@SPARSITY_SCHEDULES.register("oneshot")
def oneshot(start: float, target: float, progress: float) -> float:
    """Everything at once, at the start of the window."""
    return target


@SPARSITY_SCHEDULES.register("linear")
def linear(start: float, target: float, progress: float) -> float:
    """Every pruning takes the same number of weights."""
    return start + (target - start) * progress


@SPARSITY_SCHEDULES.register("cosine")
def cosine(start: float, target: float, progress: float) -> float:
    """A quarter of a cosine: slow at first, then nearly linear."""
    return start + (target - start) * (1 - math.cos(math.pi / 2 * progress))


@SPARSITY_SCHEDULES.register("exp")
def exp(start: float, target: float, progress: float) -> float:
    """Every pruning takes the same share of the weights that are left: fast at first, gentle when few are left."""
    return 1 - (1 - start) * ((1 - target) / (1 - start)) ** progress


@SPARSITY_SCHEDULES.register("cube")
def cube(start: float, target: float, progress: float) -> float:
    """The third power of the progress: slow at first, fast at the end. Not Zhu and Gupta's `cubic`."""
    return start + (target - start) * progress**3
