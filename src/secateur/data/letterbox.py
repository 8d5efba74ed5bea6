"""Fits images of any shape to the input of a network, and maps boxes back to pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from secateur.data.images import Image, with_channels
from secateur.data.mosaic import GRAY


@dataclass(frozen=True)
class Fit:
    """How an image was fitted: `pixel * ratio + pad` is the position in the network input.

    Attributes:
        shape: height and width of the image.
        ratio: vertical and horizontal factors; they differ by rounding to whole pixels, which matters for narrow
            images.
        pad: top and left border in pixels of the input.
    """

    shape: tuple[int, int]
    ratio: tuple[float, float]
    pad: tuple[int, int]


def letterboxed(pixels: Image, size: int | tuple[int, int], stride: int = 0, *, channels: int = 3) -> tuple[Image, Fit]:
    """Places the image, with its aspect ratio preserved, in the centre of a grey canvas.

    Args:
        pixels: BGR uint8 [H, W, 3].
        size: side of the square in pixels, or height and width, into which the image is fitted.
        stride: 0 fills all of `size`; otherwise the border only extends to the next multiple of the stride, so that a
            wide image becomes a wide input.
        channels: 3, or 1 for a network for grey images.

    Returns:
        RGB uint8 [h, w, 3] or grey [h, w, 1], and the fit for the inverse mapping.
    """
    height, width = pixels.shape[:2]
    pixels = with_channels(pixels, channels)
    most = (size, size) if isinstance(size, int) else size
    ratio = min(most[0] / height, most[1] / width)
    inner = max(round(height * ratio), 1), max(round(width * ratio), 1)
    whole = most if not stride else (-(-inner[0] // stride) * stride, -(-inner[1] // stride) * stride)
    if inner != (height, width):
        pixels = np.asarray(cv2.resize(pixels, inner[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    top, left = (whole[0] - inner[0]) // 2, (whole[1] - inner[1]) // 2
    image = np.full((*whole, channels), GRAY, np.uint8)
    image[top : top + inner[0], left : left + inner[1]] = pixels[..., None] if channels == 1 else pixels[..., ::-1]
    return image, Fit((height, width), (inner[0] / height, inner[1] / width), (top, left))


def to_original(boxes: Tensor, fit: Fit) -> Tensor:
    """Converts rows [n, 6] (x1, y1, x2, y2, ...) from pixels of the input to pixels of the image, clipped to the
    image."""
    moved = boxes.clone()
    height, width = fit.shape
    moved[:, 0:4:2] = ((moved[:, 0:4:2] - fit.pad[1]) / fit.ratio[1]).clamp_(0, width)
    moved[:, 1:4:2] = ((moved[:, 1:4:2] - fit.pad[0]) / fit.ratio[0]).clamp_(0, height)
    return moved
