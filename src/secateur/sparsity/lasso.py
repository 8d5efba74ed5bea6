"""Group lasso: shrinks whole blocks of weights during training, before masks are chosen.

Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.sparsity.patterns import Pattern


class GroupLasso:
    """Proximal step of the penalty rate * sqrt(block size) * ||W_block||, independent of the optimizer step.

    Args:
        rate: strength alpha.
        pattern: how weights are divided into blocks.
        weights: tensor name -> weight, any shape; the pattern must fit all of them.

    Raises:
        UserError: the pattern does not prune whole blocks (N:M).
    """

    def __init__(self, rate: float, pattern: Pattern, weights: Mapping[str, Tensor]) -> None:
        self.rate, self.pattern = rate, pattern
        self.numbers = {name: block_numbers(pattern, weight) for name, weight in weights.items()}

    @torch.no_grad()
    def shrink_(self, weights: Mapping[str, Tensor], learning_rate: float) -> None:
        """W_block <- W_block * max(0, 1 - learning rate * alpha * sqrt(block size) / ||W_block||), in place; weights
        of any shape."""
        for name, weight in weights.items():
            norms = self.pattern.reduce(weight.square(), "sum").sqrt()
            sizes = self.pattern.reduce(torch.ones_like(weight), "sum")
            # Zero blocks stay zero; the lower bound avoids 0 / 0 if the learning rate is also 0.
            norms.clamp_(min=torch.finfo(norms.dtype).tiny)
            factors = (1 - learning_rate * self.rate * sizes.sqrt() / norms).clamp_(min=0)
            weight.mul_(factors.to(weight.dtype)[self.numbers[name]])


def block_numbers(pattern: Pattern, weight: Tensor) -> Tensor:
    """Index of the block of each weight, in the order of the pattern: int64 with the shape of the weight.

    A pattern only returns which weights a choice of blocks keeps, so the bits of the indices are queried one by one.

    Raises:
        UserError: a removed block keeps some of its weights.
    """
    blocks = torch.arange(len(pattern.reduce(weight, "sum")), device=weight.device)
    if pattern.expand(torch.zeros_like(blocks, dtype=torch.bool), weight, weight).any():
        raise UserError(
            f"Option group_lasso shrinks whole blocks, but {pattern.name} does not prune whole blocks. Use an NxM "
            "pattern such as 4x1, or omit the option."
        )
    numbers = torch.zeros_like(weight, dtype=torch.int64)
    for digit in range(len(blocks).bit_length()):
        numbers += pattern.expand((blocks >> digit) % 2 == 1, weight, weight).long() << digit
    return numbers
