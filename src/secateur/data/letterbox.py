"""Pictures of any shape as the square images that a network takes, and boxes back in the pictures' pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.data.images import read_image
from secateur.data.mosaic import GRAY

Picture = str | Path | NDArray[np.uint8]


@dataclass(frozen=True)
class Fit:
    """Where a picture lies in its square image: `pixel * ratio + pad` is the place in the image.

    Attributes:
        shape: height and width of the picture.
        ratio: factor.
        pad: left and top border in pixels of the image.
    """

    shape: tuple[int, int]
    ratio: float
    pad: tuple[int, int]


def letterboxed(picture: Picture, side: int) -> tuple[Tensor, Fit]:
    """The picture in the middle of a grey square, its aspect kept.

    Args:
        picture: a file, or a BGR array uint8 [H, W, 3].
        side: px of the square.

    Returns:
        float32 [3, side, side], RGB in 0..1, and the fit that leads back.

    Raises:
        UserError: the file cannot be read.
    """
    pixels = read_image(str(picture)) if isinstance(picture, str | Path) else picture
    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    inner_height, inner_width = max(round(height * ratio), 1), max(round(width * ratio), 1)
    resized = np.asarray(cv2.resize(pixels, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR))
    left, top = (side - inner_width) // 2, (side - inner_height) // 2
    square = np.full((side, side, 3), GRAY, np.uint8)
    square[top : top + inner_height, left : left + inner_width] = resized[..., ::-1]
    image = torch.from_numpy(square).permute(2, 0, 1).float().div_(255)
    return image, Fit((height, width), ratio, (left, top))


def to_original(boxes: Tensor, fit: Fit) -> Tensor:
    """Rows [n, 6] (x1, y1, x2, y2, ...) from pixels of the image to those of the picture, clipped to it."""
    moved = boxes.clone()
    height, width = fit.shape
    moved[:, 0:4:2] = ((moved[:, 0:4:2] - fit.pad[0]) / fit.ratio).clamp_(0, width)
    moved[:, 1:4:2] = ((moved[:, 1:4:2] - fit.pad[1]) / fit.ratio).clamp_(0, height)
    return moved
