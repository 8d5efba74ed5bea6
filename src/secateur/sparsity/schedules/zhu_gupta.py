"""The cubic sparsity schedule of Zhu and Gupta 2017, "To prune, or not to prune"."""

from __future__ import annotations

from secateur.sparsity.schedules import SPARSITY_SCHEDULES


@SPARSITY_SCHEDULES.register("cubic")
def cubic(start: float, target: float, progress: float) -> float:
    """Fast while weights are redundant, ever slower towards the target."""
    return target + (start - target) * (1 - progress) ** 3
