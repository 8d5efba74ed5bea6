"""Connection sensitivity: weights whose removal changes the loss least, to first order, go first.

Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity"; the running sum over the steps of
a training is Intel Neural Compressor's.
"""

from __future__ import annotations

from torch import Tensor

from secateur.sparsity.criteria import WEIGHT_CRITERIA

DECAY = 0.9


@WEIGHT_CRITERIA.register("snip")
def snip(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|W g| of the latest step."""
    return (weight * gradient).abs()


@WEIGHT_CRITERIA.register("snip_momentum")
def snip_momentum(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """0.9 S + |W g|: the sensitivity over about the last ten steps."""
    return DECAY * scores + (weight * gradient).abs()
