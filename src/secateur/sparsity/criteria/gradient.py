"""Gradient: weights that the loss pulls on least go first."""

from __future__ import annotations

from torch import Tensor

from secateur.sparsity.criteria import WEIGHT_CRITERIA


@WEIGHT_CRITERIA.register("gradient")
def gradient(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|g| of the latest step."""
    return gradient.abs()
