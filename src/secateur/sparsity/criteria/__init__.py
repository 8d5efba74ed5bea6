"""Importance criteria for single weights during training, one function each.

A criterion maps (current scores, weight, its final gradient), all float tensors of any shape (the shape of the weight),
to new scores of the same shape. It is called at every optimizer step before the weights change. Scores start at zero,
and weights with low scores are pruned first. Gradients are averaged over processes, unscaled and clipped; a weight
without a gradient has zeros. Scores are stored per weight instead of per block, which needs as much memory as momentum,
because N:M patterns select weights within their groups.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from secateur.registry import Registry

WeightCriterion = Callable[[Tensor, Tensor, Tensor], Tensor]

WEIGHT_CRITERIA: Registry[WeightCriterion] = Registry("pruning criterion", "secateur.sparsity.criteria")
weight_criterion = WEIGHT_CRITERIA.register

DECAY = 0.9


@weight_criterion("magnitude")
def magnitude(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|W|, in the shape of the weight: small weights are pruned first (Han et al. 2015, "Learning both Weights and
    Connections")."""
    return weight.abs()


@weight_criterion("gradient")
def gradient(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|g| of the last step, in the shape of the weight: weights with small gradients are pruned first."""
    return gradient.abs()


@weight_criterion("snip")
def snip(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|W g| of the last step, in the shape of the weight: the first-order change of the loss if the weight is removed.

    Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity".
    """
    return (weight * gradient).abs()


@weight_criterion("snip_momentum")
def snip_momentum(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """0.9 S + |W g|, in the shape of the weight: the sensitivity over about ten steps (Intel Neural Compressor)."""
    return DECAY * scores + (weight * gradient).abs()
