"""Importance of weights while they are trained, one function a criterion.

A criterion maps (scores so far, weight, its final gradient), all float of the weight's shape, to the new scores. It is
called at every optimizer step before the weights change; scores begin at zero and low ones go first. Gradients are
averaged over processes, unscaled and clipped; a weight without a gradient has zeros. Scores are kept per weight and not
per block, which costs as much memory as a momentum, because N:M patterns choose inside their groups.
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
    """|W|: small weights go first (Han et al. 2015, "Learning both Weights and Connections")."""
    return weight.abs()


@weight_criterion("gradient")
def gradient(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|g| of the latest step: weights that the loss pulls on least go first."""
    return gradient.abs()


@weight_criterion("snip")
def snip(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|W g| of the latest step: the change of the loss, to first order, when the weight goes.

    Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity".
    """
    return (weight * gradient).abs()


@weight_criterion("snip_momentum")
def snip_momentum(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """0.9 S + |W g|: the sensitivity over about the last ten steps (Intel Neural Compressor)."""
    return DECAY * scores + (weight * gradient).abs()
