"""Random geometry and colour augmentation of training images: ranges, and the matrices and tables sampled from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from secateur.data.images import Image

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]
_OUTLINE_POINTS = 1000  # outlines are clipped at the image border between their points, so they need many points


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the augmentation, with the names and meanings of YOLOv5 hyp files.

    hsv_*: gains of hue, saturation, value; degrees, shear: +/- degrees; translate: +/- share of the image; scale: +/-
    gain; perspective: +/- per pixel; flipud, fliplr, mosaic, mixup: probabilities; copy_paste: share of the outlined
    objects.
    """

    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0

    @staticmethod
    def from_hyp(hyp: Mapping[str, Any]) -> Augmentation:
        """Reads the augmentation keys of a mapping of hyper-parameters; other keys are ignored."""
        names = {field.name for field in fields(Augmentation)}
        return Augmentation(**{name: float(hyp[name]) for name in names if name in hyp})


def random_view(
    rng: np.random.Generator, augmentation: Augmentation, canvas: tuple[int, int], size: tuple[int, int]
) -> tuple[Matrix, float]:
    """Samples the matrix, float64 [3, 3], from canvas to output pixels, and its gain; `canvas` and `size` are (height,
    width).

    The order is: perspective about the canvas centre, rotation, scale, shear; then the centre is moved to that of the
    output, +/- translate.
    """
    a = augmentation
    centre = translation(-canvas[1] / 2, -canvas[0] / 2)
    perspective = np.eye(3)
    perspective[2, :2] = rng.uniform(-a.perspective, a.perspective, 2)
    angle = math.radians(rng.uniform(-a.degrees, a.degrees))
    gain = float(rng.uniform(1 - a.scale, 1 + a.scale))
    cos, sin = gain * math.cos(angle), gain * math.sin(angle)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    shear = np.eye(3)
    shear[0, 1], shear[1, 0] = np.tan(np.radians(rng.uniform(-a.shear, a.shear, 2)))
    x, y = rng.uniform(0.5 - a.translate, 0.5 + a.translate, 2) * (size[1], size[0])
    return np.asarray(translation(x, y) @ shear @ rotation @ perspective @ centre), gain


def translation(x: float, y: float) -> Matrix:
    """Matrix, float64 [3, 3], that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def apply(matrix: Matrix, points: NDArray[Any]) -> Matrix:
    """Transforms points [n, 2] by a matrix [3, 3], including the perspective division."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def is_straight(matrix: Matrix) -> bool:
    """Whether a matrix [3, 3] only scales and shifts (no rotation, shear, perspective or mirroring)."""
    bent = matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]
    return not bent and bool(matrix[0, 0] > 0 and matrix[1, 1] > 0)


def warp_boxes(boxes: Floats, outlines: Sequence[Floats], matrix: Matrix, size: tuple[int, int]) -> Floats:
    """Transforms boxes xyxy [n, 4] by a matrix [3, 3], clipped to the output (height, width): float32 [n, 4].

    An object with an outline (points [p, 2], empty without an outline) gets the box of its transformed, clipped
    outline; other objects get that of their four transformed corners.
    """
    if not len(boxes):
        return np.zeros((0, 4), np.float32)
    height, width = size
    corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 2)
    warped = apply(matrix, corners).reshape(-1, 4, 2)
    result = np.concatenate([warped.min(1), warped.max(1)], 1)
    for row, outline in enumerate(outlines):
        if len(outline):
            points = apply(matrix, _densified(outline))
            points = points[((points >= 0) & (points <= (width, height))).all(1)]
            result[row] = [*points.min(0), *points.max(0)] if len(points) else 0.0
    result[:, 0::2] = result[:, 0::2].clip(0, width)
    result[:, 1::2] = result[:, 1::2].clip(0, height)
    return result.astype(np.float32)


def _densified(outline: Floats) -> Matrix:
    closed = np.concatenate([outline, outline[:1]])
    at = np.linspace(0, len(closed) - 1, _OUTLINE_POINTS)
    return np.column_stack([np.interp(at, np.arange(len(closed)), closed[:, axis]) for axis in (0, 1)])


def visible_enough(
    before: Floats,
    after: Floats,
    gain: float,
    *,
    least_side: float = 2,
    most_aspect: float = 100,
    least_area: float = 0.1,
) -> NDArray[np.bool_]:
    """Which boxes [n, 4] are still useful after a transform: bool [n]. Both sides must exceed `least_side` pixels,
    the box must not be a sliver, and more than `least_area` of the object's area (scaled by `gain`) must be
    inside the image."""
    old = (before[:, 2:] - before[:, :2]) * gain
    new = after[:, 2:] - after[:, :2]
    tiny = 1e-16
    aspect = np.maximum(new[:, 0] / (new[:, 1] + tiny), new[:, 1] / (new[:, 0] + tiny))
    share = new.prod(1) / (old.prod(1) + tiny)
    return np.asarray((new > least_side).all(1) & (share > least_area) & (aspect < most_aspect))


def colour_table(rng: np.random.Generator, augmentation: Augmentation) -> Image | None:
    """Samples gains of hue, saturation and value: a table uint8 [1, 256, 3] for HSV images; None without gains."""
    gains = np.array([augmentation.hsv_h, augmentation.hsv_s, augmentation.hsv_v])
    if not gains.any():
        return None
    hue, saturation, value = rng.uniform(-1, 1, 3) * gains + 1
    x = np.arange(256)
    table = np.stack([x * hue % 180, (x * saturation).clip(0, 255), (x * value).clip(0, 255)], 1)
    return table.astype(np.uint8)[None]


def to_rgb(image: Image, table: Image | None = None) -> Image:
    """Converts BGR to RGB, uint8 [H, W, 3], through the HSV lookup table [1, 256, 3] if given; grey [H, W] uses only
    the value."""
    if image.ndim == 2:
        return image if table is None else np.asarray(cv2.LUT(image, table[..., 2].copy()), np.uint8)
    if table is None:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    cv2.LUT(hsv, table, dst=hsv)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv), np.uint8)
