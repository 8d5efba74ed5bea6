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
