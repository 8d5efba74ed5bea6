"""Recognises detectors exported by the package ultralytics from their metadata and outputs; the package is not
needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.evaluation.nms import Candidates
from secateur.evaluation.predictor import SCORE_SLACK
from secateur.families.detection.outputs import AllCandidates
from secateur.families.outputs import Answer, Decoder, FinalBoxes
from secateur.sizes import Sides

Floats = NDArray[np.float32]

_SIDES = (4, 8, 16, 32, 64, 128)
_LEVELS = tuple(_SIDES[first:last] for last in range(1, len(_SIDES) + 1) for first in range(last))
"""Possible strides of the levels of a head: consecutive, finest first. Each choice gives a different number of
cells."""
_FEWEST_CELLS = 16
"""With fewer columns, random values could match."""
_LAYOUT = "the layout of YOLOv8 and later: a column of box and class scores per cell"


def recognises(answer: Answer) -> Decoder | str:
    """The decoder of a file: columns [B, 4 + nc, N] of centre, width and height in pixels and class scores per cell, or
    final boxes [B, n, 6]: x1, y1, x2, y2 in pixels, score, class.

    Boxes with an angle or key points are columns too, and other programs also use six values per box. So the metadata
    must state the number of classes and, for final boxes, the task detect. Otherwise returns a description of the
    outputs that continues "it maps ... to ...".
    """
    rows = answer.rows
    if rows is None or len(answer.outputs) != 1:
        return ""
    if rows.shape[1] == FinalBoxes.values:
        known = answer.task == "detect" and answer.stated and _are_final(rows, answer.stated)
        return Chosen(answer.stated, answer.strides) if known else ""
    levels = next((strides for strides in _LEVELS if _cells(answer.size, strides) == rows.shape[1]), None)
    if levels is None or rows.shape[1] < _FEWEST_CELLS or rows.shape[0] < 5:
        return ""
    if reason := _no_columns(rows, answer.stated):
        return f"{_LAYOUT}, {reason}"
    return Columns(answer.stated, tuple(map(float, levels)))


@dataclass(frozen=True)
class Columns:
    """Reads columns [B, 4 + nc, N] of centre x and y, width, height and class scores."""

    nc: int
    strides: tuple[float, ...]
    used: int | None = 1
    final: bool = False

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Candidates]:
        """See `Decoder`."""
        rows = outputs[0].transpose(1, 2)
        # Negative sizes become empty boxes, as in `Chosen`.
        centres, half = rows[..., :2], rows[..., 2:4].clamp(min=0) / 2
        corners = torch.cat((centres - half, centres + half, rows[..., 4:]), -1)
        return AllCandidates(self.nc, self.strides)([corners], size, confidence)


@dataclass(frozen=True)
class Chosen(FinalBoxes):
    """Reads final boxes [B, n, 6]; a head that predicts distances without bins can give a negative width, which
    becomes empty."""

    def __call__(self, outputs: Sequence[Tensor], size: Sides, confidence: float) -> list[Tensor]:
        """See `Decoder`."""
        rows = outputs[0]
        low, high, rest = rows[..., :2], rows[..., 2:4], rows[..., 4:]
        return super().__call__([torch.cat((low, torch.maximum(low, high), rest), -1)], size, confidence)


def _no_columns(columns: Floats, nc: int) -> str:
    """Why columns [values, N] are not supported; "" if they are."""
    if not nc:
        return "which, without class names in the file, cannot be distinguished from boxes with angles or key points"
    if len(columns) != 4 + nc:
        return f"but with {len(columns)} values, while {nc} classes need {4 + nc}"
    if (columns[4:] < -SCORE_SLACK).any() or (columns[4:] > 1 + SCORE_SLACK).any():
        return "but with scores outside 0..1"
    if np.abs(columns[:4]).max() <= 2:
        return "but with boxes that are not in pixels"
    return ""


def _are_final(rows: Floats, nc: int) -> bool:
    scores, classes = rows[:, 4], rows[:, 5]
    whole = (classes == np.round(classes)) & (classes >= 0) & (classes < nc)
    return bool(whole.all() and (scores >= -SCORE_SLACK).all() and (scores <= 1 + SCORE_SLACK).all())


def _cells(size: Sides, strides: Sequence[int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)
