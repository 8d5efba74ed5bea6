"""Group lasso: pulls whole blocks of weights towards zero while the training still chooses which ones go.

Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.sparsity.patterns import Pattern


class GroupLasso:
    """The proximal step of the penalty rate * sqrt(block size) * ||W_block||, apart from the optimizer's own step.

    Args:
        rate: strength alpha.
        pattern: how weights split into blocks.
        weights: tensor name -> weight; all of them fit the pattern.

    Raises:
        UserError: a pattern whose blocks do not go as a whole (N:M).
    """

    def __init__(self, rate: float, pattern: Pattern, weights: Mapping[str, Tensor]) -> None:
        self.rate, self.pattern = rate, pattern
        self.numbers = {name: block_numbers(pattern, weight) for name, weight in weights.items()}

    @torch.no_grad()
    def shrink_(self, weights: Mapping[str, Tensor], learning_rate: float) -> None:
        """W_block <- W_block * max(0, 1 - learning rate * alpha * sqrt(block size) / ||W_block||), in place."""
        for name, weight in weights.items():
            norms = self.pattern.reduce(weight.square(), "sum").sqrt()
            sizes = self.pattern.reduce(torch.ones_like(weight), "sum")
            # Zero blocks stay zero; the bound keeps 0 / 0 out where the learning rate is 0 as well.
            norms.clamp_(min=torch.finfo(norms.dtype).tiny)
            factors = (1 - learning_rate * self.rate * sizes.sqrt() / norms).clamp_(min=0)
            weight.mul_(factors.to(weight.dtype)[self.numbers[name]])


def block_numbers(pattern: Pattern, weight: Tensor) -> Tensor:
    """Which block each weight belongs to, in the pattern's order: int64 of the weight's shape.

    A pattern tells only which weights a choice of blocks keeps; the binary digits of the numbers are such choices.

    Raises:
        UserError: a removed block keeps some of its weights.
    """
    blocks = torch.arange(len(pattern.reduce(weight, "sum")), device=weight.device)
    if pattern.expand(torch.zeros_like(blocks, dtype=torch.bool), weight, weight).any():
        raise UserError(
            f"Option group_lasso pulls whole blocks to zero, which {pattern.name} has none of; choose an NxM pattern "
            "such as 4x1, or leave it out."
        )
    numbers = torch.zeros_like(weight, dtype=torch.int64)
    for digit in range(len(blocks).bit_length()):
        numbers += pattern.expand((blocks >> digit) % 2 == 1, weight, weight).long() << digit
    return numbers
