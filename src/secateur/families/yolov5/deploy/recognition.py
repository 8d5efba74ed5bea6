"""Recognises exports of YOLOv5 and its forks from their outputs for black images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.evaluation.predictor import SCORE_SLACK
from secateur.families.outputs import Answer, Decoder
from secateur.families.yolov5.deploy.outputs import Rows
from secateur.sizes import Sides

Floats = NDArray[np.float32]

_MOST_ANCHORS = 9
_FEWEST_CELLS = 16
"""With fewer positions, random values could match."""
_ON_GRID = 0.98
"""Minimum share of rows near their cell; rounding can move a few."""
_SIDES = (4, 8, 16, 32, 64, 128)
_USUAL = ((8, 16, 32), (8, 16, 32, 64), (16, 32))
STRIDES = tuple(
    dict.fromkeys(
        [*_USUAL]
        + [_SIDES[first:last] for first in range(3) for last in range(first + 2, len(_SIDES) + 1)]
        + [strides[::-1] for strides in _USUAL]
    )
)
"""Possible strides of the levels of a head, in the order of its rows; the usual ones first."""


def recognises(answer: Answer) -> Decoder | str:
    """The decoder of a file: rows [B, N, 5 + nc] for each level, anchor, line and column, with centre x and y, width,
    height in pixels, objectness and class scores. Otherwise a description of the outputs that continues "it maps ...
    to ...".

    The number of values can match other layouts by chance. So the centre of each row must also be near the cell that
    its position represents. One row per cell is the layout of YOLOX, which expects different images.
    """
    rows = answer.rows
    if rows is None:
        return ""
    grid = _grid(answer)
    if grid is None:
        return _near_miss(rows, answer.size)
    nc = rows.shape[1] - 5
    if answer.stated not in (0, nc):
        return f"rows for {nc} classes, while its metadata has {answer.stated}"
    if not _are_scores(rows):
        return "rows with scores outside 0..1, such as masks, key points or values that are not decoded"
    return Rows(nc, tuple(map(float, grid))) if _are_maps(answer, grid) else ""


def _near_miss(rows: Floats, size: Sides) -> str:
    """Describes rows that do not belong to cells."""
    if rows.shape[1] >= 6 and any(_grids(len(rows), size)) and np.abs(rows[:, :4]).max() <= 2:
        return "rows with boxes that are not in pixels, as in exports through TensorFlow"
    if any(_cells(size, strides) == len(rows) for strides in STRIDES):
        return "one row per cell, as in detectors without anchors"
    return ""


def _grid(answer: Answer) -> tuple[int, ...] | None:
    """Strides of the levels whose cells match the rows, in order; None if there is no match."""
    rows = answer.rows
    if rows is None or rows.shape[1] < 6 or not (rows[:, 2:4] >= -1).all():
        return None
    for strides, anchors in _grids(len(rows), answer.size):
        place = np.concatenate([_corners(answer.size, stride, anchors) for stride in strides])
        moved = (rows[:, :2] - place[:, :2]) / place[:, 2:]
        if ((moved > -1) & (moved < 2)).all(axis=1).mean() >= _ON_GRID:
            return strides
    return None


def _grids(count: int, size: Sides) -> Iterator[tuple[tuple[int, ...], int]]:
    """Strides of levels and numbers of anchors that give this many rows at this image size."""
    for strides in STRIDES:
        cells = _cells(size, strides)
        if cells >= _FEWEST_CELLS and count % cells == 0 and 2 <= count // cells <= _MOST_ANCHORS:
            yield strides, count // cells


def _cells(size: Sides, strides: Sequence[int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def _corners(size: Sides, stride: int, anchors: int) -> Floats:
    """[N, 3]: left and top of the cell of each row of a level, and its stride, in pixels."""
    lines, columns = np.meshgrid(np.arange(size[0] // stride), np.arange(size[1] // stride), indexing="ij")
    corners = np.stack((columns * stride, lines * stride, np.full_like(lines, stride)), axis=-1).reshape(-1, 3)
    return np.tile(corners, (anchors, 1)).astype(np.float32)


def _are_scores(rows: Floats) -> bool:
    return bool((rows[:, 4:] >= -SCORE_SLACK).all() and (rows[:, 4:] <= 1 + SCORE_SLACK).all())


def _are_maps(answer: Answer, strides: Sequence[int]) -> bool:
    """Whether all outputs after the rows are maps of the head, as in files of YOLOv5: [B, na, ny, nx, 5 + nc] or [B,
    na * (5 + nc), ny, nx]."""
    width = answer.outputs[0].shape[2]
    cells = {(answer.size[0] // stride, answer.size[1] // stride) for stride in strides}
    for output in answer.outputs[1:]:
        five = output.ndim == 5 and output.shape[4] == width and output.shape[2:4] in cells
        four = output.ndim == 4 and output.shape[1] % width == 0 and output.shape[2:4] in cells
        if not five and not four:
            return False
    return True
