"""Copy-paste augmentation (Ghiasi et al. 2021): mirrored copies of outlined objects that cover little of other
objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from secateur.data.augment import Floats, Matrix, apply
from secateur.data.images import Image

_MOST_COVER = 0.3


def paste_copies(
    image: Image,
    labels: Floats,
    outlines: Sequence[Floats],
    rng: np.random.Generator,
    share: float,
    canvas: tuple[int, int],
    view: Matrix,
    render: Callable[[Matrix], Image],
) -> tuple[Floats, list[Floats]]:
    """Pastes `share` of the outlined objects, mirrored over the canvas, into `image` in place.

    Args:
        image: uint8 [H, W, 3] or [H, W].
        labels: rows [n, 5] (class, xyxy canvas pixels).
        outlines: points [p, 2] on the canvas for each row, empty for boxes, which are never pasted.
        view: matrix [3, 3] from canvas to output.
        render: draws the canvas with another matrix.

    Returns:
        Rows and outlines, with copies appended.
    """
    outlines = list(outlines)
    outlined = [row for row, outline in enumerate(outlines) if len(outline)]
    count = round(share * len(outlined))
    if not count:
        return labels, outlines
    width = canvas[1]
    mask = np.zeros(image.shape[:2], np.uint8)
    for row in rng.choice(outlined, count, replace=False):
        name, x0, y0, x1, y1 = labels[row]
        box = np.array([width - x1, y0, width - x0, y1], np.float32)
        if (_covered(box, labels[:, 1:]) >= _MOST_COVER).any():
            continue
        copy = outlines[row] * np.array([-1, 1], np.float32) + np.array([width, 0], np.float32)
        labels = np.concatenate([labels, [[name, *box]]]).astype(np.float32)
        outlines.append(copy)
        cv2.fillPoly(mask, [np.round(apply(view, copy)).astype(np.int32)], 255)
    if mask.any():
        # The canvas mirrored, then transformed by the same view.
        mirror = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        cv2.copyTo(render(np.asarray(view @ mirror)), mask, image)
    return labels, outlines


def _covered(box: Floats, boxes: Floats) -> Floats:
    """Share of each of the boxes xyxy [n, 4] that `box` [4] covers."""
    inner = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return np.asarray(inner.prod(1) / (area + 1e-16), np.float32)
