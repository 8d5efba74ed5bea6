"""Magnitude: small weights go first (Han et al. 2015, "Learning both Weights and Connections")."""

from __future__ import annotations

from torch import Tensor

from secateur.sparsity.criteria import WEIGHT_CRITERIA


@WEIGHT_CRITERIA.register("magnitude")
def magnitude(scores: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
    """|W|."""
    return weight.abs()
