"""Pruning patterns: which weights of a layer are zeroed together.

The weight of a layer is treated as a matrix. For a linear layer it is [out, in]. For a convolution, [O, I, kh, kw]
becomes [O, kh * kw * I] with columns ordered (kh, kw, I), so consecutive columns are input channels at one kernel tap.
In a grouped convolution, I counts the input channels of one group. A pattern divides this matrix into blocks of equal
size.

A pattern is a file in this folder (or a plug-in) that registers a function from the text of the option to a `Pattern`,
or to None if the text has another form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from secateur.errors import UserError
from secateur.registry import Registry


class Pattern(Protocol):
    """How a weight is divided into blocks, and which weights of a block are zeroed if the block is pruned."""

    @property
    def name(self) -> str:
        """Name as in the option: "4x1", "2:4"."""

    @property
    def limit(self) -> float:
        """Maximum share of zeros in a layer with this pattern."""

    def fits(self, weight: Tensor) -> bool:
        """Whether a weight, of any shape, can be divided into whole blocks; otherwise the layer stays dense."""

    def reduce(self, scores: Tensor, how: str) -> Tensor:
        """Scores of the weights (the shape of the weight, any float type) -> scores of the blocks, float [blocks], in a
        fixed order.

        The score of a block estimates the loss of pruning it. `how` is mean, sum or max over the weights that would be
        zeroed.
        """

    def expand(self, keep: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
        """Decisions for blocks -> mask with the shape of the weight; both bool, True: keep.

        Args:
            keep: bool [blocks], in the order of `reduce`.
            weight: provides the shape of the mask.
            scores: scores of the weights; they select the weights to zero in a pruned block, if the pattern allows a
                choice.
        """


PATTERNS: Registry[Callable[[str], Pattern | None]] = Registry("pruning pattern", "secateur.sparsity.patterns")
"""Form of the text (as shown in error messages) -> function that parses it."""
pattern = PATTERNS.register


def parse_pattern(text: str) -> Pattern:
    """Parses a pattern: NxM (1x1, 4x1, channelx1, 1xchannel) or N:M (2:4: two of four weights are kept).

    Raises:
        UserError: the text has no known form, or its numbers are invalid.
    """
    for form in PATTERNS:
        pattern = PATTERNS[form](text.strip().lower())
        if pattern is not None:
            return pattern
    raise UserError(
        f"The pruning pattern '{text}' is invalid. Supported forms: {', '.join(PATTERNS)}, "
        "for example 1x1, 4x1, channelx1 or 2:4."
    )


def to_matrix(weight: Tensor) -> Tensor:
    """[O, I, kh, kw] -> [O, kh * kw * I] with columns ordered (kh, kw, I); a matrix is not changed."""
    if weight.ndim == 2:
        return weight
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_matrix`, contiguous, for a weight with the shape of `like`."""
    if like.ndim == 2:
        return matrix.contiguous()
    rows, channels, height, width = like.shape
    return matrix.reshape(rows, height, width, channels).permute(0, 3, 1, 2).contiguous()


def pooled(scores: Tensor, dims: tuple[int, ...], how: str) -> Tensor:
    """Mean, sum or maximum over the dimensions `dims` of scores of any shape.

    Raises:
        UserError: `how` is unknown.
    """
    if how == "mean":
        return scores.mean(dims)
    if how == "sum":
        return scores.sum(dims)
    if how == "max":
        return scores.amax(dims)
    raise UserError(f"Unknown block reduction '{how}'. Use mean, sum or max.")


def zeros_per_block(pattern: Pattern, weights: int, blocks: int) -> int:
    """Number of weights that one pruned block loses, in a layer with `weights` weights in `blocks` blocks."""
    return round(pattern.limit * weights / blocks)
