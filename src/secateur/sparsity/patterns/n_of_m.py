"""Patterns N:M: of every M consecutive columns of a row of the weight matrix, N weights are kept and M - N are zeroed.

N is the number of weights KEPT, as defined by NVIDIA (Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks");
Intel Neural Compressor counted the pruned ones. 2:4 is the same in both; 1:4 has 75 % zeros here, and so has 2:8. The
kept weights are chosen freely in each group, so a pruned group loses its M - N lowest scores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import UserError
from secateur.sparsity.patterns import from_matrix, pattern, pooled, to_matrix


@dataclass(frozen=True)
class KeptOfGroup:
    """Groups of `size` consecutive columns of one row; a pruned group keeps exactly `kept` weights.

    Weights have any shape; scores have the shape of their weight.
    """

    kept: int
    size: int

    @property
    def name(self) -> str:
        """Kept weights and group size, as in "2:4"."""
        return f"{self.kept}:{self.size}"

    @property
    def limit(self) -> float:
        """(M - N) / M: every group is pruned."""
        return (self.size - self.kept) / self.size

    def fits(self, weight: Tensor) -> bool:
        """Whether M divides the columns."""
        return weight.ndim in (2, 4) and weight[0].numel() % self.size == 0

    def reduce(self, scores: Tensor, how: str) -> Tensor:
        """Scores of groups, float [groups], row by row, over the M - N lowest scores of each, which are the weights
        to be zeroed."""
        groups = to_matrix(scores).float().reshape(-1, self.size)
        lowest = groups.topk(self.size - self.kept, dim=1, largest=False).values
        return pooled(lowest, (1,), how)

    def expand(self, keep: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
        """A mask with M - N zeros in every pruned group, at its lowest scores; on a tie the first columns are
        zeroed."""
        groups = to_matrix(scores).reshape(-1, self.size)
        # Sorting positions instead of comparing with a threshold keeps the count exact if scores are equal.
        lowest = groups.sort(dim=1, stable=True).indices[:, : self.size - self.kept]
        mask = torch.ones_like(groups, dtype=torch.bool).scatter_(1, lowest, False) | keep[:, None]
        return from_matrix(mask.reshape(weight.shape[0], -1), weight)


@pattern("N:M")
def kept_of_group(text: str) -> KeptOfGroup | None:
    """Parses "N:M".

    Raises:
        UserError: N is not between 1 and M - 1.
    """
    match = re.fullmatch(r"([0-9]+):([0-9]+)", text)
    if match is None:
        return None
    kept, size = int(match[1]), int(match[2])
    if not 0 < kept < size:
        raise UserError(
            f"The pruning pattern '{text}' must keep N of M weights with N from 1 to M - 1, as 2:4 keeps two of four."
        )
    return KeptOfGroup(kept, size)
