"""Recognises what the outputs of an exported file are: by what this package says in its own, by the answers of others.

A layout that can be read is one function in `LAYOUTS`; one that only gets a name in the refusal is one in `LOOKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.deploy.metadata import Metadata
from secateur.errors import UserError
from secateur.evaluation.predictor import SCORE_SLACK

Shape = tuple[int | None, ...]
Floats = NDArray[np.float32]

OPENS = (
    "Secateur opens its own exports, and YOLOv5 detectors that give rows of 5 + classes values before non-maximum "
    "suppression"
)
_MOST_ANCHORS = 9
_FEWEST_CELLS = 16
"""With fewer places any numbers would be near theirs."""
_ON_GRID = 0.98
"""Share of the rows that must be near the cell they belong to; rounding moves a few."""
_SIDES = (4, 8, 16, 32, 64, 128)
_USUAL = ((8, 16, 32), (8, 16, 32, 64), (16, 32))
STRIDES = tuple(
    dict.fromkeys(
        [*_USUAL]
        + [_SIDES[first:last] for first in range(3) for last in range(first + 2, len(_SIDES) + 1)]
        + [strides[::-1] for strides in _USUAL]
    )
)
"""Strides of the levels of a head, in the order of its rows; the usual ones first."""


@dataclass(frozen=True)
class Layout:
    """How the outputs of a file are read.

    Attributes:
        kind: "decoded" rows, "raw" maps of the head, or "detections" after suppression.
        nc: number of classes.
        strides: pixels of a cell of each level.
    """

    kind: str
    nc: int
    strides: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What a foreign file gives for black images.

    Attributes:
        metadata: what the file says of itself.
        batch: number of images.
        size: their height and width in pixels.
        outputs: as the file gives them.
    """

    metadata: Metadata
    batch: int
    size: tuple[int, int]
    outputs: Sequence[NDArray[Any]]

    @property
    def rows(self) -> Floats | None:
        """The first output for the first image, [N, values], where it has that many axes."""
        first = self.outputs[0] if self.outputs else np.zeros(0)
        if first.ndim != 3 or first.shape[0] != self.batch or not first.size:
            return None
        return first[0].astype(np.float32)

    @property
    def stated(self) -> int:
        """Number of classes that the file states; 0 where it does not."""
        return len(self.metadata.names) or self.metadata.classes


def own_layout(path: Path, metadata: Metadata, takes: Shape, gives: Sequence[Shape]) -> Layout:
    """The layout of an export of this package, which says what it is.

    Args:
        takes: shape of its input, None for sides that are open.
        gives: shapes of its outputs.

    Raises:
        UserError: its outputs are not what it says.
    """
    nc = len(metadata.names)
    fits = {"decoded": _fits_rows, "raw": _fits_maps, "detections": _fits_detections}[metadata.output]
    if len(takes) != 4 or not gives or metadata.classes not in (0, nc) or not fits(metadata, takes, gives):
        raise UserError(
            f"{path} is not the export that its metadata describes ({metadata.output} output, {nc} classes): it maps "
            f"{sides(takes)} to {_listed(gives)}; export it anew."
        )
    return Layout(metadata.output, nc, metadata.strides)


def recognised(path: Path, takes: Shape, answer: Answer) -> Layout:
    """The layout of a file of another program.

    Raises:
        UserError: it is none that can be read; the sentence says what it looks like.
    """
    if answer.outputs and not np.isfinite(answer.outputs[0]).all():
        raise UserError(f"{path} gives values that are not finite for a black image; export it anew.")
    if not answer.metadata.suppressed and answer.metadata.task in ("", "detect"):
        for layout in LAYOUTS:
            if (found := layout(answer)) is not None:
                return found
    look = next((said for looks in LOOKS if (said := looks(answer))), "no layout of a detector that Secateur knows")
    called = f" ({answer.metadata.title})" if answer.metadata.title else ""
    raise UserError(
        f"{path} is not a YOLOv5 detector{called}: it maps {sides(takes)} to "
        f"{_listed([output.shape for output in answer.outputs])}, {look}; {OPENS}."
    )


