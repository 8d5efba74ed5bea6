"""Pruning patterns: which weights of a layer go together when some of them are set to zero.

A layer's weight is read as a matrix. That of a linear layer [out, in] is one already; that of a convolution
[O, I, kh, kw] becomes [O, kh * kw * I] with columns ordered (kh, kw, I), so consecutive columns are input channels at
one kernel tap. In a grouped convolution I counts the input channels of one group. A pattern splits this matrix into
blocks, all of one size in a layer.

A pattern is one file of this package (or a plugin) that registers a function from the text of the option to a
`Pattern`, or to None where the text is not of its form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from secateur.errors import UserError
from secateur.registry import Registry


class Pattern(Protocol):
    """How a weight splits into blocks, and which weights of a block go when the block is pruned."""

    @property
    def name(self) -> str:
        """As the option spells it: "4x1", "2:4"."""

    @property
    def limit(self) -> float:
        """Highest share of zeros that a layer can have under the pattern."""

    def fits(self, weight: Tensor) -> bool:
        """Whether the weight splits into whole blocks; a layer that does not is left dense."""

    def reduce(self, scores: Tensor, how: str) -> Tensor:
        """Scores of the weights (the weight's shape, any float type) -> scores of the blocks, 1-D, in a fixed order.

        A block's score says what is lost when the block is pruned; `how` is mean, sum or max over the weights that
        would go.
        """

    def expand(self, keep: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
        """Decisions for the blocks -> mask of the weights; both bool, True: stays.

        Args:
            keep: one entry a block, in the order of `reduce`.
            weight: gives the shape of the mask.
            scores: of the weights; they tell which weights of a pruned block go, where the pattern leaves a choice.
        """


PATTERNS: Registry[Callable[[str], Pattern | None]] = Registry("pruning pattern", "secateur.sparsity.patterns")
"""Form of the text (as error messages show it) -> function that reads it."""
pattern = PATTERNS.register


def parse_pattern(text: str) -> Pattern:
    """The pattern that a text names: NxM (1x1, 4x1, channelx1, 1xchannel) or N:M (2:4: two of four weights are kept).

    Raises:
        UserError: the text is of no known form, or its numbers make no pattern.
    """
    for form in PATTERNS:
        pattern = PATTERNS[form](text.strip().lower())
        if pattern is not None:
            return pattern
    raise UserError(
        f"The pruning pattern '{text}' has none of the forms {', '.join(PATTERNS)}; "
        "write for instance 1x1, 4x1, channelx1 or 2:4."
    )


def to_matrix(weight: Tensor) -> Tensor:
    """[O, I, kh, kw] -> [O, kh * kw * I] with columns ordered (kh, kw, I); a matrix stays as it is."""
    if weight.ndim == 2:
        return weight
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_matrix`, contiguous, for a weight of the shape of `like`."""
    if like.ndim == 2:
        return matrix.contiguous()
    rows, channels, height, width = like.shape
    return matrix.reshape(rows, height, width, channels).permute(0, 3, 1, 2).contiguous()


def pooled(scores: Tensor, dims: tuple[int, ...], how: str) -> Tensor:
    """Mean, sum or maximum over some dimensions.

    Raises:
        UserError: `how` is another word.
    """
    if how == "mean":
        return scores.mean(dims)
    if how == "sum":
        return scores.sum(dims)
    if how == "max":
        return scores.amax(dims)
    raise UserError(f"Unknown block reduction '{how}'; choose mean, sum or max.")


def zeros_per_block(pattern: Pattern, weights: int, blocks: int) -> int:
    """Weights that one pruned block loses, in a layer of `weights` weights in `blocks` blocks."""
    return round(pattern.limit * weights / blocks)
