"""The usual mosaic, plainly: four images pasted on a canvas of twice the size, which is then warped and cropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def double_canvas(
    images: Sequence[NDArray[np.uint8]],
    labels: Sequence[NDArray[np.float32]],
    side: int,
    centre: tuple[int, int],
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Output image BGR [side,side,3], boxes on the canvas and boxes in the output (class, xyxy); none is filtered."""
    canvas = np.full((2 * side, 2 * side, 3), 114, np.uint8)
    cx, cy = centre
    rows = []
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        height, width = image.shape[:2]
        left, top = (cx - width, cx)[place % 2], (cy - height, cy)[place // 2]
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, 2 * side), min(top + height, 2 * side)
        canvas[y0:y1, x0:x1] = image[y0 - top : y1 - top, x0 - left : x1 - left]
        for number, x, y, w, h in label.astype(np.float64):
            corners = [(x - w / 2) * width + left, (y - h / 2) * height + top]
            corners += [(x + w / 2) * width + left, (y + h / 2) * height + top]
            rows.append([number, *np.clip(corners, 0, 2 * side)])
    before = np.array(rows, np.float64).reshape(-1, 5)
    warp: Callable[..., NDArray[np.uint8]] = cv2.warpPerspective
    out = warp(canvas, matrix, (side, side), borderValue=(114, 114, 114))
    after = before.copy()
    for row in after:
        points = [(row[i], row[j], 1.0) for i in (1, 3) for j in (2, 4)]
        mapped = np.array([matrix @ np.array(point) for point in points])
        mapped = (mapped[:, :2] / mapped[:, 2:]).clip(0, side)
        row[1:] = [*mapped.min(0), *mapped.max(0)]
    return out, before.astype(np.float32), after.astype(np.float32)