def sides(shape: Sequence[int | None]) -> str:
    """1 x 3 x 640 x 640; "any" for sides that are open."""
    return " x ".join("any" if side is None else str(side) for side in shape) or "an unknown shape"


def _listed(shapes: Sequence[Shape]) -> str:
    more = f" and {len(shapes) - 3} more outputs" if len(shapes) > 3 else ""
    return (", ".join(map(sides, shapes[:3])) or "nothing") + more


# What this package's own files say they are.


def _fits_rows(metadata: Metadata, takes: Shape, gives: Sequence[Shape]) -> bool:
    if len(gives[0]) != 3 or gives[0][2] not in (None, 5 + len(metadata.names)):
        return False
    if not metadata.anchors or gives[0][1] is None or takes[2] is None or takes[3] is None:
        return True  # networks of other makes say nothing of anchors
    levels = zip(metadata.anchors, metadata.strides, strict=False)
    cells = sum(len(level) * int(takes[2] // stride) * int(takes[3] // stride) for level, stride in levels)
    return len(metadata.anchors) == len(metadata.strides) and gives[0][1] == cells


def _fits_maps(metadata: Metadata, takes: Shape, gives: Sequence[Shape]) -> bool:
    levels = len(metadata.anchors)
    if not levels or levels != len(gives) or levels != len(metadata.strides):
        return False
    for shape, stride, anchors in zip(gives, metadata.strides, metadata.anchors, strict=True):
        if len(shape) != 4 or shape[1] != len(anchors) * (5 + len(metadata.names)):
            return False
        for cells, side in zip(shape[2:], takes[2:], strict=True):
            if cells is not None and side is not None and cells != int(side // stride):
                return False
    return True


def _fits_detections(metadata: Metadata, takes: Shape, gives: Sequence[Shape]) -> bool:
    return len(gives[0]) == 3 and gives[0][2] in (None, 6) and bool(metadata.names)


# Layouts that can be read.


def decoded_rows(answer: Answer) -> Layout | None:
    """YOLOv5's rows: for each level, anchor, line and column centre x, y, width, height in pixels, objectness, classes.

    The number of values fits other layouts by chance; that the centre of each row is near the cell that its place
    stands for does not. One row a cell is what YOLOX gives, for other images.
    """
    rows, grid = answer.rows, _grid(answer)
    if rows is None or grid is None or not _are_scores(rows) or not _are_maps(answer, grid):
        return None
    nc = rows.shape[1] - 5
    return Layout("decoded", nc, tuple(map(float, grid))) if answer.stated in (0, nc) else None


LAYOUTS: tuple[Callable[[Answer], Layout | None], ...] = (decoded_rows,)


def _grid(answer: Answer) -> tuple[int, ...] | None:
    """Strides of the levels whose cells the rows belong to, in their order; None where they belong to none."""
    rows = answer.rows
    if rows is None or rows.shape[1] < 6 or not (rows[:, 2:4] >= -1).all():
        return None
    for strides, anchors in _grids(len(rows), answer.size):
        place = np.concatenate([_corners(answer.size, stride, anchors) for stride in strides])
        moved = (rows[:, :2] - place[:, :2]) / place[:, 2:]
        if ((moved > -1) & (moved < 2)).all(axis=1).mean() >= _ON_GRID:
            return strides
    return None


def _grids(count: int, size: tuple[int, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Strides of the levels and anchors of a cell that give this many rows for an image of this size."""
    for strides in STRIDES:
        cells = _cells(size, strides)
        if cells >= _FEWEST_CELLS and count % cells == 0 and 2 <= count // cells <= _MOST_ANCHORS:
            yield strides, count // cells


def _cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def _corners(size: tuple[int, int], stride: int, anchors: int) -> Floats:
    """[N, 3]: left and top of the cell of each row of a level, and its stride, in pixels."""
    lines, columns = np.meshgrid(np.arange(size[0] // stride), np.arange(size[1] // stride), indexing="ij")
    corners = np.stack((columns * stride, lines * stride, np.full_like(lines, stride)), axis=-1).reshape(-1, 3)
    return np.tile(corners, (anchors, 1)).astype(np.float32)


def _are_scores(rows: Floats) -> bool:
    return bool((rows[:, 4:] >= -SCORE_SLACK).all() and (rows[:, 4:] <= 1 + SCORE_SLACK).all())


def _are_maps(answer: Answer, strides: Sequence[int]) -> bool:
    """Whether all outputs behind the rows are maps of the head, as YOLOv5's own files have them: [B, na, ny, nx,
    5 + nc] or [B, na * (5 + nc), ny, nx]."""
    width = answer.outputs[0].shape[2]
    cells = {(answer.size[0] // stride, answer.size[1] // stride) for stride in strides}
    for output in answer.outputs[1:]:
        five = output.ndim == 5 and output.shape[4] == width and output.shape[2:4] in cells
        four = output.ndim == 4 and output.shape[1] % width == 0 and output.shape[2:4] in cells
        if not five and not four:
            return False
    return True


# What else a file may look like, in words that follow "it maps ... to ...".


def _other_task(answer: Answer) -> str:
    task = answer.metadata.task
    return "" if task in ("", "detect") else f"and says that its task is {task}"


def _says_suppressed(answer: Answer) -> str:
    return "boxes after non-maximum suppression, as it says itself" if answer.metadata.suppressed else ""


def _masks(answer: Answer) -> str:
    has_maps = any(output.ndim == 4 for output in answer.outputs[1:])
    rows = answer.outputs and answer.outputs[0].ndim == 3
    return "rows and masks, as segmentation networks give them" if rows and has_maps else ""


def _other_classes(answer: Answer) -> str:
    rows = answer.rows
    if rows is None or _grid(answer) is None or answer.stated in (0, rows.shape[1] - 5):
        return ""
    return f"rows for {rows.shape[1] - 5} classes where it states {answer.stated}"


def _no_scores(answer: Answer) -> str:
    rows = answer.rows
    if rows is None or _grid(answer) is None or _are_scores(rows):
        return ""
    return "rows whose scores leave 0..1, such as masks, key points or values that are not decoded"


def _shares(answer: Answer) -> str:
    rows = answer.rows
    if rows is None or rows.shape[1] < 6 or not any(_grids(len(rows), answer.size)) or np.abs(rows[:, :4]).max() > 2:
        return ""
    return "rows whose boxes are not in pixels, as exports through TensorFlow give them"


def _columns(answer: Answer) -> str:
    rows = answer.rows
    if rows is None or not 5 <= rows.shape[0] < rows.shape[1]:
        return ""
    return "the layout of YOLOv8 and later: a column of box and class scores for each cell, without objectness"


def _one_row_a_cell(answer: Answer) -> str:
    rows = answer.rows
    if rows is None or all(_cells(answer.size, strides) != len(rows) for strides in STRIDES):
        return ""
    return "one row for each cell, as detectors without anchors give them"


def _suppressed(answer: Answer) -> str:
    shapes = [output.shape for output in answer.outputs]
    boxes = any(shape[-1:] == (4,) for shape in shapes) and len(shapes) > 1
    kept = any(len(shape) in (2, 3) and shape[-1] in (6, 7) for shape in shapes)
    return "which looks like boxes after non-maximum suppression" if boxes or kept else ""


def _maps(answer: Answer) -> str:
    if not answer.outputs or any(output.ndim < 4 for output in answer.outputs):
        return ""
    return "maps of the head that are not decoded"


def _values(answer: Answer) -> str:
    flat = len(answer.outputs) == 1 and answer.outputs[0].ndim == 2
    return "one value a class for each image, as classification networks give them" if flat else ""


LOOKS: tuple[Callable[[Answer], str], ...] = (
    _other_task,
    _says_suppressed,
    _masks,
    _other_classes,
    _no_scores,
    _shares,
    _columns,
    _one_row_a_cell,
    _suppressed,
    _maps,
    _values,
)
"""In this order; each gives "" where the answer does not look so."""
