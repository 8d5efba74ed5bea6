"""Block patterns NxM: N consecutive output channels times M consecutive columns are zeroed together; 1x1: single
weights.

`channel` instead of a number is the number of channels of the layer: `channelx1` is one column over all output channels
(one kernel tap of one input channel), `1xchannel` one row over all input channels (one kernel tap of one filter). 4x1
suits sparse kernels for CPU vector units. The patterns are those of Intel Neural Compressor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

from secateur.errors import UserError
from secateur.sparsity.patterns import from_matrix, pattern, pooled, to_matrix


@dataclass(frozen=True)
class Blocks:
    """Blocks of `rows` output channels times `columns` columns of the weight matrix; None: the number in the layer.

    Weights have any shape; scores have the shape of their weight.
    """

    rows: int | None
    columns: int | None

    @property
    def name(self) -> str:
        """ "4x1", "channelx1"."""
        return f"{self.rows or 'channel'}x{self.columns or 'channel'}"

    @property
    def limit(self) -> float:
        """All blocks of a layer may be pruned."""
        return 1.0

    def fits(self, weight: Tensor) -> bool:
        """Whether N divides the output channels and M the columns."""
        if weight.ndim not in (2, 4):
            return False
        rows, columns = self._size(weight)
        return weight.shape[0] % rows == 0 and weight[0].numel() % columns == 0

    def reduce(self, scores: Tensor, how: str) -> Tensor:
        """Scores of blocks, float [blocks], row by row; for 1x1, those of the weights in storage order."""
        if self.rows == self.columns == 1:
            return scores.float().flatten()
        rows, columns = self._size(scores)
        matrix = to_matrix(scores).float()
        blocks = matrix.reshape(matrix.shape[0] // rows, rows, matrix.shape[1] // columns, columns)
        return pooled(blocks, (1, 3), how).flatten()

    def expand(self, keep: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
        """A mask that is constant over each block; the scores are not used."""
        if self.rows == self.columns == 1:
            return keep.reshape(weight.shape)
        rows, columns = self._size(weight)
        down, across = weight.shape[0] // rows, weight[0].numel() // columns
        matrix = keep.reshape(down, 1, across, 1).expand(down, rows, across, columns)
        return from_matrix(matrix.reshape(weight.shape[0], -1), weight)

    def _size(self, weight: Tensor) -> tuple[int, int]:
        return self.rows or weight.shape[0], self.columns or weight.shape[1]


@pattern("NxM")
def blocks(text: str) -> Blocks | None:
    """Parses "NxM", each of them a number or `channel`.

    Raises:
        UserError: a block would contain no weights.
    """
    match = re.fullmatch(r"([0-9]+|channel)x([0-9]+|channel)", text)
    if match is None:
        return None
    rows, columns = (None if side == "channel" else int(side) for side in match.groups())
    if rows == 0 or columns == 0:
        raise UserError(f"The pruning pattern '{text}' has empty blocks. N and M of NxM must be at least 1.")
    return Blocks(rows, columns)
