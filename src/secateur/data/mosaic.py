"""Composes training images: every tile is warped once, directly from the pixels of its file to the output.

The usual method pastes four resized images on a canvas of twice the size, then warps and crops the canvas. Here the
matrix of that warp is multiplied by the placement of each tile, and only output pixels are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from secateur.data.augment import Matrix, apply, is_straight, translation
from secateur.data.images import Image

GRAY = 114
_EPSILON = 1e-6


@dataclass(frozen=True)
class Tile:
    """One image on the canvas, in canvas pixels: its full size, the position of its first pixel, and its visible
    region.

    size: (height, width); origin: (x, y); region: x0, y0, x1, y1 (exclusive); corner: the (x, y) of the region that
    `snapped` aligns with a pixel border of the output.
    """

    image: int
    size: tuple[int, int]
    origin: tuple[int, int]
    region: tuple[int, int, int, int]
    corner: tuple[int, int]


def mosaic_tiles(
    images: Sequence[int], sizes: Sequence[tuple[int, int]], centre: tuple[int, int], side: int
) -> list[Tile]:
    """Four images around a centre (x, y) on a square canvas of 2 `side`: upper left and right, lower left and right."""
    cx, cy = centre
    tiles = []
    for place, (image, (height, width)) in enumerate(zip(images, sizes, strict=True)):
        x = cx if place % 2 else cx - width
        y = cy if place >= 2 else cy - height
        region = max(x, 0), max(y, 0), min(x + width, 2 * side), min(y + height, 2 * side)
        tiles.append(Tile(image, (height, width), (x, y), region, centre))
    return tiles


def snapped(matrix: Matrix, corner: tuple[int, int]) -> Matrix:
    """A straight view, matrix [3, 3], shifted by less than half a pixel, so that the common corner of the tiles is on a
    pixel border.

    The shift of a view is random anyway. On a pixel border, resizing (several times faster) gives the same result as
    warping.
    """
    if not is_straight(matrix):
        return matrix
    edge = apply(matrix, np.array([[corner[0] - 0.5, corner[1] - 0.5]]))[0] + 0.5
    return np.asarray(translation(*(np.round(edge) - edge)) @ matrix)


def compose(
    tiles: Sequence[Tile],
    read: Callable[[int], Image],
    matrix: Matrix,
    size: tuple[int, int],
    *,
    channels: int = 3,
) -> Image:
    """The output, uint8 [H, W, 3], or [H, W] for one channel: the canvas with its tiles, transformed by `matrix` [3, 3]
    (canvas to output), grey elsewhere.

    `read` returns the pixels of a tile at any resolution, with the same number of channels; it is only called for
    visible tiles.
    """
    out = np.full(size if channels == 1 else (*size, channels), GRAY, np.uint8)
    for tile in tiles:
        if is_straight(matrix):
            _draw_straight(out, tile, read, matrix)
        else:
            _draw_warped(out, tile, read, matrix)
    return out


@dataclass(frozen=True)
class _Span:
    """One axis of a straight tile: output pixels start:stop, position of the corner, and scale from source to
    output."""

    start: int
    stop: int
    corner: float
    from_end: bool  # the corner is the tile's right or lower border
    scale: float
    length: int  # source pixels

    @property
    def resizable(self) -> bool:
        near = self.stop if self.from_end else self.start
        return abs(near - self.corner) < _EPSILON

    @property
    def source(self) -> slice:
        """The source pixels needed for the output pixels, counted from the corner, with one extra pixel."""
        need = min(self.length, math.ceil((self.stop - self.start) / self.scale) + 1)
        return slice(self.length - need, self.length) if self.from_end else slice(0, need)


def _span(tile: Tile, axis: int, length: int, matrix: Matrix, limit: int) -> _Span:
    gain, shift = float(matrix[axis, axis]), float(matrix[axis, 2])

    def border(x: float) -> float:  # pixel k of canvas and output covers k to k+1
        return gain * (x - 0.5) + shift + 0.5

    def first_pixel(edge: float) -> int:
        return max(0, min(limit, math.ceil(edge - 0.5 - _EPSILON)))

    low, high = tile.region[axis], tile.region[axis + 2]
    from_end = tile.corner[axis] == tile.origin[axis] + tile.size[1 - axis]
    return _Span(
        start=first_pixel(border(low)),
        stop=first_pixel(border(high)),
        corner=border(tile.corner[axis]),
        from_end=from_end,
        scale=gain * tile.size[1 - axis] / length if length else gain,
        length=length,
    )


def _draw_straight(out: Image, tile: Tile, read: Callable[[int], Image], matrix: Matrix) -> None:
    height, width = out.shape[:2]
    # The visible output pixels do not depend on the resolution of the source, so they are known before reading.
    x, y = _span(tile, 0, 0, matrix, width), _span(tile, 1, 0, matrix, height)
    if x.start >= x.stop or y.start >= y.stop:
        return
    image = read(tile.image)
    x, y = _span(tile, 0, image.shape[1], matrix, width), _span(tile, 1, image.shape[0], matrix, height)
    view = out[y.start : y.stop, x.start : x.stop]
    if not (x.resizable and y.resizable) or not _draw_resized(view, image, x, y):
        placed = translation(-x.start, -y.start) @ matrix @ _placement(tile, image)
        cv2.warpAffine(image, placed[:2], view.shape[1::-1], dst=view, borderMode=cv2.BORDER_REPLICATE)


def _draw_resized(view: Image, image: Image, x: _Span, y: _Span) -> bool:
    """Fills the view by resizing; returns False, without drawing, if rounding makes the result one pixel too small."""
    rows, columns = view.shape[:2]
    source = image[y.source, x.source]
    # cv2.resize starts at the first pixel; a tile that is aligned at its end is flipped, and flipped back.
    flip = {(False, False): None, (False, True): 0, (True, False): 1, (True, True): -1}[x.from_end, y.from_end]
    if flip is not None:
        source = np.asarray(cv2.flip(source, flip), np.uint8)
    if x.scale == y.scale == 1.0:
        resized = source
    else:
        # With factors instead of a size, the scale is exact.
        resized = np.asarray(cv2.resize(source, None, fx=x.scale, fy=y.scale), np.uint8)
    if resized.shape[0] < rows or resized.shape[1] < columns:
        return False
    resized = resized[:rows, :columns]
    if flip is None:
        view[:] = resized
    else:
        cv2.flip(resized, flip, dst=view)
    return True


def _draw_warped(out: Image, tile: Tile, read: Callable[[int], Image], matrix: Matrix) -> None:
    """A rotated, sheared or perspective tile: warped into its bounding rectangle, copied where its region is."""
    height, width = out.shape[:2]
    x0, y0, x1, y1 = (edge - 0.5 for edge in tile.region)
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    perspective = bool(matrix[2, 0] or matrix[2, 1])
    left, top, right, bottom = 0, 0, width, height
    if not perspective:
        outline = apply(matrix, corners)
        left, top = (int(v) for v in np.floor(outline.min(0)).clip(0, (width, height)))
        right, bottom = (int(v) for v in (np.ceil(outline.max(0)) + 1).clip(0, (width, height)))
    if left >= right or top >= bottom:
        return
    size = right - left, bottom - top
    shift = translation(-left, -top)
    if perspective:
        # A strong perspective can move a corner behind the viewer, where a polygon of corners is meaningless.
        whole = np.full((tile.region[3] - tile.region[1], tile.region[2] - tile.region[0]), 255, np.uint8)
        placed = shift @ matrix @ translation(tile.region[0], tile.region[1])
        mask = cv2.warpPerspective(whole, placed, size, flags=cv2.INTER_NEAREST)
        if not mask.any():
            return
    else:
        mask = np.zeros(size[::-1], np.uint8)
        cv2.fillConvexPoly(mask, np.round((outline - (left, top)) * 256).astype(np.int32), 255, shift=8)
    image = read(tile.image)
    placed = shift @ matrix @ _placement(tile, image)
    if perspective:
        warped = cv2.warpPerspective(image, placed, size, borderMode=cv2.BORDER_REPLICATE)
    else:
        warped = cv2.warpAffine(image, placed[:2], size, borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(warped, mask, out[top:bottom, left:right])


def _placement(tile: Tile, image: Image) -> Matrix:
    """Matrix from source pixels to canvas pixels; pixel centres map as in cv2.resize."""
    gain_x, gain_y = tile.size[1] / image.shape[1], tile.size[0] / image.shape[0]
    x, y = tile.origin
    scale = np.array([[gain_x, 0.0, 0.5 * gain_x - 0.5], [0.0, gain_y, 0.5 * gain_y - 0.5], [0.0, 0.0, 1.0]])
    return np.asarray(translation(x, y) @ scale)
